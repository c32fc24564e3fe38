//! One event as bytes: a line of JSON, the payload, a newline.
//!
//! The line is written by hand, without allocation, in one canonical form; the reader takes
//! nothing but that form.

use bytes::Bytes;
use serde::Serialize;

use crate::recording::format::clock::Stamp;
use crate::recording::format::event::{Direction, Event, Kind, Sequence};

/// The longest payload of one event. A command may carry 64 MiB of text, which JSON escapes to
/// about that much unless it is made of control characters.
pub(in crate::recording) const MAX_PAYLOAD: usize = 128 << 20;
/// Bytes that passed are stored in pieces of at most this, each an event of its own.
pub(in crate::recording) const DATA_PIECE: usize = 64 << 10;
/// The longest line: every field at its largest takes about 190 bytes.
pub(in crate::recording) const MAX_LINE: usize = 256;

/// What an event's line says.
#[derive(Debug, Clone, Copy)]
pub(in crate::recording) struct Head {
    pub(in crate::recording) sequence: Sequence,
    pub(in crate::recording) stamp: Stamp,
    pub(in crate::recording) direction: Direction,
    pub(in crate::recording) kind: Kind,
    pub(in crate::recording) of: Option<Sequence>,
}

/// Appends an event with these payload bytes.
pub(in crate::recording) fn put(out: &mut Vec<u8>, head: &Head, payload: &[u8]) {
    put_line(out, head, payload.len());
    out.extend_from_slice(payload);
    out.push(b'\n');
}

/// Appends an event whose payload is JSON; on an error the buffer is as before.
pub(in crate::recording) fn put_json<T: Serialize>(
    out: &mut Vec<u8>,
    head: &Head,
    payload: &T,
) -> Result<(), String> {
    let start = out.len();
    // The line holds the payload's length, so the payload is made first and the line turned round
    // in front of it: cheaper than a second buffer.
    if let Err(error) = serde_json::to_writer(&mut *out, payload) {
        out.truncate(start);
        return Err(error.to_string());
    }
    let length = out.len() - start;
    if length > MAX_PAYLOAD {
        out.truncate(start);
        return Err(format!("an event of {length} bytes is over {MAX_PAYLOAD}"));
    }
    put_line(out, head, length);
    let line = out.len() - start - length;
    if let Some(event) = out.get_mut(start..) {
        event.rotate_right(line);
    }
    out.push(b'\n');
    Ok(())
}

fn put_line(out: &mut Vec<u8>, head: &Head, length: usize) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"{\"seq\":");
    out.extend_from_slice(digits.format(head.sequence).as_bytes());
    out.extend_from_slice(b",\"mono\":");
    out.extend_from_slice(digits.format(head.stamp.monotonic_us).as_bytes());
    out.extend_from_slice(b",\"wall\":");
    out.extend_from_slice(digits.format(head.stamp.wall_us).as_bytes());
    out.extend_from_slice(b",\"dir\":\"");
    out.extend_from_slice(head.direction.as_str().as_bytes());
    out.extend_from_slice(b"\",\"kind\":\"");
    out.extend_from_slice(head.kind.as_str().as_bytes());
    if let Some(of) = head.of {
        out.extend_from_slice(b"\",\"of\":");
        out.extend_from_slice(digits.format(of).as_bytes());
        out.extend_from_slice(b",\"len\":");
    } else {
        out.extend_from_slice(b"\",\"len\":");
    }
    out.extend_from_slice(digits.format(length).as_bytes());
    out.extend_from_slice(b"}\n");
}

/// What a line says, and the length of the payload. JSON has many spellings of one line; only the one
/// that is written counts, and it is read as it is written: piece by piece.
fn line(mut text: &[u8]) -> Option<(Head, usize)> {
    let rest = &mut text;
    literal(rest, b"{\"seq\":")?;
    let sequence = number(rest)?;
    literal(rest, b",\"mono\":")?;
    let monotonic_us = number(rest)?;
    literal(rest, b",\"wall\":")?;
    let wall_us = signed(rest)?;
    literal(rest, b",\"dir\":\"")?;
    let direction = Direction::from_word(word(rest)?)?;
    literal(rest, b",\"kind\":\"")?;
    let kind = Kind::from_word(word(rest)?)?;
    let of = match literal(rest, b",\"of\":") {
        Some(()) => Some(number(rest)?),
        None => None,
    };
    literal(rest, b",\"len\":")?;
    let length = usize::try_from(number(rest)?).ok()?;
    let stamp = Stamp { monotonic_us, wall_us };
    (*rest == b"}").then_some((Head { sequence, stamp, direction, kind, of }, length))
}

fn literal(rest: &mut &[u8], expected: &[u8]) -> Option<()> {
    *rest = rest.strip_prefix(expected)?;
    Some(())
}

/// Up to a quotation mark, which is taken too.
fn word<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'"')?;
    let (word, after) = (rest.get(..end)?, rest.get(end + 1..)?);
    *rest = after;
    Some(word)
}

/// Decimal digits without zeros in front.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at_checked(digits)?;
    if number.is_empty() || (number.len() > 1 && number.starts_with(b"0")) {
        return None;
    }
    *rest = after;
    number
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

fn signed(rest: &mut &[u8]) -> Option<i64> {
    match literal(rest, b"-") {
        Some(()) => 0i64.checked_sub_unsigned(number(rest)?).filter(|number| *number != 0),
        None => i64::try_from(number(rest)?).ok(),
    }
}

