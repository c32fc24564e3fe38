//! What every OAuth endpoint shares: parameters, client authentication, errors (RFC 6749).

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::settings::{Client, Settings};
use crate::percent;

/// Parameters of a query or form, none of them twice (RFC 6749 section 3.1); empty ones count as
/// left out.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Result<Self, OAuthError> {
        let mut seen = BTreeMap::new();
        for (name, value) in pairs {
            if seen.insert(name, value).is_some() {
                return Err(OAuthError::new("invalid_request", "a parameter is given twice"));
            }
        }
        seen.retain(|_, value| !value.is_empty());
        Ok(Self(seen))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn require(&self, name: &str) -> Result<&str, OAuthError> {
        self.get(name)
            .ok_or_else(|| OAuthError::new("invalid_request", format!("{name} is missing")))
    }
}

/// An error as a client is told of it (RFC 6749 section 5.2).
#[derive(Debug)]
pub(super) struct OAuthError {
    pub(super) code: &'static str,
    pub(super) description: String,
}

impl OAuthError {
    pub(super) fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "development issuer could not answer");
        Self::new("server_error", "see the issuer's log")
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let status = match self.code {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = json!({ "error": self.code, "error_description": self.description });
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"portcullis development issuer\""),
            );
        }
        response
    }
}

/// Which client calls: by Basic authentication, by `client_secret` in the form, or, for a public
/// client, by its `client_id` alone (RFC 6749 section 2.3).
pub(super) fn client<'a>(
    settings: &'a Settings,
    headers: &HeaderMap,
    params: &Params,
) -> Result<&'a Client, OAuthError> {
    let refused = || OAuthError::new("invalid_client", "unknown client, or wrong secret");
    let (id, secret) = match headers.get(header::AUTHORIZATION) {
        Some(value) => {
            let (id, secret) = basic(value).ok_or_else(refused)?;
            if params.get("client_secret").is_some()
                || params.get("client_id").is_some_and(|other| other != id)
            {
                return Err(OAuthError::new("invalid_request", "the client is named twice"));
            }
            (id, Some(secret))
        }
        None => (
            params.require("client_id")?.to_owned(),
            params.get("client_secret").map(str::to_owned),
        ),
    };
    let client = settings.client(&id).ok_or_else(refused)?;
    match (&client.secret, secret) {
        (Some(expected), Some(given)) if same(expected, &given) => Ok(client),
        (None, None) => Ok(client),
        _ => Err(refused()),
    }
}

/// Compares secrets in a time that does not depend on where they differ.
pub(super) fn same(expected: &str, given: &str) -> bool {
    verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_ok()
}

/// 256 random bits in base64url.
pub(super) fn random_text() -> Result<String, OAuthError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(OAuthError::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Id and secret of a Basic header, each form-encoded (RFC 6749 section 2.3.1).
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?))
}

/// Decodes one value of a form; none of one that is no such value.
fn form_decode(text: &str) -> Option<String> {
    // The library takes a percent sign without digits for itself.
    if !text.split('%').skip(1).all(percent::makes_escape) {
        return None;
    }
    let spaced = text.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_encoding_round_trips() {
        let text = "a b+c%d/é:&=";
        let form: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        assert_eq!(form_decode(&form).as_deref(), Some(text));
        assert_eq!(form_decode(&percent::encoded(text).to_string()).as_deref(), Some(text));
        assert_eq!(form_decode("a+b"), Some("a b".to_owned()));
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(form_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_repeated_parameter_is_refused() {
        let pair = |value: &str| ("scope".to_owned(), value.to_owned());
        assert!(Params::new(vec![pair("a"), pair("b")]).is_err());
        assert!(Params::new(vec![pair("")]).unwrap().get("scope").is_none());
    }
}
