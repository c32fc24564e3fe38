//! One command of a recording with what was answered to it, for pages: bounded, and read around
//! its place alone, so that a recording of gigabytes costs what a small one does.
//!
//! Values and names are text already, made from whatever bytes were recorded; whoever shows them
//! escapes them as its medium wants it. Limit: a result whose columns were described long before
//! (a prepared statement that is used again and again) may come without their names.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::postgres::{Column, Fields, Message, Messages};
use super::values;
use crate::decode::ssh;
use crate::names::Protocol;
use crate::recording::{
    ApprovalStep, Direction, Event, Keyring, Kind, Note, Opened, Outcome, ReadError, Reader,
    RecordedCommand, Sequence,
};

/// Events that are looked at behind a command; what answers it is among the first.
const EVENTS: usize = 20_000;
/// Bytes that are looked at behind a command.
const BYTES: usize = 8 << 20;
/// Events in which what a statement or portal is described with comes.
const DESCRIBING: usize = 64;
/// Rows kept of one command.
const ROWS: usize = 200;
/// Columns kept of a row: the most that a table has.
const COLUMNS: usize = 200;
/// Bytes kept of one value.
const VALUE: usize = 2_000;
/// Bytes kept of one direction of a stream.
const STREAM: usize = 256 << 10;
/// Results, messages and notes kept of one command.
const PIECES: usize = 200;
/// An execute refers to a bind, and that to a parse.
const ORIGINS: usize = 3;

/// A command, and what the recording has of it.
#[derive(Debug)]
pub struct Moment {
    /// What the session speaks.
    pub protocol: Protocol,
    /// Microseconds since the session opened.
    pub monotonic_us: u64,
    /// Microseconds since 1970-01-01 UTC.
    pub wall_us: i64,
    /// The command and its decision, whole.
    pub command: RecordedCommand<'static>,
    /// The text of the statement that it runs, where its own is empty.
    pub statement: Option<String>,
    /// What came back, and what was said, in order.
    pub pieces: Vec<Piece>,
    /// What passed up to the target after the command: a request's head and body.
    pub up: Stream,
    /// What came down of a protocol without messages.
    pub down: Stream,
    /// Standard error of an SSH command.
    pub error: Stream,
    /// Input of an SSH command that was not stored, in bytes.
    pub withheld: u64,
    /// How it ended, when it did.
    pub outcome: Option<Outcome>,
    /// Whether there is more that was not looked at.
    pub cut: bool,
}

/// Something that came back, or was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Rows.
    Table(Table),
    /// An error or a notice of the target.
    Said(Said),
    /// So many bytes of COPY data.
    Copied(u64),
    /// People were asked, or answered.
    Approval(ApprovalStep),
    /// The gateway noted something.
    Note(Note),
}

/// Rows of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The columns' names; none where they are not known.
    pub columns: Vec<String>,
    /// The rows; a value is null, or text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows that are not shown.
    pub more: u64,
}

/// What a target said beside rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Whether it is an error.
    pub error: bool,
    /// `ERROR`, `NOTICE`, ….
    pub severity: String,
    /// A SQLSTATE.
    pub code: String,
    /// What it says.
    pub message: String,
    /// More of it.
    pub detail: String,
    /// What to do.
    pub hint: String,
}

/// Bytes of one direction, as far as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The first of them.
    pub bytes: Vec<u8>,
    /// How many more there were.
    pub more: u64,
}

impl Stream {
    fn push(&mut self, bytes: &[u8]) {
        let room = STREAM.saturating_sub(self.bytes.len()).min(bytes.len());
        let (kept, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.bytes.extend_from_slice(kept);
        self.more += rest.len() as u64;
    }

    /// Whether nothing passed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.more == 0
    }
}

