//! Column values of the binary format in the text format, for the types that most results have.

use std::borrow::Cow;

use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// Microseconds from 1970 to 2000, where Postgres counts from.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// The Julian day of 2000-01-01.
const POSTGRES_EPOCH_DAY: i32 = 2_451_545;

/// A binary value of a type, by its OID in `pg_type`, as the text format has it. `None` for types
/// that are not known here, and for bytes that are no value of theirs.
pub fn to_text(type_oid: u32, bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let text = match type_oid {
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
        18 | 19 | 25 | 114 | 142 | 705 | 1042 | 1043 => return Some(Cow::Borrowed(bytes)),
        // jsonb: a version, then the text
        3802 => return bytes.strip_prefix(&[1]).map(Cow::Borrowed),
        2950 => uuid::Uuid::from_slice(bytes).ok()?.to_string(),
        1082 => date(i32::from_be_bytes(bytes.try_into().ok()?))?,
        1114 => timestamp(i64::from_be_bytes(bytes.try_into().ok()?))?,
        1184 => {
            let us = i64::from_be_bytes(bytes.try_into().ok()?);
            let zone = if matches!(us, i64::MIN | i64::MAX) { "" } else { "+00" };
            timestamp(us)? + zone
        }
        _ => return None,
    };
    Some(Cow::Owned(text.into_bytes()))
}

/// Bytes as `bytea` has them in the text format.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2 + 2);
    out.push_str("\\x");
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(char::from_digit(nibble.into(), 16));
        }
    }
    out
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
