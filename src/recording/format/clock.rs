//! The two clocks of an event: one that never goes back, and the wall's.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use crate::clock::{Moment, Now};

const TO_THE_MICROSECOND: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
const DAY: StaticFormatDescription = format_description!("[year]-[month]-[day]");

/// When an event happened, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(in crate::recording) struct Stamp {
    /// Microseconds since the recording started.
    pub(in crate::recording) monotonic_us: u64,
    /// Microseconds since 1970-01-01 UTC.
    pub(in crate::recording) wall_us: i64,
}

impl Stamp {
    /// Of that moment in a recording that started at `start`.
    pub(in crate::recording) fn at(now: Now, start: Moment) -> Self {
        let since = now.moment.since(start).as_micros();
        let monotonic_us = u64::try_from(since).unwrap_or(u64::MAX);
        Self { monotonic_us, wall_us: wall_us(now.wall) }
    }

    /// The same, if it is not before an earlier event: clocks are read before the recording's turn
    /// comes.
    pub(in crate::recording) fn not_before(self, last_us: u64) -> Self {
        Self { monotonic_us: self.monotonic_us.max(last_us), ..self }
    }
}

/// Microseconds since 1970-01-01 UTC; negative before.
pub(in crate::recording) fn wall_us(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us: i64| -us),
    }
}

/// `2025-11-20T10:00:00.000000Z`; times that no calendar has are given as the number.
pub fn rfc3339(wall_us: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_us) * 1000)
        .ok()
        .and_then(|time| time.format(TO_THE_MICROSECOND).ok())
        .unwrap_or_else(|| wall_us.to_string())
}

/// `2025-11-20`, in UTC.
pub(in crate::recording) fn day(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(DAY).unwrap_or_else(|_| "0000-00-00".to_owned())
}