/// Reads the command of that sequence. None when the event there is none.
///
/// # Errors
/// When the recording cannot be read, or is damaged before the command's end.
pub fn moment(
    path: &Path,
    keyring: &Keyring,
    sequence: Sequence,
) -> Result<Option<Moment>, ReadError> {
    let mut reader = Reader::open_with(path, keyring)?;
    let opened = reader.next().transpose()?.and_then(|event| json::<Opened>(&event));
    let Some(Opened { protocol, .. }) = opened else { return Ok(None) };
    let Some((event, command)) = command_at(&mut reader, sequence)? else { return Ok(None) };
    let mut moment = Moment {
        protocol,
        monotonic_us: event.monotonic_us,
        wall_us: event.wall_us,
        statement: None,
        pieces: Vec::new(),
        up: Stream::default(),
        down: Stream::default(),
        error: Stream::default(),
        withheld: 0,
        outcome: None,
        cut: false,
        command,
    };
    let mut answer = Answer { formats: formats(&moment.command), ..Answer::default() };
    if moment.command.command.form == "execute" {
        origins(&mut reader, event.of, &mut moment, &mut answer)?;
    }
    read(&mut reader, sequence, &mut moment, &mut answer)?;
    answer.flush(&mut moment.pieces);
    Ok(Some(moment))
}

fn command_at(
    reader: &mut Reader,
    sequence: Sequence,
) -> Result<Option<(Event, RecordedCommand<'static>)>, ReadError> {
    reader.seek_sequence(sequence)?;
    let Some(event) = reader.next().transpose()? else { return Ok(None) };
    let is_it = event.sequence == sequence && event.kind == Kind::Command;
    let command = is_it.then(|| json(&event)).flatten();
    Ok(command.map(|command| (event, command)))
}

/// Follows an execute to its bind and its parse, for text, formats and columns.
fn origins(
    reader: &mut Reader,
    mut of: Option<Sequence>,
    moment: &mut Moment,
    answer: &mut Answer,
) -> Result<(), ReadError> {
    for _ in 0..ORIGINS {
        let Some(sequence) = of else { return Ok(()) };
        let Some((event, command)) = command_at(reader, sequence)? else { return Ok(()) };
        if moment.statement.is_none() && !command.command.text.is_empty() {
            moment.statement = Some(command.command.text.clone());
        }
        answer.formats = answer.formats.take().or_else(|| formats(&command));
        if answer.columns.is_none() {
            answer.columns = described(reader, sequence)?;
        }
        of = event.of;
    }
    Ok(())
}

/// The columns that are described right behind a parse or bind.
fn described(reader: &mut Reader, of: Sequence) -> Result<Option<Vec<Column>>, ReadError> {
    let mut messages = Messages::default();
    let mut columns = None;
    for event in reader.by_ref().take(DESCRIBING) {
        let event = event?;
        let answers = event.kind == Kind::Data
            && event.direction == Direction::Down
            && event.of.is_none_or(|answered| answered == of);
        if answers {
            let fed = messages.feed(event.of, &event.payload, |_, message| {
                if let Message::RowDescription(found) = message {
                    columns.get_or_insert(found);
                }
            });
            if fed.is_err() {
                messages = Messages::default();
            }
        }
        if columns.is_some() {
            break;
        }
    }
    Ok(columns)
}

fn read(
    reader: &mut Reader,
    sequence: Sequence,
    moment: &mut Moment,
    answer: &mut Answer,
) -> Result<(), ReadError> {
    let (channels, http) = (moment.protocol == Protocol::Ssh, moment.protocol == Protocol::Http);
    reader.seek_sequence(sequence)?;
    let mut bytes = 0;
    for (seen, event) in reader.by_ref().enumerate() {
        let event = event?;
        bytes += event.payload.len();
        if seen >= EVENTS || bytes >= BYTES || moment.pieces.len() >= PIECES {
            moment.cut = true;
            return Ok(());
        }
        if event.of != Some(sequence) {
            continue;
        }
        match event.kind {
            Kind::Data if channels => channel(&event, moment),
            Kind::Data if event.direction == Direction::Up => moment.up.push(&event.payload),
            Kind::Data if http => moment.down.push(&event.payload),
            Kind::Data => answer.feed(&event, &mut moment.pieces),
            Kind::Approval => moment.pieces.extend(json(&event).map(Piece::Approval)),
            Kind::Note => moment.pieces.extend(json(&event).map(Piece::Note)),
            Kind::Outcome => {
                moment.outcome = json(&event);
                return Ok(());
            }
            _ => {}
        }
    }
    Ok(())
}

