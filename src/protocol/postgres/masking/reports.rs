//! Errors, notices, notifications and parameters: texts of the server that no column tells of.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::super::messages::to_client;
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
    let valueless = withheld && holds_no_value(&fields);
    let mut changed = withheld;
    let shown = fields.into_iter().filter_map(|(kind, text)| {
        let shown = match kind {
            _ if !withheld => masker.and_then(|masker| masker.mask(text)),
            b'M' if valueless => masker.and_then(|masker| masker.mask(text)),
            b'M' => Some(WITHHELD.into()),
            // What SQL cannot choose: severity, position, and the place in the server's code.
            b'S' | b'V' | b'P' | b'F' | b'L' | b'R' => None,
            b'C' if is_code(text) => None,
            _ => return None,
        };
        changed |= shown.is_some();
        Some((kind, shown.map_or(Cow::Borrowed(text), Cow::Owned)))
    });
    let written = to_client::report_instead(tag(message), shown)?;
    Ok(changed.then_some(written))
}

/// How severe an error or a notice is, in words that no setting translates; `None` before PostgreSQL
/// 9.6. Debug levels are all `DEBUG` there.
pub(super) fn severity(message: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let fields = backend::report_fields(message)?;
    Ok(fields.into_iter().find(|(kind, _)| *kind == b'V').map(|(_, text)| text))
}

/// Whether an error names values of a row that the statement does not: the row that an exclusion
/// constraint found (23P01, `check_exclusion_or_unique_constraint` in `execIndexing.c`).
pub(super) fn names_other_rows(message: &[u8]) -> Result<bool, Malformed> {
    let fields = backend::report_fields(message)?;
    Ok(fields.iter().any(|(kind, text)| *kind == b'C' && *text == b"23P01"))
}

/// A whole `ErrorResponse` or `NoticeResponse` with another position in the statement's text; none
/// where `position` gives none.
pub(in super::super) fn placed(
    message: &[u8],
    position: impl Fn(usize) -> Option<usize>,
) -> Result<Bytes, Malformed> {
    let fields = backend::report_fields(message)?;
    let shown = fields.into_iter().filter_map(|(kind, text)| {
        if kind != b'P' {
            return Some((kind, Cow::Borrowed(text)));
        }
        let at = std::str::from_utf8(text).ok().and_then(|at| at.parse().ok());
        let at = at.and_then(&position)?;
        Some((kind, Cow::Owned(at.to_string().into_bytes())))
    });
    to_client::report_instead(tag(message), shown)
}

fn tag(message: &[u8]) -> u8 {
    message.first().copied().unwrap_or(b'E')
}

/// Whether an error is about the statement's text and nothing else: of class 42, at a position in
/// it, and raised by no function. Nothing ran then.
fn is_about_text(fields: &[(u8, &[u8])]) -> bool {
    let has = |wanted: u8| fields.iter().any(|(kind, _)| *kind == wanted);
    let code = fields.iter().find(|(kind, _)| *kind == b'C').map(|(_, code)| *code);
    code.is_some_and(|code| code.starts_with(b"42")) && has(b'P') && !has(b'W') && !has(b'q')
}

