//! Making the index of one gateway anew from its recordings, and comparing indexes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::advance::read_on;
use super::batch::{self, Batch};
use super::catch_up::{Place, announce};
use super::gateway_of;
use super::reading::Reading;
use super::undecryptable::LOCKED;
use crate::database::{Database, DatabaseError};
use crate::names::SessionId;
use crate::recording::{Keyring, LedgerFollower, all_recordings};

/// Recordings whose rows are replaced in one transaction.
const CHUNK: usize = 64;

/// How far a reindex is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Recordings done.
    pub recordings: u64,
    /// Of so many.
    pub of_recordings: u64,
    /// Bytes of recordings done.
    pub bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
}

/// What a reindex did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reindexed {
    /// Recordings that were read.
    pub recordings: u64,
    /// Rows that were written for their commands.
    pub commands: u64,
    /// Sessions that were in the index and have no recording here any more; they are gone.
    pub removed: u64,
    /// Recordings that are encrypted and could not be opened, or not all of them.
    pub locked: u64,
    /// Recordings that could not be read whole, and why; what came before is in the index.
    pub damaged: Vec<(SessionId, String)>,
}

/// Why a reindex ended early. Every recording is then indexed as before or anew, none by half.
#[derive(Debug, thiserror::Error)]
pub enum ReindexError {
    /// The recordings cannot be listed.
    #[error("cannot list the recordings: {0}")]
    Recordings(#[source] io::Error),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for ReindexError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Database {
    /// Replaces all rows of this gateway's sessions by what its recordings say; those of other
    /// gateways stay. Needs the lock on `data_dir` to be held, and the tables to be there. Reads
    /// files, so run it where that may block.
    ///
    /// # Errors
    /// When recordings cannot be listed or the database fails. A damaged recording is none.
    pub async fn reindex(
        &self,
        data_dir: &Path,
        index_text: bool,
        keyring: &Keyring,
        mut progress: impl FnMut(Progress),
    ) -> Result<Reindexed, ReindexError> {
        let gateway = gateway_of(data_dir).map_err(ReindexError::Recordings)?;
        let keyring = keyring.clone();
        let place = Place { data_dir: data_dir.to_owned(), gateway, index_text, keyring };
        let all = all_recordings(data_dir).map_err(ReindexError::Recordings)?;
        let mut far = Progress {
            of_recordings: all.len() as u64,
            of_bytes: all.iter().map(|(_, _, bytes)| bytes).sum(),
            ..Progress::default()
        };
        progress(far);
        let mut connection = self.connect().await?;
        super::super::migrations::check(&mut connection).await?;
        let mut done = Reindexed::default();
        let mut partitions = BTreeSet::new();
        for chunk in all.chunks(CHUNK) {
            let sessions: Vec<_> = chunk.iter().map(|(session, ..)| *session).collect();
            let mut write = connection.begin().await?;
            batch::delete(&mut write, &sessions).await?;
            batch::make_partitions(&mut write, sessions.iter().copied(), &mut partitions).await?;
            for (session, _, bytes) in chunk {
                index(&mut write, &place, *session, &mut done).await?;
                far.recordings += 1;
                far.bytes += bytes;
                progress(far);
            }
            write.commit().await?;
        }
        let mut write = connection.begin().await?;
        done.removed = remove_others(&mut write, &place.gateway, &all).await?;
        let mut ledger = LedgerFollower::open(data_dir, 0).map_err(ReindexError::Recordings)?;
        while ledger.next_line().map_err(ReindexError::Recordings)?.is_some() {}
        announce(&mut write, &place.gateway, &[], ledger.offset()).await?;
        write.commit().await?;
        Ok(done)
    }

    /// Numbers that are the same for two indexes of the same rows: of `sessions` and `commands`,
    /// how many there are and a sum of their hashes. Reads all rows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn index_digest(&self) -> Result<[(i64, String); 2], DatabaseError> {
        let mut connection = self.connect().await?;
        let mut digest = Vec::new();
        for query in [
            "select count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text from sessions t",
            "select count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text from commands t",
        ] {
            digest.push(sqlx::query_as(query).fetch_one(&mut connection).await?);
        }
        digest.try_into().map_err(|_| DatabaseError::Other(sqlx::Error::RowNotFound))
    }
}

/// Indexes one recording whole, in as many batches as it takes.
async fn index(
    connection: &mut PgConnection,
    place: &Place,
    session: SessionId,
    done: &mut Reindexed,
) -> Result<(), ReindexError> {
    let mut reading = Reading::new(session);
    loop {
        let mut batch = Batch::default();
        let read = read_on(place, &mut reading, &mut batch);
        let more = matches!(read, Ok(false));
        if let Err(error) = read {
            reading.failed = Some(error.to_string());
            done.damaged.push((session, error.to_string()));
        }
        done.commands += batch.rows() as u64;
        batch::write(connection, &place.gateway, &batch, std::iter::once(&reading)).await?;
        if !more {
            done.locked += u64::from(reading.failed.as_deref() == Some(LOCKED));
            done.recordings += 1;
            return Ok(());
        }
    }
}

/// Removes the gateway's sessions that have no recording.
async fn remove_others(
    connection: &mut PgConnection,
    gateway: &str,
    all: &[(SessionId, PathBuf, u64)],
) -> Result<u64, DatabaseError> {
    let there: BTreeSet<Uuid> = all.iter().map(|(session, ..)| session.as_uuid()).collect();
    let indexed: Vec<Uuid> = sqlx::query_scalar(
        "select session from recordings where gateway = $1 \
         union select id from sessions where gateway = $1",
    )
    .bind(gateway)
    .fetch_all(&mut *connection)
    .await?;
    let gone: Vec<SessionId> = indexed
        .iter()
        .filter(|id| !there.contains(id))
        .filter_map(|id| id.to_string().parse().ok())
        .collect();
    for chunk in gone.chunks(CHUNK) {
        batch::delete(connection, chunk).await?;
    }
    Ok(gone.len() as u64)
}