fn channel(event: &Event, moment: &mut Moment) {
    let up = event.direction == Direction::Up;
    match ssh::message::Message::read(&event.payload) {
        Some(ssh::message::Message::Data { bytes, .. }) if up => moment.up.push(&bytes),
        Some(ssh::message::Message::Data { bytes, .. }) => moment.down.push(&bytes),
        Some(ssh::message::Message::Extended { bytes, .. }) if !up => moment.error.push(&bytes),
        Some(ssh::message::Message::Withheld { length, .. }) => {
            moment.withheld += u64::from(length);
        }
        _ => {}
    }
}

fn json<T: DeserializeOwned>(event: &Event) -> Option<T> {
    serde_json::from_slice(&event.payload).ok()
}

fn formats(command: &RecordedCommand<'_>) -> Option<Vec<bool>> {
    let formats = command.command.attributes.get("result_formats")?.as_array()?;
    Some(formats.iter().map(|format| format.as_u64() == Some(1)).collect())
}

/// What a Postgres server answers to one command.
#[derive(Debug, Default)]
struct Answer {
    messages: Messages,
    lost: bool,
    columns: Option<Vec<Column>>,
    formats: Option<Vec<bool>>,
    table: Option<Table>,
    rows: usize,
    copied: u64,
}

impl Answer {
    fn feed(&mut self, event: &Event, pieces: &mut Vec<Piece>) {
        if self.lost {
            return;
        }
        let mut messages = std::mem::take(&mut self.messages);
        let fed = messages.feed(event.of, &event.payload, |_, message| self.take(message, pieces));
        self.lost = fed.is_err();
        self.messages = messages;
    }

    fn take(&mut self, message: Message, pieces: &mut Vec<Piece>) {
        match message {
            Message::RowDescription(columns) => {
                self.flush(pieces);
                self.table = Some(Table { columns: names(&columns), ..Table::default() });
                self.columns = Some(columns);
            }
            Message::DataRow(row) => self.row(&row),
            Message::CopyData(bytes) => self.copied += bytes,
            Message::Error(fields) => {
                self.flush(pieces);
                pieces.push(Piece::Said(said(&fields, true)));
            }
            Message::Notice(fields) => pieces.push(Piece::Said(said(&fields, false))),
            Message::CommandComplete(_) | Message::EmptyQuery | Message::PortalSuspended => {
                self.flush(pieces);
            }
            Message::Other => {}
        }
    }

    fn row(&mut self, row: &[Option<Vec<u8>>]) {
        let columns = self.columns.as_deref().filter(|columns| columns.len() >= row.len());
        let table = self.table.get_or_insert_with(|| Table {
            columns: columns.map(names).unwrap_or_default(),
            ..Table::default()
        });
        if self.rows >= ROWS {
            table.more += 1;
            return;
        }
        self.rows += 1;
        let shown = row.iter().take(COLUMNS).enumerate().map(|(n, value)| {
            let value = value.as_ref()?;
            let column = columns.and_then(|columns| columns.get(n));
            let binary = match self.formats.as_deref() {
                Some([all]) => *all,
                Some(each) => each.get(n).copied().unwrap_or(false),
                None => column.is_some_and(|column| column.binary),
            };
            let kept = value.get(..VALUE).unwrap_or(value);
            let mut text = match binary {
                true => values::from_binary(column.map_or(0, |column| column.type_oid), kept),
                false => values::from_text(kept),
            };
            if kept.len() < value.len() {
                text.push('…');
            }
            Some(text)
        });
        table.rows.push(shown.collect());
    }

