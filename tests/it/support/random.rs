//! Random numbers that a failing test can be run with again.

use std::time::SystemTime;

/// An xorshift generator.
pub struct Random(u64);

impl Random {
    /// Seeded by `PORTCULLIS_SEED`, or by the clock; the seed is printed, for failures to show.
    pub fn seeded() -> Self {
        let given = std::env::var("PORTCULLIS_SEED").ok().and_then(|text| text.parse().ok());
        let clock =
            || u64::from(SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()) | 1 << 40;
        let seed = given.unwrap_or_else(clock);
        println!("PORTCULLIS_SEED={seed}");
        Self(seed)
    }

    /// One of many, for work that is done in any order.
    pub fn numbered(seed: u64, number: usize) -> Self {
        let mut random = Self((seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        // Neighbours look alike at first.
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// A number below a bound above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// A number from the environment, for runs longer than a test's.
pub fn amount(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// So many bytes that do not compress.
pub fn bytes(count: usize) -> Vec<u8> {
    let mut random = Random::seeded();
    let mut bytes: Vec<u8> =
        (0..count.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(count);
    bytes
}
