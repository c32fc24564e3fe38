//! Holding the index against the recordings: whatever somebody wrote into it, took out of it, or
//! changed in it shows.
//!
//! The rows are made anew by the code that made them, in tables of this connection alone that have
//! the names of the real ones and stand before them; PostgreSQL compares. All of it is rolled back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use uuid::Uuid;

use super::advance::read_on;
use super::batch::{self, Batch};
use super::catch_up::{Place, ledger_offset};
use super::gateway_of;
use super::reading::Reading;
use super::reindex::ReindexError;
use crate::database::{Database, DatabaseError};
use crate::names::SessionId;
use crate::recording::{Keyring, LedgerFollower, LedgerNews, all_recordings};

/// Recordings that are compared in one transaction.
const CHUNK: usize = 64;
/// Differences that are told, one of a recording.
const MOST_TOLD: usize = 100;
/// Characters of a value that are told.
const MOST_SHOWN: usize = 100;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Recordings whose rows were compared.
    pub recordings: u64,
    /// Sessions whose rows are not what the recordings say.
    pub differing: u64,
    /// The first difference of each, up to a hundred sessions.
    pub differences: Vec<Difference>,
    /// Recordings that are sealed, and that the index says it has not read to their end.
    pub behind: u64,
    /// Recordings that were not compared because they are encrypted, and not opened.
    pub locked: u64,
    /// Recordings that were not compared because they cannot be read whole.
    pub damaged: u64,
    /// Sessions of other gateways in this database, which are for those to compare.
    pub elsewhere: BTreeMap<String, i64>,
}

/// The first row of a session that is not what its recording says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The session's id, or what stands in its place.
    pub session: Uuid,
    /// What differs, with values as the database and the recording have them: hostile text.
    pub what: String,
}

impl Database {
    /// Compares the rows of this gateway's sessions with those that its recordings make. A gateway
    /// may run meanwhile: recordings that are not sealed are passed over. Reads files and all rows,
    /// so run it where that may block.
    ///
    /// # Errors
    /// When recordings cannot be listed or the database fails. A damaged recording is none.
    pub async fn compare_index(
        &self,
        data_dir: &Path,
        index_text: bool,
        keyring: &Keyring,
    ) -> Result<Compared, ReindexError> {
        let gateway = gateway_of(data_dir).map_err(ReindexError::Recordings)?;
        let keyring = keyring.clone();
        let place = Place { data_dir: data_dir.to_owned(), gateway, index_text, keyring };
        let mut connection = self.connect().await?;
        super::super::migrations::check(&mut connection).await?;
        let schema: String = sqlx::query_scalar(SCHEMA).fetch_one(&mut connection).await?;
        // Before the recordings are listed: what has rows by now has a recording.
        let indexed = indexed(&mut connection, &place.gateway).await?;
        let ledger = ledger_offset(&mut connection, &place.gateway).await?.unwrap_or(0);
        let known = known(data_dir, ledger)?;
        let all = all_recordings(data_dir).map_err(ReindexError::Recordings)?;
        let all: Vec<_> = all.into_iter().map(|(session, ..)| session).collect();
        let mut compared = Compared::default();
        for chunk in all.chunks(CHUNK) {
            let mut read = connection.begin().await?;
            read.execute("set transaction isolation level repeatable read").await?;
            compare(&mut read, (&place, &schema), (chunk, &known), &mut compared).await?;
            read.rollback().await?;
        }
        let there: BTreeSet<_> = all.iter().map(SessionId::as_uuid).collect();
        let added: Vec<_> = indexed.into_iter().filter(|id| !there.contains(id)).collect();
        // Some may have been deleted since.
        for session in still(&mut connection, &added).await? {
            compared.differs(session, "the index has rows of it, and there is no recording".into());
        }
        compared.elsewhere = elsewhere(&mut connection, &place.gateway).await?;
        Ok(compared)
    }
}

impl Compared {
    fn differs(&mut self, session: Uuid, what: String) {
        self.differing += 1;
        if self.differences.len() < MOST_TOLD {
            self.differences.push(Difference { session, what });
        }
    }
}

const SCHEMA: &str = "select quote_ident(n.nspname) from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace where c.oid = 'sessions'::regclass";

