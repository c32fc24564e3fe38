//! Portcullis as a client of an issuer: the requests that get tokens, for pages, SSH and commands.
//!
//! The requests, and how their answers are read, are those of `openidconnect`: the authorization
//! code flow with PKCE, device authorization (RFC 8628) and client credentials (RFC 6749 section
//! 4.4). They go by our own HTTP client. What tokens say is not read here: nothing in them is
//! proved, and [`super::Verifier`] alone proves it.

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreDeviceAuthorizationResponse,
    CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::url::ParseError;
use openidconnect::{
    AccessToken, AdditionalClaims, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    DeviceAuthorizationUrl, DeviceCodeErrorResponseType, EndSessionUrl, EndpointNotSet,
    EndpointSet, ErrorResponse, ExtraTokenFields, IdToken, IssuerUrl, JsonWebKeySet, LogoutRequest,
    Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, PostLogoutRedirectUrl,
    RedirectUrl, RequestTokenError, Scope, StandardErrorResponse, StandardTokenResponse,
    TokenResponse, TokenUrl,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::discovery::Metadata;
use super::fetch::{FetchError, Fetcher, endpoint};
use crate::config::SecretRef;
use crate::secret::Secret;

/// How long metadata are used: whoever begins logins in a loop asks the issuer little.
const KEPT: Duration = Duration::from_secs(60);
/// The longest that an issuer may have us wait between two questions.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// The longest that a device code is asked about.
const LONGEST_DEVICE: Duration = Duration::from_secs(3600);
/// How much of an issuer's own words is shown, in characters.
const MAX_SAID: usize = 512;
/// The longest code and address that people are shown.
const MAX_CODE: usize = 64;
const MAX_ADDRESS: usize = 512;

/// Our client at one issuer.
#[derive(Debug)]
pub struct RelyingParty {
    issuer: String,
    client: Client,
    client_secret: Option<SecretRef>,
    /// For whom tokens are asked, where that has to be said.
    audience: Option<String>,
    fetcher: Fetcher,
    known: Mutex<Option<(Instant, Metadata)>>,
}

/// What an issuer gave; nothing in it is proved.
#[derive(Debug)]
pub struct Granted {
    /// The access token.
    pub access_token: Secret,
    /// The ID token.
    pub id_token: Option<Secret>,
    /// For how long the access token is good.
    pub expires_in: Option<Duration>,
}

/// A login that somebody was asked for by a device code: a program that has no browser shows an
/// address and a short code, a person logs in there, and the issuer is asked whether that is done.
pub struct Device {
    /// The code to type.
    pub user_code: String,
    /// Where to type it.
    pub address: String,
    /// When the code ends.
    pub ends: Instant,
    /// Asks until somebody has logged in, or nobody will any more. Behind a lock, which nobody
    /// waits for, so that a connection can be shared between threads.
    granted: Mutex<BoxFuture<'static, Result<Granted, NotGranted>>>,
    /// How long it waits now before it asks.
    interval: watch::Receiver<Duration>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum NotGranted {
    /// The issuer cannot be asked, or answers what it should not.
    #[error("the issuer cannot be used: {0}")]
    Issuer(String),
    /// Nobody logged in.
    #[error("{0}")]
    Nobody(&'static str),
}

impl From<FetchError> for NotGranted {
    fn from(error: FetchError) -> Self {
        Self::Issuer(error.to_string())
    }
}

impl<T: ErrorResponse> From<RequestTokenError<FetchError, T>> for NotGranted {
    fn from(error: RequestTokenError<FetchError, T>) -> Self {
        Self::Issuer(match error {
            RequestTokenError::ServerResponse(said) => {
                let said = said.to_string();
                format!(
                    "it says {}",
                    said.chars().take(MAX_SAID).collect::<String>().escape_debug()
                )
            }
            RequestTokenError::Request(error) => error.to_string(),
            // Its text may quote what was answered, tokens too.
            RequestTokenError::Parse(..) => "what it answers is not understood".to_owned(),
            RequestTokenError::Other(why) => why,
        })
    }
}

impl TryFrom<Tokens> for Granted {
    type Error = NotGranted;

    /// An access token of another type must not be used (RFC 6749 section 7.1).
    fn try_from(tokens: Tokens) -> Result<Self, NotGranted> {
        if *tokens.token_type() != CoreTokenType::Bearer {
            return Err(NotGranted::Issuer("it gave no bearer token".to_owned()));
        }
        let id_token = tokens.extra_fields().id_token.as_ref();
        Ok(Self {
            access_token: Secret::new(tokens.access_token().secret().clone()),
            id_token: id_token.map(|text| Secret::new(text.secret().clone())),
            expires_in: tokens.expires_in(),
        })
    }
}

impl RelyingParty {
    /// A client that trusts the system's roots, or those of `ca` alone.
    ///
    /// # Errors
    /// When `ca` cannot be read, or the issuer is no URL.
    pub fn new(
        issuer: &str,
        (client_id, client_secret): (&str, Option<SecretRef>),
        audience: Option<&str>,
        ca: Option<&Path>,
    ) -> Result<Self, String> {
        let url = IssuerUrl::new(issuer.to_owned()).map_err(|error| error.to_string())?;
        let client_id = ClientId::new(client_id.to_owned());
        Ok(Self {
            issuer: issuer.to_owned(),
            client: Client::new(client_id, url, JsonWebKeySet::default()).disable_openid_scope(),
            client_secret,
            audience: audience.map(str::to_owned),
            fetcher: Fetcher::new(ca)?,
            known: Mutex::default(),
        })
    }

    /// The issuer's metadata, of a minute ago at most. Cancel safe.
    pub(super) async fn metadata(&self) -> Result<Metadata, NotGranted> {
        let known = self.known.lock().clone().filter(|(at, _)| at.elapsed() < KEPT);
        if let Some((_, metadata)) = known {
            return Ok(metadata);
        }
        let metadata = Metadata::of(&self.issuer, &self.fetcher).await?;
        *self.known.lock() = Some((Instant::now(), metadata.clone()));
        Ok(metadata)
    }

    /// Where a browser goes to log in, with `state`, `nonce` and the `verifier`'s challenge.
    pub(super) async fn authorization_url(
        &self,
        derived: impl Fn(&str) -> String,
        redirect_uri: &str,
        scope: &str,
    ) -> Result<String, NotGranted> {
        let place = self.metadata().await?.authorization_endpoint;
        let place = named("authorization_endpoint", place, AuthUrl::new)?;
        let client = self.client.clone().set_auth_uri(place);
        let (state, nonce) = (derived("state"), derived("nonce"));
        let verifier = PkceCodeVerifier::new(derived("verifier"));
        let mut request = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                || CsrfToken::new(state),
                || Nonce::new(nonce),
            )
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .set_redirect_uri(Cow::Owned(redirect(redirect_uri)?))
            .add_scope(Scope::new(scope.to_owned()));
        if let Some(audience) = &self.audience {
            request = request.add_extra_param("audience", audience);
        }
        Ok(request.url().0.into())
    }

    /// Redeems a code.
    pub(super) async fn redeem(
        &self,
        code: &Secret,
        redirect_uri: &str,
        verifier: String,
    ) -> Result<Granted, NotGranted> {
        let client = self.at_token_endpoint().await?;
        let tokens = client
            .exchange_code(AuthorizationCode::new(code.expose().to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .set_redirect_uri(Cow::Owned(redirect(redirect_uri)?))
            .request_async(&self.fetcher)
            .await?;
        tokens.try_into()
    }

    /// Gets a token for a machine client of its own.
    ///
    /// # Errors
    /// When the issuer cannot be asked, or gives none.
    pub async fn client_credentials(&self, scope: Option<&str>) -> Result<Granted, NotGranted> {
        let client = self.at_token_endpoint().await?;
        let mut request = client.exchange_client_credentials();
        if let Some(scope) = scope {
            request = request.add_scope(Scope::new(scope.to_owned()));
        }
        if let Some(audience) = &self.audience {
            request = request.add_extra_param("audience", audience);
        }
        request.request_async(&self.fetcher).await?.try_into()
    }

    /// Opens a device code.
    ///
    /// # Errors
    /// When the issuer cannot be asked, or knows no such logins.
    pub async fn device(&self, scope: &str) -> Result<Device, NotGranted> {
        let place = self.metadata().await?.device_authorization_endpoint;
        let place = named("device_authorization_endpoint", place, DeviceAuthorizationUrl::new)?;
        let client = self.at_token_endpoint().await?.set_device_authorization_url(place);
        let mut request = client.exchange_device_code().add_scope(Scope::new(scope.to_owned()));
        if let Some(audience) = &self.audience {
            request = request.add_extra_param("audience", audience);
        }
        let opened: CoreDeviceAuthorizationResponse = request.request_async(&self.fetcher).await?;
        let (user_code, address) = (opened.user_code().secret(), opened.verification_uri());
        let plain =
            |text: &str, most| text.len() <= most && text.chars().all(|c| c.is_ascii_graphic());
        if !plain(user_code, MAX_CODE) || !plain(address, MAX_ADDRESS) {
            let what = "its code or address is nothing to show to people";
            return Err(NotGranted::Issuer(what.to_owned()));
        }
        endpoint(address).map_err(NotGranted::Issuer)?;
        // The crate adds to the interval, and panics where that overflows.
        if opened.interval() > LONGEST_DEVICE {
            return Err(NotGranted::Issuer("it wants to be asked less than hourly".to_owned()));
        }
        let (waits, interval) = watch::channel(bounded(opened.interval()));
        Ok(Device {
            user_code: user_code.clone(),
            address: address.to_string(),
            ends: Instant::now() + opened.expires_in().min(LONGEST_DEVICE),
            granted: Mutex::new(
                granted(client, opened, self.fetcher.clone(), waits).fuse().boxed(),
            ),
            interval,
        })
    }

    /// Where a browser goes to end its session at the issuer too; none where there is no such place.
    pub(super) async fn end_session(&self, back: &str) -> Option<String> {
        let place = self.metadata().await.ok()?.end_session_endpoint;
        let place = named("end_session_endpoint", place, EndSessionUrl::new).ok()?;
        let back = PostLogoutRedirectUrl::new(back.to_owned()).ok()?;
        let request = LogoutRequest::from(place)
            .set_client_id(self.client.client_id().clone())
            .set_post_logout_redirect_uri(back);
        Some(request.http_get_url().into())
    }

    /// For requests that say which client asks: with its secret in a header, or in a field.
    async fn at_token_endpoint(&self) -> Result<Client<EndpointSet>, NotGranted> {
        let place = named("token_endpoint", self.metadata().await?.token_endpoint, TokenUrl::new)?;
        let client = self.client.clone().set_token_uri(place);
        let Some(secret) = &self.client_secret else { return Ok(client) };
        let secret = secret.read().await;
        let unread = |error| NotGranted::Issuer(format!("its client_secret: {error}"));
        Ok(client.set_client_secret(ClientSecret::new(secret.map_err(unread)?.expose().to_owned())))
    }
}

impl Device {
    /// How long [`Self::ask`] waits before it asks.
    pub fn interval(&self) -> Duration {
        *self.interval.borrow()
    }

    /// Waits as long as the issuer wants, and asks whether somebody has logged in; none when nobody
    /// has yet. Cancel safe.
    ///
    /// # Errors
    /// When nobody will any more, or the issuer cannot be asked.
    pub async fn ask(&mut self) -> Result<Option<Granted>, NotGranted> {
        tokio::select! {
            biased;
            granted = self.granted.get_mut() => granted.map(Some),
            _ = self.interval.changed() => Ok(None),
        }
    }

    /// Asks until somebody has logged in.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn granted(self) -> Result<Granted, NotGranted> {
        self.granted.into_inner().await
    }
}

/// The crate's loop of questions (RFC 8628 section 3.5), at intervals of ours.
async fn granted(
    client: Client<EndpointSet, EndpointSet>,
    opened: CoreDeviceAuthorizationResponse,
    fetcher: Fetcher,
    waits: watch::Sender<Duration>,
) -> Result<Granted, NotGranted> {
    let wait = |interval| {
        let interval = bounded(interval);
        waits.send_replace(interval);
        tokio::time::sleep(interval)
    };
    tokio::time::sleep(bounded(opened.interval())).await;
    let lives = opened.expires_in().min(LONGEST_DEVICE);
    let request = client.exchange_device_access_token(&opened);
    let granted = request.request_async(&fetcher, wait, Some(lives)).await;
    if let Err(RequestTokenError::ServerResponse(said)) = &granted {
        match said.error() {
            DeviceCodeErrorResponseType::AccessDenied => {
                return Err(NotGranted::Nobody("the login was denied at the issuer"));
            }
            DeviceCodeErrorResponseType::ExpiredToken => {
                return Err(NotGranted::Nobody("nobody logged in in time"));
            }
            _ => {}
        }
    }
    granted?.try_into()
}

fn bounded(interval: Duration) -> Duration {
    interval.clamp(Duration::from_secs(1), LONGEST_INTERVAL)
}

/// A place that the metadata name, when a browser or a request may go there.
fn named<T: std::ops::Deref<Target = String>>(
    name: &str,
    said: Option<String>,
    new: fn(String) -> Result<T, ParseError>,
) -> Result<T, NotGranted> {
    let said = said.ok_or_else(|| NotGranted::Issuer(format!("it has no {name}")))?;
    endpoint(&said).map_err(NotGranted::Issuer)?;
    new(said).map_err(|error| NotGranted::Issuer(format!("{name}: {error}")))
}

fn redirect(uri: &str) -> Result<RedirectUrl, NotGranted> {
    RedirectUrl::new(uri.to_owned())
        .map_err(|error| NotGranted::Issuer(format!("cannot send anybody back to {uri}: {error}")))
}

/// The crate's client, which knows the endpoints that it is given. Its answers have the ID token as
/// a text.
type Client<Token = EndpointNotSet, Device = EndpointNotSet> = openidconnect::Client<
    NoClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointNotSet,
    Device,
    EndpointNotSet,
    EndpointNotSet,
    Token,
    EndpointNotSet,
>;

type Tokens = StandardTokenResponse<IdTokenText, CoreTokenType>;

#[derive(Debug, Clone, Deserialize, Serialize)]
struct IdTokenText {
    // A type of the crate that does not print itself.
    id_token: Option<AccessToken>,
}

impl ExtraTokenFields for IdTokenText {}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct NoClaims {}

impl AdditionalClaims for NoClaims {}

type Unread =
    IdToken<NoClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

impl
    TokenResponse<
        NoClaims,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    > for Tokens
{
    fn id_token(&self) -> Option<&Unread> {
        None
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn a_device_code_is_for_people_and_asked_about_at_a_bounded_interval() {
        let good = json!({
            "device_code": "d", "user_code": "BCDF-GHJK", "expires_in": 600, "interval": 7,
            "verification_uri": "https://login.example.com/device",
        });
        let opened = |member: &'static str, value: Value| {
            let mut answer = good.clone();
            answer[member] = value;
            async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}", listener.local_addr().unwrap());
                let metadata = json!({
                    "issuer": url, "token_endpoint": format!("{url}/token"),
                    "device_authorization_endpoint": format!("{url}/device"),
                });
                let app = Router::new()
                    .route("/.well-known/openid-configuration", get(Json(metadata)))
                    .route("/device", post(Json(answer)));
                TaskTracker::new().spawn(async move { axum::serve(listener, app).await });
                let party = RelyingParty::new(&url, ("portcullis", None), None, None).unwrap();
                party.device("openid").await
            }
        };
        let device = opened("interval", json!(7)).await.unwrap();
        assert_eq!((device.user_code.as_str(), device.interval().as_secs()), ("BCDF-GHJK", 7));
        assert_eq!(device.address, "https://login.example.com/device");
        assert_eq!(opened("interval", json!(600)).await.unwrap().interval(), LONGEST_INTERVAL);
        assert_eq!(opened("interval", json!(0)).await.unwrap().interval().as_secs(), 1);
        for (member, value) in [
            ("interval", json!(u64::MAX)),
            ("user_code", json!("BCDF GHJK")),
            ("user_code", json!("x".repeat(MAX_CODE + 1))),
            ("verification_uri", json!("http://login.example.com/device")),
            ("verification_uri", json!("https://login.example.com/\u{202e}")),
        ] {
            assert!(opened(member, value.clone()).await.is_err(), "{member} {value}");
        }
    }

    #[test]
    fn an_answer_that_repeats_a_name_or_has_no_bearer_token_is_refused() {
        let of_type = |kind: &str, members: &str| {
            let text = format!("{{\"access_token\":\"a\",\"token_type\":\"{kind}\"{members}}}");
            serde_json::from_str::<Tokens>(&text).ok().and_then(|tokens| tokens.try_into().ok())
        };
        let answer = |members: &str| -> Option<Granted> { of_type("bearer", members) };
        let granted = answer(",\"id_token\":\"i\",\"expires_in\":60,\"other\":1").unwrap();
        assert_eq!(granted.access_token.expose(), "a");
        assert_eq!(granted.id_token.unwrap().expose(), "i");
        assert_eq!(granted.expires_in, Some(Duration::from_secs(60)));
        assert!(answer("").unwrap().id_token.is_none());
        for member in [",\"access_token\":\"b\"", ",\"id_token\":\"i\",\"id_token\":\"j\""] {
            assert!(answer(member).is_none(), "{member}");
        }
        for kind in ["DPoP", "mac", "N_A", ""] {
            assert!(of_type(kind, "").is_none(), "{kind}");
        }
    }
}