/// Takes the event that starts at `at` and moves `at` behind it. The payload shares `bytes`.
pub(in crate::recording) fn take(bytes: &Bytes, at: &mut usize) -> Result<Event, &'static str> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let window = rest.get(..MAX_LINE).unwrap_or(rest);
    let end = window.iter().position(|b| *b == b'\n').ok_or("an event's line has no end")?;
    let text = window.get(..end).unwrap_or_default();
    let (head, length) = line(text).ok_or("an event's line is not what is written")?;
    if length > MAX_PAYLOAD {
        return Err("an event's payload is over the bound");
    }
    let start = *at + end + 1;
    let stop = start + length;
    if bytes.get(stop) != Some(&b'\n') {
        return Err("an event's payload has another length than its line says");
    }
    *at = stop + 1;
    Ok(Event {
        sequence: head.sequence,
        monotonic_us: head.stamp.monotonic_us,
        wall_us: head.stamp.wall_us,
        direction: head.direction,
        kind: head.kind,
        of: head.of,
        payload: bytes.slice(start..stop),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::format::event::Note;

    fn head(of: Option<Sequence>) -> Head {
        Head {
            sequence: 12,
            stamp: Stamp { monotonic_us: 123, wall_us: -5 },
            direction: Direction::Up,
            kind: Kind::Data,
            of,
        }
    }

    #[test]
    fn an_event_is_a_line_its_payload_and_a_newline() {
        let mut out = Vec::new();
        put(&mut out, &head(Some(7)), b"SELECT\n");
        assert_eq!(
            out,
            b"{\"seq\":12,\"mono\":123,\"wall\":-5,\"dir\":\"up\",\"kind\":\"data\",\"of\":7,\"len\":7}\nSELECT\n\n"
        );
        let note = Note { what: "x".into(), text: "y".to_owned() };
        put_json(&mut out, &Head { kind: Kind::Note, ..head(None) }, &note).unwrap();
        let bytes = Bytes::from(out);
        let mut at = 0;
        assert_eq!(take(&bytes, &mut at).unwrap().payload, "SELECT\n");
        let event = take(&bytes, &mut at).unwrap();
        assert_eq!((event.kind, event.of), (Kind::Note, None));
        assert_eq!(serde_json::from_slice::<Note>(&event.payload).unwrap(), note);
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn the_longest_line_is_within_the_bound() {
        let mut out = Vec::new();
        let head = Head {
            sequence: u64::MAX,
            stamp: Stamp { monotonic_us: u64::MAX, wall_us: i64::MIN },
            direction: Direction::None,
            kind: Kind::Outcome,
            of: Some(u64::MAX),
        };
        put_line(&mut out, &head, usize::MAX);
        assert!(out.len() < MAX_LINE);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else(
            numbers: (u64, u64, i64, Option<u64>), kinds in (0..3usize, 0..Kind::ALL.len()),
            length in 0..40usize, cut: proptest::sample::Index, with: u8,
        ) {
            let (sequence, monotonic_us, wall_us, of) = numbers;
            let stamp = Stamp { monotonic_us, wall_us };
            let direction = Direction::ALL[kinds.0];
            let head = Head { sequence, stamp, direction, kind: Kind::ALL[kinds.1], of };
            let mut out = Vec::new();
            put_line(&mut out, &head, length);
            out.pop();
            let (read, read_length) = line(&out).unwrap();
            proptest::prop_assert_eq!(read_length, length);
            proptest::prop_assert_eq!(format!("{read:?}"), format!("{head:?}"));
            // Whatever else is taken for a line is one that would be written.
            let at = cut.index(out.len());
            out[at] = with;
            if let Some((head, length)) = line(&out) {
                let mut again = Vec::new();
                put_line(&mut again, &head, length);
                again.pop();
                proptest::prop_assert_eq!(again, out);
            }
        }
    }

    #[test]
    fn another_spelling_of_a_line_is_refused() {
        let good =
            "{\"seq\":1,\"mono\":2,\"wall\":3,\"dir\":\"up\",\"kind\":\"data\",\"len\":0}\n\n";
        assert!(take(&Bytes::from_static(good.as_bytes()), &mut 0).is_ok());
        for (from, to) in [
            ("\"seq\":1", "\"seq\": 1"),
            ("\"seq\":1,\"mono\":2", "\"mono\":2,\"seq\":1"),
            ("\"len\":0", "\"len\":0,\"more\":1"),
            ("\"len\":0", "\"of\":null,\"len\":0"),
            ("\"len\":0", "\"len\":1"),
            ("\"len\":0", "\"len\":18446744073709551615"),
            ("\"len\":0", "\"len\":18446744073709551616"),
            ("\"len\":0", "\"len\":"),
            ("\"len\":0}", "\"len\":0"),
            ("\"seq\":1", "\"seq\":01"),
            ("\"seq\":1", "\"seq\":+1"),
            ("\"seq\":1", "\"seq\":-1"),
            ("\"wall\":3", "\"wall\":-0"),
            ("\"wall\":3", "\"wall\":9223372036854775808"),
            ("\"wall\":3", "\"wall\":-9223372036854775809"),
            ("up", "sideways"),
        ] {
            let bad = Bytes::from(good.replace(from, to));
            assert!(take(&bad, &mut 0).is_err(), "{bad:?}");
        }
    }
}
