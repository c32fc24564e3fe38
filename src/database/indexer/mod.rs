//! Keeping the index: reading recordings back, wherever they are ahead of it, and writing rows.
//!
//! Nothing waits for this. It runs in a thread of its own at low priority, sees events once they
//! are in a block (150 ms after they happened, a few bytes that passed a second later), and writes
//! them in batches, each with how far it takes the recordings in it. While the database cannot be
//! reached nothing is kept in memory:
//! the recordings are the queue. What is new it learns from the ledger and from the store, and
//! what it should have missed from looking at all open recordings every minute.
//!
//! Honest limits: after a long outage the oldest recordings come first, so the latest are found
//! last; and a statement that was prepared so long ago that it was forgotten is read from the
//! recording again, which costs a read per command.

mod advance;
mod batch;
mod catch_up;
mod compare;
mod copy;
mod lag;
mod lru;
mod pace;
mod reading;
mod reindex;
mod shorten;
mod undecryptable;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::migrations::{self, SchemaError};
use super::{Database, DatabaseError};
use crate::recording::{LedgerFollower, LedgerNews, Store};

pub(super) use batch::delete_rows_of;
use catch_up::{Following, Place, RoundError};
pub use compare::{Compared, Difference};
pub use lag::{IndexLag, LagWatch};
use pace::Pace;
pub use reindex::{Progress, ReindexError, Reindexed};

/// How often news are looked for.
const POLL: Duration = Duration::from_millis(250);
/// How often everything is looked at, and the database compared with what is known of it.
const SWEEP: Duration = Duration::from_secs(60);
/// Waits after a failure of the database, the shortest and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// The private server is started beside the gateway and may take as long to answer.
const STARTING: Duration = Duration::from_secs(10);
/// How long the last rounds may take when the gateway stops; the rest waits for the next start.
const LAST_ROUNDS: Duration = Duration::from_secs(5);
/// How long a stop waits for the indexer at all: on a machine that is busy with other things what
/// has the lowest priority may take minutes for one batch.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Sessions come before the index of what they did.
const NICE: i32 = 19;

/// How rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSettings {
    /// `[database] index_text`: whether texts, values and messages go into the index.
    pub index_text: bool,
    /// Whether the server is the gateway's own: then an older database is migrated here (an empty
    /// one always is), and the index's connection is served at low priority and rests while
    /// sessions are busy.
    pub private: bool,
}

/// Keeps the index of one gateway's recordings.
#[derive(Debug)]
pub struct Indexer {
    database: Database,
    store: Store,
    data_dir: PathBuf,
    settings: IndexSettings,
    lag: LagWatch,
}

impl Indexer {
    /// An indexer of the recordings in the store's `data_dir`.
    pub fn new(
        database: Database,
        store: Store,
        data_dir: impl Into<PathBuf>,
        settings: IndexSettings,
    ) -> Self {
        Self { database, store, data_dir: data_dir.into(), settings, lag: LagWatch::default() }
    }

    /// Where to see how far the index is behind.
    pub fn lag(&self) -> LagWatch {
        self.lag.clone()
    }

