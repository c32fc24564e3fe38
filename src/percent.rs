//! Text as a part of an address: percent-encoded (RFC 3986 section 2.1).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

/// All but the unreserved characters (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as a step of a path or as a value in a query: nothing in it means anything there.
pub fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// Whether what stands behind a percent sign makes an escape with it.
pub fn makes_escape(behind: &str) -> bool {
    behind.as_bytes().first_chunk::<2>().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_mean_something_in_an_address_is_encoded() {
        assert_eq!(encoded("a b&c=ä/'?").to_string(), "a%20b%26c%3D%C3%A4%2F%27%3F");
        assert_eq!(encoded("Az09-._~").to_string(), "Az09-._~");
        assert_eq!(encoded("%41+\r\n\"").to_string(), "%2541%2B%0D%0A%22");
    }

    #[test]
    fn an_escape_has_two_digits() {
        for (behind, is_one) in
            [("41", true), ("fFx", true), ("4", false), ("4g", false), ("", false)]
        {
            assert_eq!(makes_escape(behind), is_one, "{behind:?}");
        }
    }
}
