//! What a client asks for, and what of it goes up.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Uri, Version};

use super::approval_wait;
use super::literal::Literals;
use super::masking;
use crate::config::{self, HttpTarget};
use crate::decode::http::path::{EncodedSlash, Path, split_first};
use crate::decode::http::{Refused, action_of, fields, overrides, query};
use crate::secret::Secret;

/// Where a caller whose own `Authorization` is for the target puts its token.
const TOKEN: &str = "x-portcullis-token";
const WORKFLOW: &str = "x-portcullis-workflow";
const RUN: &str = "x-portcullis-run";
/// What the gateway takes for itself.
const OWN: &str = "x-portcullis-";

/// The longest workflow or run name, in bytes.
const MAX_NAME: usize = 200;

/// Fields that concern one connection alone (RFC 9110 section 7.6.1), and those that hyper makes.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Fields by which some servers take another path than the one that was decided.
const OTHER_PATH: &[&str] = &["x-original-url", "x-rewrite-url", "x-original-uri"];

/// Fields that ask for an answer in a coding or in parts, in which a credential would not be found.
const IN_PARTS: &[&str] = &["accept-encoding", "if-range", "range"];

/// How often escapes are undone in which the caller's token could stand.
const MOST_ROUNDS: usize = 3;

/// Fields that come once, because two readers would take two of them.
const ONCE: &[&str] = &[
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "destination",
    "expect",
    "host",
    "sec-websocket-key",
    TOKEN,
    WORKFLOW,
    RUN,
];

/// A request, as far as its head alone tells.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: String,
    /// The target as the client named it.
    pub(super) named: String,
    /// The path without the target's name, in its one spelling but for encoded slashes, until it is
    /// known what they mean to the target.
    path: String,
    query: Option<String>,
    /// What stands before the path because the path names the target: `/crew`.
    pub(super) prefix: Option<String>,
    /// Where the client believes to be.
    authority: String,
    pub(super) token: Option<Secret>,
    /// The token stood in `Authorization`.
    by_authorization: bool,
    pub(super) workflow: Option<String>,
    pub(super) run: Option<String>,
    /// It asks to go over to WebSocket.
    pub(super) websocket: bool,
}

impl Ask {
    /// Reads a head, or says why it is not taken.
    pub(super) fn read(parts: &Parts, base_domain: Option<&str>) -> Result<Self, Refused> {
        let method = parts.method.as_str();
        action_of(method)?;
        check_fields(&parts.headers)?;
        let authority = authority(parts)?;
        // The whole path is canonical, so what is left without its first segment is too.
        let path = Path::parse_with(parts.uri.path(), EncodedSlash::Data)?;
        let path = path.as_str();
        let query = parts.uri.query();
        query::parse(query.unwrap_or_default())?;
        let (named, path, prefix) = match under(&authority, base_domain) {
            Some(label) => (label.to_owned(), path, None),
            None => {
                let (first, rest) = split_first(path).unwrap_or_default();
                (first.to_owned(), rest, Some(format!("/{first}")))
            }
        };
        let (token, by_authorization) = token(&parts.headers)?;
        let ask = Self {
            method: method.to_owned(),
            named,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            prefix,
            authority,
            token,
            by_authorization,
            workflow: name(&parts.headers, WORKFLOW)?,
            run: run(&parts.headers)?,
            websocket: is_websocket(parts)?,
        };
        ask.check_token(parts)?;
        Ok(ask)
    }

    /// Settles what encoded slashes in the path mean, now that the target is known.
    pub(super) fn settle(&mut self, target: &HttpTarget) -> Result<(), Refused> {
        let path = Path::parse_with(&self.path, slash(target))?.as_str().to_owned();
        self.path = path;
        Ok(())
    }

