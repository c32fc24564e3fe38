//! Messages that a server sends: what the session must know of them, and no more.

use super::Malformed;
use super::body::Body;
use super::frame;
use super::frontend::Format;

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

impl Report {
    /// Whether the server ends the session with it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// Reads a whole `ErrorResponse` or `NoticeResponse`.
pub fn report(message: &[u8]) -> Result<Report, Malformed> {
    let mut report = Report::default();
    let mut fields = ReportFields::of(message);
    for (kind, text) in &mut fields {
        let text = || String::from_utf8_lossy(text).into_owned();
        match kind {
            b'V' => report.severity = text(),
            b'S' if report.severity.is_empty() => report.severity = text(),
            b'C' => report.code = text(),
            b'M' => report.message = text(),
            _ => {}
        }
    }
    fields.end().map(|()| report)
}

/// Reads a whole `ParameterStatus`: name and value.
pub fn parameter_status(message: &[u8]) -> Result<(&str, &str), Malformed> {
    let mut body = Body::new(frame::body(message));
    let pair = (body.string()?, body.string()?);
    body.end()?;
    Ok(pair)
}

/// The most columns of a result (`MaxTupleAttributeNumber`).
const MAX_COLUMNS: usize = 1_664;

/// A column of a result, as `RowDescription` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The table that it is a column of; 0 when it is none.
    pub table: u32,
    /// Its number there, from 1; 0 when it is no column, or the whole row.
    pub number: i16,
    /// Its type.
    pub type_oid: u32,
    /// How its values are written. A statement that was not bound yet says text of all.
    pub format: Format,
}

/// Reads a whole `RowDescription`.
pub fn row_description(message: &[u8]) -> Result<Vec<Column>, Malformed> {
    let mut body = Body::new(frame::body(message));
    let count = usize::from(body.u16()?);
    if count > MAX_COLUMNS {
        return Err(Malformed("a result has more columns than there can be"));
    }
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        body.bytes_to_nul()?;
        let (table, number) = (body.u32()?, body.u16()?.cast_signed());
        let type_oid = body.u32()?;
        let _size_and_modifier = (body.u16()?, body.u32()?);
        let format = Format::from_code(body.u16()?)?;
        columns.push(Column { table, number, type_oid, format });
    }
    body.end()?;
    Ok(columns)
}

/// What `CopyOutResponse` says of the data that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyOutResponse {
    /// They are binary, not lines.
    pub binary: bool,
    /// How many fields a row has.
    pub columns: usize,
}

/// Reads a whole `CopyOutResponse`.
pub fn copy_out_response(message: &[u8]) -> Result<CopyOutResponse, Malformed> {
    let mut body = Body::new(frame::body(message));
    let binary = match body.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed("COPY data come in a format of their own")),
    };
    let columns = usize::from(body.u16()?);
    if columns > MAX_COLUMNS {
        return Err(Malformed("a result has more columns than there can be"));
    }
    body.take(2 * columns)?;
    body.end()?;
    Ok(CopyOutResponse { binary, columns })
}

/// Reads a whole `DataRow`: its values, `None` for NULL.
pub fn data_row(message: &[u8]) -> Result<DataRow<'_>, Malformed> {
    let mut body = Body::new(frame::body(message));
    let left = body.u16()?;
    Ok(DataRow { body, left })
}

/// The values of a row; one that is malformed is the last.
#[derive(Debug)]
pub struct DataRow<'a> {
    body: Body<'a>,
    left: u16,
}

impl DataRow<'_> {
    /// How many values there are to come.
    pub fn left(&self) -> usize {
        usize::from(self.left)
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Result<Option<&'a [u8]>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let read = |body: &mut Body<'a>| {
            let value = match body.i32()? {
                -1 => None,
                length => {
                    let length = usize::try_from(length)
                        .map_err(|_| Malformed("a value's length is impossible"))?;
                    Some(body.take(length)?)
                }
            };
            if self.left == 0 {
                body.end()?;
            }
            Ok(value)
        };
        let value = read(&mut self.body);
        if value.is_err() {
            self.left = 0;
        }
        Some(value)
    }
}

