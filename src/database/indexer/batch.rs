//! Rows on their way into the database: many recordings' in one transaction, with how far each
//! recording is indexed by it. So a row is written once, whatever is interrupted when.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use time::{Date, Month, OffsetDateTime};
use uuid::Uuid;

use super::copy;
use super::reading::Reading;
use super::shorten;
use crate::database::DatabaseError;
use crate::database::queries::first_id_at;
use crate::database::rows::{Command, Session, storable_json};
use crate::names::SessionId;
use crate::recording::Bookmark;

/// Rows of one batch: at some 50 microseconds a row, one takes a tenth of a second.
const MAX_ROWS: usize = 2000;
/// Bytes of one batch, roughly.
const MAX_BYTES: usize = 4 << 20;
/// What a row takes beside its text.
const ROW: usize = 600;
/// Partitions are made for months from then on; ids of other times share one.
const FIRST_YEAR: i32 = 2020;

/// Rows that were made and not written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    commands: Vec<Command>,
    places: HashMap<(SessionId, i64), usize>,
    /// Ends of commands whose rows were written before.
    ended: Vec<Ended>,
    /// Commands that people let go, whose rows were written before.
    released: Vec<Released>,
    /// What was typed into shells whose rows were written before.
    typed: Vec<Typed>,
    bytes: usize,
}

/// Lines that were typed into a shell, for the text of its row.
#[derive(Debug, Serialize)]
pub(super) struct Typed {
    pub(super) session: SessionId,
    pub(super) sequence: i64,
    pub(super) text: String,
}

/// A command that people let go; the fields are columns of its row.
#[derive(Debug, Serialize)]
pub(super) struct Released {
    pub(super) session: SessionId,
    pub(super) sequence: i64,
    pub(super) overridden: &'static str,
    pub(super) overridden_rules: Vec<String>,
}

/// How a command ended; the fields are columns of its row.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    pub(super) session: SessionId,
    pub(super) sequence: i64,
    pub(super) status: Option<String>,
    pub(super) rows: Option<i64>,
    pub(super) error_code: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) duration_us: i64,
    pub(super) masked: BTreeMap<String, i64>,
}

impl Batch {
    pub(super) fn add(&mut self, command: Command) {
        self.bytes += ROW + command.text.as_ref().map_or(0, String::len);
        self.places.insert((command.session, command.sequence), self.commands.len());
        self.commands.push(command);
    }

    pub(super) fn end(&mut self, ended: Ended) {
        let place = self.places.get(&(ended.session, ended.sequence));
        match place.and_then(|place| self.commands.get_mut(*place)) {
            Some(row) => {
                row.status = ended.status;
                row.rows = ended.rows;
                row.error_code = ended.error_code;
                row.error_message = ended.error_message;
                row.duration_us = Some(ended.duration_us);
                row.masked = ended.masked;
            }
            None => self.ended.push(ended),
        }
    }

    pub(super) fn release(&mut self, released: Released) {
        let place = self.places.get(&(released.session, released.sequence));
        match place.and_then(|place| self.commands.get_mut(*place)) {
            Some(row) => {
                row.overridden = Some(released.overridden.to_owned());
                row.overridden_rules = released.overridden_rules;
            }
            None => self.released.push(released),
        }
    }

    /// Adds a line to a row's text, up to as much as a row holds.
    pub(super) fn typed(&mut self, typed: Typed) {
        self.bytes += typed.text.len();
        let of = (typed.session, typed.sequence);
        let place = self.places.get(&of);
        if let Some(row) = place.and_then(|place| self.commands.get_mut(*place)) {
            shorten::append(row.text.get_or_insert_default(), &typed.text, &mut row.cut);
        } else if let Some(known) = self.typed.iter_mut().find(|k| (k.session, k.sequence) == of) {
            shorten::append(&mut known.text, &typed.text, &mut false);
        } else {
            self.typed.push(typed);
        }
    }

    /// Takes back what a session added.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.ended.retain(|ended| ended.session != session);
        self.released.retain(|released| released.session != session);
        self.typed.retain(|typed| typed.session != session);
        let mut kept = Self {
            ended: std::mem::take(&mut self.ended),
            released: std::mem::take(&mut self.released),
            typed: std::mem::take(&mut self.typed),
            ..Self::default()
        };
        for command in self.commands.drain(..).filter(|command| command.session != session) {
            kept.add(command);
        }
        *self = kept;
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows() >= MAX_ROWS || self.bytes >= MAX_BYTES
    }

    pub(super) fn rows(&self) -> usize {
        self.commands.len() + self.ended.len() + self.released.len() + self.typed.len()
    }
}

