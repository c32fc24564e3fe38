//! A clock that goes on while the process is stopped and while the machine sleeps: what holds for
//! some seconds must not hold longer because nobody ran to look at a timer.
//!
//! Clocks are read once for all that happens at one moment ([`Now`]): on a busy machine a look costs
//! 50 to 200 ns.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` of Linux stands still while the machine sleeps; that of macOS does not.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment of that clock, which never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Now. A system call that needs no switch to the kernel: some 30 ns.
    pub fn now() -> Self {
        let now = clock_gettime(CLOCK);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// How long ago that was.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// How long it is after an earlier one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds since the machine started, at least 1.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// One moment by both clocks: the one that goes on, and the wall's.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For how long ago something was.
    pub moment: Moment,
    /// For what people and tokens call the time.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both.
    pub fn read() -> Self {
        Self { moment: Moment::now(), wall: SystemTime::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let first = Moment::now();
        assert!(Moment::now() >= first && first.elapsed() < Duration::from_secs(60));
        assert!(first.as_millis() > 0);
    }
}
