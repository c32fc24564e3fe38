//! What the development issuer knows: its clients and users, from TOML.

use std::collections::BTreeSet;
use std::path::PathBuf;

use hyper::Uri;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The settings that serve when no file is given.
pub const BUILT_IN: &str = include_str!("../../../config/issuer.toml");

/// The longest that a token may live: the quickstart's last a day.
const MAX_TOKEN_SECONDS: u64 = 7 * 24 * 60 * 60;

/// Claims that the issuer states itself.
const OWN_CLAIMS: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "azp",
    "client_id",
    "scope",
    "nonce",
    "at_hash",
    "auth_time",
    "cnf",
    "events",
    "groups",
    "email",
    "email_verified",
    "preferred_username",
    "typ",
];

/// The development issuer's settings, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The issuer identifier: scheme, host and port. `None`: `http://` and the listener's address.
    pub url: Option<String>,
    /// What tokens may be for; the first is the default.
    pub audiences: Vec<String>,
    /// How long a token lives, in seconds.
    #[serde(default = "an_hour")]
    pub token_seconds: u64,
    /// How long a device waits between polls, in seconds (RFC 8628 section 3.5).
    #[serde(default = "five_seconds")]
    pub device_interval_seconds: u64,
    /// Where the signing key is kept (PKCS #8, DER; made with mode 0600 when missing). `None`:
    /// every start has a new one.
    pub key_file: Option<PathBuf>,
    /// The clients.
    #[serde(default, rename = "client")]
    pub(super) clients: Vec<Client>,
    /// The users.
    #[serde(default, rename = "user")]
    pub(super) users: Vec<User>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) grants: Vec<Grant>,
    #[serde(default)]
    pub(super) redirect_uris: Vec<String>,
    #[serde(default)]
    pub(super) post_logout_redirect_uris: Vec<String>,
    #[serde(default)]
    pub(super) groups: Vec<String>,
    #[serde(default)]
    pub(super) claims: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Grant {
    ClientCredentials,
    AuthorizationCode,
    DeviceCode,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: Option<String>,
    pub(super) email: Option<String>,
    #[serde(default)]
    pub(super) groups: Vec<String>,
    #[serde(default)]
    pub(super) claims: Map<String, Value>,
}

/// The settings cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(String);

impl Settings {
    /// Reads and checks settings from TOML.
    pub fn parse(text: &str) -> Result<Self, BadSettings> {
        let settings: Self =
            toml::from_str(text).map_err(|error| BadSettings(error.to_string()))?;
        settings.checked()
    }

    /// Checks settings that were changed after they were parsed.
    pub fn checked(self) -> Result<Self, BadSettings> {
        self.check().map_err(BadSettings)?;
        Ok(self)
    }

    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(url) = &self.url {
            check_origin(url)?;
        }
        if self.audiences.is_empty() {
            return Err("audiences is empty; name at least one".to_owned());
        }
        if !(1..=MAX_TOKEN_SECONDS).contains(&self.token_seconds) {
            return Err(format!("token_seconds must be between 1 and {MAX_TOKEN_SECONDS}"));
        }
        // One namespace: a client's subject is its id, and must not be a user's (RFC 9068, 5).
        let names = self.clients.iter().map(|client| &client.id);
        let mut seen = BTreeSet::new();
        for name in names.chain(self.users.iter().map(|user| &user.name)) {
            if name.is_empty() || !seen.insert(name) {
                return Err(format!("two clients or users are called {name:?}, or it is empty"));
            }
        }
        self.clients.iter().try_for_each(Client::check)?;
        self.users.iter().try_for_each(|user| check_claims(&user.name, &user.claims))
    }
}

impl Client {
    pub(super) fn may(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }

    fn check(&self) -> Result<(), String> {
        let id = &self.id;
        if self.may(Grant::ClientCredentials) && self.secret.is_none() {
            return Err(format!("client {id:?} has the grant client_credentials but no secret"));
        }
        if self.may(Grant::AuthorizationCode) && self.redirect_uris.is_empty() {
            return Err(format!(
                "client {id:?} has the grant authorization_code but no redirect_uris"
            ));
        }
        for uri in self.redirect_uris.iter().chain(&self.post_logout_redirect_uris) {
            if origin(uri).is_none() || uri.contains('#') {
                return Err(format!("client {id:?}: {uri:?} is not an http or https URL"));
            }
        }
        check_claims(id, &self.claims)
    }
}

/// Scheme, host and port of an http or https URL.
pub(super) fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some(format!("{scheme}://{authority}"))
}

fn check_origin(url: &str) -> Result<(), String> {
    if origin(url).as_deref() == Some(url) {
        Ok(())
    } else {
        Err(format!("url {url:?} must be http:// or https://, a host and a port, and no more"))
    }
}

fn check_claims(of: &str, claims: &Map<String, Value>) -> Result<(), String> {
    match claims.keys().find(|name| OWN_CLAIMS.contains(&name.as_str())) {
        Some(name) => Err(format!("{of:?}: the issuer states {name:?} itself")),
        None => Ok(()),
    }
}

fn an_hour() -> u64 {
    3600
}

fn five_seconds() -> u64 {
    5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_settings_are_good() {
        let settings = Settings::parse(BUILT_IN).unwrap();
        assert_eq!(settings.client("agent").unwrap().groups, ["support-agents"]);
        assert_eq!(settings.client("agent").unwrap().claims["tenant"], "acme");
        assert_eq!(settings.user("alice").unwrap().groups, ["dba"]);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let base = "audiences = ['portcullis']\n";
        for bad in [
            "surprise = 1",
            "url = 'http://127.0.0.1:9100/'",
            "url = 'ftp://localhost'",
            "token_seconds = 0",
            "token_seconds = 99999999",
            "[[client]]\nid = 'a'\ngrants = ['client_credentials']",
            "[[client]]\nid = 'a'\ngrants = ['authorization_code']",
            "[[client]]\nid = 'a'\ngrants = ['password']",
            "[[client]]\nid = 'a'\ngrants = ['authorization_code']\nredirect_uris = ['javascript:x']",
            "[[client]]\nid = 'a'\ngrants = []\nclaims = { iss = 'x' }",
            "[[user]]\nname = 'a'\n[[user]]\nname = 'a'",
            "[[user]]\nname = 'a'\n[[client]]\nid = 'a'\ngrants = []",
            "[[user]]\nname = ''",
        ] {
            assert!(Settings::parse(&format!("{base}{bad}")).is_err(), "{bad}");
        }
        assert!(Settings::parse("audiences = []").is_err());
    }
}
