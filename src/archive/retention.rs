//! Deleting recordings whose time is over.
//!
//! In this order, so that whatever is interrupted can be done again: no hold is set meanwhile; a
//! tombstone is in the ledger; the files go; then, in batches, the rows of the index. All of it
//! needs the database, so nothing is deleted while that is away.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Mutex, RwLock};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::clock::{self, Clock};
use super::grace::{Class, InForce};
use super::holds::{HoldError, Holds};
use super::store::{Archive, ArchiveError};
use crate::catalog::Catalog;
use crate::database::{
    AuditEntry, Cutoff, Database, DatabaseError, DueRecording, RetentionClass, Timestamp,
};
use crate::names::SessionId;
use crate::recording::{Burial, Due, Store};

/// How often what is due is looked for.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// How soon again when the database was away, or the index was not there yet.
const RETRY: Duration = Duration::from_secs(10);
/// Recordings that go while no hold can be set.
const BATCH: i64 = 64;
/// Recordings that could not be deleted before a run gives up.
const MOST_LEFT: usize = 1000;
/// How long one call of the API deletes before it says that there is more.
const SLICE: Duration = Duration::from_secs(5);

/// Why nothing more was deleted.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A file could not be deleted, or the ledger not be written.
    #[error("the recordings cannot be deleted: {0}")]
    Io(#[from] std::io::Error),
    /// The archive cannot be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Gateway and database do not agree what time it is.
    #[error("the clocks of gateway and database are more than an hour apart")]
    Clocks,
}

impl From<HoldError> for PruneError {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Database(error) => Self::Database(error),
            HoldError::Io(error) => Self::Io(error),
        }
    }
}

/// What a run did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Recordings that were deleted.
    pub deleted: u64,
    /// Bytes of their files here.
    pub bytes: u64,
    /// Recordings that are due and are held.
    pub held: u64,
    /// Recordings that are due and were not deleted: all of them without a run.
    pub due: u64,
    /// Whether another run would delete more.
    pub more: bool,
}

/// Who has recordings deleted.
#[derive(Debug, Clone)]
pub struct By(pub AuditEntry);

/// Where sealed recordings were moved to.
#[derive(Debug, Clone)]
pub struct Archived {
    /// The archive.
    pub archive: Archive,
    /// Held for reading while a recording is on its way there.
    pub turn: Arc<RwLock<()>>,
}

/// The retention of one gateway's recordings.
#[derive(Debug)]
pub struct Retention {
    database: Database,
    store: Store,
    catalog: Arc<Catalog>,
    holds: Holds,
    archived: Option<Archived>,
    /// Where it is noted how long recordings are kept, and how long a shorter time waits.
    grace: Option<(PathBuf, Duration)>,
    /// One run at a time, by one clock.
    clock: Mutex<Clock>,
}

/// Who wants recordings deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// The gateway by itself: what was shortened waits.
    Schedule,
    /// Somebody who asks for it.
    Person,
    /// Somebody who wants to know.
    Look,
}

impl Retention {
    /// Of the recordings in a store.
    pub fn new(
        database: Database,
        store: Store,
        catalog: Arc<Catalog>,
        archived: Option<Archived>,
    ) -> Arc<Self> {
        let holds = Holds::new(database.clone(), store.clone());
        let clock = Mutex::default();
        Arc::new(Self { database, store, catalog, holds, archived, grace: None, clock })
    }

    /// The same, where a time that was shortened waits for so long before it is gone by. What is
    /// in force is noted in `data_dir`.
    #[must_use]
    pub fn with_grace(self: Arc<Self>, data_dir: PathBuf, grace: Duration) -> Arc<Self> {
        let Self { database, store, catalog, holds, archived, .. } = &*self;
        Arc::new(Self {
            database: database.clone(),
            store: store.clone(),
            catalog: Arc::clone(catalog),
            holds: holds.clone(),
            archived: archived.clone(),
            grace: Some((data_dir, grace)),
            clock: Mutex::default(),
        })
    }

