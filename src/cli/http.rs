//! Requests of commands to servers elsewhere: over TLS with the system's roots, or plain to this
//! machine alone. `SSL_CERT_FILE` names other roots.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::secret::Secret;

/// A page of a thousand long commands is below this.
pub(super) const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// A reload reads files, a question has ten seconds in the database.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(60);

/// An HTTP client.
pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(Self(legacy::Client::builder(TokioExecutor::new()).build(connector.build())))
    }

    /// Sends a token, and JSON where there is any.
    pub(super) async fn send_json(
        &self,
        method: Method,
        url: &str,
        token: &Secret,
        body: Option<Bytes>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(address(url)?)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.send(request.body(Full::new(body.unwrap_or_default()))?, url).await
    }

    /// Gets something of any length, as it comes.
    pub(super) async fn open(
        &self,
        url: &str,
        token: &Secret,
    ) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
        let request = Request::get(address(url)?)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()))
            .body(Full::default())?;
        self.0.request(request).await.with_context(|| format!("{url} cannot be asked"))
    }

    /// Posts JSON with a token.
    pub(super) async fn post_json(
        &self,
        url: &str,
        json: &serde_json::Value,
        token: &Secret,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::post(address(url)?)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        self.send(request.body(json.to_string().into())?, url).await
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        url: &str,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = async {
            let response = self.0.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            anyhow::Ok((status, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
        };
        tokio::time::timeout(ANSWER_TIME, answer)
            .await
            .with_context(|| format!("{url} did not answer in time"))?
            .with_context(|| format!("{url} cannot be asked"))
    }
}

/// An address that a token may be sent to.
fn address(url: &str) -> anyhow::Result<Uri> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if here => Ok(uri),
        _ => bail!("{url:?} is neither https:// nor http:// to this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_over_tls_or_stay_on_this_machine() {
        for good in ["https://gateway.example.com", "http://127.0.0.1:8443/", "http://[::1]:1"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["", "gateway", "http://gateway.example.com", "http://127.0.0.1.example.com"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
