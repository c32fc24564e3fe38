//! How old the gateway's knowledge of withdrawals is.
//!
//! Whoever asks the list whether something was withdrawn gets an answer that is at most
//! [`PROMISE`] old. A process that was stopped, or a machine that slept, does not know that it
//! was: so the age is looked at before the list is, by a clock that went on meanwhile
//! ([`crate::clock`]), and who finds it too old waits for the next look.
//!
//! A database that cannot be reached is another matter: the watcher announces it (readiness says
//! that revocation is late), and sessions go on. Knowing of the outage counts as a look, as long
//! as it is not older than the promise either.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock::Moment;

/// How old the answer may be: a withdrawal counts on every gateway within two seconds.
pub const PROMISE: Duration = Duration::from_secs(2);
const PROMISE_MS: u64 = 2_000;

/// When the state was looked at last.
#[derive(Debug)]
pub(super) struct Sight {
    /// When the last look began, in milliseconds of the clock.
    seen: AtomicU64,
    /// Told after each look, successful or not.
    looked: watch::Sender<()>,
    /// Told when somebody waits for a look.
    wanted: Notify,
}

/// Nobody watches the state: there is nothing to wait for.
const UNWATCHED: u64 = u64::MAX;
/// Somebody watches and has not looked yet.
const NEVER: u64 = 0;

impl Default for Sight {
    fn default() -> Self {
        let (looked, _) = watch::channel(());
        Self { seen: AtomicU64::new(UNWATCHED), looked, wanted: Notify::new() }
    }
}

impl Sight {
    /// From now on somebody watches the state, and answers wait for the first look.
    pub(super) fn is_watched(&self) {
        self.seen.store(NEVER, Ordering::Release);
    }

    /// A look that began then is over: what it found counts from now on.
    pub(super) fn looked(&self, began: Moment) {
        self.seen.store(began.as_millis(), Ordering::Release);
        self.looked.send_replace(());
    }

    /// Whether the last look is not older than the promise.
    pub(super) fn is_current(&self, now: Moment) -> bool {
        let seen = self.seen.load(Ordering::Acquire);
        seen == UNWATCHED || now.as_millis().saturating_sub(seen) <= PROMISE_MS
    }

    /// Waits until it is. Cancel safe.
    pub(super) async fn current(&self) {
        if self.is_current(Moment::now()) {
            return;
        }
        let mut looked = self.looked.subscribe();
        while !self.is_current(Moment::now()) {
            self.wanted.notify_one();
            if looked.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until somebody waits for a look. Cancel safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_finds_an_old_look_waits_for_the_next_one() {
        let sight = Arc::new(Sight::default());
        sight.current().await;
        sight.is_watched();
        assert!(!sight.is_current(Moment::now()));
        let waiting = Arc::clone(&sight);
        let waits = async move {
            waiting.current().await;
            waiting.is_current(Moment::now())
        };
        let looks = async {
            sight.wanted().await;
            sight.looked(Moment::now());
        };
        let (current, ()) = tokio::join!(waits, looks);
        assert!(current);
    }
}
