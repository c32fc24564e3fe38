//! OpenID Connect discovery: from an issuer's URL to its metadata, and to its keys.
//!
//! For keys the document is fetched anew with every refresh, so a wrong one is never used for long.
//! Keys are taken from the issuer's own host, or from one that the configuration names.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Uri;
use serde::Deserialize;

use super::fetch::{FetchError, Fetcher, endpoint, is_loopback};
use super::key_cache::KeySource;
use super::keys::KeySet;
use crate::config;

/// What an issuer says of itself (Discovery 1.0 section 3), as far as anything here asks for it. Of
/// issuers that only sign, or only give tokens to machines, parts are missing.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    jwks_uri: Option<String>,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) device_authorization_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    /// Whether its authorization responses carry `iss` (RFC 9207 section 3).
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Fetches what the issuer of this URL says, and only this one (Discovery 1.0 section 4.3).
    pub(super) async fn of(issuer: &str, fetcher: &Fetcher) -> Result<Self, FetchError> {
        let place = document_of(issuer).map_err(FetchError::Wrong)?;
        let body = fetcher.get(&place).await?;
        let said: Self = serde_json::from_slice(&body).map_err(|error| {
            FetchError::Wrong(format!("{place} is not a discovery document: {error}"))
        })?;
        if said.issuer == issuer {
            Ok(said)
        } else {
            Err(FetchError::Wrong(format!(
                "the discovery document is of issuer {:?}; the configured url is {issuer:?} and \
                 both must be the same to the last byte",
                said.issuer
            )))
        }
    }
}

/// Where an issuer's metadata are.
fn document_of(issuer: &str) -> Result<Uri, String> {
    if endpoint(issuer)?.query().is_some() || issuer.contains('#') {
        return Err(format!("{issuer:?} has a query or a fragment; an issuer has none"));
    }
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    endpoint(&format!("{base}/.well-known/openid-configuration"))
}

/// An issuer that publishes its keys as OpenID Connect Discovery 1.0 says.
#[derive(Debug)]
pub(super) struct Discovery {
    issuer: String,
    host: String,
    jwks_hosts: Vec<String>,
    fetcher: Fetcher,
}

impl Discovery {
    /// Checks the issuer's URL and reads its CA file.
    pub(super) fn new(issuer: &config::Issuer) -> Result<Self, String> {
        Ok(Self {
            issuer: issuer.url.clone(),
            host: document_of(&issuer.url)?.host().unwrap_or_default().to_owned(),
            jwks_hosts: issuer.jwks_hosts.clone(),
            fetcher: Fetcher::new(issuer.ca.as_deref())?,
        })
    }

    async fn keys(&self) -> Result<KeySet, FetchError> {
        let said = Metadata::of(&self.issuer, &self.fetcher).await?;
        let jwks =
            said.jwks_uri.ok_or_else(|| "the discovery document names no jwks_uri".to_owned());
        let jwks = jwks.and_then(|uri| self.jwks_uri(&uri)).map_err(FetchError::Wrong)?;
        let body = self.fetcher.get(&jwks).await?;
        KeySet::parse(&body).map_err(|error| FetchError::Wrong(format!("{jwks}: {error}")))
    }

    /// Where the keys are, when they may be there.
    fn jwks_uri(&self, said: &str) -> Result<Uri, String> {
        let uri = endpoint(said).map_err(|error| format!("jwks_uri {error}"))?;
        let host = uri.host().unwrap_or_default();
        let over_tls = uri.scheme_str() == Some("https");
        let own = host.eq_ignore_ascii_case(&self.host) && (over_tls || is_loopback(&self.host));
        let named = over_tls && self.jwks_hosts.iter().any(|name| host.eq_ignore_ascii_case(name));
        if own || named {
            Ok(uri)
        } else {
            Err(format!(
                "jwks_uri {said:?} is on another host than the issuer; if that is right, add \
                 {host:?} to jwks_hosts"
            ))
        }
    }
}

impl KeySource for Discovery {
    fn fetch(&self) -> BoxFuture<'_, Result<KeySet, FetchError>> {
        self.keys().boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::ClaimPath;

    fn discovery(url: &str, jwks_hosts: &[&str]) -> Result<Discovery, String> {
        Discovery::new(&config::Issuer {
            name: "corp".to_owned(),
            url: url.to_owned(),
            audiences: Vec::new(),
            accept: Vec::new(),
            client_id: None,
            client_secret: None,
            authorized_parties: Vec::new(),
            jwks_hosts: jwks_hosts.iter().map(|&host| host.to_owned()).collect(),
            username_claim: ClaimPath::Name("sub".to_owned()),
            groups_claim: None,
            workflow_claim: None,
            run_claim: None,
            max_lifetime: Duration::from_secs(3600),
            ca: None,
        })
    }

    #[test]
    fn keys_come_from_the_issuers_host_or_one_that_is_named() {
        let accepts = |issuer: &str, named: &[&str], jwks_uri: &str| {
            discovery(issuer, named).unwrap().jwks_uri(jwks_uri).is_ok()
        };
        let google = "https://accounts.google.com";
        assert!(accepts(google, &[], "https://accounts.google.com/keys"));
        assert!(accepts(google, &[], "https://ACCOUNTS.google.com:8443/keys"));
        assert!(accepts(google, &["www.googleapis.com"], "https://www.googleapis.com/certs"));
        assert!(!accepts(google, &[], "https://www.googleapis.com/certs"));
        assert!(!accepts(google, &[], "http://accounts.google.com/keys"));
        assert!(!accepts(google, &[], "http://127.0.0.1/keys"));
        assert!(!accepts(google, &["127.0.0.1"], "http://127.0.0.1/keys"));
        assert!(accepts("http://127.0.0.1:9100", &[], "http://127.0.0.1:9101/keys"));
        assert!(!accepts("http://127.0.0.1:9100", &[], "http://localhost:9100/keys"));
    }

    #[test]
    fn the_document_is_looked_for_below_the_issuers_path() {
        for (url, document) in [
            ("https://x.example", "https://x.example/.well-known/openid-configuration"),
            ("https://x.example/", "https://x.example/.well-known/openid-configuration"),
            ("https://x.example/a/b", "https://x.example/a/b/.well-known/openid-configuration"),
        ] {
            assert_eq!(document_of(url).unwrap(), document);
        }
        assert!(document_of("https://x.example/?a=b").is_err());
        assert!(document_of("https://x.example/#a").is_err());
    }
}
