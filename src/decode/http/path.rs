//! The one way to write a path.
//!
//! A path that two programs could understand as two is refused: dot segments in any spelling,
//! empty segments, encoded slashes, escapes of what needs none, escapes of escapes, `;` (which
//! some servers cut off with all behind it). So the path that rules look at, the one that is
//! recorded and the one that goes up are the same.
//!
//! Rules see the path as people read it: escapes are undone, once. That a server takes two
//! spellings of a letter for one (upper and lower case, composed characters) is not seen here.

use std::borrow::Cow;

use super::{Refused, hex};

/// Longer paths are not taken, in bytes: ten times what browsers send.
pub const MAX_PATH: usize = 16 << 10;

/// A path in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    raw: &'a str,
    decoded: Cow<'a, str>,
}

impl<'a> Path<'a> {
    /// Takes a path as it stands in a request.
    pub fn parse(raw: &'a str) -> Result<Self, Refused> {
        if raw.len() > MAX_PATH {
            return Err(Refused { status: 414, what: "the path is too long" });
        }
        let Some(segments) = raw.strip_prefix('/') else {
            return Err(Refused::bad("the path does not begin with a slash"));
        };
        let decoded = decode(raw)?;
        let mut rest = segments.split('/').peekable();
        while let Some(segment) = rest.next() {
            // The last may be empty: the path ends with a slash.
            if segment.is_empty() && rest.peek().is_some() {
                return Err(Refused::bad("the path has an empty segment"));
            }
            if segment == "." || segment == ".." {
                return Err(Refused::bad("the path has a dot segment"));
            }
        }
        Ok(Self { raw, decoded })
    }

    /// As it was sent, and goes on.
    pub fn as_str(&self) -> &'a str {
        self.raw
    }

    /// As rules see it: escapes undone.
    pub fn decoded(&self) -> &str {
        &self.decoded
    }
}

/// Takes the first segment off: `/crew/kickoff` is `crew` and `/kickoff`, `/crew` is `crew` and `/`.
pub fn split_first(path: &str) -> Option<(&str, &str)> {
    let inner = path.strip_prefix('/')?;
    let end = inner.find('/').unwrap_or(inner.len());
    let (first, rest) = inner.split_at_checked(end)?;
    Some((first, if rest.is_empty() { "/" } else { rest }))
}

/// Undoes the escapes of a path, each of which must be needed and mean one thing.
fn decode(raw: &str) -> Result<Cow<'_, str>, Refused> {
    let bad = |what| Err(Refused::bad(what));
    let mut decoded: Vec<u8> = Vec::new();
    let mut escaped = false;
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = bytes.next().and_then(hex).zip(bytes.next().and_then(hex));
                let Some((high, low)) = digits else {
                    return bad("the path has a % that is no escape");
                };
                let byte = high << 4 | low;
                check_escaped(byte)?;
                escaped = true;
                decoded.push(byte);
            }
            b';' => return bad("the path has a semicolon; write %3B"),
            b'\\' => return bad("the path has a backslash"),
            byte if is_pchar(byte) || byte == b'/' => decoded.push(byte),
            _ => return bad("the path has a character that must be escaped"),
        }
    }
    if !escaped {
        return Ok(Cow::Borrowed(raw));
    }
    if holds_escape(&decoded) {
        return bad("the path is escaped twice");
    }
    match String::from_utf8(decoded) {
        Ok(decoded) => Ok(Cow::Owned(decoded)),
        Err(_) => bad("the path has escapes that are not UTF-8"),
    }
}

/// Refuses the escapes that somebody would read as something else.
fn check_escaped(byte: u8) -> Result<(), Refused> {
    match byte {
        b'/' | b'\\' => Err(Refused::bad("the path has an escaped slash or backslash")),
        0..=0x1f | 0x7f => Err(Refused::bad("the path has an escaped control character")),
        byte if is_unreserved(byte) => {
            Err(Refused::bad("the path escapes a character that needs none"))
        }
        _ => Ok(()),
    }
}

