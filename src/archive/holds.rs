//! Legal holds. In the database they stand once; beside each recording that they hold they stand
//! as a file, so that they are known where the database is not.
//!
//! Limit: a file comes beside a recording within a minute of its session's start, or of the hold.
//! Until then the database alone knows that it is held.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::database::{Database, DatabaseError, Hold, HoldFilter, OneSession, Timestamp};
use crate::names::{HoldId, SessionId};
use crate::recording::Store;

/// How often sessions are looked for that a hold covers since.
const EVERY: Duration = Duration::from_secs(60);
/// The shortest time between two looks, however much news there is.
const CALM: Duration = Duration::from_secs(1);
/// How long a failure of the database is waited out.
const RETRY: Duration = Duration::from_secs(2);
/// The private server is started beside the gateway: a failure of that long is no start any more.
const STARTING: Duration = Duration::from_secs(15);
/// Files that are written before the database is told of them.
const BATCH: i64 = 500;

/// Why the holds beside recordings are not those in the database.
#[derive(Debug, thiserror::Error)]
pub(super) enum HoldError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("a hold cannot be written beside its recording: {0}")]
    Io(#[from] std::io::Error),
}

/// Keeps the holds of the database beside the recordings of one gateway, until cancelled.
pub async fn keep_holds(database: Database, store: Store, cancel: CancellationToken) {
    let holds = Holds { database, store };
    let mut found = holds.store.found_holds();
    let mut failing: Option<Instant> = None;
    let mut told = false;
    loop {
        let began = Instant::now();
        let error = match cancel.run_until_cancelled(holds.attend(&mut found)).await {
            None => return,
            Some(Err(error)) => error,
            Some(Ok(never)) => match never {},
        };
        if began.elapsed() > STARTING {
            (failing, told) = (None, false);
        }
        let since = *failing.get_or_insert_with(Instant::now);
        if !told && since.elapsed() > STARTING {
            tracing::warn!(%error, "holds wait for the database or the disk");
            told = true;
        }
        if cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

/// The holds of one gateway's recordings.
#[derive(Debug, Clone)]
pub(super) struct Holds {
    database: Database,
    store: Store,
}

impl Holds {
    pub(super) fn new(database: Database, store: Store) -> Self {
        Self { database, store }
    }

    /// Does what there is to do whenever there is news, and every minute.
    async fn attend(&self, found: &mut Vec<SessionId>) -> Result<Infallible, HoldError> {
        // Before looking, so that nothing is missed in between.
        let mut news = self.database.state_news().await?;
        loop {
            while let Some(session) = found.last() {
                self.reconcile(*session).await?;
                found.pop();
            }
            self.spread().await?;
            tokio::time::sleep(CALM).await;
            if let Ok(changed) = tokio::time::timeout(EVERY, news.changed()).await {
                changed?;
            }
        }
    }

    /// Brings the files in line with the database.
    async fn spread(&self) -> Result<(), HoldError> {
        let gateway = self.store.gateway();
        for hold in self.database.holds(false).await? {
            loop {
                let sessions = self.database.held_without_file(&hold, gateway, BATCH).await?;
                if sessions.is_empty() {
                    break;
                }
                let mut beside = self.database.holds_beside(&sessions).await?;
                for session in &sessions {
                    let mut holds = beside.remove(session).unwrap_or_default();
                    holds.push(hold.clone());
                    self.write(*session, &holds)?;
                }
                self.database.note_hold_files(hold.id, &sessions, gateway).await?;
            }
        }
        loop {
            let lifted = self.database.lifted_with_file(gateway, BATCH).await?;
            if lifted.is_empty() {
                return Ok(());
            }
            let sessions: Vec<_> = lifted.iter().map(|(_, session)| *session).collect();
            let mut beside = self.database.holds_beside(&sessions).await?;
            for (hold, session) in lifted {
                self.write(session, &beside.remove(&session).unwrap_or_default())?;
                self.database.forget_hold_file(hold, session).await?;
            }
        }
    }

    /// Takes a hold that was found beside a recording into the database, where it is not known
    /// there; whether the recording is held.
    pub(super) async fn reconcile(&self, session: SessionId) -> Result<bool, HoldError> {
        let Some(bytes) = self.store.hold_beside(session)? else { return Ok(false) };
        let mut held: BTreeMap<HoldId, Hold> = BTreeMap::new();
        for hold in read(session, &bytes) {
            let known = match self.database.hold(hold.id).await? {
                Some(known) => known,
                None => {
                    let id = hold.id;
                    tracing::warn!(%session, hold = %id, "a hold beside a recording is not in the database, which takes it from there");
                    self.database.set_hold(&hold).await?;
                    hold
                }
            };
            if known.lifted_at.is_none() {
                self.database.note_hold_files(known.id, &[session], self.store.gateway()).await?;
                held.insert(known.id, known);
            }
        }
        let beside = self.database.holds_beside(&[session]).await?;
        held.extend(beside.into_values().flatten().map(|hold| (hold.id, hold)));
        let holds: Vec<_> = held.into_values().collect();
        self.write(session, &holds)?;
        Ok(!holds.is_empty())
    }

    /// Some milliseconds of a disk at most.
    fn write(&self, session: SessionId, holds: &[Hold]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        if !holds.is_empty() {
            bytes = serde_json::to_vec_pretty(holds)?;
            bytes.push(b'\n');
        }
        self.store.put_hold(session, &bytes)
    }
}

/// The holds in a file. One that is not readable holds all the same.
fn read(session: SessionId, bytes: &[u8]) -> Vec<Hold> {
    let holds: Vec<Hold> = serde_json::from_slice(bytes).unwrap_or_default();
    if !holds.is_empty() {
        return holds;
    }
    vec![Hold {
        id: HoldId::generate(),
        reason: "a hold stood beside the recording and could not be read".to_owned(),
        filter: HoldFilter::Session(OneSession { session }),
        set_at: Timestamp::from(std::time::SystemTime::now()),
        set_by: "gateway".to_owned(),
        lifted_at: None,
        lifted_by: None,
        lift_reason: None,
    }]
}
