//! The development issuer: a small OpenID provider for trying Portcullis out, and for its tests.
//!
//! Real where a client can tell: discovery, a key set that rotates, client credentials (RFC 6749
//! section 4.4), the authorization code flow with PKCE (RFC 7636, S256 alone), device
//! authorization (RFC 8628), user info, logout. Not real where it would matter in production:
//! passwords stand in its settings, a user without one logs in by a click, nothing is rate
//! limited or audited, and `POST /_dev/rotate` is open to all who reach it. It keeps no session
//! (each login asks again) and no refresh tokens.

mod device;
mod login;
mod oauth;
mod pages;
mod settings;
mod signing;
mod token_endpoint;
mod tokens;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::device::Devices;
use self::login::Codes;
pub use self::settings::{BUILT_IN, BadSettings, Settings};
use self::signing::SigningKeys;
use super::fetch::is_loopback;
use crate::secret::Secret;

/// The largest request body that is read: forms of a few fields.
const MAX_BODY: usize = 16 * 1024;

/// How many connections are served at once; more are closed.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send a request's head.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// How long one connection may last, requests and idle time together.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// A running development issuer. Dropping it leaves it running; [`DevIssuer::stop`] ends it.
#[derive(Debug)]
pub struct DevIssuer {
    issuer: Arc<Issuer>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Issuer {
    url: String,
    settings: Settings,
    keys: Mutex<SigningKeys>,
    codes: Mutex<Codes>,
    devices: Mutex<Devices>,
}

/// Serves on a bound listener until stopped. Fails when the key file cannot be used.
pub fn start(listener: TcpListener, settings: Settings) -> io::Result<DevIssuer> {
    let address = listener.local_addr()?;
    let url = settings.url.clone().unwrap_or_else(|| format!("http://{address}"));
    let keys = Mutex::new(SigningKeys::open(settings.key_file.clone())?);
    let issuer = Arc::new(Issuer {
        url,
        settings,
        keys,
        codes: Mutex::default(),
        devices: Mutex::default(),
    });
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(accept(listener, router(issuer.clone()), cancel.clone(), tasks.clone()));
    Ok(DevIssuer { issuer, cancel, tasks })
}

impl DevIssuer {
    /// The issuer identifier: what stands in `iss`.
    pub fn url(&self) -> &str {
        &self.issuer.url
    }

    /// An access token for a user or client by name, for the default audience. `None` when there
    /// is nobody of that name.
    pub fn issue(&self, name: &str, lifetime: Duration) -> Option<Secret> {
        self.issuer.issue(name, lifetime)
    }

    /// Signs with a new key from now on; `forget` also withdraws the former keys.
    pub fn rotate(&self, forget: bool) -> io::Result<()> {
        self.issuer.keys.lock().rotate(forget)
    }

    /// Stops accepting, drops open connections and waits until all is gone.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    cancel: CancellationToken,
    tasks: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "development issuer could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (router, cancel) = (router.clone(), cancel.clone());
        tasks.spawn(async move {
            let served = tokio::time::timeout(CONNECTION_TIME, serve(stream, router));
            let _ended = cancel.run_until_cancelled(served).await;
            drop(slot);
        });
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the development issuer ended early");
    }
}

fn router(issuer: Arc<Issuer>) -> Router {
    Router::new()
        .route("/", get(pages::welcome))
        .route("/style.css", get(pages::style))
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/token", post(token_endpoint::token))
        .route("/authorize", get(login::ask).post(login::answer))
        .route("/device_authorization", post(device::authorize))
        .route("/device", get(device::ask).post(device::answer))
        .route("/userinfo", get(tokens::user_info).post(tokens::user_info))
        .route("/logout", get(login::logout))
        .route("/_dev/rotate", post(rotate))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(issuer.clone(), guard))
        .with_state(issuer)
}

async fn discovery(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", issuer.url);
    Json(json!({
        "issuer": issuer.url,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "device_authorization_endpoint": at("/device_authorization"),
        "userinfo_endpoint": at("/userinfo"),
        "end_session_endpoint": at("/logout"),
        "jwks_uri": at("/jwks"),
        "scopes_supported": ["openid", "profile", "email", "groups"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported":
            ["authorization_code", "client_credentials", token_endpoint::DEVICE_GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported":
            ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "claims_supported":
            ["sub", "groups", "preferred_username", "email", "email_verified"],
    }))
}

async fn jwks(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    Json(issuer.keys.lock().published())
}

/// `POST /_dev/rotate`, and `?forget` to withdraw the former keys as well.
async fn rotate(State(issuer): State<Arc<Issuer>>, uri: Uri) -> Result<Json<Value>, StatusCode> {
    let mut keys = issuer.keys.lock();
    keys.rotate(uri.query() == Some("forget")).map_err(|error| {
        tracing::error!(%error, "development issuer could not rotate its key");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    Ok(Json(keys.published()))
}

/// Refuses what a foreign web page could send here (another name for this address, a form of its
/// own), and puts on every answer what it is and what a browser may do with it.
async fn guard(State(issuer): State<Arc<Issuer>>, request: Request, next: Next) -> Response {
    let foreign = is_foreign(&issuer.url, request.method(), request.headers());
    let mut response = if foreign {
        (StatusCode::FORBIDDEN, "this request is not addressed to the development issuer\n")
            .into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-portcullis-development-issuer", "not for production"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        // Not no-referrer: it would hide the origin of our own forms from this very check.
        ("referrer-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ));
    response
}

fn is_foreign(url: &str, method: &Method, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(host) = text(header::HOST) else { return true };
    let own = settings::origin(url).is_some_and(|origin| origin.ends_with(&format!("://{host}")));
    let local = host.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(is_loopback));
    if !own && !local {
        return true;
    }
    *method == Method::POST
        && text(header::ORIGIN).is_some_and(|origin| {
            !["http://", "https://"].iter().any(|scheme| *origin == format!("{scheme}{host}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_from_a_foreign_page_is_refused() {
        let check = |method: Method, host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            is_foreign("https://issuer.example:9100", &method, &headers)
        };
        for host in ["issuer.example:9100", "127.0.0.1:9100", "localhost:9100", "[::1]:9100"] {
            assert!(!check(Method::GET, host, None), "{host}");
            assert!(!check(Method::POST, host, Some(&format!("http://{host}"))), "{host}");
        }
        assert!(check(Method::GET, "rebound.example:9100", None));
        assert!(check(Method::GET, "example:9100", None));
        assert!(check(Method::POST, "127.0.0.1:9100", Some("https://evil.example")));
        assert!(check(Method::POST, "127.0.0.1:9100", Some("null")));
        assert!(is_foreign("http://127.0.0.1:9100", &Method::GET, &HeaderMap::new()));
    }
}
