//! `[[issuer]]`: who may vouch for callers.

use std::time::Duration;

use hyper::Uri;

use super::mistake::Place;
use super::model::{ClaimPath, Issuer, TokenKind};
use super::reader::{Field, Table, quoted};
use super::value;

/// Agents' tokens live minutes to a day; a longer-lived one is a password.
const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Long enough for any name that a person would write.
const MAX_NAME: usize = 63;

/// The issuers, and the names of all that were written, right or not: a reference to an issuer
/// with a mistake is not a mistake of its own.
pub(super) struct Issuers {
    pub(super) known: Vec<Issuer>,
    pub(super) names: Vec<String>,
}

/// What a provider puts where.
#[derive(Clone, Copy)]
struct Preset {
    accept: TokenKind,
    username: &'static str,
    groups: Option<&'static str>,
    jwks_hosts: &'static [&'static str],
}

/// Without a preset, only what every token has.
const PLAIN: Preset =
    Preset { accept: TokenKind::Access, username: "sub", groups: Some("groups"), jwks_hosts: &[] };

const PRESETS: &[(&str, Preset)] = &[
    // An Okta access token's `sub` is the login; `groups` is a claim to be added to the server.
    ("okta", Preset { username: "sub", ..PLAIN }),
    // Version 2.0 tokens; `groups` holds object ids.
    ("entra", Preset { username: "preferred_username", ..PLAIN }),
    // Google's access tokens are opaque, and its ID tokens name no groups.
    (
        "google",
        Preset {
            accept: TokenKind::Id,
            username: "email",
            groups: None,
            jwks_hosts: &["www.googleapis.com"],
        },
    ),
    (
        "keycloak",
        Preset { username: "preferred_username", groups: Some("/realm_access/roles"), ..PLAIN },
    ),
];

pub(super) fn issuers(top: &Table<'_>) -> Issuers {
    let mut issuers = Issuers { known: Vec::new(), names: Vec::new() };
    let mut urls: Vec<(String, Place)> = Vec::new();
    let tables = top.tables("issuer");
    if tables.is_empty() && !top.has("issuer") {
        top.wrong(
            "there is no [[issuer]]: nobody could prove who they are",
            Some("give one with name, url and audiences"),
        );
    }
    for table in tables {
        let name = table.require("name", |field| {
            let name = name(field)?;
            if issuers.names.iter().any(|other| other == name) {
                return field.wrong(format!("{} is given twice", quoted(name)));
            }
            Some(name.to_owned())
        });
        issuers.names.extend(name.clone());
        let url = table.require("url", |field| {
            let url = url(field)?;
            if let Some((_, place)) = urls.iter().find(|(other, _)| other == url) {
                let first = table.findings().named(*place);
                return field.wrong(format!("is the issuer at {first} already"));
            }
            urls.push((url.to_owned(), field.place()));
            Some(url.to_owned())
        });
        issuers.known.extend(issuer(table, name, url));
    }
    issuers
}

fn issuer(table: Table<'_>, name: Option<String>, url: Option<String>) -> Option<Issuer> {
    let preset = table.read("preset", |f| f.word(PRESETS)).unwrap_or(PLAIN);
    let kinds = |field: Field<'_>| {
        field.some(|f| f.word(&[("access", TokenKind::Access), ("id", TokenKind::Id)]))
    };
    let claim = |key, default: Option<&str>| {
        table.read(key, value::claim).or_else(|| default.map(claim_path))
    };
    let audiences = table.require("audiences", Field::texts);
    let mut issuer = Issuer {
        name: String::new(),
        url: String::new(),
        audiences: Vec::new(),
        accept: table.read("accept", kinds).unwrap_or_else(|| vec![preset.accept]),
        client_id: table.read("client_id", |f| f.text().map(str::to_owned)),
        client_secret: table.read("client_secret", value::secret),
        authorized_parties: table.read("authorized_parties", Field::texts).unwrap_or_default(),
        jwks_hosts: table
            .read("jwks_hosts", Field::texts)
            .unwrap_or_else(|| preset.jwks_hosts.iter().copied().map(str::to_owned).collect()),
        username_claim: table
            .read("username_claim", value::claim)
            .unwrap_or_else(|| claim_path(preset.username)),
        groups_claim: claim("groups_claim", preset.groups),
        workflow_claim: claim("workflow_claim", None),
        run_claim: claim("run_claim", None),
        max_lifetime: table.read("max_lifetime", value::span).unwrap_or(DEFAULT_MAX_LIFETIME),
        ca: table.read("ca", Field::path),
    };
    if table.has("client_secret") && !table.has("client_id") {
        table.wrong("client_secret without client_id in [[issuer]]", None);
    }
    table.finish();
    (issuer.name, issuer.url, issuer.audiences) = (name?, url?, audiences?);
    Some(issuer)
}

fn name(field: Field<'_>) -> Option<&str> {
    let text = field.text()?;
    let of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= MAX_NAME && text.chars().all(of_names) {
        Some(text)
    } else {
        field.wrong(format!("a name is 1 to {MAX_NAME} letters, digits, -, _ and ."))
    }
}

/// An issuer identifier: https without query and fragment (OpenID Connect Core, section 2), or
/// http on this very machine, for development.
fn url(field: Field<'_>) -> Option<&str> {
    let text = field.text()?;
    let uri = text.parse::<Uri>().ok();
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
    let Some((scheme, authority)) = parts else {
        return field.wrong_with(
            format!("{} is not a URL", quoted(text)),
            "for example \"https://login.example.com/realms/agents\"",
        );
    };
    if text.contains(['?', '#']) || authority.as_str().contains('@') {
        return field.wrong("an issuer's URL has no user, query or fragment");
    }
    match scheme {
        "https" => Some(text),
        "http" if is_loopback(authority.host()) => Some(text),
        _ => field.wrong_with(
            "keys must not come over an open line",
            "write https://; http:// is for an issuer on 127.0.0.1, [::1] or localhost",
        ),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn claim_path(text: &str) -> ClaimPath {
    match text.starts_with('/') {
        true => ClaimPath::Pointer(text.to_owned()),
        false => ClaimPath::Name(text.to_owned()),
    }
}
