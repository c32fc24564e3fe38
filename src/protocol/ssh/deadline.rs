//! When a connection's time to log in is over.

use parking_lot::Mutex;
use tokio::time::Instant;

/// A time that may be put off.
#[derive(Debug)]
pub(super) struct Deadline(Mutex<Instant>);

impl Deadline {
    pub(super) fn new(at: Instant) -> Self {
        Self(Mutex::new(at))
    }

    /// When it is, as of now.
    pub(super) fn at(&self) -> Instant {
        *self.0.lock()
    }

    /// Puts it off until then.
    pub(super) fn extend(&self, until: std::time::Instant) {
        let mut at = self.0.lock();
        *at = Instant::from_std(until).max(*at);
    }

    /// Waits until it has come. Cancel safe.
    pub(super) async fn over(&self) {
        while Instant::now() < self.at() {
            tokio::time::sleep_until(self.at()).await;
        }
    }
}
