//! The authorization code flow (RFC 6749 section 4.1) with PKCE, and logout.
//!
//! The login page keeps no state here: what was asked travels through its form and is checked
//! again with the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::oauth::{OAuthError, Params, random_text, same};
use super::settings::{Client, Grant, User};
use super::{Issuer, pages};

/// How long a code is good for; RFC 6749 section 4.1.2 says ten minutes at the most.
const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// How many codes may be open at once.
const MAX_CODES: usize = 1000;

/// The codes that were given out and not yet redeemed.
#[derive(Debug, Default)]
pub(super) struct Codes(HashMap<String, Code>);

/// What a code stands for.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) user: String,
    pub(super) audience: String,
    pub(super) scope: String,
    pub(super) nonce: Option<String>,
    client_id: String,
    redirect_uri: String,
    challenge: String,
    expires: Instant,
}

impl Codes {
    fn open(&mut self, text: String, code: Code) -> Result<(), OAuthError> {
        let now = Instant::now();
        self.0.retain(|_, code| code.expires > now);
        if self.0.len() >= MAX_CODES {
            return Err(OAuthError::new("temporarily_unavailable", "too many codes are open"));
        }
        self.0.insert(text, code);
        Ok(())
    }

    /// Takes a code, which is then gone, whether or not it is good for this client, redirect and
    /// verifier (RFC 7636 section 4.6).
    pub(super) fn redeem(
        &mut self,
        text: &str,
        client_id: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Option<Code> {
        let code = self.0.remove(text)?;
        let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
        let good = code.expires > Instant::now()
            && code.client_id == client_id
            && code.redirect_uri == redirect_uri
            && same(&code.challenge, &URL_SAFE_NO_PAD.encode(hash));
        good.then_some(code)
    }
}

/// `GET /authorize`: shows the login page.
pub(super) async fn ask(
    State(issuer): State<Arc<Issuer>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, OAuthError> {
    let params = Params::new(pairs)?;
    let (client, redirect_uri) = issuer.redirect_target(&params)?;
    Ok(match issuer.check_request(client, &params) {
        Ok(_) => pages::login(&issuer.settings, client, redirect_uri, &params, None),
        Err(error) => issuer.send_back(redirect_uri, &params, &Err(error)),
    })
}

/// `POST /authorize`: the login page's form.
pub(super) async fn answer(
    State(issuer): State<Arc<Issuer>>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response, OAuthError> {
    let params = Params::new(pairs)?;
    let (client, redirect_uri) = issuer.redirect_target(&params)?;
    let Some(user) = issuer.log_in(&params) else {
        let wrong = Some("Unknown user or wrong password.");
        return Ok(pages::login(&issuer.settings, client, redirect_uri, &params, wrong));
    };
    let outcome = issuer.give_code(client, user, redirect_uri, &params);
    Ok(issuer.send_back(redirect_uri, &params, &outcome))
}

/// `GET /logout` (OpenID Connect RP-Initiated Logout 1.0): there is no session to end, so this
/// only sends the browser back to where its client may send it.
pub(super) async fn logout(
    State(issuer): State<Arc<Issuer>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, OAuthError> {
    let params = Params::new(pairs)?;
    let Some(target) = params.get("post_logout_redirect_uri") else {
        return Ok(pages::message("Logged out", "The development issuer keeps no sessions."));
    };
    let known = params.get("client_id").and_then(|id| issuer.settings.client(id));
    if !known.is_some_and(|c| c.post_logout_redirect_uris.iter().any(|uri| uri == target)) {
        return Err(OAuthError::new(
            "invalid_request",
            "not a post_logout_redirect_uri of client_id",
        ));
    }
    let state = params.get("state").map(|state| ("state", state));
    Ok(Redirect::to(&with_query(target, state.as_slice())).into_response())
}

impl Issuer {
    /// The user that a form names, when its password is right.
    pub(super) fn log_in(&self, params: &Params) -> Option<&User> {
        let user = self.settings.user(params.get("user")?)?;
        let good = match &user.password {
            None => true,
            Some(password) => same(password, params.get("password").unwrap_or_default()),
        };
        good.then_some(user)
    }

    /// Client and redirect URI; while these are in doubt, nobody is sent anywhere.
    fn redirect_target<'a>(
        &'a self,
        params: &'a Params,
    ) -> Result<(&'a Client, &'a str), OAuthError> {
        let unknown = || OAuthError::new("invalid_request", "unknown client_id");
        let client = self.settings.client(params.require("client_id")?).ok_or_else(unknown)?;
        let uri = params.require("redirect_uri")?;
        if !client.redirect_uris.iter().any(|registered| registered == uri) {
            return Err(OAuthError::new("invalid_request", "redirect_uri is not registered"));
        }
        Ok((client, uri))
    }

    /// Checks the rest of an authorization request; its audience and challenge.
    fn check_request<'a>(
        &'a self,
        client: &Client,
        params: &'a Params,
    ) -> Result<(&'a str, &'a str), OAuthError> {
        if !client.may(Grant::AuthorizationCode) {
            return Err(OAuthError::new("unauthorized_client", "not a grant of this client"));
        }
        if params.get("response_type") != Some("code") {
            return Err(OAuthError::new("unsupported_response_type", "only code"));
        }
        let challenge = params.get("code_challenge").unwrap_or_default();
        if params.get("code_challenge_method") != Some("S256")
            || !URL_SAFE_NO_PAD.decode(challenge).is_ok_and(|hash| hash.len() == 32)
        {
            return Err(OAuthError::new("invalid_request", "PKCE with S256 is required"));
        }
        Ok((self.audience(params)?, challenge))
    }

    fn give_code(
        &self,
        client: &Client,
        user: &User,
        redirect_uri: &str,
        params: &Params,
    ) -> Result<String, OAuthError> {
        let (audience, challenge) = self.check_request(client, params)?;
        let code = Code {
            user: user.name.clone(),
            audience: audience.to_owned(),
            scope: params.get("scope").unwrap_or_default().to_owned(),
            nonce: params.get("nonce").map(str::to_owned),
            client_id: client.id.clone(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.to_owned(),
            expires: Instant::now() + CODE_LIFETIME,
        };
        let text = random_text()?;
        self.codes.lock().open(text.clone(), code)?;
        Ok(text)
    }

    /// Sends the browser back with the code or the error, `state` and `iss` (RFC 9207).
    fn send_back(
        &self,
        redirect_uri: &str,
        params: &Params,
        outcome: &Result<String, OAuthError>,
    ) -> Response {
        let mut query = match outcome {
            Ok(code) => vec![("code", code.as_str())],
            Err(error) => {
                vec![("error", error.code), ("error_description", error.description.as_str())]
            }
        };
        query.extend(params.get("state").map(|state| ("state", state)));
        query.push(("iss", &self.url));
        Redirect::to(&with_query(redirect_uri, &query)).into_response()
    }
}

/// A client's address with more in its query, which RFC 6749 appendix B has as a form.
fn with_query(uri: &str, query: &[(&str, &str)]) -> String {
    if query.is_empty() {
        return uri.to_owned();
    }
    let (mut uri, has_query) = (uri.to_owned(), uri.contains('?'));
    uri.push(if has_query { '&' } else { '?' });
    let begin = uri.len();
    form_urlencoded::Serializer::for_suffix(uri, begin).extend_pairs(query).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn codes() -> Codes {
        let code = Code {
            user: "alice".to_owned(),
            audience: "portcullis".to_owned(),
            scope: String::new(),
            nonce: None,
            client_id: "web".to_owned(),
            redirect_uri: "http://127.0.0.1/cb".to_owned(),
            challenge: CHALLENGE.to_owned(),
            expires: Instant::now() + CODE_LIFETIME,
        };
        let mut codes = Codes::default();
        codes.open("code".to_owned(), code).unwrap();
        codes
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_is_good_once_and_for_whom_it_was_made() {
        let uri = "http://127.0.0.1/cb";
        let mut good = codes();
        assert!(good.redeem("code", "web", uri, VERIFIER).is_some());
        assert!(good.redeem("code", "web", uri, VERIFIER).is_none());
        assert!(codes().redeem("code", "other", uri, VERIFIER).is_none());
        assert!(codes().redeem("code", "web", "http://127.0.0.1/cb/", VERIFIER).is_none());
        assert!(codes().redeem("code", "web", uri, CHALLENGE).is_none());
        let mut late = codes();
        tokio::time::advance(CODE_LIFETIME).await;
        assert!(late.redeem("code", "web", uri, VERIFIER).is_none());
    }

    #[test]
    fn what_a_redirect_carries_is_encoded() {
        assert_eq!(
            with_query("http://h/cb?a=1", &[("state", "x&y=\"é\"\r\n")]),
            "http://h/cb?a=1&state=x%26y%3D%22%C3%A9%22%0D%0A"
        );
        assert_eq!(with_query("http://h/cb", &[]), "http://h/cb");
        assert_eq!(with_query("http://h/cb", &[("a", "b c"), ("d", "")]), "http://h/cb?a=b+c&d=");
    }
}
