//! The one way to write a path.
//!
//! A path that two programs could understand as two is refused: dot segments in any spelling,
//! empty segments, escapes of letters, escapes of escapes, `;` (which some servers cut off with all
//! behind it), and encoded slashes unless it is known what the target takes them for. So the path that rules look at, the one that is
//! recorded and the one that goes up are the same.
//!
//! Rules see the path as people read it: escapes are undone, once. That a server takes two
//! spellings of a letter for one (upper and lower case, composed characters) is not seen here.

use std::borrow::Cow;

use super::{Refused, hex};

/// Longer paths are not taken, in bytes: ten times what browsers send.
pub const MAX_PATH: usize = 16 << 10;

/// What `%2F` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedSlash {
    /// Nobody knows: such a path is refused.
    Refuse,
    /// A character of its segment.
    Data,
    /// A slash.
    Slash,
}

/// What stands for an encoded slash while a path is decoded: no path has it.
const SLASH_IN_SEGMENT: u8 = 0;

/// A path in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    raw: Cow<'a, str>,
    decoded: Cow<'a, str>,
}

impl<'a> Path<'a> {
    /// Takes a path as it stands in a request, without encoded slashes.
    pub fn parse(raw: &'a str) -> Result<Self, Refused> {
        Self::parse_with(raw, EncodedSlash::Refuse)
    }

    /// Takes a path as it stands in a request.
    pub fn parse_with(raw: &'a str, slash: EncodedSlash) -> Result<Self, Refused> {
        if raw.len() > MAX_PATH {
            return Err(Refused { status: 414, what: "the path is too long" });
        }
        if !raw.starts_with('/') {
            return Err(Refused::bad("the path does not begin with a slash"));
        }
        let path = decode(raw, slash)?;
        // A server that takes an encoded slash for one must find nothing else there.
        let segments = path.raw.strip_prefix('/').unwrap_or_default().replace(ENCODED_SLASH, "/");
        let mut rest = segments.split('/').peekable();
        while let Some(segment) = rest.next() {
            // The last may be empty: the path ends with a slash.
            if segment.is_empty() && (rest.peek().is_some() || path.raw.ends_with(ENCODED_SLASH)) {
                return Err(Refused::bad("the path has an empty segment"));
            }
            if segment == "." || segment == ".." {
                return Err(Refused::bad("the path has a dot segment"));
            }
        }
        Ok(path)
    }

    /// As it goes on: as it was sent, but for escapes that are not needed.
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// As rules see it: escapes undone, but for that of a slash within a segment.
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

/// A slash within a segment, in its one spelling.
const ENCODED_SLASH: &str = "%2F";

/// Undoes the escapes of a path, each of which must be needed and mean one thing. Some clients escape
/// `-`, `.`, `_` and `~`, which mean the same (RFC 3986 section 6.2.2.2); nobody escapes letters.
fn decode(raw: &str, slash: EncodedSlash) -> Result<Path<'_>, Refused> {
    let bad = |what| Err(Refused::bad(what));
    let mut decoded: Vec<u8> = Vec::new();
    // The path that goes on, once it differs from the one that came.
    let mut canonical: Option<String> = None;
    let mut escaped = false;
    let mut bytes = raw.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|(_, digit)| hex(digit));
                let Some((high, low)) = digit().zip(digit()) else {
                    return bad("the path has a % that is no escape");
                };
                let byte = high << 4 | low;
                let (seen, written) = match (byte, slash) {
                    (b'/', EncodedSlash::Data) => (SLASH_IN_SEGMENT, Some(ENCODED_SLASH)),
                    (b'/', EncodedSlash::Slash) => (b'/', Some("/")),
                    (b'-', _) => (byte, Some("-")),
                    (b'.', _) => (byte, Some(".")),
                    (b'_', _) => (byte, Some("_")),
                    (b'~', _) => (byte, Some("~")),
                    _ => (byte, None),
                };
                escaped = true;
                decoded.push(seen);
                let sent = raw.get(at..at + 3).unwrap_or_default();
                match written {
                    Some(written) => canonical
                        .get_or_insert_with(|| raw.get(..at).unwrap_or_default().to_owned())
                        .push_str(written),
                    None => {
                        check_escaped(byte)?;
                        if let Some(canonical) = &mut canonical {
                            canonical.push_str(sent);
                        }
                    }
                }
                continue;
            }
            b';' => return bad("the path has a semicolon; write %3B"),
            b'\\' => return bad("the path has a backslash"),
            byte if is_pchar(byte) || byte == b'/' => decoded.push(byte),
            _ => return bad("the path has a character that must be escaped"),
        }
        if let Some(canonical) = &mut canonical {
            canonical.push(char::from(byte));
        }
    }
    let raw = canonical.map_or(Cow::Borrowed(raw), Cow::Owned);
    if !escaped {
        return Ok(Path { decoded: raw.clone(), raw });
    }
    if holds_escape(&decoded) {
        return bad("the path is escaped twice");
    }
    match String::from_utf8(decoded) {
        Ok(decoded) => {
            let slash = char::from(SLASH_IN_SEGMENT);
            Ok(Path { raw, decoded: Cow::Owned(decoded.replace(slash, ENCODED_SLASH)) })
        }
        Err(_) => bad("the path has escapes that are not UTF-8"),
    }
}

/// Refuses the escapes that somebody would read as something else.
fn check_escaped(byte: u8) -> Result<(), Refused> {
    match byte {
        b'/' | b'\\' => Err(Refused::bad("the path has an escaped slash or backslash")),
        0..=0x1f | 0x7f => Err(Refused::bad("the path has an escaped control character")),
        byte if is_unreserved(byte) => Err(Refused::bad("the path escapes a letter or digit")),
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
    fn escapes_that_are_not_needed_are_undone() {
        for (raw, seen) in [("/%7Eme/a%2db", "/~me/a-b"), ("/a%2Eb%5f%c3%a9", "/a.b_%c3%a9")] {
            let path = Path::parse(raw).unwrap();
            assert_eq!(path.as_str(), seen);
            assert_eq!(Path::parse(path.as_str()).unwrap().decoded(), path.decoded());
        }
        assert!(Path::parse("/%2e%2E/a").is_err() && Path::parse("/a/%2e").is_err());
    }

    #[test]
    fn an_encoded_slash_has_the_one_meaning_that_was_chosen() {
        let read = |raw: &str, slash| {
            let path = Path::parse_with(raw, slash).ok()?;
            Some((path.as_str().to_owned(), path.decoded().to_owned()))
        };
        let both = |raw: &str| {
            let two = [EncodedSlash::Data, EncodedSlash::Slash].map(|slash| read(raw, slash));
            assert_eq!(read(raw, EncodedSlash::Refuse), None);
            two
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        let [data, slash] = both("/g%2fp/%40x");
        assert_eq!(data, pair("/g%2Fp/%40x", "/g%2Fp/@x"));
        assert_eq!(slash, pair("/g/p/%40x", "/g/p/@x"));
        for raw in [
            "/a%2f..%2fb",
            "/a%2F.",
            "/a%2F%2Fb",
            "/a/%2Fb",
            "/%2Fa",
            "/a%2F/b",
            "/%2e%2e%2Fa",
            "/a%252Fb",
            "/a%5Cb%2Fc",
        ] {
            assert_eq!(both(raw), [None, None], "{raw}");
        }
        assert_eq!(read("/a%2F", EncodedSlash::Data), None);
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
