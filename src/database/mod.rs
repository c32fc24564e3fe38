//! All SQL: the index of what was recorded, the state that nothing else holds, their migrations,
//! and the private server. `docs/index.md` says what a row is.
//!
//! The index is a pure function of the recordings. Nothing that serves a session waits for it:
//! [`Indexer`] reads the recordings back, wherever they are ahead of the index, so a database
//! outage needs no path of its own. State (the audit log, tickets, requests and their decisions,
//! grants, what was withdrawn) is written where it happens and refused while the database cannot be
//! reached.

mod error;
mod indexer;
mod migrations;
mod private_server;
mod queries;
mod retention;
mod rows;
mod state;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::sync::watch;

pub use error::DatabaseError;
pub use indexer::{
    Compared, Difference, IndexLag, IndexSettings, Indexer, LagWatch, Progress, ReindexError,
    Reindexed,
};
pub use migrations::{Migrated, SchemaError};
pub use private_server::{PrivateServer, PrivateServerError};
pub use queries::{
    Column, Counts, Filter, Histogram, Latest, Overview, Page, QueryError, Sum, Wanted,
};
pub use retention::{Cutoff, DueRecording, Pruning, RetentionClass, RetentionTimes};
pub use rows::{AuditEntry, AuditRecord, Command, Session, Timestamp};
pub use state::{
    AccessGrant, Answer, CommandRequest, DecideError, Decided, Hold, HoldFilter, HoldSet, Known,
    Login, Need, NewRequest, NewTicket, OneSession, PROMISE, ReadTo, Request, RequestKind,
    RequestLimits, RequestState, RevokedUser, Standing, StateNews, StoredTicket, Ticket,
    TicketLimits, TicketMade, Vote, VoteVerdict, Voter, Withdrawal, WithdrawalPage,
    WithdrawalPlace, Withdrawn, WithdrawnKind, WithdrawnToken,
};

/// Connections for queries and state; the indexer has one of its own.
const POOL: u32 = 8;
/// How long a query waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// What every connection is set to. Compiling a query takes longer than any of ours gains by it.
const SESSION_SETTINGS: &str = "set statement_timeout = '10s'; set lock_timeout = '10s'; \
    set idle_in_transaction_session_timeout = '60s'; set client_min_messages = warning; \
    set jit = off";

/// What a connection for migrations and the index is set to: on a busy machine a batch takes its
/// time, and giving up would only mean to begin again.
const LONG_WORK: &str = "set statement_timeout = '15min'; set lock_timeout = '1min'";

/// The database. Clones share its connections, which are made when they are needed.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    options: PgConnectOptions,
    /// Whether its tables were found since this process started.
    found: Arc<watch::Sender<bool>>,
}

impl Database {
    /// A database by how to connect to it, for example [`PrivateServer::connect_options`].
    pub fn new(options: PgConnectOptions) -> Self {
        let options = options.application_name("portcullis").disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(POOL)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(SESSION_SETTINGS).await.map(drop) })
            })
            .connect_lazy_with(options.clone());
        Self { pool, options, found: Arc::default() }
    }

    /// A database by its URL. What the URL leaves out comes from `PGPASSWORD`, `~/.pgpass` and
    /// the other places that `psql` looks at.
    ///
    /// # Errors
    /// When the text is no such URL.
    pub fn from_url(url: &str) -> Result<Self, DatabaseError> {
        Ok(Self::new(PgConnectOptions::from_str(url)?))
    }

    /// A connection beside the pool, for work that may take long.
    async fn connect(&self) -> Result<PgConnection, DatabaseError> {
        let mut connection = tokio::time::timeout(ACQUIRE, self.options.connect())
            .await
            .map_err(|_| DatabaseError::Unreachable("it does not answer".to_owned()))??;
        connection.execute(SESSION_SETTINGS).await?;
        connection.execute(LONG_WORK).await?;
        Ok(connection)
    }

    /// Notes that it answers and has its tables.
    fn is_found(&self) {
        self.found.send_replace(true);
    }

    /// Waits until the indexer has found the tables for the first time since this process started, for
    /// at most so long; whether it has. What becomes of the database later is not said. Cancel safe.
    pub async fn found_within(&self, time: Duration) -> bool {
        let mut found = self.found.subscribe();
        let waited = tokio::time::timeout(time, found.wait_for(|found| *found)).await;
        waited.is_ok_and(|found| found.is_ok())
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
