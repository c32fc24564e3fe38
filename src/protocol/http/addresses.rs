//! Addresses of the target in what it answers: a client that followed one would go around the gateway,
//! with its token. They become paths behind the target's name; a header field that names the target
//! in another form is dropped.
//!
//! Honest limits: addresses in bodies are left as they are, but for the endpoint that an MCP server
//! names in its event stream; so are percent-encoded ones in the query of another address.

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::config::HttpTarget;

/// Schemes that lead to the target.
const SCHEMES: &[&str] = &["http", "https", "ws", "wss"];
/// Ports that one host serves the same service on, as a rule.
const USUAL_PORTS: &[&str] = &["80", "443"];
/// The longest event that may name an endpoint, in bytes; larger ones pass as they are.
const MAX_EVENT: usize = 4 << 10;

/// Fields whose whole value is an address.
const PLACES: &[HeaderName] = &[header::LOCATION, header::CONTENT_LOCATION];
/// Fields in which an address is a permission for browsers, and no path could stand for it.
const ORIGINS: &[HeaderName] = &[
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_SECURITY_POLICY_REPORT_ONLY,
];

/// Where a target is, and where clients reach it.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    /// What stands before the target's paths at the gateway: `/crew`, or nothing.
    prefix: String,
    host: String,
    port: String,
}

impl Addresses {
    pub(super) fn new(prefix: Option<&str>, target: &HttpTarget) -> Self {
        let (host, port) = split(&target.authority);
        let port = port.unwrap_or(if target.https { "443" } else { "80" });
        Self {
            prefix: prefix.unwrap_or_default().to_owned(),
            host: host.to_ascii_lowercase(),
            port: port.to_owned(),
        }
    }

    /// A header field as the client may see it; `None` where it is dropped.
    pub(super) fn field(&self, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        if *name == header::ALT_SVC {
            return None;
        }
        // What is no text names nobody.
        let Ok(text) = value.to_str() else { return Some(value.clone()) };
        if ORIGINS.contains(name) && self.within(text).is_some() {
            return None;
        }
        let mut text = text.to_owned();
        if PLACES.contains(name) {
            text = self.place(&text).unwrap_or(text);
        } else if *name == header::REFRESH {
            text = self.refresh(&text).unwrap_or(text);
        } else if *name == header::SET_COOKIE {
            text = self.cookie(&text);
        }
        text = self.within(&text).unwrap_or(text);
        let opaque = *name == header::LOCATION || *name == header::SET_COOKIE;
        if !opaque && self.is_named_in(&text) {
            return None;
        }
        Some(if text.as_bytes() == value.as_bytes() {
            value.clone()
        } else {
            HeaderValue::try_from(text).ok()?
        })
    }

    /// The fields behind a body as the client may see them.
    pub(super) fn trailers(&self, trailers: &HeaderMap) -> HeaderMap {
        let seen = |(name, value)| Some((HeaderName::clone(name), self.field(name, value)?));
        trailers.iter().filter_map(seen).collect()
    }

    /// A reference to a place, as the client reaches it; `None` where it stays as it is.
    pub(super) fn place(&self, text: &str) -> Option<String> {
        let text = text.trim();
        match text.strip_prefix('/') {
            Some(rest) if !rest.starts_with(['/', '\\']) => Some(format!("{}{text}", self.prefix)),
            _ => None,
        }
    }

    /// A text in which every address of the target is a path; `None` where there is none.
    fn within(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, scheme, authority, behind)) = next_address(rest) {
            let known =
                scheme.is_empty() || SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme));
            if known && self.is_at(authority) {
                out.push_str(before);
                out.push_str(&self.prefix);
                if !behind.starts_with('/') {
                    out.push('/');
                }
            } else {
                out.push_str(rest.get(..rest.len() - behind.len()).unwrap_or_default());
            }
            rest = behind;
        }
        out.push_str(rest);
        (out != text).then_some(out)
    }

    /// Whether an authority is the target's.
    fn is_at(&self, authority: &str) -> bool {
        let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let (host, port) = split(authority);
        let usual = |port: &str| USUAL_PORTS.contains(&port);
        host.trim_end_matches('.').eq_ignore_ascii_case(self.host.trim_end_matches('.'))
            && port.is_none_or(|port| port == self.port || (usual(port) && usual(&self.port)))
            && (port.is_some() || usual(&self.port))
    }

    /// Whether the target is named in a text by its host name or address. A name of one word, without a
    /// port, is a word like others.
    fn is_named_in(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let with_port = format!("{}:{}", self.host, self.port);
        let names =
            [Some(with_port.as_str()), self.host.contains(['.', ':']).then_some(&*self.host)];
        names.into_iter().flatten().any(|name| {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            text.match_indices(name).any(|(at, _)| {
                let before = text.get(..at).and_then(|before| before.chars().next_back());
                let behind = text.get(at + name.len()..).and_then(|behind| behind.chars().next());
                !before.is_some_and(is_part) && !behind.is_some_and(|c| is_part(c) && c != '.')
            })
        })
    }

    /// `5; url=/next`.
    fn refresh(&self, text: &str) -> Option<String> {
        let at = text.to_ascii_lowercase().find("url=")? + "url=".len();
        let (before, place) = text.split_at_checked(at)?;
        let place = place.trim().trim_matches(['"', '\'']);
        Some(format!("{before}{}", self.place(place)?))
    }

    /// A cookie of the target is for its paths at the gateway alone, and for no other host.
    fn cookie(&self, text: &str) -> String {
        let mut parts = text.split(';');
        let mut cookie = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = name.trim();
            if name.eq_ignore_ascii_case("domain") {
                continue;
            }
            if name.eq_ignore_ascii_case("path") && value.trim().starts_with('/') {
                cookie.push_str(&format!("; Path={}{}", self.prefix, value.trim()));
            } else {
                cookie.push(';');
                cookie.push_str(part);
            }
        }
        cookie
    }
}