/// How far a recording is indexed; a row of `recordings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) session: SessionId,
    gateway: String,
    pub(super) file_offset: u64,
    blocks: u64,
    events: u64,
    raw_bytes: u64,
    next_sequence: u64,
    chain: String,
    sealed: bool,
    failed: Option<String>,
}

impl Position {
    pub(super) fn of(reading: &Reading, gateway: &str) -> Self {
        let Bookmark { offset, blocks, events, raw, next_sequence, chain } = reading.position;
        Self {
            session: reading.id,
            gateway: gateway.to_owned(),
            file_offset: offset,
            blocks,
            events,
            raw_bytes: raw,
            next_sequence,
            chain: blake3::Hash::from_bytes(chain).to_hex().to_string(),
            sealed: reading.sealed,
            failed: reading.failed.clone(),
        }
    }

    /// Goes on reading where this says; from the beginning when it does not make sense.
    pub(super) fn resume(self, row: Option<Session>) -> Reading {
        let Ok(chain) = blake3::Hash::from_hex(&self.chain) else {
            return Reading::new(self.session);
        };
        let position = Bookmark {
            offset: self.file_offset,
            blocks: self.blocks,
            events: self.events,
            raw: self.raw_bytes,
            next_sequence: self.next_sequence,
            chain: *chain.as_bytes(),
        };
        let mut reading = Reading::resumed(self.session, position, row);
        (reading.sealed, reading.failed) = (self.sealed, self.failed);
        reading
    }
}

/// Removes all rows about these sessions.
pub(super) async fn delete(
    connection: &mut PgConnection,
    sessions: &[SessionId],
) -> Result<(), DatabaseError> {
    let ids: Vec<Uuid> = sessions.iter().map(SessionId::as_uuid).collect();
    delete_rows_of(connection, &ids).await
}

