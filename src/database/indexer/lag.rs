//! How far the index is behind the recordings, as figures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::catch_up::Round;

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

    /// Notes what a round did.
    pub(super) fn round(&self, round: &Round) {
        let mut state = self.0.lock();
        state.lag.recordings = round.left;
        state.lag.ledger_bytes = round.ledger_bytes;
        state.lag.rows += round.rows;
        state.lag.error = None;
        if round.whole_until.is_some() {
            state.caught_up = round.whole_until;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_never_catches_up_is_behind_by_what_it_lacks() {
        let watch = LagWatch::default();
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let round = |whole_until| Round { rows: 2, left: 1, ledger_bytes: 0, whole_until };
        watch.round(&round(None));
        assert_eq!(watch.get().behind, None, "never whole, as far as is known");
        for seconds in [20, 10] {
            watch.round(&round(ago(seconds)));
            let behind = watch.get().behind.unwrap();
            assert!((seconds..seconds + 5).contains(&behind.as_secs()), "{behind:?}");
        }
        watch.round(&round(None));
        assert_eq!(watch.get().behind.unwrap().as_secs() / 5, 2, "as was known last");
        assert_eq!((watch.get().rows, watch.get().recordings), (8, 1));
    }
}