    /// The path that goes up.
    pub(super) fn path(&self) -> Result<Path<'_>, Refused> {
        Path::parse_with(&self.path, EncodedSlash::Data)
    }

    /// The path behind the gateway's own, where this asks the gateway itself.
    pub(super) fn own_path(&self) -> Option<&str> {
        match &self.prefix {
            Some(prefix) => (prefix == approval_wait::OWN).then_some(&*self.path),
            None => self.path.strip_prefix(approval_wait::OWN).filter(|path| path.starts_with('/')),
        }
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Path and query that go up.
    pub(super) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// What the token is found by.
    pub(super) fn token_literal(&self) -> Literals {
        self.token.as_ref().map(|token| Literals::exact(token.expose())).unwrap_or_default()
    }

    /// Whether the token stands in the beginning of a body.
    pub(super) fn token_stands_in(&self, bytes: &[u8]) -> bool {
        let literal = self.token_literal();
        !literal.is_empty() && stands_in(&literal, bytes)
    }

    /// Refuses a token that stands where it would go up or be recorded.
    fn check_token(&self, parts: &Parts) -> Result<(), Refused> {
        let literal = self.token_literal();
        if literal.is_empty() {
            return Ok(());
        }
        let elsewhere = parts.headers.iter().any(|(name, value)| {
            let own =
                name.as_str() == TOKEN || (self.by_authorization && *name == header::AUTHORIZATION);
            !own && stands_in(&literal, value.as_bytes())
        });
        let target = parts.uri.path_and_query().map(PathAndQuery::as_str);
        if elsewhere || target.is_some_and(|target| stands_in(&literal, target.as_bytes())) {
            return Err(Refused::bad("the token stands where it does not belong"));
        }
        Ok(())
    }

    /// The fields that go up, in the order in which they came. Where answers are `masked`, nothing
    /// goes up that asks for one that could not be.
    pub(super) fn fields<'h>(
        &self,
        headers: &'h HeaderMap,
        target: &HttpTarget,
        masked: bool,
    ) -> Vec<(&'h str, Cow<'h, [u8]>)> {
        let listed: Vec<String> = listed(headers);
        let credential = target.credential.as_ref().map(|credential| credential.header.as_str());
        let imitated = credential.map(fields::canonical);
        let passes = |name: &str| {
            let canonical = fields::canonical(name);
            let passed = || target.pass_headers.iter().any(|passed| passed == name);
            !(HOP_BY_HOP.contains(&name)
                || (fields::is_claim(&canonical) && !passed())
                || name.starts_with(OWN)
                || listed.iter().any(|listed| listed == name)
                // In whatever spelling servers take for it.
                || imitated.as_ref() == Some(&canonical)
                || (name == "authorization" && self.by_authorization)
                || (name == "cookie" && !target.cookies)
                // What nobody agreed on nobody uses: messages stay readable.
                || name == "sec-websocket-extensions"
                || (masked && masking::stays(name))
                // An answer in which a credential could hide must be readable, and come as a whole.
                || (credential.is_some() && IN_PARTS.contains(&name)))
        };
        let mut fields: Vec<(&str, Cow<'_, [u8]>)> = Vec::with_capacity(headers.len() + 2);
        for (name, value) in headers.iter().filter(|(name, _)| passes(name.as_str())) {
            let value = Cow::Borrowed(value.as_bytes());
            // HTTP/2 may bring cookies one by one (RFC 9113 section 8.2.3).
            let cookies = (*name == header::COOKIE)
                .then(|| fields.iter_mut().find(|(name, _)| *name == "cookie"))
                .flatten();
            match cookies {
                Some((_, cookies)) => {
                    let cookies = cookies.to_mut();
                    cookies.extend_from_slice(b"; ");
                    cookies.extend_from_slice(&value);
                }
                None => fields.push((name.as_str(), value)),
            }
        }
        let mut add = |name, value: &'static [u8]| fields.push((name, Cow::Borrowed(value)));
        if credential.is_some() || masked {
            add("accept-encoding", b"identity");
        }
        if self.websocket {
            add("connection", b"Upgrade");
            add("upgrade", b"websocket");
        } else if trailers_are_welcome(headers) {
            add("te", b"trailers");
        }
        fields
    }

    /// Where a WebDAV request copies or moves to, as a path of the target. It must be at the same
    /// target.
    pub(super) fn destination(
        &self,
        headers: &HeaderMap,
        target: &HttpTarget,
    ) -> Result<Option<String>, Refused> {
        let bad = Refused::bad("Destination is not a place at the same target");
        let Some(value) = headers.get("destination") else { return Ok(None) };
        if !matches!(self.method.as_str(), "COPY" | "MOVE") {
            return Err(Refused::bad("Destination comes with COPY and MOVE alone"));
        }
        let uri: Uri = value.to_str().map_err(|_| bad)?.parse().map_err(|_| bad)?;
        if uri.authority().is_some_and(|a| !a.as_str().eq_ignore_ascii_case(&self.authority)) {
            return Err(bad);
        }
        let path = Path::parse_with(uri.path(), slash(target))?;
        let path = path.as_str();
        let path = match &self.prefix {
            None => path,
            Some(prefix) => match split_first(path) {
                Some((first, rest)) if prefix.strip_prefix('/') == Some(first) => rest,
                _ => return Err(bad),
            },
        };
        if uri.query().is_some() {
            return Err(bad);
        }
        Ok(Some(path.to_owned()))
    }
}

