//! How many frames of HTTP/2 a client sends that carry nothing: `SETTINGS`, `PING`, `PRIORITY`,
//! `WINDOW_UPDATE` and their like cost the gateway an answer or a lock each and the client nothing
//! (CVE-2019-9512, CVE-2019-9513, CVE-2019-9515, CVE-2019-9518).
//!
//! Each takes from a budget that grows with time, with requests, and with the bytes that go down, for
//! which clients send `WINDOW_UPDATE`. Source of the layout: RFC 9113, section 4.1.

use std::time::Instant;

/// The client's preface, which is no frame (RFC 9113 section 3.4).
const PREFACE: usize = 24;
const HEAD: usize = 9;

/// Frames that a client may send at once.
const BURST: u64 = 4_000;
/// Frames that it may send a second, for as long as it likes.
const PER_SECOND: u64 = 500;
/// Frames that come with a request: its priority, windows, a ping.
const PER_REQUEST: u64 = 4;
/// Bytes that go down for each frame more.
const BYTES_PER_FRAME: u64 = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// The budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many frames that carry nothing")]
pub struct TooMany;

/// Counts the frames of one connection.
#[derive(Debug)]
pub struct Meter {
    /// Bytes that are no head of a frame.
    skip: usize,
    head: [u8; HEAD],
    /// How much of the head came.
    have: usize,
    left: u64,
    filled: Instant,
    /// Bytes that went down and count for no frame yet.
    sent: u64,
}

impl Meter {
    /// At the beginning of a connection.
    pub fn new(now: Instant) -> Self {
        Self { skip: PREFACE, head: [0; HEAD], have: 0, left: BURST, filled: now, sent: 0 }
    }

    /// Takes note of bytes that went down.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.add(self.sent / BYTES_PER_FRAME);
        self.sent %= BYTES_PER_FRAME;
    }

    /// Looks at the next bytes from the client.
    ///
    /// # Errors
    /// When it sent too many frames.
    pub fn received(&mut self, bytes: &[u8], now: Instant) -> Result<(), TooMany> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len());
                self.skip -= skipped;
                rest = rest.get(skipped..).unwrap_or_default();
                continue;
            }
            let wanted = (HEAD - self.have).min(rest.len());
            let (part, behind) = rest.split_at_checked(wanted).unwrap_or((rest, &[]));
            if let Some(place) = self.head.get_mut(self.have..self.have + wanted) {
                place.copy_from_slice(part);
            }
            self.have += wanted;
            rest = behind;
            if self.have == HEAD {
                self.have = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now: Instant) -> Result<(), TooMany> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        match kind {
            HEADERS => {
                self.add(PER_REQUEST);
                Ok(())
            }
            DATA if self.skip > 0 || flags & END_STREAM != 0 => Ok(()),
            _ => self.take(now),
        }
    }

    fn add(&mut self, frames: u64) {
        self.left = self.left.saturating_add(frames).min(BURST);
    }

    fn take(&mut self, now: Instant) -> Result<(), TooMany> {
        let passed = now.saturating_duration_since(self.filled).as_millis();
        let more = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(PER_SECOND) / 1_000;
        if more > 0 {
            self.filled = now;
            self.add(more);
        }
        self.left = self.left.checked_sub(1).ok_or(TooMany)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &[0; 4], payload].concat()
    }

    fn meter(now: Instant) -> Meter {
        let mut meter = Meter::new(now);
        meter.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
        meter
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_and_others_are_not() {
        let now = Instant::now();
        for (kind, payload) in
            [(4, &b""[..]), (6, b"12345678"), (2, b"12345"), (8, b"1234"), (99, b"")]
        {
            let mut meter = meter(now);
            let flood = frame(kind, 0, payload).repeat(5_000);
            let told: Vec<_> = flood.chunks(7).map(|part| meter.received(part, now)).collect();
            assert!(told.contains(&Err(TooMany)), "{kind}");
        }
        let mut meter = meter(now);
        assert!(meter.received(&frame(0, 0, b"x").repeat(9_000), now).is_ok());
        assert!(meter.received(&frame(1, 4, b"x").repeat(9_000), now).is_ok());
        assert!(meter.received(&frame(0, 0, b"").repeat(9_000), now).is_err());
    }

    #[test]
    fn the_budget_grows_with_time_and_with_what_goes_down() {
        let now = Instant::now();
        let window = frame(8, 0, b"1234");
        let mut meter = meter(now);
        assert!(meter.received(&window.repeat(4_000), now).is_ok());
        assert!(meter.received(&window.repeat(400), now + Duration::from_secs(1)).is_ok());
        for _ in 0..10_000 {
            meter.sent(16 << 10);
            assert!(meter.received(&window.repeat(2), now + Duration::from_secs(1)).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_cut_matters(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            size in 1usize..20,
        ) {
            let now = Instant::now();
            let (mut whole, mut cut) = (Meter::new(now), Meter::new(now));
            let _ = whole.received(&bytes, now);
            for part in bytes.chunks(size) {
                let _ = cut.received(part, now);
            }
            prop_assert_eq!((whole.skip, whole.have, whole.left), (cut.skip, cut.have, cut.left));
        }
    }
}
