//! What masks leave of a value.

use std::fmt;
use std::str::FromStr;

/// What stands in a value's place; the later, the less is left to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The step that a number or a time lies on, where the server computes it; NULL elsewhere.
    Bucket(Step),
    /// The value but for most of it, where a harmless part is known: `************1111`.
    Partial,
    /// Other letters and digits in the places of the value's own, keyed: the same for the same value,
    /// and different ones for different values.
    Tokenize,
    /// A keyed hash, `[email:…]`: the same for the same value, and without the key it says nothing
    /// of the value.
    Hash,
    /// The name of what was found: `[credit-card]`.
    Redact,
    /// Nothing. In the middle of a text it is as [`Action::Redact`], so that what was apart does
    /// not come together.
    Null,
}

impl Action {
    /// Whether what is left depends on a key.
    pub fn is_keyed(self) -> bool {
        matches!(self, Self::Hash | Self::Tokenize)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(Step::Number(step)) => write!(f, "bucket {step}"),
            Self::Bucket(Step::Time(unit)) => write!(f, "bucket {}", unit.name()),
            Self::Partial => f.write_str("partial"),
            Self::Tokenize => f.write_str("tokenize"),
            Self::Hash => f.write_str("hash"),
            Self::Redact => f.write_str("redact"),
            Self::Null => f.write_str("null"),
        }
    }
}

impl FromStr for Action {
    type Err = ();

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "partial" => Self::Partial,
            "tokenize" => Self::Tokenize,
            "hash" => Self::Hash,
            "redact" => Self::Redact,
            "null" => Self::Null,
            _ => {
                let step = text.strip_prefix("bucket ").ok_or(())?;
                let unit = TimeUnit::ALL.iter().find(|(name, _)| *name == step);
                Self::Bucket(match unit {
                    Some((_, unit)) => Step::Time(*unit),
                    None => Step::Number(step.parse().map_err(drop)?),
                })
            }
        })
    }
}

/// What [`Action::Bucket`] counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Multiples of a whole number, towards zero.
    Number(u32),
    /// Beginnings of units of time, in UTC.
    Time(TimeUnit),
}

/// A unit of time, as `date_trunc` knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words say it")]
pub enum TimeUnit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
}

impl TimeUnit {
    /// All of them with their names, from the shortest.
    pub const ALL: &[(&str, Self)] = &[
        ("minute", Self::Minute),
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
        ("quarter", Self::Quarter),
        ("year", Self::Year),
        ("decade", Self::Decade),
        ("century", Self::Century),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, unit)| *unit == self).map_or("century", |(name, _)| name)
    }
}
