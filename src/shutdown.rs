//! The two steps of a stop: drain (nothing new; what runs may end by itself), then cut.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How much longer than the drain a cut session gets to say goodbye and seal its recording.
const GOODBYE: Duration = Duration::from_secs(10);

/// Told to every task; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    cut: CancellationToken,
    sessions: TaskTracker,
}

impl Shutdown {
    /// Nothing is stopping yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where sessions are spawned, so that a stop can wait for them.
    pub fn sessions(&self) -> &TaskTracker {
        &self.sessions
    }

    /// Whether the drain began.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Waits until no new session may start and idle ones should end. Cancel safe.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits until every session must end now. Cancel safe.
    pub async fn cutting(&self) {
        self.cut.cancelled().await;
    }

    /// Stops: drains for at most `drain_timeout`, or until `hurry` is ready, then cuts. Gives
    /// the number of sessions that had to be cut.
    pub async fn stop(&self, drain_timeout: Duration, hurry: impl Future<Output = ()>) -> usize {
        self.drain.cancel();
        self.sessions.close();
        tokio::select! {
            () = self.sessions.wait() => return 0,
            () = tokio::time::sleep(drain_timeout) => {}
            () = hurry => {}
        }
        let cut = self.sessions.len();
        self.cut.cancel();
        // A task that does not even end now would hang the stop: leave it to the process's end.
        let _timed_out = tokio::time::timeout(GOODBYE, self.sessions.wait()).await;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_sessions_up_to_the_drain_timeout() {
        let shutdown = Shutdown::new();
        let session = shutdown.clone();
        shutdown.sessions().spawn(async move { session.cutting().await });
        let drained = shutdown.clone();
        shutdown.sessions().spawn(async move { drained.draining().await });
        let cut = shutdown.stop(Duration::from_secs(30), std::future::pending()).await;
        assert_eq!(cut, 1);
    }
}