/// Errors and notices whose message is made of names and fixed words, by their code and the routine
/// of PostgreSQL that raises them: code in the database can choose the code, not the routine.
/// Source: the `ereport` calls in `prepare.c`, `portalcmds.c`, `postgres.c`, `portalmem.c`, `xact.c`,
/// `proc.c` (`DeadLockReport` in `deadlock.c`), `aclchk.c` and `rewriteHandler.c` of PostgreSQL 12 to 18.
const VALUELESS: &[(&[u8], &[&[u8]])] = &[
    // No such prepared statement.
    (
        b"26000",
        &[
            b"FetchPreparedStatement",
            b"exec_bind_message",
            b"exec_describe_statement_message",
            b"DropPreparedStatement",
        ],
    ),
    // No such cursor or portal.
    (
        b"34000",
        &[
            b"exec_execute_message",
            b"exec_describe_portal_message",
            b"PerformPortalFetch",
            b"PerformPortalClose",
        ],
    ),
    // It exists already.
    (b"42P05", &[b"StorePreparedStatement"]),
    (b"42P03", &[b"CreatePortal"]),
    // No such savepoint.
    (b"3B001", &[b"ReleaseSavepoint", b"RollbackToSavepoint"]),
    // The state of the transaction.
    (
        b"25P02",
        &[
            b"exec_simple_query",
            b"exec_parse_message",
            b"exec_bind_message",
            b"exec_execute_message",
            b"exec_describe_statement_message",
            b"exec_describe_portal_message",
        ],
    ),
    (
        b"25001",
        &[b"BeginTransactionBlock", b"PreventInTransactionBlock", b"PreventTransactionChain"],
    ),
    (
        b"25P01",
        &[
            b"EndTransactionBlock",
            b"UserAbortTransactionBlock",
            b"CheckTransactionBlock",
            b"CheckTransactionChain",
            b"RequireTransactionBlock",
            b"DefineSavepoint",
            b"ReleaseSavepoint",
            b"RollbackToSavepoint",
        ],
    ),
    (b"25006", &[b"PreventCommandIfReadOnly"]),
    // Cancelled, ended, in each other's way.
    (b"57014", &[b"ProcessInterrupts"]),
    (b"57P01", &[b"ProcessInterrupts"]),
    (b"40P01", &[b"DeadLockReport"]),
    (b"55P03", &[b"ProcessInterrupts"]),
    // Names a table, a schema, a function.
    (b"42501", &[b"aclcheck_error"]),
    // Names a view, and a column of it that cannot be written.
    (b"0A000", &[b"rewriteTargetView"]),
    (b"55000", &[b"rewriteTargetView", b"error_view_not_updatable"]),
];

/// Whether an error's message holds no value of a row: it is listed, and nothing that runs text of its
/// own (a function, a DO block) stands around it, which could have made a value into a name.
fn holds_no_value(fields: &[(u8, &[u8])]) -> bool {
    let field = |wanted: u8| fields.iter().find(|(kind, _)| *kind == wanted).map(|(_, text)| *text);
    let (Some(code), Some(routine)) = (field(b'C'), field(b'R')) else { return false };
    let listed = |(of, routines): &(&[u8], &[&[u8]])| *of == code && routines.contains(&routine);
    field(b'W').is_none() && field(b'q').is_none() && VALUELESS.iter().any(listed)
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
    let (channel, payload) =
        (named.as_deref().unwrap_or(channel), shown.as_deref().unwrap_or(payload));
    to_client::notification_response(process, channel, payload).map(Some)
}

/// Whether a parameter's value is one of few, or the name of a time zone: clients need these to read
/// what comes. Anything else that a parameter says may hold anything (`application_name`).
pub(super) fn is_of_vocabulary(name: &str, value: &str) -> bool {
    let word = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-');
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(known)
    };
    match name {
        // No other is let pass.
        "client_encoding" => value == "UTF8",
        "standard_conforming_strings"
        | "integer_datetimes"
        | "is_superuser"
        | "in_hot_standby"
        | "default_transaction_read_only" => matches!(value, "on" | "off"),
        "DateStyle" => value.split(", ").all(|part| {
            matches!(part, "ISO" | "Postgres" | "SQL" | "German" | "MDY" | "DMY" | "YMD")
        }),
        "IntervalStyle" => {
            matches!(value, "postgres" | "postgres_verbose" | "sql_standard" | "iso_8601")
        }
        "TimeZone" => value.len() <= 40 && value.split('/').all(word),
        _ => false,
    }
}

