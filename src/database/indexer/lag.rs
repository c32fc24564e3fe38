//! How far the index is behind the recordings, as figures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How far the index is behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IndexLag {
    /// At most so long ago everything recorded until then was in the index; none before the first
    /// time.
    pub behind: Option<Duration>,
    /// Recordings with blocks that may not be indexed yet.
    pub recordings: u64,
    /// Bytes of the ledger that were not read yet.
    pub ledger_bytes: u64,
    /// Rows written since the gateway started.
    pub rows: u64,
    /// Recordings that could not be indexed since the gateway started.
    pub failed: u64,
    /// Why the index does not go on, when it does not.
    pub error: Option<String>,
}

/// Where [`IndexLag`] is read; clones share it.
#[derive(Debug, Clone, Default)]
pub struct LagWatch(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lag: IndexLag,
    caught_up: Option<Instant>,
}

impl LagWatch {
    /// The figures now.
    pub fn get(&self) -> IndexLag {
        let state = self.0.lock();
        IndexLag { behind: state.caught_up.map(|at| at.elapsed()), ..state.lag.clone() }
    }

    /// Notes a round that began then and left so much to do.
    pub(super) fn round(&self, began: Instant, recordings: u64, ledger_bytes: u64, rows: u64) {
        let mut state = self.0.lock();
        state.lag.recordings = recordings;
        state.lag.ledger_bytes = ledger_bytes;
        state.lag.rows += rows;
        state.lag.error = None;
        if recordings == 0 && ledger_bytes == 0 {
            state.caught_up = Some(began);
        }
    }

    /// Notes a recording that cannot be indexed.
    pub(super) fn recording_failed(&self) {
        self.0.lock().lag.failed += 1;
    }

    /// Notes why nothing goes on. Whether that is news is the answer.
    pub(super) fn stopped(&self, error: String) -> bool {
        let mut state = self.0.lock();
        let news = state.lag.error.as_ref() != Some(&error);
        state.lag.error = Some(error);
        news
    }
}
