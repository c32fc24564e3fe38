//! Asking an issuer, for its documents and for tokens: one bounded request over verified TLS.
//!
//! Redirects are not followed: a document that sends us elsewhere is a wrong document. Every
//! request opens its own connection; they are minutes apart.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use rustls::ClientConfig;

use crate::trust;

/// How long one document may take, from the name lookup to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// The largest document that is read: the biggest providers' key sets are tens of kilobytes.
const MAX_BODY: usize = 1024 * 1024;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));

/// A document could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum FetchError {
    /// Nobody answered, or the issuer is ill: it may pass by itself.
    #[error("{0}")]
    Unreachable(String),
    /// What answered is not what it should be: somebody has to look.
    #[error("{0}")]
    Wrong(String),
}

/// An HTTP client that trusts the system's roots, or one CA file alone.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Fetcher {
    /// Reads the trusted roots. Fails when `ca` cannot be read or holds no certificate.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, String> {
        let roots = trust::roots(ca)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector.build());
        Ok(Self { client })
    }

    /// Gets a document of at most 1 MiB within 5 seconds. Only status 200 counts. Cancel safe.
    pub(super) async fn get(&self, uri: &Uri) -> Result<Bytes, FetchError> {
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .body(Full::default())
            .map_err(|error| FetchError::Wrong(format!("{uri}: {error}")))?;
        let response = self.send(uri, request).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            other => Err(status_error(uri, other)),
        }
    }

    async fn send(
        &self,
        uri: &Uri,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, FetchError> {
        match tokio::time::timeout(FETCH_TIME, self.send_unhurried(uri, request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(FetchError::Unreachable(format!(
                "{uri} did not answer within {} seconds",
                FETCH_TIME.as_secs()
            ))),
        }
    }

    async fn send_unhurried(
        &self,
        uri: &Uri,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, FetchError> {
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let response =
            self.client.request(request).await.map_err(|error| connection_error(uri, &error))?;
        let (head, body) = response.into_parts();
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(FetchError::Wrong(
                format!("{uri} answered with more than {} KiB", MAX_BODY / 1024),
            )),
            Err(error) => Err(FetchError::Unreachable(format!("{uri}: {}", chain(&*error)))),
        }
    }
}

/// Sends what `openidconnect` asks, codes and secrets among it: only where an [`endpoint`] is, and
/// whatever the status, which tells that crate what the answer is. Cancel safe.
impl<'c> AsyncHttpClient<'c> for Fetcher {
    type Error = FetchError;
    type Future = BoxFuture<'c, Result<HttpResponse, FetchError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        let request = request.map(|body| Full::new(Bytes::from(body)));
        async move {
            let uri = endpoint(&request.uri().to_string()).map_err(FetchError::Wrong)?;
            Ok(self.send(&uri, request).await?.map(Vec::from))
        }
        .boxed()
    }
}

/// Parses an address that keys may come from: `https`, or `http` to this machine; no user name.
pub(super) fn endpoint(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| format!("{text:?} is not a URL"))?;
    let host = uri.host().unwrap_or_default();
    let fits = match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_loopback(host),
        _ => false,
    };
    if !fits {
        return Err(format!("{text:?} is neither https:// nor http:// to this machine"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(format!("{text:?} carries a user name"));
    }
    Ok(uri)
}

/// Whether a URL's host is this machine by its name or address.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn status_error(uri: &Uri, status: StatusCode) -> FetchError {
    if status.is_redirection() {
        return FetchError::Wrong(format!(
            "{uri} redirects ({}), which is not followed; give the final address",
            status.as_u16()
        ));
    }
    let text = format!("{uri} answered with status {}", status.as_u16());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        FetchError::Unreachable(text)
    } else {
        FetchError::Wrong(text)
    }
}

fn connection_error(uri: &Uri, error: &(dyn Error + 'static)) -> FetchError {
    let text = format!("{uri}: {}", chain(error));
    if causes(error)
        .any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
    {
        FetchError::Wrong(format!("{text}; set ca when its certificate is from a CA of your own"))
    } else {
        FetchError::Unreachable(text)
    }
}

/// An error and all that lies behind it, the insides of I/O errors too.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inside {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for good in [
            "https://login.example.com/realms/agents",
            "http://127.0.0.1:9100",
            "http://localhost:9100/x",
            "http://[::1]:9100",
        ] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "login.example.com",
            "/keys",
            "http://login.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://169.254.169.254/latest",
            "https://user:secret@login.example.com",
            "http://login.example.com@127.0.0.1",
            "file:///etc/passwd",
            "ftp://localhost/",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Fetcher::new(Some(file.path())).unwrap_err().contains("no certificate"));
        assert!(Fetcher::new(Some(Path::new("/nonexistent.pem"))).is_err());
    }
}