/// Masks a whole `ParameterStatus`. Like that of a notification, its value may come from anywhere: it
/// is withheld where columns are masked.
pub(super) fn parameter(
    message: &[u8],
    withheld: bool,
    masker: Option<&Arc<Masker>>,
) -> Result<Option<Bytes>, Malformed> {
    let (name, value) = backend::parameter_status(message)?;
    let masked = |text: &str| masker.and_then(|masker| masker.mask(text.as_bytes()));
    let shown = match withheld {
        true if value.is_empty() => None,
        true => Some(REDACTED.into()),
        false => masked(value),
    };
    let named = masked(name);
    if shown.is_none() && named.is_none() {
        return Ok(None);
    }
    let text = |whole: &str, masked: Option<Vec<u8>>| match masked {
        Some(masked) => String::from_utf8_lossy(&masked).into_owned(),
        None => whole.to_owned(),
    };
    let (name, value) = (text(name, named), text(value, shown));
    Ok(Some(to_client::bytes_of(|out| to_client::parameter_status(out, &name, &value))))
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
    fn what_is_made_of_names_is_told_and_stored() {
        let gone = |routine: &str, more: &str| {
            let text = "Mprepared statement \"p\" does not exist";
            let fields = format!("SERROR\0VERROR\0C26000\0{text}\0R{routine}\0{more}\0");
            message(b'E', fields.as_bytes())
        };
        let told = |error: &[u8]| {
            let shown = report(error, Seen::Kind, None).unwrap();
            shown.is_none_or(|shown| !String::from_utf8_lossy(&shown).contains(WITHHELD))
        };
        assert!(told(&gone("exec_bind_message", "")));
        let raised = gone("exec_stmt_raise", "WPL/pgSQL function f()\0");
        assert!(!told(&raised), "a function may raise any code");
        let within = gone("FetchPreparedStatement", "WSQL statement \"EXECUTE …\"\0");
        assert!(!told(&within), "a name may be made of a value");
        assert!(!told(&gone("somewhere_else", "")));
        let column = "Mcannot insert into column \"email\" of view \"customers\"";
        let fields = format!("SERROR\0VERROR\0C0A000\0{column}\0RrewriteTargetView\0\0");
        assert!(told(&message(b'E', fields.as_bytes())));
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

    #[test]
    fn what_is_rewritten_has_these_bytes() {
        let error = message(b'E', b"SERROR\0C42601\0Mno \xff\0P12\0q9\0\0");
        let moved = placed(&error, |at| Some(at + 100)).unwrap();
        assert_eq!(moved, b"E\0\0\0!SERROR\0C42601\0Mno \xff\0P112\0q9\0\0"[..]);
        let lost = placed(&error, |_| None).unwrap();
        assert_eq!(lost, b"E\0\0\0\x1cSERROR\0C42601\0Mno \xff\0q9\0\0"[..]);
        let mail = message(b'N', b"SNOTICE\0C00000\0Ma@b.cc \xff\0\0");
        let masked = report(&mail, Seen::All, Some(&masker())).unwrap().unwrap();
        assert_eq!(masked, b"N\0\0\0\x1fSNOTICE\0C00000\0M[email] \xff\0\0"[..]);
        let set = message(b'S', b"application_name\0a@b.cc \xc3\xbc\0");
        let withheld = parameter(&set, true, None).unwrap().unwrap();
        assert_eq!(withheld, b"S\0\0\0\x1eapplication_name\0[masked]\0"[..]);
        let masked = parameter(&set, false, Some(&masker())).unwrap().unwrap();
        assert_eq!(masked, b"S\0\0\0 application_name\0[email] \xc3\xbc\0"[..]);
        let told = message(b'A', b"\xff\0\0\x07ch \xff\0a@b.cc\0");
        let masked = notification(&told, false, Some(&masker())).unwrap().unwrap();
        assert_eq!(masked, b"A\0\0\0\x15\xff\0\0\x07ch \xff\0[email]\0"[..]);
    }
}