/// The same, by their ids.
pub(in crate::database) async fn delete_rows_of(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<(), DatabaseError> {
    for statement in [
        "delete from commands where session = any($1)",
        "delete from sessions where id = any($1)",
        "delete from recordings where session = any($1)",
        "delete from retained where session = any($1)",
    ] {
        sqlx::query(statement).bind(ids).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes a batch and how far it takes the recordings that it is of.
pub(super) async fn write(
    connection: &mut PgConnection,
    gateway: &str,
    batch: &Batch,
    readings: impl Iterator<Item = &Reading> + Clone,
) -> Result<(), DatabaseError> {
    let positions: Vec<_> = readings.clone().map(|r| Position::of(r, gateway)).collect();
    let sealed: Vec<_> = readings.clone().filter(|r| r.sealed).map(SealedRecording::of).collect();
    rows(connection, batch, readings.filter_map(|reading| reading.row.as_ref())).await?;
    insert(connection, UPSERT_RECORDINGS, &positions).await?;
    insert(connection, NOTE_RETAINED, &sealed).await
}

/// Writes the rows of a batch, and those of its sessions.
pub(super) async fn rows(
    connection: &mut PgConnection,
    batch: &Batch,
    sessions: impl Iterator<Item = &Session>,
) -> Result<(), DatabaseError> {
    insert(connection, UPSERT_SESSIONS, &sessions.collect()).await?;
    copy::commands(connection, &batch.commands).await?;
    insert(connection, UPDATE_COMMANDS, &batch.ended).await?;
    insert(connection, RELEASE_COMMANDS, &batch.released).await?;
    insert(connection, EXTEND_COMMANDS, &batch.typed).await
}

/// A recording that retention may come to, from now on.
#[derive(Debug, Serialize)]
struct SealedRecording {
    session: SessionId,
    closed_us: Option<i64>,
}

impl SealedRecording {
    fn of(reading: &Reading) -> Self {
        Self { session: reading.id, closed_us: reading.closed_us }
    }
}

const UPSERT_SESSIONS: &str = "insert into sessions \
    select * from json_populate_recordset(null::sessions, $1::json) \
    on conflict (id) do update set run = excluded.run, run_proved = excluded.run_proved, \
    closed_at = excluded.closed_at, ended = excluded.ended, \
    ended_text = excluded.ended_text, commands = excluded.commands, allowed = excluded.allowed, \
    approved = excluded.approved, blocked = excluded.blocked, overridden = excluded.overridden, \
    failed = excluded.failed, rows = excluded.rows, bytes_up = excluded.bytes_up, \
    bytes_down = excluded.bytes_down, missing_events = excluded.missing_events";
const UPDATE_COMMANDS: &str = "update commands c set status = e.status, rows = e.rows, \
    error_code = e.error_code, error_message = e.error_message, duration_us = e.duration_us, \
    masked = e.masked \
    from json_populate_recordset(null::commands, $1::json) e \
    where c.session = e.session and c.sequence = e.sequence";
const RELEASE_COMMANDS: &str = "update commands c set overridden = e.overridden, \
    overridden_rules = e.overridden_rules from json_populate_recordset(null::commands, $1::json) e \
    where c.session = e.session and c.sequence = e.sequence";
const EXTEND_COMMANDS: &str = "update commands c \
    set text = left(concat_ws(e'\\n', nullif(c.text, ''), e.text), 65536), \
    cut = c.cut or length(concat_ws(e'\\n', nullif(c.text, ''), e.text)) > 65536 \
    from json_populate_recordset(null::commands, $1::json) e \
    where c.session = e.session and c.sequence = e.sequence";
const NOTE_RETAINED: &str = "select note_retained($1::json)";
const UPSERT_RECORDINGS: &str = "insert into recordings \
    select * from json_populate_recordset(null::recordings, $1::json) \
    on conflict (session) do update set file_offset = excluded.file_offset, \
    blocks = excluded.blocks, events = excluded.events, raw_bytes = excluded.raw_bytes, \
    next_sequence = excluded.next_sequence, chain = excluded.chain, sealed = excluded.sealed, \
    failed = excluded.failed";

async fn insert<T: Serialize>(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: &Vec<T>,
) -> Result<(), DatabaseError> {
    if !rows.is_empty() {
        let json = storable_json(rows).map_err(|e| DatabaseError::Refused(e.to_string()))?;
        sqlx::query(statement).bind(json).execute(connection).await?;
    }
    Ok(())
}

/// Makes the partitions that these sessions' commands go to, where they are not in `known`. When
/// one cannot be made, its rows go to the common one.
pub(super) async fn make_partitions(
    connection: &mut PgConnection,
    sessions: impl Iterator<Item = SessionId>,
    known: &mut BTreeSet<Date>,
) -> Result<(), DatabaseError> {
    let this_month = first_of_month(OffsetDateTime::now_utc());
    for session in sessions {
        let month = first_of_month(session.created().into());
        let sane = month.year() >= FIRST_YEAR && month <= this_month;
        if !sane || known.contains(&month) {
            continue;
        }
        let (from, to) = (first_id_of(month), first_id_of(after(month)));
        let name = format!("commands_{:04}_{:02}", month.year(), u8::from(month.month()));
        let statement = format!(
            "create table if not exists {name} partition of commands \
             for values from ('{from}') to ('{to}')"
        );
        let mut savepoint = connection.begin().await?;
        match savepoint.execute(AssertSqlSafe(statement)).await.map_err(DatabaseError::from) {
            Ok(_) => savepoint.commit().await?,
            Err(error @ (DatabaseError::Refused(_) | DatabaseError::Other(_))) => {
                tracing::warn!(%error, name, "cannot make a partition of the index");
                savepoint.rollback().await?;
            }
            Err(error) => return Err(error),
        }
        known.insert(month);
    }
    Ok(())
}

fn first_of_month(time: OffsetDateTime) -> Date {
    time.date().replace_day(1).unwrap_or(time.date())
}

fn after(month: Date) -> Date {
    let next = match month.month() {
        Month::December => Date::from_calendar_date(month.year() + 1, Month::January, 1),
        other => Date::from_calendar_date(month.year(), other.next(), 1),
    };
    next.unwrap_or(month)
}

fn first_id_of(month: Date) -> Uuid {
    let seconds = month.midnight().assume_utc().unix_timestamp();
    first_id_at(seconds.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_with_the_first_id_of_it_and_ends_where_the_next_begins() {
        let id = SessionId::generate();
        let month = first_of_month(id.created().into());
        assert!(first_id_of(month) < id.as_uuid() && id.as_uuid() < first_id_of(after(month)));
        let december = Date::from_calendar_date(2026, Month::December, 1).unwrap();
        assert_eq!(after(december), Date::from_calendar_date(2027, Month::January, 1).unwrap());
    }
}
