//! Random numbers that a failing test can be run with again.

use std::time::SystemTime;

/// An xorshift generator.
pub struct Random(u64);

impl Random {
    /// Seeded by `PORTCULLIS_SEED`, or by the clock; the seed is printed, for failures to show.
    pub fn seeded() -> Self {
        let given = std::env::var("PORTCULLIS_SEED").ok().and_then(|text| text.parse().ok());
        let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        let seed = given.unwrap_or_else(clock);
        println!("PORTCULLIS_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below a bound above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A number from the environment, for runs longer than a test's.
pub fn amount(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}
