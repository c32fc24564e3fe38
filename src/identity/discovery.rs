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
            let document = Document { issuer: issuer.to_owned(), jwks_uri: jwks_uri.to_owned() };
            discovery(issuer, named).unwrap().jwks_uri(&document).is_ok()
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
            assert_eq!(discovery(url, &[]).unwrap().document, document);
        }
        assert!(discovery("https://x.example/?a=b", &[]).is_err());
        assert!(discovery("https://x.example/#a", &[]).is_err());
    }
}
