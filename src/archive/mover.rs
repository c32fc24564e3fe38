//! Moving sealed recordings to the archive: uploaded, read back, and only then taken away here.
//!
//! What cannot be moved stays and is tried again, each recording at its own pace; while the store
//! is down the recordings here grow to `max_local`, and beyond that sessions are refused. Killed
//! anywhere, the next start goes on: what is there already is read back and not sent again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::RwLock;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::store::{Archive, ArchiveError};
use crate::metrics::{Archiving, Metrics};
use crate::names::SessionId;
use crate::recording::{LedgerFollower, LedgerNews, Store, recording_path, recordings};

/// How often news of the ledger are looked for.
const POLL: Duration = Duration::from_millis(500);
/// What was sealed just now stays so long: the index is about to read it, and need not fetch it.
const INDEXING: Duration = Duration::from_secs(2);
/// Recordings that are on their way at once.
const AT_ONCE: usize = 8;
/// Pauses of one recording after a failure, the shortest and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The longest pause of all of them, when none could be moved.
const CALM: Duration = Duration::from_secs(30);

/// Moves the recordings of one gateway.
#[derive(Debug)]
pub struct Mover {
    archive: Archive,
    store: Store,
    data_dir: PathBuf,
    turn: Arc<RwLock<()>>,
    metrics: Arc<Metrics>,
    waiting: BTreeMap<SessionId, Attempt>,
    /// Nothing is tried before, and how long that was.
    calm: (Instant, Duration),
    failures: u64,
    moved: u64,
}

/// When a recording is tried next.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    next: Instant,
    pause: Duration,
}

impl Mover {
    /// Of the recordings in a store. While `turn` is held for writing, nothing is on its way.
    pub fn new(
        archive: Archive,
        store: Store,
        data_dir: impl Into<PathBuf>,
        turn: Arc<RwLock<()>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            archive,
            store,
            metrics,
            data_dir: data_dir.into(),
            turn,
            waiting: BTreeMap::new(),
            calm: (Instant::now(), RETRY.0),
            failures: 0,
            moved: 0,
        }
    }

    /// Runs until cancelled. An upload under way is given up and begun anew by the next start.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut news = match self.begin().await {
            Ok(news) => news,
            Err(error) => {
                tracing::error!(%error, "nothing is archived: the recordings cannot be listed");
                return;
            }
        };
        while cancel.run_until_cancelled(self.round(&mut news)).await.is_some() {}
    }

    /// Finds what is here, and where the ledger goes on.
    async fn begin(&mut self) -> io::Result<LedgerFollower> {
        let data_dir = self.data_dir.clone();
        let listed = spawn_blocking(move || {
            // Before listing: what is sealed after it is in the news.
            let length = data_dir.join("ledger").metadata()?.len();
            let news = LedgerFollower::open(&data_dir, length)?;
            let sealed = |path: &PathBuf| !path.with_extension("journal").exists();
            let mut here = recordings(&data_dir)?;
            here.retain(|(_, path, _)| sealed(path));
            Ok::<_, io::Error>((news, here))
        });
        let (news, here) = listed.await.map_err(io::Error::other)??;
        here.into_iter().for_each(|(session, ..)| self.wants(session, Duration::ZERO));
        Ok(news)
    }

    fn wants(&mut self, session: SessionId, later: Duration) {
        let attempt = Attempt { next: Instant::now() + later, pause: RETRY.0 };
        self.waiting.entry(session).or_insert(attempt);
    }

    async fn round(&mut self, news: &mut LedgerFollower) {
        // A few lines of a file that was written just now.
        loop {
            match news.next_line() {
                Ok(Some(LedgerNews::Sealed(session))) => self.wants(session, INDEXING),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => match self.begin().await {
                    Ok(again) => *news = again,
                    Err(_) => return sleep(CALM).await,
                },
            }
        }
        let now = Instant::now();
        let due = self.waiting.iter().filter(|(_, attempt)| attempt.next <= now);
        let due: Vec<_> = due.map(|(session, _)| *session).take(AT_ONCE).collect();
        self.tell();
        if due.is_empty() || now < self.calm.0 {
            return sleep(POLL).await;
        }
        let moves = due.iter().map(|session| self.take(*session));
        let done = join_all(moves).await;
        let mut any = false;
        for (session, done) in due.into_iter().zip(done) {
            match done {
                Ok(()) => {
                    any = true;
                    self.moved += 1;
                    self.waiting.remove(&session);
                }
                Err(error) => self.failed(session, &error),
            }
        }
        self.calm = if any {
            (now, RETRY.0)
        } else {
            (Instant::now() + self.calm.1, (self.calm.1 * 2).min(CALM))
        };
    }

    fn failed(&mut self, session: SessionId, error: &ArchiveError) {
        self.failures += 1;
        tracing::warn!(%session, %error, "a recording is not archived yet; trying again");
        if let Some(attempt) = self.waiting.get_mut(&session) {
            attempt.next = Instant::now() + attempt.pause;
            attempt.pause = (attempt.pause * 2).min(RETRY.1);
        }
    }

    /// Moves one recording.
    async fn take(&self, session: SessionId) -> Result<(), ArchiveError> {
        let _turn = self.turn.read().await;
        let path = recording_path(&self.data_dir, &session);
        let file = match crate::files::open(&path) {
            Ok(file) => file,
            // Retention took it, or it was moved before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let key = self.archive.key(self.store.gateway(), session);
        self.archive.keep(&key, file).await?;
        let store = self.store.clone();
        let moved = spawn_blocking(move || store.was_moved(session));
        Ok(moved.await.map_err(io::Error::other)??)
    }

    fn tell(&self) {
        let waiting = self.waiting.len() as u64;
        let stuck = self.calm.1 > RETRY.0;
        self.metrics.archive(Archiving {
            waiting,
            moved: self.moved,
            failures: self.failures,
            reachable: !stuck,
            local_percent: self.store.per_cent_full(),
        });
    }
}
