//! Login by a browser: the authorization code flow (OpenID Connect Core section 3.1) with PKCE
//! (RFC 7636), `state` and `nonce`.
//!
//! Nothing is kept while somebody is at the issuer: all three come from one secret that stands in
//! a cookie of the browser that began, so a code that another browser brings is of no use.
//! [`Logins::finish`] is the only place that redeems a code, and it takes the whole [`Answer`]:
//! `state`, `iss` (RFC 9207) and the address that the browser was sent to must all be those of the
//! issuer that this attempt began at. The ID token must be for our client and carry the nonce. Who
//! it is then comes from the token that the API would take, by the same checks: the access token
//! where the issuer's `accept` has `access`, the ID token otherwise.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};

use super::random::random_secret;
use super::relying_party::{Device, Granted, NotGranted, RelyingParty};
use super::token::shown;
use super::{Identity, Refused, Verifier, claims, token};
use crate::config::{self, TokenKind};
use crate::secret::Secret;

/// The longest `code` that is sent on.
const MAX_CODE: usize = 4096;
/// What is asked to be told of who logs in.
const SCOPE: &str = "openid profile email";

/// The issuers at which one can log in.
#[derive(Debug)]
pub struct Logins {
    clients: Vec<Client>,
}

/// Our client at one issuer.
#[derive(Debug)]
struct Client {
    settings: config::Issuer,
    party: RelyingParty,
}

/// One attempt of one browser. What it derives from its secret is good for this issuer and place.
#[derive(Debug, Clone)]
pub struct Attempt {
    secret: Secret,
    issuer: String,
    /// Where to go afterwards.
    to: String,
}

/// An authorization response (RFC 6749 section 4.1.2, RFC 9207), as a browser brought it.
#[derive(Debug, Deserialize)]
pub struct Answer {
    #[serde(default, deserialize_with = "secret")]
    code: Option<Secret>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(text)?.map(Secret::new))
}

/// Why nobody is logged in. For the log; the browser is told which of them.
#[derive(Debug, thiserror::Error)]
pub enum NoLogin {
    /// The answer belongs to no attempt of this browser.
    #[error("the state is not of this attempt")]
    OtherAttempt,
    /// The issuer says why not.
    #[error("the issuer says: {0}")]
    Denied(String),
    /// The issuer cannot be asked, or answers what it should not.
    #[error(transparent)]
    Issuer(#[from] NotGranted),
    /// What came back proves nobody, or somebody else.
    #[error("refused: {0}")]
    Refused(#[from] Refused),
}

impl Attempt {
    /// A new one; none when there is no randomness to be had.
    pub fn new(issuer: &str, to: &str) -> Option<Self> {
        let secret = random_secret()?;
        Some(Self { secret, issuer: issuer.to_owned(), to: to.to_owned() })
    }

    /// The one that a cookie holds.
    pub fn from_cookie(text: &str) -> Option<Self> {
        let (secret, rest) = text.split_once('.')?;
        let (to, issuer) = rest.split_once('.')?;
        let to = String::from_utf8(URL_SAFE_NO_PAD.decode(to).ok()?).ok()?;
        let secret = Secret::new(secret.to_owned());
        Some(Self { secret, issuer: issuer.to_owned(), to })
    }

    /// As a cookie holds it.
    pub fn cookie(&self) -> Secret {
        let to = URL_SAFE_NO_PAD.encode(&self.to);
        Secret::new(format!("{}.{to}.{}", self.secret.expose(), self.issuer))
    }

    /// Where to go afterwards.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// The issuer's name.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether a browser that came back was sent by this attempt.
    pub fn is_state(&self, given: &str) -> bool {
        verify_slices_are_equal(self.derived("state").as_bytes(), given.as_bytes()).is_ok()
    }

    /// 43 characters of base64url, for one purpose.
    fn derived(&self, purpose: &str) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("portcullis login attempt v1");
        for part in [purpose, self.secret.expose(), &self.issuer, &self.to] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(hasher.finalize().as_bytes())
    }
}

impl Logins {
    /// Those of the issuers that have a `client_id`.
    ///
    /// # Errors
    /// When an issuer's `ca` cannot be read, or it is no URL.
    pub fn new(issuers: &[config::Issuer]) -> Result<Self, String> {
        let clients = issuers.iter().filter_map(|settings| {
            let client_id = settings.client_id.as_deref()?;
            // Some issuers give an opaque access token unless they are told for whom.
            let audience = settings.audiences.first().map(String::as_str);
            let audience = audience.filter(|name| *name != client_id && accepts_access(settings));
            let client = (client_id, settings.client_secret.clone());
            let party = RelyingParty::new(&settings.url, client, audience, settings.ca.as_deref());
            Some(party.map(|party| Client { settings: settings.clone(), party }))
        });
        Ok(Self { clients: clients.collect::<Result<_, _>>()? })
    }