    /// Deletes what is due, again and again until cancelled.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let by = By(AuditEntry {
            issuer: None,
            subject: None,
            username: "gateway".to_owned(),
            client: None,
            action: "recording.prune".to_owned(),
            object: None,
            outcome: "done".to_owned(),
            detail: std::collections::BTreeMap::new(),
        });
        let mut failures = 0_u32;
        loop {
            let Some(done) = cancel.run_until_cancelled(self.scheduled(&by)).await else { return };
            failures = if done.is_ok() { 0 } else { failures.saturating_add(1) };
            // The first time the database may only be starting, with the gateway.
            if failures == 2 {
                tracing::warn!("retention stops until the database can be reached");
            }
            let pause = match done {
                Ok(Pruned { more: true, .. }) => continue,
                Ok(_) => EVERY,
                Err(_) => RETRY,
            };
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn scheduled(&self, by: &By) -> Result<Pruned, PruneError> {
        if !self.catalog.current().keeps() {
            // So that a first rule is known to be one.
            let mut clock = self.clock.lock().await;
            self.cutoffs(&mut clock, Wish::Schedule).await?;
            return Ok(Pruned::default());
        }
        let pruned = self.delete(by, Wish::Schedule).await;
        match &pruned {
            Ok(Pruned { deleted: 0, .. }) | Err(PruneError::Database(_)) => {}
            Ok(Pruned { deleted, bytes, held, .. }) => {
                tracing::info!(deleted, bytes, held, "deleted recordings whose time was over");
            }
            Err(error) => tracing::error!(%error, "retention"),
        }
        pruned
    }

    /// What is due now.
    ///
    /// # Errors
    /// When the database fails or the clocks do not agree.
    pub async fn look(&self) -> Result<Pruned, PruneError> {
        let mut clock = self.clock.lock().await;
        let cutoffs = self.cutoffs(&mut clock, Wish::Look).await?;
        let cutoffs: Vec<_> = cutoffs.into_iter().map(|(cutoff, _)| cutoff).collect();
        let (due, held) = self.database.count_due(self.store.gateway(), &cutoffs).await?;
        Ok(Pruned { due, held, more: due > 0, ..Pruned::default() })
    }

    /// Deletes what is due, for some seconds.
    ///
    /// # Errors
    /// When the database fails, the clocks do not agree, or a file cannot be deleted. What was
    /// begun is gone on with in the next run.
    pub async fn prune(&self, by: &By) -> Result<Pruned, PruneError> {
        self.delete(by, Wish::Person).await
    }

    async fn delete(&self, by: &By, wish: Wish) -> Result<Pruned, PruneError> {
        let mut clock = self.clock.lock().await;
        let began = Instant::now();
        let gateway = self.store.gateway();
        while self.database.sweep(gateway, BATCH).await? > 0 {}
        let cutoffs = self.cutoffs(&mut clock, wish).await?;
        let only: Vec<_> = cutoffs.iter().map(|(cutoff, _)| *cutoff).collect();
        let mut pruned = Pruned::default();
        let mut left = Vec::new();
        while left.len() < MOST_LEFT {
            let due = self.database.due_recordings(gateway, &only, &left, BATCH).await?;
            if due.is_empty() {
                break;
            }
            let more = self.batch(due, &cutoffs, by, &mut pruned).await?;
            left.extend(more);
            while self.database.sweep(gateway, BATCH).await? > 0 {}
            if began.elapsed() > SLICE {
                pruned.more = true;
                break;
            }
        }
        pruned.due = left.len() as u64;
        Ok(pruned)
    }

    /// Deletes some; gives back those that stay although the database does not know why.
    async fn batch(
        &self,
        due: Vec<DueRecording>,
        cutoffs: &[(Cutoff, Duration)],
        By(entry): &By,
        pruned: &mut Pruned,
    ) -> Result<Vec<SessionId>, PruneError> {
        let sessions: Vec<_> = due.iter().map(|due| due.session).collect();
        // What is on its way to the archive would come there after it was deleted.
        let turn = match &self.archived {
            Some(archived) => Some(Arc::clone(&archived.turn).write_owned().await),
            None => None,
        };
        let mut pruning = self.database.begin_pruning().await?;
        let held = pruning.held(&sessions).await?;
        let mortal: Vec<_> = due.into_iter().filter(|due| !held.contains(&due.session)).collect();
        let there = self.archived_among(&mortal).await?;
        let (store, keeps) = (self.store.clone(), cutoffs.to_vec());
        let (buried, kept) = spawn_blocking(move || bury(&store, &mortal, &there, &keeps))
            .await
            .map_err(std::io::Error::other)??;
        let (buried, stuck) = self.delete_archived(buried).await;
        let (store, gone) = (self.store.clone(), buried.clone());
        let bytes = spawn_blocking(move || store.take_away(&gone))
            .await
            .map_err(std::io::Error::other)??;
        drop(turn);
        let gone = buried;
        let entry = (!gone.is_empty()).then(|| {
            let mut entry = entry.clone();
            entry.detail.insert("gateway".to_owned(), json!(self.store.gateway()));
            entry.detail.insert("sessions".to_owned(), json!(gone));
            entry
        });
        pruning.finish(&gone, &held, entry.as_ref()).await?;
        pruned.deleted += gone.len() as u64;
        pruned.held += held.len() as u64;
        pruned.bytes += bytes;
        // A database that lost its holds gets them back from the files.
        for session in &kept {
            pruned.held += u64::from(self.holds.reconcile(*session).await?);
        }
        Ok([kept, stuck].concat())
    }

    /// Which of these are in the archive.
    async fn archived_among(
        &self,
        due: &[DueRecording],
    ) -> Result<BTreeSet<SessionId>, PruneError> {
        let Some(Archived { archive, .. }) = &self.archived else { return Ok(BTreeSet::new()) };
        let asked = due.iter().map(|due| async move {
            let key = archive.key(self.store.gateway(), due.session);
            Ok::<_, ArchiveError>((due.session, archive.length(&key).await?.is_some()))
        });
        let answers = try_join_all(asked).await?;
        Ok(answers.into_iter().filter(|(_, there)| *there).map(|(session, _)| session).collect())
    }

    /// Deletes from the archive; gives back those that are gone from there, and those that are not.
    async fn delete_archived(&self, sessions: Vec<SessionId>) -> (Vec<SessionId>, Vec<SessionId>) {
        let Some(Archived { archive, .. }) = &self.archived else { return (sessions, Vec::new()) };
        let deleted = sessions.into_iter().map(|session| async move {
            let done = archive.delete(&archive.key(self.store.gateway(), session)).await;
            if let Err(error) = &done {
                tracing::warn!(%session, %error, "a recording is not deleted from the archive yet");
            }
            (session, done.is_ok())
        });
        let (gone, stuck): (Vec<_>, Vec<_>) =
            join_all(deleted).await.into_iter().partition(|(_, gone)| *gone);
        let sessions = |pairs: Vec<(SessionId, bool)>| pairs.into_iter().map(|(s, _)| s).collect();
        (sessions(gone), sessions(stuck))
    }

    /// Until when sessions must have ended to be due, and how long that is, by class.
    async fn cutoffs(
        &self,
        clock: &mut Clock,
        wish: Wish,
    ) -> Result<Vec<(Cutoff, Duration)>, PruneError> {
        let gateway = self.store.gateway();
        let times = self.database.retention_times(gateway).await?;
        let wall = SystemTime::now();
        if !clock::agree(wall, times.database.to_system_time()) {
            return Err(PruneError::Clocks);
        }
        let noted = times.noted.map(Timestamp::to_system_time);
        let now = clock.now(noted, (wall, Instant::now()));
        if noted.is_none_or(|noted| noted < now) {
            self.database.note_retention_time(gateway, Timestamp::from(now)).await?;
        }
        let rules = self.catalog.current();
        let classes = self.database.retention_classes().await?;
        let mut keeps: Vec<_> =
            classes.iter().map(|class| rules.keep(&class.target, &class.groups)).collect();
        if let Some((data_dir, grace)) = &self.grace
            && wish != Wish::Look
        {
            let before = InForce::read(data_dir)?;
            let mut in_force = before.clone();
            in_force.under(&rules.retention());
            for (class, keep) in classes.iter().zip(&mut keeps) {
                let name = Class { target: &class.target, groups: &class.groups };
                match wish {
                    Wish::Schedule => *keep = in_force.keep(&name, *keep, (now, *grace)),
                    Wish::Person | Wish::Look => in_force.at_once(&name, *keep),
                }
            }
            if in_force != before {
                in_force.write(data_dir)?;
            }
            if in_force.waits() && !before.waits() {
                tracing::warn!(
                    ?grace,
                    "[[retention]] was shortened: what it would delete now stays for a while yet \
                     (`portcullis recording prune` deletes it, with --dry-run it is counted)"
                );
            }
        }
        let cutoff = |(class, keep): (&RetentionClass, Option<Duration>)| {
            let before = Timestamp::from(now.checked_sub(keep?)?);
            Some((Cutoff { class: class.id, before }, keep?))
        };
        Ok(classes.iter().zip(keeps).filter_map(cutoff).collect())
    }
}

/// Writes tombstones; who has one, and who stays because of a hold.
fn bury(
    store: &Store,
    due: &[DueRecording],
    archived: &BTreeSet<SessionId>,
    keeps: &[(Cutoff, Duration)],
) -> std::io::Result<(Vec<SessionId>, Vec<SessionId>)> {
    let mut mortal = Vec::new();
    for one in due {
        let keep = keeps.iter().find(|(cutoff, _)| cutoff.class == one.class);
        let keep_seconds = keep.map_or(0, |(_, keep)| keep.as_secs());
        let burial = Burial { ended_at: one.ended_at.to_string(), keep_seconds };
        let missing = store.length_of(one.session)?.is_none() && !archived.contains(&one.session);
        mortal.push(Due { session: one.session, burial, missing });
    }
    let kept: BTreeSet<_> = store.entomb(&mortal)?.into_iter().collect();
    let (kept, buried): (Vec<_>, Vec<_>) =
        mortal.iter().map(|due| due.session).partition(|session| kept.contains(session));
    Ok((buried, kept))
}
