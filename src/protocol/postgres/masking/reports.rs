//! Errors, notices, notifications and parameters: texts of the server that no column tells of.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::decode::postgres::{Malformed, backend};
use crate::mask::{Masked, Masker, REDACTED};

/// What an error or a notice says in place of what it may say of masked values.
const WITHHELD: &str = "the text is withheld: it may hold masked values";

/// How much of an error or a notice may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    /// All of it, but for what patterns find.
    All,
    /// All when it is about the statement's text, which the client wrote; else its kind.
    OfText,
    /// Its kind: severity, code, and where it came from.
    Kind,
}

/// Masks a whole `ErrorResponse` or `NoticeResponse`.
pub(super) fn report(
    message: &[u8],
    seen: Seen,
    masker: Option<&Arc<Masker>>,
) -> Result<Option<Bytes>, Malformed> {
    let fields = backend::report_fields(message)?;
    let about_text = seen == Seen::OfText && is_about_text(&fields);
    let withheld = !(seen == Seen::All || about_text);
    let mut changed = withheld;
    let written = framed(message.first().copied().unwrap_or(b'E'), |body| {
        for (kind, text) in fields {
            let shown = match kind {
                _ if !withheld => masker.and_then(|masker| masker.mask(text)),
                b'M' => Some(WITHHELD.into()),
                // What SQL cannot choose: severity, position, and the place in the server's code.
                b'S' | b'V' | b'P' | b'F' | b'L' | b'R' => None,
                b'C' if is_code(text) => None,
                _ => continue,
            };
            changed |= shown.is_some();
            body.put_u8(kind);
            body.put_slice(shown.as_deref().unwrap_or(text));
            body.put_u8(0);
        }
        body.put_u8(0);
    })?;
    Ok(changed.then_some(written))
}

/// Whether an error is about the statement's text and nothing else: of class 42, at a position in
/// it, and raised by no function. Nothing ran then.
fn is_about_text(fields: &[(u8, &[u8])]) -> bool {
    let has = |wanted: u8| fields.iter().any(|(kind, _)| *kind == wanted);
    let code = fields.iter().find(|(kind, _)| *kind == b'C').map(|(_, code)| *code);
    code.is_some_and(|code| code.starts_with(b"42")) && has(b'P') && !has(b'W') && !has(b'q')
}

fn is_code(text: &[u8]) -> bool {
    text.len() == 5 && text.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Masks a whole `NotificationResponse`. Nothing tells where a payload comes from: it is withheld
/// where columns are masked.
pub(super) fn notification(
    message: &[u8],
    withheld: bool,
    masker: Option<&Arc<Masker>>,
) -> Result<Option<Bytes>, Malformed> {
    let backend::Notification { process, channel, payload } = backend::notification(message)?;
    let masked = |text: &[u8]| masker.and_then(|masker| masker.mask(text));
    let shown = match withheld {
        true if payload.is_empty() => None,
        true => Some(REDACTED.into()),
        false => masked(payload),
    };
    let named = masked(channel);
    if shown.is_none() && named.is_none() {
        return Ok(None);
    }
    framed(b'A', |body| {
        body.put_u32(process);
        for (text, masked) in [(channel, named), (payload, shown)] {
            body.put_slice(masked.as_deref().unwrap_or(text));
            body.put_u8(0);
        }
    })
    .map(Some)
}

/// Masks a whole `ParameterStatus`.
pub(super) fn parameter(
    message: &[u8],
    masker: Option<&Arc<Masker>>,
) -> Result<Option<Bytes>, Malformed> {
    let (name, value) = backend::parameter_status(message)?;
    let Some(masked) = masker.and_then(|masker| masker.mask(value.as_bytes())) else {
        return Ok(None);
    };
    framed(b'S', |body| {
        for text in [name.as_bytes(), &masked] {
            body.put_slice(text);
            body.put_u8(0);
        }
    })
    .map(Some)
}

/// Masks a whole message for both pairs of eyes: `mask` gives what stands in its place, if
/// anything, for the client (0) and for storage (1).
pub(super) fn for_both(
    message: &[u8],
    mut mask: impl FnMut(usize) -> Result<Option<Bytes>, Malformed>,
) -> Result<Option<Masked>, Malformed> {
    let (shown, stored) = (mask(0)?, mask(1)?);
    if shown.is_none() && stored.is_none() {
        return Ok(None);
    }
    let whole = || Bytes::copy_from_slice(message);
    Ok(Some(Masked::by_value(shown.unwrap_or_else(whole), stored.unwrap_or_else(whole))))
}

fn framed(tag: u8, write: impl FnOnce(&mut BytesMut)) -> Result<Bytes, Malformed> {
    let mut out = BytesMut::new();
    out.put_u8(tag);
    out.put_u32(0);
    write(&mut out);
    let length = u32::try_from(out.len() - 1).map_err(|_| Malformed("a message is too large"))?;
    if let Some(header) = out.get_mut(1..5) {
        header.copy_from_slice(&length.to_be_bytes());
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message;
    use crate::mask::{Action, HashKey, Pattern};

    fn masker() -> Arc<Masker> {
        let patterns = vec![Pattern::built_in("email").unwrap()];
        Arc::new(Masker::new(patterns, Action::Redact, HashKey::new([7; 32])))
    }

    const CAST: &[u8] =
        b"SERROR\0VERROR\0C22P02\0Mnot a number: \"a@b.cc\"\0Dx\0Tcustomers\0Rfun\0\0";
    const NO_COLUMN: &[u8] = b"SERROR\0VERROR\0C42703\0Mno column a@b.cc\0P8\0\0";

    #[test]
    fn an_error_that_may_hold_values_keeps_its_kind() {
        let error = message(b'E', CAST);
        let seen = |seen, masker| report(&error, seen, masker).unwrap();
        assert_eq!(seen(Seen::All, None), None);
        let masker = masker();
        let masked = seen(Seen::All, Some(&masker)).unwrap();
        assert!(!masked.windows(6).any(|six| six == b"a@b.cc"));
        let withheld = seen(Seen::OfText, None).unwrap();
        let expected = format!("SERROR\0VERROR\0C22P02\0M{WITHHELD}\0Rfun\0\0");
        assert_eq!(withheld, message(b'E', expected.as_bytes()));
    }

    #[test]
    fn an_error_about_the_clients_own_text_is_told_to_the_client() {
        let error = message(b'E', NO_COLUMN);
        assert_eq!(report(&error, Seen::OfText, None).unwrap(), None);
        assert!(report(&error, Seen::Kind, None).unwrap().is_some());
        let raised = message(b'E', b"SERROR\0VERROR\0C42703\0Mx\0P8\0WPL/pgSQL\0\0");
        assert!(report(&raised, Seen::OfText, None).unwrap().is_some());
        let odd = message(b'E', b"SERROR\0Cal\xffce\0Mx\0\0");
        assert!(!report(&odd, Seen::Kind, None).unwrap().unwrap().contains(&0xff), "no code");
    }

    #[test]
    fn payloads_are_withheld_where_columns_are_masked() {
        let told = message(b'A', b"\0\0\0\x07ch\0alice\0");
        let withheld = notification(&told, true, None).unwrap().unwrap();
        assert_eq!(withheld, message(b'A', b"\0\0\0\x07ch\0[masked]\0"));
        assert_eq!(notification(&told, false, Some(&masker())).unwrap(), None);
        let empty = message(b'A', b"\0\0\0\x07ch\0\0");
        assert_eq!(notification(&empty, true, None).unwrap(), None);
    }
}