    /// The part of an issuer's redirect URI that tells it from the other issuers' (RFC 9700 section
    /// 4.4.2.2); none while it is the only one.
    pub fn redirect_part<'a>(&self, issuer: &'a str) -> Option<&'a str> {
        (self.clients.len() > 1).then_some(issuer)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clients.iter().map(|client| client.settings.name.as_str())
    }

    /// Where the browser goes to log in.
    ///
    /// # Errors
    /// When the issuer cannot be asked where.
    pub async fn begin(&self, attempt: &Attempt, redirect_uri: &str) -> Result<String, NoLogin> {
        let party = &self.client(&attempt.issuer)?.party;
        Ok(party.authorization_url(|part| attempt.derived(part), redirect_uri, SCOPE).await?)
    }

    /// Who came back with this answer, at `redirect_uri`: the address that [`Self::begin`] was
    /// given.
    ///
    /// # Errors
    /// When that is not proved.
    pub async fn finish(
        &self,
        attempt: &Attempt,
        redirect_uri: &str,
        answer: Answer,
        verifier: &Verifier,
    ) -> Result<Arc<Identity>, NoLogin> {
        if !answer.state.is_some_and(|state| attempt.is_state(&state)) {
            return Err(NoLogin::OtherAttempt);
        }
        let client = self.client(&attempt.issuer)?;
        client.check_issuer(answer.iss.as_deref()).await?;
        if let Some(error) = answer.error {
            return Err(NoLogin::Denied(error));
        }
        let code = &answer.code.ok_or(NoLogin::OtherAttempt)?;
        if code.expose().len() > MAX_CODE {
            return Err(Refused("a code of too many bytes".to_owned()).into());
        }
        let verifier_text = attempt.derived("verifier");
        let granted = client.party.redeem(code, redirect_uri, verifier_text).await?;
        let logged_in =
            verifier.verify_login(&client.settings, &granted, &attempt.derived("nonce")).await?;
        let identity = verifier.verify(&client.presented(granted)?).await?;
        if (identity.issuer(), identity.subject()) != (logged_in.issuer(), logged_in.subject()) {
            return Err(Refused("the tokens are of different people".to_owned()).into());
        }
        if identity.bound().is_some() {
            return Err(Refused("a ticket in place of a token".to_owned()).into());
        }
        Ok(identity)
    }

    /// Where the browser goes to end its session at the issuer of that URL too; none where there
    /// is no such place.
    pub async fn end_session(&self, issuer_url: &str, back: &str) -> Option<String> {
        let client = self.clients.iter().find(|client| client.settings.url == issuer_url)?;
        client.party.end_session(back).await
    }

    /// Whether there is an issuer to log in at.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Opens a device code at the first issuer.
    ///
    /// # Errors
    /// When the issuer cannot be asked, or knows no such logins.
    pub async fn begin_device(&self) -> Result<Device, NotGranted> {
        self.first()?.party.device(SCOPE).await
    }

    /// What shows who logged in by a device code; nothing in it is proved.
    ///
    /// # Errors
    /// When the issuer did not give it.
    pub fn of_device(&self, granted: Granted) -> Result<Secret, NotGranted> {
        self.first()?.presented(granted)
    }

    fn first(&self) -> Result<&Client, NotGranted> {
        let none = || NotGranted::Issuer("none has a client_id".to_owned());
        self.clients.first().ok_or_else(none)
    }

    fn client(&self, name: &str) -> Result<&Client, NoLogin> {
        let found = self.clients.iter().find(|client| client.settings.name == name);
        found.ok_or_else(|| NoLogin::Refused(Refused("no such issuer".to_owned())))
    }
}

