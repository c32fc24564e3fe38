//! Column values as text, from either of Postgres' formats.

use std::fmt::Write;

use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::text::{Lines, printable_bytes};

/// Microseconds from 1970 to 2000, where Postgres counts from.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// The Julian day of 2000-01-01.
const POSTGRES_EPOCH_DAY: i32 = 2_451_545;

/// A value in the text format.
pub(super) fn from_text(bytes: &[u8]) -> String {
    printable_bytes(bytes, Lines::Escape)
}

/// A value in the binary format of a type, by its OID in `pg_type`; hexadecimal for those not
/// known here.
pub(super) fn from_binary(type_oid: u32, bytes: &[u8]) -> String {
    known(type_oid, bytes).unwrap_or_else(|| hexadecimal(bytes))
}

fn known(type_oid: u32, bytes: &[u8]) -> Option<String> {
    Some(match type_oid {
        16 => match bytes {
            [0] => "f".to_owned(),
            [1] => "t".to_owned(),
            _ => return None,
        },
        20 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        21 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        26 => u32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        700 => f32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        701 => f64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        // "char", name, text, json, xml, unknown, bpchar, varchar
        18 | 19 | 25 | 114 | 142 | 705 | 1042 | 1043 => from_text(bytes),
        // jsonb: a version, then the text
        3802 => from_text(bytes.strip_prefix(&[1])?),
        2950 => uuid::Uuid::from_slice(bytes).ok()?.to_string(),
        1082 => date(i32::from_be_bytes(bytes.try_into().ok()?))?,
        1114 => timestamp(i64::from_be_bytes(bytes.try_into().ok()?))?,
        1184 => format!("{}+00", timestamp(i64::from_be_bytes(bytes.try_into().ok()?))?),
        _ => return None,
    })
}

fn date(days: i32) -> Option<String> {
    let date = Date::from_julian_day(POSTGRES_EPOCH_DAY.checked_add(days)?).ok()?;
    date.format(format_description!("[year]-[month]-[day]")).ok()
}

fn timestamp(us: i64) -> Option<String> {
    match us {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let us = us.checked_add(POSTGRES_EPOCH_US)?;
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000).ok()?;
    let shape =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");
    time.format(shape).ok()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2 + 2);
    out.push_str("\\x");
    for byte in bytes {
        // Writing to a String does not fail.
        let _ok = write!(out, "{byte:02x}");
    }
    out
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
            (1184, &[0x7f, 255, 255, 255, 255, 255, 255, 255], "infinity+00"),
            (3802, b"\x01{}", "{}"),
            (2950, &[0x11; 16], "11111111-1111-1111-1111-111111111111"),
            (23, &[1], "\\x01"),
            (9999, &[1, 0xab], "\\x01ab"),
        ] {
            assert_eq!(from_binary(oid, bytes), shown, "type {oid}");
        }
    }
}