/// Whether what was decoded could be decoded once more.
fn holds_escape(decoded: &[u8]) -> bool {
    decoded.windows(3).any(
        |three| matches!(three, [b'%', high, low] if hex(*high).is_some() && hex(*low).is_some()),
    )
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 section 3.3, but for `;`.
fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ordinary_path_stays_as_it_is_and_rules_see_it_as_people_read_it() {
        for (raw, decoded) in [
            ("/", "/"),
            ("/v1/refunds", "/v1/refunds"),
            ("/v1/refunds/", "/v1/refunds/"),
            ("/users/alice%40example.com", "/users/alice@example.com"),
            ("/users/alice@example.com", "/users/alice@example.com"),
            ("/caf%C3%A9/a%20b", "/café/a b"),
            ("/100%25", "/100%"),
            ("/a.b/..c/d..", "/a.b/..c/d.."),
        ] {
            let path = Path::parse(raw).unwrap();
            assert_eq!((path.as_str(), path.decoded()), (raw, decoded));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for raw in [
            "",
            "admin",
            "*",
            "//admin",
            "/a//b",
            "/./admin",
            "/a/../admin",
            "/..",
            "/.",
            "/public/%2e%2e/admin",
            "/public/%2E%2E/admin",
            "/public%2f..%2fadmin",
            "/public/%2E%2E%2Fadmin",
            "/public%5cadmin",
            "/public\\admin",
            "/%61dmin",
            "/%2561dmin",
            "/%252e%252e/admin",
            "/%c0%ae%c0%ae/admin",
            "/adm\u{e9}",
            "/public#/../admin",
            "/a;b/c",
            "/public/..;/admin",
            "/a%00",
            "/a%0d%0aset",
            "/a%zz",
            "/a%4",
            "/a b",
            "/a\tb",
            "/%ff",
        ] {
            assert!(Path::parse(raw).is_err(), "{raw}");
        }
        assert_eq!(Path::parse(&format!("/{}", "a".repeat(MAX_PATH))).unwrap_err().status, 414);
    }

    #[test]
    fn the_first_segment_names_the_target() {
        assert_eq!(split_first("/crew/kickoff"), Some(("crew", "/kickoff")));
        assert_eq!(split_first("/crew/"), Some(("crew", "/")));
        assert_eq!(split_first("/crew"), Some(("crew", "/")));
        assert_eq!(split_first("/"), Some(("", "/")));
        assert_eq!(split_first("crew"), None);
    }

    /// As lenient programs read a path: escapes undone until there are none, `\` is `/`, dot
    /// segments resolved, empty ones dropped, parameters cut.
    fn as_lenient_programs_do(raw: &str) -> String {
        let mut text = raw.to_owned();
        for _ in 0..4 {
            text = decode_all(&text);
        }
        let mut segments: Vec<&str> = Vec::new();
        for segment in text.split(['/', '\\']) {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        segments.join("/")
    }

    fn decode_all(text: &str) -> String {
        let bytes = text.as_bytes();
        let (mut out, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let digits = bytes.get(at + 1).copied().and_then(hex);
            match (bytes[at], digits.zip(bytes.get(at + 2).copied().and_then(hex))) {
                (b'%', Some((high, low))) => {
                    out.push(high << 4 | low);
                    at += 3;
                }
                (byte, _) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    proptest! {
        #[test]
        fn no_text_panics(raw in ".{0,60}") {
            let _ = Path::parse(&raw);
        }

        #[test]
        fn a_path_that_is_taken_means_to_everybody_what_rules_see(
            raw in "/(?:[a-c.;%/\\\\]|%2e|%2F|%5c|%61|%25|%40|%3B|%C3%A9|\\.\\.|admin){0,8}"
        ) {
            if let Ok(path) = Path::parse(&raw) {
                // `%3B` is data, and so is what a `%` alone stands for.
                prop_assume!(!path.decoded().contains(';'));
                let seen = path.decoded().trim_start_matches('/').trim_end_matches('/');
                prop_assert_eq!(as_lenient_programs_do(&raw), seen);
            }
        }
    }
}