impl Client {
    /// Whether an authorization response is this issuer's (RFC 9207 section 2.4): another `iss` is
    /// refused from every issuer, a missing one where the issuer's metadata promise it. Otherwise
    /// one issuer could have another one's code posted to it (RFC 9700 section 4.4).
    async fn check_issuer(&self, iss: Option<&str>) -> Result<(), NoLogin> {
        match iss {
            Some(iss) if iss == self.settings.url => Ok(()),
            Some(iss) => {
                Err(Refused(format!("the response is of another issuer: {}", shown(iss))).into())
            }
            None if self.party.metadata().await?.authorization_response_iss_parameter_supported => {
                Err(Refused("the response lacks iss, which the issuer announces".to_owned()).into())
            }
            None => Ok(()),
        }
    }

    /// The token that the API would take.
    fn presented(&self, granted: Granted) -> Result<Secret, NotGranted> {
        match accepts_access(&self.settings) {
            true => Ok(granted.access_token),
            false => granted.id_token.ok_or_else(no_id_token),
        }
    }
}

fn accepts_access(settings: &config::Issuer) -> bool {
    settings.accept.contains(&TokenKind::Access)
}

fn no_id_token() -> NotGranted {
    NotGranted::Issuer("it gave no ID token".to_owned())
}

impl Verifier {
    /// Proves the ID token that our own client was given: its issuer's, for this client, with this
    /// nonce and the access token that it came with. What the configuration accepts from strangers does not matter here.
    async fn verify_login(
        &self,
        settings: &config::Issuer,
        granted: &Granted,
        nonce: &str,
    ) -> Result<Identity, NoLogin> {
        let id_token = granted.id_token.as_ref().ok_or_else(no_id_token)?;
        let token = token::parse(id_token.expose())?;
        let Some(source) = self.issuers.iter().find(|s| s.settings.url == settings.url) else {
            return Err(Refused("the issuer is not configured".to_owned()).into());
        };
        let given = token.claims.get("nonce").and_then(serde_json::Value::as_str);
        if !given.is_some_and(|given| {
            verify_slices_are_equal(given.as_bytes(), nonce.as_bytes()).is_ok()
        }) {
            return Err(Refused("the ID token has not the nonce of this login".to_owned()).into());
        }
        if !token.may_come_with(granted.access_token.expose()) {
            return Err(Refused("the ID token came with another access token".to_owned()).into());
        }
        let signed = source.keys.check(token).await?;
        let own = config::Issuer {
            audiences: settings.client_id.iter().cloned().collect(),
            accept: vec![TokenKind::Id],
            authorized_parties: Vec::new(),
            ..settings.clone()
        };
        Ok(claims::identify(&own, signed, std::time::SystemTime::now())?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attempt_is_the_same_out_of_its_cookie_and_another_one_is_another() {
        let attempt = Attempt::new("corp.x", "/sessions?text=a.b&é").unwrap();
        let again = Attempt::from_cookie(attempt.cookie().expose()).unwrap();
        assert_eq!((again.to(), again.issuer()), ("/sessions?text=a.b&é", "corp.x"));
        assert!(again.is_state(&attempt.derived("state")));
        for other in [
            Attempt::new("corp.x", attempt.to()).unwrap(),
            Attempt { to: "/".to_owned(), ..attempt.clone() },
            Attempt { issuer: "other".to_owned(), ..attempt.clone() },
        ] {
            assert!(!other.is_state(&attempt.derived("state")));
        }
        let values = ["state", "nonce", "verifier"].map(|purpose| attempt.derived(purpose));
        assert!(values[0] != values[1] && values[1] != values[2] && values[0] != values[2]);
        assert!(values.iter().all(|value| value.len() == 43));
    }

    proptest! {
        #[test]
        fn no_cookie_panics(text in ".{0,200}") {
            let _any = Attempt::from_cookie(&text);
        }
    }
}