/// Host and port of an authority.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

/// The next authority in a text: what stands before it and its scheme, the scheme, the authority, and
/// what stands behind.
fn next_address(text: &str) -> Option<(&str, &str, &str, &str)> {
    let at = text.find("//")?;
    let (before, rest) = text.split_at_checked(at)?;
    let rest = rest.trim_start_matches('/');
    let is_end = |c: char| c.is_ascii_whitespace() || "/?#\"'<>;,)\\".contains(c);
    let end = rest.find(is_end).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at_checked(end)?;
    let Some(named) = before.strip_suffix(':') else {
        return Some((before, "", authority, behind));
    };
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let scheme = named.rsplit(|c: char| !is_scheme(c)).next().unwrap_or_default();
    let before = named.get(..named.len() - scheme.len()).unwrap_or_default();
    Some((before, scheme, authority, behind))
}

/// Rewrites the place that an MCP server names for messages (Model Context Protocol 2024-11-05,
/// "HTTP with SSE"): the data of the event `endpoint`.
#[derive(Debug)]
pub(super) struct Endpoints {
    addresses: Addresses,
    /// An event that has not ended.
    held: BytesMut,
    /// The event in front is too large to name a place: the rest of it passes.
    passing: bool,
}

impl Endpoints {
    pub(super) fn new(addresses: Addresses) -> Self {
        Self { addresses, held: BytesMut::new(), passing: false }
    }

    /// Takes the next chunk, and gives the events that are whole.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Bytes {
        self.held.extend_from_slice(chunk);
        let mut out = BytesMut::new();
        while let Some(end) = end_of_event(&self.held) {
            let event = self.held.split_to(end);
            let passing = std::mem::replace(&mut self.passing, false);
            out.extend_from_slice(&if passing { event.to_vec() } else { self.rewritten(&event) });
        }
        if self.passing || self.held.len() > MAX_EVENT {
            self.passing = true;
            // An empty line may have begun.
            let settled = self.held.len().saturating_sub(3);
            out.unsplit(self.held.split_to(settled));
        }
        out.freeze()
    }

    /// Gives what is left.
    pub(super) fn finish(&mut self) -> Bytes {
        let rest = std::mem::take(&mut self.held);
        Bytes::from(if self.passing { rest.to_vec() } else { self.rewritten(&rest) })
    }

    fn rewritten(&self, event: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(event) else { return event.to_vec() };
        let lines = || text.split_inclusive(['\n', '\r']);
        let value = |line: &str, name: &str| {
            let line = line.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
        };
        if !lines().any(|line| value(line, "event").as_deref() == Some("endpoint")) {
            return event.to_vec();
        }
        let place = |line: &str| {
            let place = value(line, "data")?;
            let there = self.addresses.place(&place).or_else(|| self.addresses.within(&place))?;
            let end = line.get(line.trim_end_matches(['\n', '\r']).len()..)?;
            Some(format!("data: {there}{end}"))
        };
        let lines = lines().map(|line| place(line).unwrap_or_else(|| line.to_owned()));
        lines.collect::<String>().into_bytes()
    }
}

