//! Column values as text, from either of Postgres' formats.

use super::text::{Lines, printable_bytes};
use crate::decode::postgres::values::{hexadecimal, to_text};

/// A value in the text format.
pub(super) fn from_text(bytes: &[u8]) -> String {
    printable_bytes(bytes, Lines::Escape)
}

/// A value in the binary format of a type, by its OID in `pg_type`; hexadecimal for those not
/// known here.
pub(super) fn from_binary(type_oid: u32, bytes: &[u8]) -> String {
    to_text(type_oid, bytes).map_or_else(|| hexadecimal(bytes), |text| from_text(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_are_shown_as_postgres_shows_them() {
        for (oid, bytes, shown) in [
            (16, &[1][..], "t"),
            (23, &[0xff, 0xff, 0xff, 0xfe], "-2"),
            (20, &[0, 0, 0, 0, 0, 0, 1, 0], "256"),
            (25, b"a\x1bb", "a\\x1bb"),
            (1082, &[0, 0, 0, 1], "2000-01-02"),
            (1114, &[0; 8], "2000-01-01 00:00:00.000000"),
            (1184, &[0x7f, 255, 255, 255, 255, 255, 255, 255], "infinity"),
            (3802, b"\x01{}", "{}"),
            (2950, &[0x11; 16], "11111111-1111-1111-1111-111111111111"),
            (23, &[1], "\\x01"),
            (9999, &[1, 0xab], "\\x01ab"),
        ] {
            assert_eq!(from_binary(oid, bytes), shown, "type {oid}");
        }
    }
}
