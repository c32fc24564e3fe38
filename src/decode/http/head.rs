//! Heads in one written form, that of HTTP/1.1 with lower-case names, whatever version was spoken.
//!
//! A request's head is decided, recorded and forwarded as these bytes; a response's is recorded as
//! such. Readers of recordings take them apart with [`Head::parse`].

/// A head, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// `GET /v1/refunds?open=1 HTTP/1.1`, or `HTTP/1.1 200 OK`.
    pub first: &'a str,
    /// Names in lower case, and values.
    pub fields: Vec<(&'a str, &'a [u8])>,
    /// How long it is, with the empty line that ends it.
    pub length: usize,
}

/// Writes a head. Neither the first line nor a field may have a line end; [`Head::parse`] would
/// see another head otherwise, so such a field is left out.
pub fn write<'f>(
    first: &str,
    fields: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    out: &mut Vec<u8>,
) {
    let breaks = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    out.extend(first.bytes().filter(|byte| !breaks(&[*byte])));
    out.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        if breaks(name.as_bytes()) || breaks(value) || name.contains(':') {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

impl<'a> Head<'a> {
    /// Takes a head apart that stands at the beginning of these bytes; `None` while it is not there
    /// as a whole, or is none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        const END: &[u8] = b"\r\n\r\n";
        let at = bytes.windows(END.len()).position(|window| window == END)?;
        let mut lines = Lines(bytes.get(..at)?);
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let fields = lines
            .map(|line| {
                let colon = line.iter().position(|byte| *byte == b':')?;
                let (name, value) = line.split_at_checked(colon)?;
                let value = value.strip_prefix(b": ")?;
                Some((std::str::from_utf8(name).ok()?, value))
            })
            .collect::<Option<_>>()?;
        Some(Self { first, fields, length: at + END.len() })
    }

    /// The method and the target of a request.
    pub fn request(&self) -> Option<(&'a str, &'a str)> {
        let (method, rest) = self.first.split_once(' ')?;
        let (target, version) = rest.split_once(' ')?;
        version.starts_with("HTTP/").then_some((method, target))
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        let rest = self.first.strip_prefix("HTTP/1.1 ")?;
        rest.split(' ').next()?.parse().ok()
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }
}

/// What stands between CRLFs.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.windows(2).position(|two| two == b"\r\n");
        let (line, rest) = match end {
            Some(at) => (self.0.get(..at)?, self.0.get(at + 2..)?),
            None => (self.0, Default::default()),
        };
        self.0 = rest;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_that_was_written_is_read_the_same() {
        let fields: [(&str, &[u8]); 3] = [("host", b"x"), ("x-a", b""), ("x-b", b"1: \xff")];
        let mut written = Vec::new();
        write("POST /a?b=1 HTTP/1.1", fields, &mut written);
        let length = written.len();
        written.extend_from_slice(b"body\r\n\r\n");
        let head = Head::parse(&written).unwrap();
        assert_eq!(head.request(), Some(("POST", "/a?b=1")));
        assert_eq!((head.fields.as_slice(), head.length), (&fields[..], length));
        assert_eq!(Head::parse(&written[..length - 1]), None);

        let mut bare = Vec::new();
        write("HTTP/1.1 204 No Content", [], &mut bare);
        assert_eq!(Head::parse(&bare).unwrap().status(), Some(204));
    }

    proptest! {
        #[test]
        fn whatever_the_fields_are_the_head_is_one(
            name in "[a-z:\r\n]{1,8}",
            value in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut written = Vec::new();
            write("GET / HTTP/1.1", [(&*name, &*value)], &mut written);
            let head = Head::parse(&written).unwrap();
            prop_assert_eq!(head.length, written.len());
            prop_assert!(head.fields.iter().all(|field| *field == (&*name, &*value)));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Head::parse(&bytes);
        }
    }
}
