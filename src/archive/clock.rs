//! The time that retention goes by. What it deletes is gone, so a clock that jumped ahead is not
//! believed until it has stayed there for a day.

use std::time::{Duration, Instant, SystemTime};

/// Clocks differ by less.
const TOLERANCE: Duration = Duration::from_secs(60 * 60);
/// How long a clock that jumped ahead has to stay there.
const PROBATION: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that goes on as it did.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// A time that was believed, and when that was.
    base: Option<(SystemTime, Instant)>,
    /// Since when the wall clock is ahead.
    ahead_since: Option<Instant>,
}

impl Clock {
    /// The time to go by, when the wall clock says `wall`; `noted` is what an earlier life of the
    /// gateway went by last.
    pub(super) fn now(
        &mut self,
        noted: Option<SystemTime>,
        (wall, monotonic): (SystemTime, Instant),
    ) -> SystemTime {
        let (base, at) = *self.base.get_or_insert((noted.unwrap_or(wall), monotonic));
        let expected = base + monotonic.saturating_duration_since(at);
        if wall <= expected + TOLERANCE {
            self.ahead_since = None;
            // One that went back is followed, and may come again to where it was.
            if wall >= expected {
                self.base = Some((wall, monotonic));
            }
            return wall;
        }
        let since = *self.ahead_since.get_or_insert_with(|| {
            tracing::warn!("the clock jumped ahead; retention believes it when it stays for a day");
            monotonic
        });
        if monotonic.saturating_duration_since(since) < PROBATION {
            return expected;
        }
        self.ahead_since = None;
        self.base = Some((wall, monotonic));
        wall
    }
}

/// Whether two clocks tell about the same time.
pub(super) fn agree(one: SystemTime, other: SystemTime) -> bool {
    let apart = one.duration_since(other).unwrap_or_else(|error| error.duration());
    apart <= TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_jump_ahead_is_believed_after_a_day_and_not_before() {
        let (wall, start) = (SystemTime::UNIX_EPOCH + HOUR * 500_000, Instant::now());
        let mut clock = Clock::default();
        assert_eq!(clock.now(None, (wall, start)), wall);
        for hours in 1..24 {
            let jumped = wall + HOUR * (hours + 24 * 365);
            assert_eq!(clock.now(None, (jumped, start + HOUR * hours)), wall + HOUR * hours);
        }
        let jumped = wall + HOUR * (25 + 24 * 365);
        assert_eq!(clock.now(None, (jumped, start + HOUR * 25)), jumped);
        assert_eq!(clock.now(None, (jumped + HOUR, start + HOUR * 26)), jumped + HOUR);
    }

    #[test]
    fn a_jump_that_is_taken_back_had_no_effect() {
        let (wall, start) = (SystemTime::UNIX_EPOCH + HOUR * 500_000, Instant::now());
        let mut clock = Clock::default();
        clock.now(None, (wall, start));
        clock.now(None, (wall + HOUR * 48, start + HOUR));
        assert_eq!(clock.now(None, (wall + HOUR * 2, start + HOUR * 2)), wall + HOUR * 2);
        // And the other way: an earlier time is never too late for anything.
        assert_eq!(clock.now(None, (wall - HOUR * 48, start + HOUR * 3)), wall - HOUR * 48);
        assert_eq!(clock.now(None, (wall + HOUR * 4, start + HOUR * 4)), wall + HOUR * 4);
    }

    #[test]
    fn a_restart_under_another_clock_is_a_jump_too() {
        let (noted, start) = (SystemTime::UNIX_EPOCH + HOUR * 500_000, Instant::now());
        let mut clock = Clock::default();
        assert_eq!(clock.now(Some(noted), (noted + HOUR * 48, start)), noted);
        let mut clock = Clock::default();
        let soon = noted + HOUR / 2;
        assert_eq!(clock.now(Some(noted), (soon, start)), soon);
    }
}
