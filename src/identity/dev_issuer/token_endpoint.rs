//! `POST /token`: one function a grant.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Form, Json};
use serde_json::Value;

use super::Issuer;
use super::device::Poll;
use super::oauth::{self, OAuthError, Params};
use super::settings::{Client, Grant, User};
use super::tokens::{Order, Subject};

/// The device flow's `grant_type` (RFC 8628 section 3.4).
pub(super) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub(super) async fn token(
    State(issuer): State<Arc<Issuer>>,
    headers: HeaderMap,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Json<Value>, OAuthError> {
    let params = Params::new(pairs)?;
    let client = oauth::client(&issuer.settings, &headers, &params)?;
    let grant = match params.require("grant_type")? {
        "client_credentials" => Grant::ClientCredentials,
        "authorization_code" => Grant::AuthorizationCode,
        DEVICE_GRANT => Grant::DeviceCode,
        _ => return Err(OAuthError::new("unsupported_grant_type", "no such grant here")),
    };
    if !client.may(grant) {
        return Err(OAuthError::new("unauthorized_client", "not a grant of this client"));
    }
    match grant {
        Grant::ClientCredentials => issuer.client_credentials(client, &params),
        Grant::AuthorizationCode => issuer.authorization_code(client, &params),
        Grant::DeviceCode => issuer.device_code(client, &params),
    }
}

impl Issuer {
    fn client_credentials(
        &self,
        client: &Client,
        params: &Params,
    ) -> Result<Json<Value>, OAuthError> {
        self.answer(&Order {
            subject: Subject::Client(client),
            client_id: &client.id,
            audience: self.audience(params)?,
            scope: params.get("scope").unwrap_or_default(),
            nonce: None,
            lifetime: self.lifetime(),
        })
    }

    fn authorization_code(
        &self,
        client: &Client,
        params: &Params,
    ) -> Result<Json<Value>, OAuthError> {
        let code = self
            .codes
            .lock()
            .redeem(
                params.require("code")?,
                &client.id,
                params.require("redirect_uri")?,
                params.require("code_verifier")?,
            )
            .ok_or_else(|| {
                OAuthError::new("invalid_grant", "unknown, used, expired or foreign code")
            })?;
        self.answer(&Order {
            subject: Subject::User(self.known_user(&code.user)?),
            client_id: &client.id,
            audience: &code.audience,
            scope: &code.scope,
            nonce: code.nonce.as_deref(),
            lifetime: self.lifetime(),
        })
    }

    fn device_code(&self, client: &Client, params: &Params) -> Result<Json<Value>, OAuthError> {
        let polled = self.devices.lock().poll(params.require("device_code")?, &client.id);
        let (user, asked) = match polled {
            Poll::Approved { user, asked } => (user, asked),
            Poll::Not(code) => return Err(OAuthError::new(code, "see RFC 8628 section 3.5")),
        };
        self.answer(&Order {
            subject: Subject::User(self.known_user(&user)?),
            client_id: &client.id,
            audience: &asked.audience,
            scope: &asked.scope,
            nonce: None,
            lifetime: self.lifetime(),
        })
    }

    /// The audience that a client asks for by `audience` or `resource` (RFC 8707), or the default.
    pub(super) fn audience(&self, params: &Params) -> Result<&str, OAuthError> {
        let asked = params.get("audience").or_else(|| params.get("resource"));
        let audiences = &self.settings.audiences;
        match asked {
            None => audiences.first(),
            Some(asked) => audiences.iter().find(|audience| *audience == asked),
        }
        .map(String::as_str)
        .ok_or_else(|| OAuthError::new("invalid_target", "not one of this issuer's audiences"))
    }

    fn known_user(&self, name: &str) -> Result<&User, OAuthError> {
        let gone = || OAuthError::new("invalid_grant", "the user is gone");
        self.settings.user(name).ok_or_else(gone)
    }

    fn lifetime(&self) -> Duration {
        Duration::from_secs(self.settings.token_seconds)
    }
}
