//! OpenID Connect discovery: from an issuer's URL to its keys.
//!
//! The document is fetched anew with every refresh, so a wrong one is never used for long. Keys
//! are taken from the issuer's own host, or from one that the configuration names.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Uri;
use serde::Deserialize;

use super::fetch::{FetchError, Fetcher, endpoint, is_loopback};
use super::key_cache::KeySource;
use super::keys::KeySet;
use crate::config;

/// An issuer that publishes its keys as OpenID Connect Discovery 1.0 says.
#[derive(Debug)]
pub(super) struct Discovery {
    issuer: String,
    host: String,
    jwks_hosts: Vec<String>,
    document: Uri,
    fetcher: Fetcher,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

impl Discovery {
    /// Checks the issuer's URL and reads its CA file.
    pub(super) fn new(issuer: &config::Issuer) -> Result<Self, String> {
        let url = endpoint(&issuer.url)?;
        if url.query().is_some() || issuer.url.contains('#') {
            return Err(format!("{:?} has a query or a fragment; an issuer has none", issuer.url));
        }
        let document = format!(
            "{}/.well-known/openid-configuration",
            issuer.url.strip_suffix('/').unwrap_or(&issuer.url)
        );
        Ok(Self {
            issuer: issuer.url.clone(),
            host: url.host().unwrap_or_default().to_owned(),
            jwks_hosts: issuer.jwks_hosts.clone(),
            document: endpoint(&document)?,
            fetcher: Fetcher::new(issuer.ca.as_deref())?,
        })
    }

    async fn keys(&self) -> Result<KeySet, FetchError> {
        let body = self.fetcher.get(&self.document).await?;
        let document: Document = serde_json::from_slice(&body).map_err(|error| {
            FetchError::Wrong(format!("{} is not a discovery document: {error}", self.document))
        })?;
        let jwks = self.jwks_uri(&document).map_err(FetchError::Wrong)?;
        let body = self.fetcher.get(&jwks).await?;
        KeySet::parse(&body).map_err(|error| FetchError::Wrong(format!("{jwks}: {error}")))
    }

    /// Where the document says the keys are, when it may say so (Discovery 1.0 section 4.3).
    fn jwks_uri(&self, document: &Document) -> Result<Uri, String> {
        if document.issuer != self.issuer {
            return Err(format!(
                "the discovery document is of issuer {:?}; the configured url is {:?} and both \
                 must be the same to the last byte",
                document.issuer, self.issuer
            ));
        }
        let uri = endpoint(&document.jwks_uri).map_err(|error| format!("jwks_uri {error}"))?;
        let host = uri.host().unwrap_or_default();
        let over_tls = uri.scheme_str() == Some("https");
        let own = host.eq_ignore_ascii_case(&self.host) && (over_tls || is_loopback(&self.host));
        let named = over_tls && self.jwks_hosts.iter().any(|name| host.eq_ignore_ascii_case(name));
        if own || named {
            Ok(uri)
        } else {
            Err(format!(
                "jwks_uri {:?} is on another host than the issuer; if that is right, add {host:?} \
                 to jwks_hosts",
                document.jwks_uri
            ))
        }
    }
}

impl KeySource for Discovery {
    fn fetch(&self) -> BoxFuture<'_, Result<KeySet, FetchError>> {
        self.keys().boxed()
    }
}