    /// Runs until cancelled, then indexes what there is, for at most some seconds, after which its
    /// thread is left to the end of the process. Cancel it after the store has framed its last
    /// blocks.
    pub async fn run(self, cancel: CancellationToken) {
        let (ended, wait) = oneshot::channel::<()>();
        let stop = cancel.clone();
        let thread = std::thread::Builder::new().name("indexer".to_owned()).spawn(move || {
            // On Linux this is of the thread alone; elsewhere it is left as it is.
            #[cfg(target_os = "linux")]
            let _modest = rustix::process::setpriority_process(None, NICE);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(self.work(cancel)),
                Err(error) => tracing::error!(%error, "the indexer does not start"),
            }
            drop(ended);
        });
        match thread {
            Ok(_) => tokio::select! {
                _ended = wait => {}
                () = stopped_for(&stop, GIVE_UP) => {
                    tracing::info!("the index is left as it is; the next start writes what it lacks");
                }
            },
            Err(error) => tracing::error!(%error, "the indexer does not start"),
        }
    }

    async fn work(self, cancel: CancellationToken) {
        let mut pause = RETRY.0;
        let started = Instant::now();
        loop {
            let began = Instant::now();
            let Err(error) = self.attend(&cancel).await else { return };
            if self.lag.stopped(error.to_string()) {
                if self.settings.private && started.elapsed() < STARTING {
                    tracing::info!(%error, "the index waits for its server, which is starting");
                } else {
                    tracing::warn!(%error, "the index waits; the recordings keep what is to be indexed");
                }
            }
            if began.elapsed() > RETRY.1 {
                pause = RETRY.0;
            }
            if cancel.run_until_cancelled(sleep(jittered(pause))).await.is_none() {
                return;
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Keeps the index until cancelled, or until the database fails.
    async fn attend(&self, cancel: &CancellationToken) -> Result<(), DatabaseError> {
        let mut connection = self.database.connect().await?;
        self.prepare(&mut connection).await?;
        self.database.is_found();
        if self.settings.private {
            be_modest(&mut connection).await?;
        }
        let place = Place {
            data_dir: self.data_dir.clone(),
            gateway: self.gateway()?,
            index_text: self.settings.index_text,
            keyring: self.store.keyring(),
        };
        let load = async |connection: &mut PgConnection| {
            Following::load(connection, place.clone(), self.lag.clone()).await
        };
        let mut following = load(&mut connection).await.map_err(failed)?;
        let mut swept = Instant::now();
        let mut pace = self.settings.private.then(Pace::new);
        loop {
            let last = cancel.is_cancelled();
            if swept.elapsed() > SWEEP {
                swept = Instant::now();
                following.look_at_all();
                if let Err(RoundError::Stale) = following.check(&mut connection).await {
                    following = load(&mut connection).await.map_err(failed)?;
                }
            }
            let rounds = self.rounds(&mut following, &mut connection, pace.as_mut(), cancel);
            let done = tokio::select! {
                done = rounds => done,
                () = stopped_for(cancel, LAST_ROUNDS) => return Ok(()),
            };
            match done {
                Ok(()) if last => return Ok(()),
                Ok(()) => drop(cancel.run_until_cancelled(sleep(POLL)).await),
                Err(RoundError::Stale) => {
                    tracing::info!(
                        "the database is another one than before; indexing what it lacks"
                    );
                    self.prepare(&mut connection).await?;
                    following = load(&mut connection).await.map_err(failed)?;
                }
                Err(RoundError::Database(error @ DatabaseError::Refused(_))) => {
                    following = following.isolate(&mut connection, &error).await.map_err(failed)?;
                }
                Err(RoundError::Database(error)) => return Err(error),
            }
        }
    }

    /// Rounds until nothing is left, or the gateway stops.
    async fn rounds(
        &self,
        following: &mut Following,
        connection: &mut PgConnection,
        mut pace: Option<&mut Pace>,
        cancel: &CancellationToken,
    ) -> Result<(), RoundError> {
        let stopping = cancel.is_cancelled();
        loop {
            let began = Instant::now();
            let changed = self.store.take_changed();
            let round = following.round(connection, changed).await?;
            self.lag.round(&round);
            if let Some(pace) = pace.as_mut().filter(|_| !stopping) {
                let behind = self.lag.get().behind.unwrap_or(Duration::MAX);
                let rest = pace.rest(round.rows, began.elapsed(), behind);
                let _rested = cancel.run_until_cancelled(sleep(rest)).await;
            }
            if round.left == 0 && round.ledger_bytes == 0 || cancel.is_cancelled() && !stopping {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Makes sure of the tables.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), DatabaseError> {
        match migrations::check(connection).await {
            Err(DatabaseError::Schema(SchemaError::Empty)) => {}
            Err(DatabaseError::Schema(SchemaError::Behind { .. })) if self.settings.private => {}
            checked => return checked,
        }
        let migrated = self.database.migrate().await?;
        tracing::info!(applied = ?migrated.applied, version = migrated.version, "database migrated");
        if let Some(warning) = migrated.warning {
            tracing::warn!(warning, "database");
        }
        Ok(())
    }

    fn gateway(&self) -> Result<String, DatabaseError> {
        gateway_of(&self.data_dir).map_err(|error| DatabaseError::Other(sqlx::Error::Io(error)))
    }
}

/// Waits until the stop was that long ago.
async fn stopped_for(cancel: &CancellationToken, length: Duration) {
    cancel.cancelled().await;
    sleep(length).await;
}

/// Lowers the priority of the server process that works for this connection, where that is one of
/// this machine and may be done; elsewhere nothing happens.
async fn be_modest(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    let process: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(connection).await?;
    #[cfg(target_os = "linux")]
    if let Some(process) = rustix::process::Pid::from_raw(process) {
        let _modest = rustix::process::setpriority_process(Some(process), NICE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = process;
    Ok(())
}

fn failed(error: RoundError) -> DatabaseError {
    match error {
        RoundError::Database(error) => error,
        RoundError::Stale => DatabaseError::Unreachable("it changed meanwhile".to_owned()),
    }
}

/// The id of the gateway whose ledger stands in `data_dir`.
fn gateway_of(data_dir: &std::path::Path) -> std::io::Result<String> {
    match LedgerFollower::open(data_dir, 0)?.next_line()? {
        Some(LedgerNews::Gateway(gateway)) => Ok(gateway),
        _ => Err(std::io::Error::other("the ledger does not begin as one")),
    }
}

/// Between half of a pause and all of it: the same for all gateways would bring them all at once.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_bytes().last().copied().unwrap_or_default();
    pause / 2 + pause / 2 * u32::from(random) / 255
}
