//! How fast the index is written while sessions need the machine.
//!
//! The server that is the gateway's own works on the same processors as the sessions. At thousands
//! of commands a second the lowest priority hides little of that work, which fills gaps of
//! microseconds that are not free. So a full batch is followed by a rest while sessions are busy,
//! the shorter the further the index is behind, and none once they are quiet.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What writing may take of each core while sessions are busy.
const SHARE: f64 = 0.03;
/// What sessions take of each core when they count as busy.
const BUSY: f64 = 0.1;
/// A batch of fewer rows is no burden.
const MANY: u64 = 500;
/// An index that is so far behind is written without rests.
const PATIENCE: Duration = Duration::from_secs(30);
/// No rest is longer.
const LONGEST: Duration = Duration::from_secs(2);

/// Gives the rest that follows each batch.
#[derive(Debug)]
pub(super) struct Pace {
    cores: f64,
    looked: Instant,
    used: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = u32::try_from(cores).map_or(1.0, f64::from);
        Self { cores, looked: Instant::now(), used: used_by_others() }
    }

    /// The rest behind a batch of so many rows that took `worked`, with the index so far behind.
    pub(super) fn rest(&mut self, rows: u64, worked: Duration, behind: Duration) -> Duration {
        let (now, used) = (Instant::now(), used_by_others());
        let elapsed = now.saturating_duration_since(self.looked).as_secs_f64();
        let others = used.saturating_sub(self.used).as_secs_f64();
        (self.looked, self.used) = (now, used);
        if rows < MANY || others < BUSY * self.cores * elapsed {
            return Duration::ZERO;
        }
        rest(worked, SHARE * self.cores, behind)
    }
}

fn rest(worked: Duration, share: f64, behind: Duration) -> Duration {
    let patience = 1.0 - behind.as_secs_f64() / PATIENCE.as_secs_f64();
    let rests = (1.0 / share - 1.0) * patience.max(0.0);
    worked.mul_f64(rests.max(0.0)).min(LONGEST)
}

/// Processor time of this process without this thread's.
fn used_by_others() -> Duration {
    let of = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    of(ClockId::ProcessCPUTime).saturating_sub(of(ClockId::ThreadCPUTime))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKED: Duration = Duration::from_millis(60);

    fn busy() {
        let until = Instant::now() + Duration::from_millis(30);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_rest_keeps_writing_to_its_share_and_shrinks_as_the_index_falls_behind() {
        assert_eq!(rest(WORKED, 0.06, Duration::ZERO), Duration::from_millis(940));
        assert_eq!(rest(WORKED, 0.06, PATIENCE / 2), Duration::from_millis(470));
        assert_eq!(rest(WORKED, 0.06, PATIENCE), Duration::ZERO);
        assert_eq!(rest(WORKED, 0.06, PATIENCE * 9), Duration::ZERO);
        assert_eq!(rest(WORKED * 100, 0.06, Duration::ZERO), LONGEST);
        assert_eq!(rest(WORKED, 2.0, Duration::ZERO), Duration::ZERO, "many cores");
    }

    #[test]
    fn only_many_rows_beside_busy_sessions_are_followed_by_a_rest() {
        let mut pace = Pace { cores: 1.0, ..Pace::new() };
        // Other tests may run meanwhile, so that somebody is quiet is not tested here.
        std::thread::spawn(busy).join().unwrap();
        assert_eq!(pace.rest(MANY - 1, WORKED, Duration::ZERO), Duration::ZERO);
        std::thread::spawn(busy).join().unwrap();
        assert_eq!(pace.rest(MANY, WORKED, Duration::ZERO), WORKED.mul_f64(1.0 / SHARE - 1.0));
    }
}