/// What encoded slashes mean to a target.
fn slash(target: &HttpTarget) -> EncodedSlash {
    match target.encoded_slash {
        config::EncodedSlash::Refuse => EncodedSlash::Refuse,
        config::EncodedSlash::Data => EncodedSlash::Data,
        config::EncodedSlash::Slash => EncodedSlash::Slash,
    }
}

/// Whether a token stands in a text, in escapes of URLs or in Basic authentication too.
fn stands_in(literal: &Literals, text: &[u8]) -> bool {
    if literal.stand_in(text) {
        return true;
    }
    let encoded = text.split(|byte| *byte == b' ').next_back().unwrap_or_default();
    let basic = text.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "));
    if basic && STANDARD.decode(encoded).is_ok_and(|pair| literal.stand_in(&pair)) {
        return true;
    }
    let mut plain = Cow::Borrowed(text);
    for _ in 0..MOST_ROUNDS {
        if !plain.contains(&b'%') {
            return false;
        }
        plain = Cow::Owned(query::percent_decoded(&plain));
        if literal.stand_in(&plain) {
            return true;
        }
    }
    false
}

/// The host that the client named, in lower case.
fn authority(parts: &Parts) -> Result<String, Refused> {
    let host = match parts.headers.get(header::HOST) {
        Some(host) => Some(host.to_str().map_err(|_| Refused::bad("Host is malformed"))?),
        None => None,
    };
    let authority = match (parts.version, parts.uri.authority(), host) {
        (Version::HTTP_2, Some(authority), host) => {
            if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_str())) {
                return Err(Refused::bad("Host and :authority differ"));
            }
            authority.as_str()
        }
        (Version::HTTP_2, None, _) => {
            return Err(Refused::bad("a request names its host in :authority"));
        }
        // The framing refused it before; this stands for itself.
        (_, Some(_), _) => return Err(Refused::bad("the request's target is not a path")),
        (Version::HTTP_10, None, None) => return Ok(String::new()),
        (_, None, Some(host)) => host,
        (_, None, None) => return Err(Refused::bad("a request has exactly one Host")),
    };
    match authority.parse::<Authority>() {
        Ok(_) if !authority.contains('@') => Ok(authority.to_ascii_lowercase()),
        _ => Err(Refused::bad("Host is malformed")),
    }
}

/// What stands before the base domain.
fn under<'a>(authority: &'a str, base_domain: Option<&str>) -> Option<&'a str> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix(base_domain?)?.strip_suffix('.')
}