/// Where the event in front ends, behind its empty line. A carriage return at the end may belong to a
/// line feed that comes.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut line) = (0, 0);
    while let Some(found) = memchr::memchr2(b'\n', b'\r', bytes.get(at..)?) {
        let end = at + found;
        at = match (bytes.get(end), bytes.get(end + 1)) {
            (Some(b'\r'), Some(b'\n')) => end + 2,
            (Some(b'\r'), None) => return None,
            _ => end + 1,
        };
        if end == line {
            return Some(at);
        }
        line = at;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(authority: &str) -> Addresses {
        let (host, port) = split(authority);
        let (host, port) = (host.to_owned(), port.unwrap_or("443").to_owned());
        Addresses { prefix: "/crew".to_owned(), host, port }
    }

    fn shown(authority: &str, name: &'static str, value: &str) -> Option<String> {
        let value = HeaderValue::try_from(value).unwrap();
        let shown = addresses(authority).field(&HeaderName::from_static(name), &value);
        shown.map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_address_of_the_target_is_a_path_at_the_gateway_in_every_field() {
        for (name, value, seen) in [
            ("location", "/x?y#z", "/crew/x?y#z"),
            ("location", "https://api.example.com/x", "/crew/x"),
            ("location", "https://API.example.com:443", "/crew/"),
            ("location", "http://api.example.com/x", "/crew/x"),
            ("location", "//api.example.com/x", "/crew/x"),
            ("location", "///api.example.com/x", "/crew/x"),
            ("location", "https://u:p@api.example.com?a", "/crew/?a"),
            ("location", "https://other.example.com/x", "https://other.example.com/x"),
            (
                "location",
                "https://o.example.com/?n=https://api.example.com/x",
                "https://o.example.com/?n=/crew/x",
            ),
            ("location", "x/y", "x/y"),
            ("content-location", "//api.example.com", "/crew/"),
            (
                "link",
                "<https://api.example.com/2>; rel=next, <//x.cc/3>",
                "</crew/2>; rel=next, <//x.cc/3>",
            ),
            ("refresh", "5; url=https://api.example.com/x", "5; url=/crew/x"),
            ("refresh", "5; URL=/x", "5; URL=/crew/x"),
            (
                "www-authenticate",
                "Bearer resource_metadata=\"https://api.example.com/.well-known/x\"",
                "Bearer resource_metadata=\"/crew/.well-known/x\"",
            ),
            (
                "set-cookie",
                "a=b; Domain=api.example.com; Path=/x; Secure",
                "a=b; Path=/crew/x; Secure",
            ),
            ("x-any", "wss://api.example.com/x and more", "/crew/x and more"),
            (
                "x-any",
                "api.example.community, api.example.com-x",
                "api.example.community, api.example.com-x",
            ),
        ] {
            assert_eq!(
                shown("api.example.com", name, value).as_deref(),
                Some(seen),
                "{name} {value}"
            );
        }
        for (name, value) in [
            ("alt-svc", "h3=\":443\""),
            ("access-control-allow-origin", "https://api.example.com"),
            ("content-security-policy", "default-src 'self' https://api.example.com"),
            ("x-served-by", "api.example.com"),
            ("x-served-by", "cache/API.example.com."),
        ] {
            assert_eq!(shown("api.example.com", name, value), None, "{name} {value}");
        }
        assert_eq!(shown("10.0.3.11:8000", "x-backend", "10.0.3.11"), None);
        assert_eq!(shown("crew:8000", "x-backend", "crew"), Some("crew".to_owned()));
        assert_eq!(shown("crew:8000", "x-backend", "crew:8000"), None);
        assert_eq!(shown("crew:8000", "location", "http://crew/x").unwrap(), "http://crew/x");
    }

    fn passed(text: &str, size: usize) -> String {
        let mut endpoints = Endpoints::new(addresses("10.0.3.11:8000"));
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            out.extend_from_slice(&endpoints.push(piece));
        }
        out.extend_from_slice(&endpoints.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_endpoint_of_an_event_stream_leads_through_the_gateway() {
        for (events, seen) in [
            ("event: endpoint\ndata: /m/?s=1\n\n", "event: endpoint\ndata: /crew/m/?s=1\n\n"),
            ("data:/m\r\nevent:endpoint\r\n\r\n", "data: /crew/m\r\nevent:endpoint\r\n\r\n"),
            (
                "event: endpoint\ndata: http://10.0.3.11:8000/m\n\n",
                "event: endpoint\ndata: /crew/m\n\n",
            ),
            ("event: message\ndata: /m\n\n: x\n\n", "event: message\ndata: /m\n\n: x\n\n"),
            ("event: endpoint\ndata: /m", "event: endpoint\ndata: /crew/m"),
        ] {
            for size in [1, 2, 5, 100] {
                assert_eq!(passed(events, size), seen);
            }
        }
        let long = format!("data: {}\n\nevent: endpoint\ndata: /m\n\n", "x".repeat(9_000));
        for size in [1, 100, 10_000] {
            assert_eq!(passed(&long, size), long.replace("/m", "/crew/m"));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_other_events_stay_as_they_are(
            text in "((data|id|event)(: ?)?(endpoin|x|/)?(\r\n|\n|\r){1,2}){0,5}",
            size in 1usize..9,
        ) {
            prop_assert_eq!(passed(&text, size), text.clone());
            let _ = addresses("a.b:1").within(&text);
        }

        #[test]
        fn no_value_panics(text in "[/:a.@\\\\<>\u{e9}-]{0,30}") {
            let addresses = addresses("a.a");
            let _ = (addresses.place(&text), addresses.within(&text), addresses.cookie(&text));
        }
    }
}
