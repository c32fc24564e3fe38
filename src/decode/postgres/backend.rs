//! Messages that a server sends: what the session must know of them, and no more.

use super::Malformed;
use super::body::Body;
use super::frame;

/// Whether the protocol knows a server message of this tag in a running session. Replication's
/// `CopyBothResponse` ('W') and authentication messages ('R', 'K', 'v') do not belong there;
/// `FunctionCallResponse` ('V') answers what is never asked.
pub fn is_known(tag: u8) -> bool {
    b"123ACDEGHINSTZcdnst".contains(&tag)
}

/// The server's word on the transaction, from `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside a transaction.
    Idle,
    /// In one.
    Open,
    /// In one that failed.
    Failed,
}

/// Reads a whole `ReadyForQuery`.
pub fn ready_for_query(message: &[u8]) -> Result<TransactionStatus, Malformed> {
    match frame::body(message) {
        b"I" => Ok(TransactionStatus::Idle),
        b"T" => Ok(TransactionStatus::Open),
        b"E" => Ok(TransactionStatus::Failed),
        _ => Err(Malformed("a ReadyForQuery has no status that is known")),
    }
}

/// Reads the tag of a whole `CommandComplete`, for example `INSERT 0 3`.
pub fn command_tag(message: &[u8]) -> Result<&str, Malformed> {
    let mut body = Body::new(frame::body(message));
    let tag = body.string()?;
    body.end()?;
    Ok(tag)
}

/// The number of rows in a command tag, when it has one.
pub fn rows(command_tag: &str) -> Option<u64> {
    command_tag.rsplit_once(' ')?.1.parse().ok()
}

/// The fields of an `ErrorResponse` or `NoticeResponse` that are looked at. Texts that are not
/// UTF-8 (before the encoding is settled, say) have their foreign bytes replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// ERROR, FATAL, WARNING, …: never translated.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
}

/// Reads a whole `ErrorResponse` or `NoticeResponse`.
pub fn report(message: &[u8]) -> Result<Report, Malformed> {
    let mut body = Body::new(frame::body(message));
    let mut report = Report::default();
    loop {
        let field = body.u8()?;
        if field == 0 {
            body.end()?;
            return Ok(report);
        }
        let text = body.bytes_to_nul()?;
        let text = || String::from_utf8_lossy(text).into_owned();
        match field {
            b'V' => report.severity = text(),
            b'S' if report.severity.is_empty() => report.severity = text(),
            b'C' => report.code = text(),
            b'M' => report.message = text(),
            _ => {}
        }
    }
}

/// Reads a whole `ParameterStatus`: name and value.
pub fn parameter_status(message: &[u8]) -> Result<(&str, &str), Malformed> {
    let mut body = Body::new(frame::body(message));
    let pair = (body.string()?, body.string()?);
    body.end()?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message as frame;
    use proptest::prelude::*;

    #[test]
    fn command_tags_tell_their_rows() {
        for (tag, expected) in [
            ("INSERT 0 3", Some(3)),
            ("SELECT 0", Some(0)),
            ("COPY 12", Some(12)),
            ("CREATE TABLE", None),
            ("BEGIN", None),
        ] {
            let message = frame(b'C', &[tag.as_bytes(), b"\0"].concat());
            assert_eq!(rows(command_tag(&message).unwrap()), expected, "{tag}");
        }
    }

    #[test]
    fn a_report_prefers_the_untranslated_severity() {
        let message = frame(b'E', b"SFEHLER\0VERROR\0C42P01\0Mno such table\0\0");
        let report = report(&message).unwrap();
        assert_eq!((report.severity.as_str(), report.code.as_str()), ("ERROR", "42P01"));
        assert_eq!(report.message, "no such table");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [frame(b'T', &body), body] {
                let _ = report(&bytes);
                let _ = command_tag(&bytes);
                let _ = parameter_status(&bytes);
                let _ = ready_for_query(&bytes);
            }
        }
    }
}