/// Refuses fields that come twice, or that a server could take for others.
fn check_fields(headers: &HeaderMap) -> Result<(), Refused> {
    for name in headers.keys().map(HeaderName::as_str) {
        if ONCE.contains(&name) && headers.get_all(name).iter().nth(1).is_some() {
            return Err(Refused::bad("a header field that counts once is there twice"));
        }
        if OTHER_PATH.contains(&name) {
            return Err(Refused::bad("a header field names another path"));
        }
        // CGI and WSGI know no difference between - and _.
        let canonical = fields::canonical(name);
        if canonical != name {
            let taken = ONCE.contains(&&*canonical)
                || HOP_BY_HOP.contains(&&*canonical)
                || OTHER_PATH.contains(&&*canonical)
                || canonical.starts_with("x-forwarded-")
                || canonical.starts_with(OWN)
                || canonical == "cookie"
                || overrides::is_header(&canonical)
                || canonical.ends_with("-override");
            if taken {
                return Err(Refused::bad("a header field's name has another character for -"));
            }
        }
    }
    let expect = headers.get(header::EXPECT).map(HeaderValue::as_bytes);
    if expect.is_some_and(|expect| !expect.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refused { status: 417, what: "what is expected is not known" });
    }
    Ok(())
}

/// The token, and whether it stood in `Authorization`.
fn token(headers: &HeaderMap) -> Result<(Option<Secret>, bool), Refused> {
    let text = |value: &HeaderValue| {
        let text = value.to_str().map_err(|_| Refused::bad("the token is malformed"))?;
        Ok::<_, Refused>(text.trim().to_owned())
    };
    if let Some(value) = headers.get(TOKEN) {
        return Ok((Some(Secret::new(text(value)?)), false));
    }
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok((None, false)) };
    let value = zeroize::Zeroizing::new(text(value)?);
    Ok(match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            (Some(Secret::new(token.trim().to_owned())), true)
        }
        _ => (None, false),
    })
}

fn name(headers: &HeaderMap, field: &str) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(field) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("") => Ok(None),
        Ok(name) if name.len() <= MAX_NAME => Ok(Some(name.to_owned())),
        _ => Err(Refused::bad("a workflow or run name is at most 200 characters of ASCII")),
    }
}

/// The run: as told, else the trace that the request belongs to (W3C Trace Context, section 3.2).
fn run(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    if let Some(run) = name(headers, RUN)? {
        return Ok(Some(run));
    }
    let trace = headers.get("traceparent").and_then(|value| {
        let (version, rest) = value.to_str().ok()?.split_once('-')?;
        let (trace, _) = rest.split_once('-')?;
        let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let known = version.len() == 2 && hexadecimal(version) && version != "ff";
        let trace = (trace.len() == 32 && hexadecimal(trace)).then_some(trace)?;
        (known && trace.bytes().any(|byte| byte != b'0')).then(|| trace.to_owned())
    });
    Ok(trace)
}

/// Whether this is the opening handshake of a WebSocket (RFC 6455 section 4.2.1).
fn is_websocket(parts: &Parts) -> Result<bool, Refused> {
    let wants = |name: HeaderName, word: &str| {
        parts
            .headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    if parts.version != Version::HTTP_11 || !wants(header::UPGRADE, "websocket") {
        return Ok(false);
    }
    let version = parts.headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let fine = parts.method == "GET"
        && wants(header::CONNECTION, "upgrade")
        && version == Some(b"13")
        && parts.headers.contains_key(header::SEC_WEBSOCKET_KEY);
    if fine { Ok(true) } else { Err(Refused::bad("the opening of a WebSocket is malformed")) }
}

/// The fields that `Connection` lists: they concern this connection alone.
pub(super) fn listed(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        // These frame the body; nobody can take them away.
        .filter(|name| name != "content-length" && name != "content-type")
        .collect()
}

/// Whether a field concerns one connection alone.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

fn trailers_are_welcome(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
}
