//! The tokens themselves: RFC 9068 access tokens and ID tokens, and what `/userinfo` tells of one.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

use super::super::keys::{Checked, KeySet};
use super::super::token::{self, Typ};
use super::Issuer;
use super::oauth::{OAuthError, random_text};
use super::settings::{Client, User};
use super::signing::ALGORITHM;
use crate::secret::Secret;

/// What a token is to say.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) client_id: &'a str,
    pub(super) audience: &'a str,
    pub(super) scope: &'a str,
    pub(super) nonce: Option<&'a str>,
    pub(super) lifetime: Duration,
}

/// Whom a token is about. Names are one namespace, so no client has a user's subject.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject<'a> {
    User(&'a User),
    Client(&'a Client),
}

impl Subject<'_> {
    fn name(&self) -> &str {
        match self {
            Self::User(user) => &user.name,
            Self::Client(client) => &client.id,
        }
    }

    /// What is said of the subject in every token and at `/userinfo`.
    fn claims(&self) -> Map<String, Value> {
        let (mut claims, groups) = match self {
            Self::User(user) => (user.claims.clone(), &user.groups),
            Self::Client(client) => (client.claims.clone(), &client.groups),
        };
        claims.insert("sub".to_owned(), self.name().into());
        claims.insert("preferred_username".to_owned(), self.name().into());
        claims.insert("groups".to_owned(), groups.clone().into());
        if let Self::User(User { email: Some(email), .. }) = self {
            claims.insert("email".to_owned(), email.as_str().into());
            claims.insert("email_verified".to_owned(), true.into());
        }
        claims
    }
}

impl Issuer {
    pub(super) fn issue(&self, name: &str, lifetime: Duration) -> Option<Secret> {
        let subject = self.subject(name)?;
        let token = self.access_token(&Order {
            subject,
            client_id: match subject {
                Subject::Client(client) => &client.id,
                Subject::User(_) => "development-issuer",
            },
            audience: self.settings.audiences.first()?,
            scope: "",
            nonce: None,
            lifetime,
        });
        token.ok().map(Secret::new)
    }

    /// The answer of the token endpoint (RFC 6749 section 5.1); with the scope `openid` and a
    /// user there is an ID token too.
    pub(super) fn answer(&self, order: &Order<'_>) -> Result<Json<Value>, OAuthError> {
        let access = self.access_token(order)?;
        let mut answer = Map::new();
        if matches!(order.subject, Subject::User(_))
            && order.scope.split(' ').any(|scope| scope == "openid")
        {
            answer.insert("id_token".to_owned(), self.id_token(order, &access)?.into());
        }
        answer.insert("access_token".to_owned(), access.into());
        answer.insert("token_type".to_owned(), "Bearer".into());
        answer.insert("expires_in".to_owned(), order.lifetime.as_secs().into());
        answer.insert("scope".to_owned(), order.scope.into());
        Ok(Json(Value::Object(answer)))
    }

    fn access_token(&self, order: &Order<'_>) -> Result<String, OAuthError> {
        let mut claims = self.common_claims(order)?;
        claims.insert("aud".to_owned(), order.audience.into());
        claims.insert("client_id".to_owned(), order.client_id.into());
        claims.insert("scope".to_owned(), order.scope.into());
        self.keys.lock().sign("at+jwt", &claims).map_err(OAuthError::internal)
    }

    fn id_token(&self, order: &Order<'_>, access: &str) -> Result<String, OAuthError> {
        let mut claims = self.common_claims(order)?;
        claims.insert("aud".to_owned(), order.client_id.into());
        claims.insert("auth_time".to_owned(), unix_now().into());
        if let Some(nonce) = order.nonce {
            claims.insert("nonce".to_owned(), nonce.into());
        }
        claims.insert("at_hash".to_owned(), token::at_hash(ALGORITHM, access).into());
        self.keys.lock().sign("JWT", &claims).map_err(OAuthError::internal)
    }

    fn common_claims(&self, order: &Order<'_>) -> Result<Map<String, Value>, OAuthError> {
        let now = unix_now();
        let mut claims = order.subject.claims();
        claims.insert("iss".to_owned(), self.url.as_str().into());
        claims.insert("azp".to_owned(), order.client_id.into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(order.lifetime.as_secs()).into());
        claims.insert("jti".to_owned(), random_text()?.into());
        Ok(claims)
    }

    fn subject(&self, name: &str) -> Option<Subject<'_>> {
        let user = self.settings.user(name).map(Subject::User);
        user.or_else(|| self.settings.client(name).map(Subject::Client))
    }
}

/// `/userinfo` (OpenID Connect Core section 5.3): the subject's claims, for its access token.
pub(super) async fn user_info(
    State(issuer): State<Arc<Issuer>>,
    headers: HeaderMap,
) -> Result<Json<Value>, (StatusCode, [(header::HeaderName, &'static str); 1])> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .and_then(|token| own_subject(&issuer, token))
        .map(|subject| Json(Value::Object(subject.claims())))
        .ok_or((
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")],
        ))
}

/// Whom one of our own unexpired access tokens is about.
fn own_subject<'a>(issuer: &'a Issuer, text: &str) -> Option<Subject<'a>> {
    let published = issuer.keys.lock().published().to_string();
    let token = token::parse(text).ok().filter(|token| token.typ == Typ::Access)?;
    let Checked::Signed(signed) = KeySet::parse(published.as_bytes()).ok()?.check(token) else {
        return None;
    };
    let claims = signed.token().claims;
    let live = claims.get("exp").and_then(Value::as_u64).is_some_and(|exp| exp > unix_now());
    issuer.subject(claims.get("sub").and_then(Value::as_str)?).filter(|_| live)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
