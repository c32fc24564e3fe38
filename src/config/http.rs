//! `[http]`, and the keys of a target with `protocol = "http"`.

use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::model::{ContentTypes, EncodedSlash, Http, HttpCredential, HttpTarget};
use super::reader::{Field, Table, quoted};
use super::value;
use crate::decode::http::dialects;

const DEFAULT_IDLE: Duration = Duration::from_secs(5 * 60);
const DEFAULT_MAX_JSON: usize = 64 << 10;
/// Rules look at JSON that is held in memory while it is decided: no more than this a request.
const MOST_JSON: usize = 4 << 20;
/// A host name of DNS (RFC 1035 section 2.3.4).
const MAX_DOMAIN: usize = 253;

/// What no credential may stand in: they frame or route the request.
const NEVER: &[&str] = &["connection", "content-length", "host", "transfer-encoding", "upgrade"];

pub(super) fn http(top: &Table<'_>) -> Http {
    let mut http =
        Http { base_domain: None, session_idle: DEFAULT_IDLE, max_json: DEFAULT_MAX_JSON };
    let Some(table) = top.table("http") else { return http };
    http.base_domain = table.read("base_domain", domain);
    table.set(&mut http.session_idle, "session_idle", value::span);
    table.set(&mut http.max_json, "max_json", |field| {
        match value::size(field).map(usize::try_from)? {
            Ok(size) if size <= MOST_JSON => Some(size),
            _ => field.wrong("must be at most \"4 MiB\""),
        }
    });
    table.finish();
    http
}

/// A domain name in lower case, without dots at its ends.
fn domain(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    if text.len() <= MAX_DOMAIN && text.split('.').all(label) {
        Some(text.to_owned())
    } else {
        field.wrong_with(
            format!("{} is not a domain name in lower case", quoted(text)),
            "for example \"agents.example.com\": then orders.agents.example.com is the target orders",
        )
    }
}

pub(super) fn target(table: &Table<'_>) -> Option<HttpTarget> {
    let url = table.require("url", url);
    let kind =
        table.read("kind", |field| field.word(dialects::ALL)).unwrap_or_else(dialects::plain);
    let ca = table.read("ca", |field| {
        if url.as_ref().is_some_and(|(https, _)| !https) {
            field.warn("has no effect unless the url is https");
        }
        field.path()
    });
    let credential = table.read("credential", credential);
    // The target's cookies belong to whom it knows: the gateway's credential, or the caller.
    let cookies = table.read("cookies", Field::flag).unwrap_or(!table.has("credential"));
    let unmasked_types =
        table.read("unmasked_types", |f| f.list(content_types)).unwrap_or_default();
    let pass_headers = table.read("pass_headers", |f| f.list(pass_header)).unwrap_or_default();
    let slashes = [
        ("refuse", EncodedSlash::Refuse),
        ("data", EncodedSlash::Data),
        ("slash", EncodedSlash::Slash),
    ];
    let encoded_slash = table.read("encoded_slash", |f| f.word(&slashes)).unwrap_or_default();
    let (https, authority) = url?;
    if table.has("credential") && credential.is_none() {
        return None;
    }
    Some(HttpTarget {
        https,
        authority,
        ca,
        kind,
        credential,
        cookies,
        unmasked_types,
        pass_headers,
        encoded_slash,
    })
}

/// `application/pdf` or `image/*`, in lower case.
fn content_types(field: Field<'_>) -> Option<ContentTypes> {
    let text = field.text()?.to_ascii_lowercase();
    let is_name = |name: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b);
        !name.is_empty() && name.bytes().all(known)
    };
    match text.split_once('/') {
        Some((kind, "*")) if is_name(kind) => {
            Some(ContentTypes { kind: kind.to_owned(), form: None })
        }
        Some((kind, form)) if is_name(kind) && is_name(form) => {
            Some(ContentTypes { kind: kind.to_owned(), form: Some(form.to_owned()) })
        }
        _ => field.wrong_with(
            format!("{} is not a content type", quoted(&text)),
            "for example \"application/pdf\", or \"image/*\" for all pictures",
        ),
    }
}

/// A header that goes up although it names an identity or an address.
fn pass_header(field: Field<'_>) -> Option<String> {
    let name = field.text()?.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return field.wrong(format!("{} is not the name of a header", quoted(&name)));
    }
    if NEVER.contains(&name.as_str()) || name.starts_with("x-portcullis-") {
        return field.wrong(format!("{} never goes up as the client sends it", quoted(&name)));
    }
    Some(name)
}

/// Scheme and authority: `https`, and `api.example.com:8443` as `Host` takes it.
fn url(field: Field<'_>) -> Option<(bool, String)> {
    let text = field.text()?;
    let hint = "for example \"https://api.example.com\"; callers name the path";
    let Ok(uri) = text.parse::<Uri>() else {
        return field.wrong_with(format!("{} is not a URL", quoted(text)), hint);
    };
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return field.wrong_with("is neither http:// nor https://", hint),
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return field.wrong_with(
            "a credential is never written in the configuration",
            "leave it out of the URL, and give `credential`",
        );
    }
    let port =
        uri.authority().is_some_and(|a| a.as_str().ends_with(':') || a.port_u16() == Some(0));
    if authority.is_empty() || port || text.contains('#') {
        return field.wrong_with(format!("{} names no host and port", quoted(text)), hint);
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return field.wrong_with("has a path", hint);
    }
    Some((https, authority.to_owned()))
}

/// `{ header = "Authorization", value = { env = "CREW_TOKEN" }, prefix = "Bearer " }`
fn credential(field: Field<'_>) -> Option<HttpCredential> {
    let table = field.table()?;
    let header = table.require("header", |field| {
        let name = field.text()?.to_ascii_lowercase();
        let known = HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !known || NEVER.contains(&name.as_str()) || name.starts_with("x-portcullis-") {
            return field.wrong(format!("{} cannot carry a credential", quoted(&name)));
        }
        Some(name)
    });
    let value = table.require("value", value::secret);
    let prefix = table.read("prefix", |field| {
        let prefix = field.text()?;
        match HeaderValue::from_str(prefix) {
            Ok(_) => Some(prefix.to_owned()),
            Err(_) => field.wrong("has a character that no header takes"),
        }
    });
    table.finish();
    Some(HttpCredential { header: header?, value: value?, prefix: prefix.unwrap_or_default() })
}