/// The formats of COPY data's columns, from a whole `CopyOutResponse` or `CopyInResponse`.
pub fn copy_formats(message: &[u8]) -> Result<Vec<Format>, Malformed> {
    let mut body = Body::new(frame::body(message));
    let _overall = body.u8()?;
    let count = body.u16()?;
    let formats = (0..count).map(|_| body.u16().and_then(Format::from_code)).collect();
    body.end()?;
    formats
}

/// The fields of an `ErrorResponse` or `NoticeResponse`, in their order: their kinds and texts. A
/// message that is malformed, or of which only a part is there, has fields up to there, and the last
/// one's text may be cut.
#[derive(Debug)]
pub struct ReportFields<'a> {
    body: Body<'a>,
    /// Whether the end of the fields was there, and nothing behind it.
    end: Option<Result<(), Malformed>>,
}

impl<'a> ReportFields<'a> {
    /// Of a whole message.
    pub fn of(message: &'a [u8]) -> Self {
        Self::of_body(frame::body(message))
    }

    /// Of a message's body, or the beginning of one.
    pub fn of_body(body: &'a [u8]) -> Self {
        Self { body: Body::new(body), end: None }
    }

    /// Whether the fields that were read were a whole, well-formed message.
    pub fn end(&self) -> Result<(), Malformed> {
        self.end.unwrap_or(Err(Malformed("a message has bytes left over")))
    }
}

impl<'a> Iterator for ReportFields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.end.is_some() {
            return None;
        }
        match self.body.u8() {
            Ok(0) => self.end = Some(self.body.end()),
            Ok(kind) => match self.body.bytes_to_nul() {
                Ok(text) => return Some((kind, text)),
                Err(cut) => {
                    self.end = Some(Err(cut));
                    return Some((kind, self.body.rest()));
                }
            },
            Err(cut) => self.end = Some(Err(cut)),
        }
        None
    }
}

/// The fields of a whole `ErrorResponse` or `NoticeResponse`.
pub fn report_fields(message: &[u8]) -> Result<Vec<(u8, &[u8])>, Malformed> {
    let mut fields = ReportFields::of(message);
    let read = fields.by_ref().collect();
    fields.end().map(|()| read)
}

/// A notification: process, channel, payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The server process that notified.
    pub process: u32,
    /// The channel.
    pub channel: &'a [u8],
    /// What it says.
    pub payload: &'a [u8],
}

/// Reads a whole `NotificationResponse`.
pub fn notification(message: &[u8]) -> Result<Notification<'_>, Malformed> {
    let mut body = Body::new(frame::body(message));
    let process = body.u32()?;
    let (channel, payload) = (body.bytes_to_nul()?, body.bytes_to_nul()?);
    body.end()?;
    Ok(Notification { process, channel, payload })
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

    #[test]
    fn a_report_that_is_cut_or_goes_on_has_the_fields_before_that() {
        let read = |body: &'static [u8]| {
            let mut fields = ReportFields::of_body(body);
            (fields.by_ref().collect::<Vec<_>>(), fields.end().is_ok())
        };
        let (c, m) = ((b'C', &b"42P01"[..]), (b'M', &b"none"[..]));
        assert_eq!(read(b"C42P01\0Mnone\0\0"), (vec![c, m], true));
        for body in [&b"C42P01\0Mnone"[..], b"C42P01\0Mnone\0", b"C42P01\0Mnone\0\0Hx\0"] {
            assert_eq!(read(body), (vec![c, m], false), "{}", body.escape_ascii());
            assert!(report(&frame(b'E', body)).is_err());
            assert!(report_fields(&frame(b'E', body)).is_err());
        }
        assert_eq!(read(b"\0"), (vec![], true));
        assert_eq!(read(b""), (vec![], false));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [frame(b'T', &body), body] {
                let _ = report(&bytes);
                let _ = command_tag(&bytes);
                let _ = parameter_status(&bytes);
                let _ = ready_for_query(&bytes);
                let _ = row_description(&bytes);
                let _ = data_row(&bytes).map(|row| row.for_each(drop));
                let _ = copy_formats(&bytes);
                let _ = report_fields(&bytes);
                let _ = notification(&bytes);
            }
        }
    }
}
