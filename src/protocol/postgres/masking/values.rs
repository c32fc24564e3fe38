//! Values of PostgreSQL's types, as masks must know them: which can hold a mask's text, and how it
//! is written there, and which can hold a secret that a pattern finds.

use std::borrow::Cow;
use std::sync::Arc;

use crate::decode::postgres::frontend::Format;
use crate::mask::{Action, HashKey, Masker, REDACTED, whole_value};

use super::types::{Search, Searched, Types};

/// How a type's values are written, in one of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A text, as it is.
    Text,
    /// A JSON document.
    Json,
    /// A JSON document behind a version byte (`jsonb_send`).
    Jsonb,
    /// Bytes as they are.
    Bytes,
    /// Bytes as `\x` and hexadecimal digits, or in the older escape format.
    Hex,
    /// Anything else, of this type: a mask cannot be written into it whole, though perhaps into values
    /// that it holds.
    Typed(u32, Format),
    /// Of a type that nobody tells, in the binary format.
    Other,
    /// Something in which no secret that a pattern finds can stand.
    Harmless,
}

impl Holds {
    /// For a type by its OID in `pg_type`; `text` says that it is written as text though none of
    /// the server's own.
    pub(super) fn of(type_oid: u32, format: Format, text: bool) -> Self {
        match (type_oid, format) {
            _ if text => Self::Text,
            // name, text, xml, unknown, bpchar, varchar, refcursor, cstring
            (19 | 25 | 142 | 705 | 1042 | 1043 | 1790 | 2275, _) => Self::Text,
            (114, _) | (3802, Format::Text) => Self::Json,
            (3802, Format::Binary) => Self::Jsonb,
            (17, Format::Binary) => Self::Bytes,
            (17, Format::Text) => Self::Hex,
            // bool, int2, int4, oid, xid, cid, tid, float4, date, time, timestamp,
            // timestamptz, interval, timetz, uuid, pg_lsn, money, macaddr, macaddr8, bit, varbit
            (
                16 | 21 | 23 | 26 | 27 | 28 | 29 | 700 | 774 | 790 | 829 | 1082 | 1083 | 1114
                | 1184 | 1186 | 1266 | 1560 | 1562 | 2950 | 3220 | 5069,
                _,
            ) => Self::Harmless,
            _ => Self::Typed(type_oid, format),
        }
    }

    /// What stands in a masked value's place; `None` is NULL, for types that hold no mask.
    pub(super) fn masked(self, action: Action, value: &[u8], key: &HashKey) -> Option<Vec<u8>> {
        let raw: Cow<'_, [u8]> = match self {
            Self::Text | Self::Json | Self::Bytes => value.into(),
            Self::Jsonb => value.get(1..).unwrap_or_default().into(),
            Self::Hex => unhex(value),
            Self::Typed(..) | Self::Other | Self::Harmless => return None,
        };
        self.written(whole_value(action, &raw, key)?)
    }

    /// What stands in the place of a value of which nothing may be seen.
    pub(super) fn redacted(self) -> Option<Vec<u8>> {
        self.written(REDACTED.into())
    }

    /// What comes of a value in which secrets that patterns find are masked.
    pub(super) fn searched(self, value: &[u8], masker: &Arc<Masker>, types: &Types) -> Searched {
        let search = |format| Search::new(types, masker, format);
        match self {
            Self::Harmless => Searched::Kept,
            Self::Text => masker.mask(value).map_or(Searched::Kept, Searched::Instead),
            Self::Json => search(Format::Text).value(114, value),
            Self::Jsonb => search(Format::Binary).value(3802, value),
            Self::Bytes => search(Format::Binary).value(17, value),
            Self::Hex => search(Format::Text).value(17, value),
            Self::Typed(oid, format) => search(format).value(oid, value),
            Self::Other => search(Format::Binary).anything(value),
        }
    }

    /// Whether patterns never find anything in values.
    pub(super) fn is_harmless(self, types: &Types) -> bool {
        match self {
            Self::Harmless => true,
            Self::Typed(oid, _) => types.is_harmless(oid),
            _ => false,
        }
    }

    fn written(self, text: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Text | Self::Bytes => Some(text),
            Self::Json | Self::Jsonb => Some(self.framed(quoted(&text))),
            Self::Hex => Some(hex(&text)),
            Self::Typed(..) | Self::Other | Self::Harmless => None,
        }
    }

    fn framed(self, mut document: Vec<u8>) -> Vec<u8> {
        if self == Self::Jsonb {
            document.insert(0, 1);
        }
        document
    }
}

/// A text as a JSON document.
fn quoted(text: &[u8]) -> Vec<u8> {
    serde_json::Value::from(String::from_utf8_lossy(text)).to_string().into_bytes()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    b"\\x".iter().copied().chain(digits).collect()
}

/// The bytes of a `bytea` in text, when it is written in hexadecimal; a hash of it is then the same
/// in both formats.
pub(super) fn unhex(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(digits) = text.strip_prefix(b"\\x") else { return text.into() };
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let byte = |two: &[u8]| match two {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    };
    digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().map_or_else(|| text.into(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> HashKey {
        HashKey::new([7; 32])
    }

    #[test]
    fn masks_are_written_as_the_type_wants_them() {
        let masked = |type_oid, format, value: &[u8]| {
            let holds = Holds::of(type_oid, format, false);
            holds.masked(Action::Partial, value, &key())
        };
        let (text, binary) = (Format::Text, Format::Binary);
        assert_eq!(masked(25, text, b"078-05-1120").unwrap(), b"***-**-1120");
        assert_eq!(masked(25, binary, b"078-05-1120").unwrap(), b"***-**-1120");
        assert_eq!(masked(114, text, b"\"12345678\"").unwrap(), br#""\"****5678\"""#);
        assert_eq!(masked(3802, binary, b"\x01[12345678]").unwrap(), b"\x01\"[****5678]\"");
        assert_eq!(masked(17, text, b"\\x3132333435363738").unwrap(), b"\\x2a2a2a2a35363738");
        assert_eq!(masked(17, binary, b"12345678").unwrap(), b"****5678");
        for (type_oid, format) in [(23, text), (23, binary), (1009, text), (99_999, binary)] {
            assert_eq!(masked(type_oid, format, b"1234"), None, "{type_oid}");
        }
        assert_eq!(Holds::of(99_999, binary, true), Holds::Text, "citext");
    }

    #[test]
    fn a_hash_is_the_same_in_both_formats() {
        let hash = |type_oid, format, value: &[u8]| {
            Holds::of(type_oid, format, false).masked(Action::Hash, value, &key()).unwrap()
        };
        let text = hash(17, Format::Text, b"\\x616263");
        assert_eq!(text, hex(&hash(17, Format::Binary, b"abc")));
        let text = hash(3802, Format::Text, b"{}");
        assert_eq!(text, hash(3802, Format::Binary, b"\x01{}")[1..]);
    }
}