/// Sessions that the index has rows of: those of this gateway, and commands of nobody's sessions.
async fn indexed(connection: &mut PgConnection, gateway: &str) -> Result<Vec<Uuid>, DatabaseError> {
    let ids = sqlx::query_scalar(
        "select id from sessions where gateway = $1 union \
         select session from commands c where not exists (select from sessions where id = session)",
    )
    .bind(gateway)
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// Those of the sessions that have rows now.
async fn still(
    connection: &mut PgConnection,
    sessions: &[Uuid],
) -> Result<Vec<Uuid>, DatabaseError> {
    let ids = sqlx::query_scalar(
        "select id from sessions where id = any($1) \
         union select session from commands where session = any($1)",
    )
    .bind(sessions)
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

async fn elsewhere(
    connection: &mut PgConnection,
    gateway: &str,
) -> Result<BTreeMap<String, i64>, DatabaseError> {
    let counts: Vec<(String, i64)> =
        sqlx::query_as("select gateway, count(*) from sessions where gateway <> $1 group by 1")
            .bind(gateway)
            .fetch_all(connection)
            .await?;
    Ok(counts.into_iter().collect())
}

/// The sessions that the ledger opened up to there: the index knows of these.
fn known(data_dir: &Path, offset: u64) -> Result<BTreeSet<SessionId>, ReindexError> {
    let mut ledger = LedgerFollower::open(data_dir, 0).map_err(ReindexError::Recordings)?;
    let mut known = BTreeSet::new();
    while let Some(news) = ledger.next_line().map_err(ReindexError::Recordings)? {
        if ledger.offset() > offset {
            break;
        }
        if let LedgerNews::Opened(session) = news {
            known.insert(session);
        }
    }
    Ok(known)
}

/// Compares some recordings; the transaction is to be rolled back.
async fn compare(
    connection: &mut PgConnection,
    (place, schema): (&Place, &str),
    (sessions, known): (&[SessionId], &BTreeSet<SessionId>),
    compared: &mut Compared,
) -> Result<(), DatabaseError> {
    let ids: Vec<Uuid> = sessions.iter().map(SessionId::as_uuid).collect();
    let positions: Vec<(Uuid, bool)> = sqlx::query_as(
        "select session, sealed or failed is not null from recordings where session = any($1)",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let positions: HashMap<_, _> = positions.into_iter().collect();
    for (table, key) in [("sessions", "id"), ("commands", "session, sequence")] {
        let statement = format!(
            "create temp table {table} (like {schema}.{table} including defaults, \
             primary key ({key})) on commit drop"
        );
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    let mut made = Vec::new();
    for session in sessions {
        match make(connection, place, *session).await? {
            Made::Rows => {
                // A recording that the index read of in the ledger has its place in it.
                let read = positions.get(&session.as_uuid()).copied();
                if read.unwrap_or_else(|| known.contains(session)) {
                    made.push(session.as_uuid());
                } else {
                    compared.behind += 1;
                }
            }
            Made::Open => {}
            Made::Locked => compared.locked += 1,
            Made::Damaged => compared.damaged += 1,
        }
    }
    compared.recordings += made.len() as u64;
    let mut first: BTreeMap<Uuid, String> = BTreeMap::new();
    for query in [sessions_apart(schema), commands_apart(schema)] {
        let apart: Vec<Apart> =
            sqlx::query_as(AssertSqlSafe(query)).bind(&made).fetch_all(&mut *connection).await?;
        for (session, sequence, recorded, indexed) in apart {
            let of = sequence
                .map_or_else(|| "the session".to_owned(), |number| format!("command {number}"));
            first.entry(session).or_insert_with(|| told(&of, recorded, indexed));
        }
    }
    first.into_iter().for_each(|(session, what)| compared.differs(session, what));
    Ok(())
}

/// What became of making a recording's rows.
enum Made {
    Rows,
    Open,
    Locked,
    Damaged,
}

/// Makes the rows of one recording, in as many batches as it takes.
async fn make(
    connection: &mut PgConnection,
    place: &Place,
    session: SessionId,
) -> Result<Made, DatabaseError> {
    let mut reading = Reading::new(session);
    loop {
        let mut batch = Batch::default();
        let Ok(whole) = read_on(place, &mut reading, &mut batch) else { return Ok(Made::Damaged) };
        if reading.unread {
            return Ok(Made::Locked);
        }
        batch::rows(connection, &batch, reading.row.iter()).await?;
        match (whole, reading.sealed) {
            (false, _) => {}
            (true, true) => return Ok(Made::Rows),
            (true, false) => return Ok(Made::Open),
        }
    }
}

/// A session, a command's sequence, and both rows.
type Apart = (Uuid, Option<i64>, Option<Json<Value>>, Option<Json<Value>>);

fn sessions_apart(schema: &str) -> String {
    format!(
        "select coalesce(r.id, i.id), null::bigint, to_jsonb(r), to_jsonb(i) \
         from (select * from pg_temp.sessions where id = any($1)) r \
         full join (select * from {schema}.sessions where id = any($1)) i on i.id = r.id \
         where to_jsonb(r) is distinct from to_jsonb(i)"
    )
}

/// Of each session the first command.
fn commands_apart(schema: &str) -> String {
    format!(
        "select distinct on (1) coalesce(r.session, i.session), coalesce(r.sequence, i.sequence), \
         to_jsonb(r), to_jsonb(i) \
         from (select * from pg_temp.commands where session = any($1)) r \
         full join (select * from {schema}.commands where session = any($1)) i \
         on i.session = r.session and i.sequence = r.sequence \
         where to_jsonb(r) is distinct from to_jsonb(i) order by 1, 2"
    )
}

fn told(of: &str, recorded: Option<Json<Value>>, indexed: Option<Json<Value>>) -> String {
    let (recorded, indexed) = match (recorded, indexed) {
        (Some(Json(Value::Object(recorded))), Some(Json(Value::Object(indexed)))) => {
            (recorded, indexed)
        }
        (Some(_), None) => return format!("the index has no row of {of}"),
        (None, _) => return format!("the index has a row of {of}, and the recording has none"),
        (Some(_), Some(_)) => return format!("{of}: its row is another one"),
    };
    let apart = recorded.iter().find(|(column, value)| indexed.get(*column) != Some(value));
    let Some((column, value)) = apart else { return format!("{of}: its row is another one") };
    let there = indexed.get(column).unwrap_or(&Value::Null);
    format!("{of}: {column} is {} in the index and {} in the recording", shown(there), shown(value))
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
