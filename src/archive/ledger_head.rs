//! Keeping the ledger's head in the database, where whoever can write the gateway's disk cannot
//! change it: a ledger whose end was cut, or that was written anew, does not fit it.
//!
//! Limit: whoever owns both disk and database can change both.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::database::{Database, DatabaseError};
use crate::recording::{Head, Store};

/// How often a checkpoint is signed and noted while anything is added: about 10 kB of ledger an
/// hour, and at most this much of its end could be cut unseen.
const EVERY: Duration = Duration::from_secs(30);
/// How long the last note may take when the gateway stops.
const LAST: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

/// Signs a checkpoint into the ledger now and then, and notes its head in the database, until
/// cancelled; then once more. Cancel it after the store has sealed its last recordings.
pub async fn keep_head(database: Database, store: Store, cancel: CancellationToken) {
    let mut anchor = Anchor { database, store, noted: None, away: false };
    while cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        anchor.note().await;
    }
    let last = async {
        // A gateway that just started may still be making the tables.
        while anchor.note().await == Noted::Later {
            tokio::time::sleep(RETRY).await;
        }
    };
    if tokio::time::timeout(LAST, last).await.is_err() {
        tracing::warn!("the ledger's last head could not be noted in the database");
    }
}

#[derive(PartialEq, Eq)]
enum Noted {
    /// The database has it, or cannot be reached.
    Done,
    /// The database answers, and does not take it yet.
    Later,
}

struct Anchor {
    database: Database,
    store: Store,
    noted: Option<Head>,
    /// Whether the database could not be reached, which was said.
    away: bool,
}

impl Anchor {
    async fn note(&mut self) -> Noted {
        let store = self.store.clone();
        let head = match tokio::task::spawn_blocking(move || store.checkpoint()).await {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot sign a checkpoint into the ledger");
                return Noted::Done;
            }
            // The runtime is going down.
            Err(_) => return Noted::Done,
        };
        if self.noted.as_ref() == Some(&head) {
            return Noted::Done;
        }
        match self.database.note_ledger_head(self.store.gateway(), &head).await {
            Ok(noted) => {
                self.away = false;
                if noted != head {
                    tracing::error!(
                        lines = head.lines,
                        noted = noted.lines,
                        "the ledger is not the one that the database knows: its end was cut, it was \
                         written anew, or an older copy was put back"
                    );
                }
                self.noted = Some(head);
                Noted::Done
            }
            Err(error) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%error, "the ledger's head waits for the database");
                }
                match error {
                    DatabaseError::Unreachable(_) => Noted::Done,
                    _ => Noted::Later,
                }
            }
        }
    }
}