    fn flush(&mut self, pieces: &mut Vec<Piece>) {
        pieces.extend(self.table.take().map(Piece::Table));
        let copied = std::mem::take(&mut self.copied);
        pieces.extend((copied > 0).then_some(Piece::Copied(copied)));
    }
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().take(COLUMNS).map(|column| values::from_text(&column.name)).collect()
}

fn said(fields: &Fields, error: bool) -> Said {
    let text = |bytes: &[u8]| values::from_text(bytes.get(..STREAM / 16).unwrap_or(bytes));
    Said {
        error,
        severity: text(&fields.severity),
        code: text(&fields.code),
        message: text(&fields.message),
        detail: text(&fields.detail),
        hint: text(&fields.hint),
    }
}

#[cfg(test)]
mod tests {
    use super::super::postgres::tests::{data_row, message, row_description};
    use super::super::tests::Session;
    use super::*;

    #[test]
    fn an_execute_has_the_columns_and_formats_that_its_statement_was_described_with() {
        let session = Session::open("ann");
        let none = serde_json::json!({});
        let parse = session.command(None, "parse", "select id, note from t", &none);
        let columns = row_description(&[("id", 23, 0), ("note", 25, 0)]);
        session.down(None, &[message(b'1', b""), columns].concat());
        for text in ["one", "other"] {
            let formats = serde_json::json!({ "result_formats": [1, 0] });
            let bind = session.command(Some(parse), "bind", "", &formats);
            let execute = session.command(Some(bind), "execute", "", &none);
            let row = data_row(&[Some(&7_i32.to_be_bytes()), Some(text.as_bytes())]);
            let (first, rest) = row.split_at(9);
            session.down(Some(execute), first);
            session.down(Some(execute), rest);
            session.down(Some(execute), &message(b'C', b"SELECT 1\0"));
            session.outcome(execute, "SELECT 1", 1);
            let found = moment(session.path(), &Keyring::default(), execute).unwrap().unwrap();
            let table = Table {
                columns: vec!["id".to_owned(), "note".to_owned()],
                rows: vec![vec![Some("7".to_owned()), Some(text.to_owned())]],
                more: 0,
            };
            assert_eq!(found.pieces, [Piece::Table(table)]);
            assert_eq!(found.statement.as_deref(), Some("select id, note from t"));
            assert_eq!(found.outcome.unwrap().rows, Some(1));
        }
        assert!(moment(session.path(), &Keyring::default(), 1_000).unwrap().is_none());
        assert!(moment(session.path(), &Keyring::default(), 0).unwrap().is_none());
    }

    #[test]
    fn a_large_answer_is_kept_up_to_its_bounds() {
        let session = Session::open("ann");
        let query = session.command(None, "query", "select", &serde_json::json!({}));
        let mut answer = row_description(&[("v", 25, 0)]);
        for _ in 0..ROWS + 5 {
            answer.extend(data_row(&[Some(&[b'x'; VALUE + 10])]));
        }
        answer.extend(message(b'E', b"SERROR\0C42P01\0M<b>none</b>\0\0"));
        session.down(Some(query), &answer);
        let found = moment(session.path(), &Keyring::default(), query).unwrap().unwrap();
        let [Piece::Table(table), Piece::Said(said)] = &found.pieces[..] else { panic!() };
        assert_eq!((table.rows.len(), table.more), (ROWS, 5));
        let value = table.rows[0][0].as_ref().unwrap();
        assert_eq!(value.chars().count(), VALUE + 1);
        assert_eq!((said.error, said.message.as_str()), (true, "<b>none</b>"));
        assert!(found.outcome.is_none() && !found.cut);
        // Bytes that are no messages end nothing.
        let broken = session.command(None, "query", "x", &serde_json::json!({}));
        session.down(Some(broken), b"D\0\0\0\0garbage");
        assert_eq!(
            moment(session.path(), &Keyring::default(), broken).unwrap().unwrap().pieces,
            []
        );
    }
}
