//! The rows of the index and the audit log, as tables hold them and as the API gives them: the
//! fields are the columns.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::names::{Protocol, SessionId};
use crate::policy::{Effect, Verdict};
use crate::recording;

/// A point in time, in microseconds since 1970-01-01 UTC; written as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// The first and the last time that both PostgreSQL and RFC 3339 can write.
const TIMES: (i64, i64) = (-62_135_596_800_000_000, 253_402_300_799_999_999);

impl Timestamp {
    /// It as the wall clock gives times.
    pub fn to_system_time(self) -> SystemTime {
        let us = u64::try_from(self.0).unwrap_or(0);
        UNIX_EPOCH.checked_add(Duration::from_micros(us)).unwrap_or(UNIX_EPOCH)
    }

    /// The time nearest to this one that can be stored.
    pub(crate) fn storable(self) -> Self {
        Self(self.0.clamp(TIMES.0, TIMES.1))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let us = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Self(i64::try_from(us).unwrap_or(i64::MAX)).storable()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&recording::rfc3339(self.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| "a time is written as 2026-11-20T10:00:00Z")?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1000))
            .map(Self)
            .map_err(|_| "the time is out of range")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The gateway that served it.
    pub gateway: String,
    /// What was spoken.
    pub protocol: Protocol,
    /// The target.
    pub target: String,
    /// Within the target: the database.
    pub database: Option<String>,
    /// The client's address.
    pub client: String,
    /// The identity's issuer.
    pub issuer: String,
    /// The identity's subject.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The groups at that time.
    pub groups: Vec<String>,
    /// The workflow.
    pub workflow: Option<String>,
    /// Whether a claim said so, and not only the client.
    pub workflow_proved: Option<bool>,
    /// The run.
    pub run: Option<String>,
    /// Whether a claim said so, and not only the client.
    pub run_proved: Option<bool>,
    /// What the client said of itself.
    pub client_parameters: BTreeMap<String, String>,
    /// The hash of the policy in force when it opened.
    pub policy: String,
    /// The gateway's version.
    pub gateway_version: String,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When it ended; none while it is open.
    pub closed_at: Option<Timestamp>,
    /// How it ended, in a word: `client`, `expired`, `interrupted`, ….
    pub ended: Option<String>,
    /// The same, for people.
    pub ended_text: Option<String>,
    /// Rows of [`Command`].
    pub commands: i64,
    /// Of these, by verdict.
    pub allowed: i64,
    /// Of these, by verdict: a human had to decide.
    pub approved: i64,
    /// Of these, by verdict.
    pub blocked: i64,
    /// Of these, those that ran although a rule was against it.
    pub overridden: i64,
    /// Of these, those that failed at the target.
    pub failed: i64,
    /// Rows sent or changed, by all commands.
    pub rows: i64,
    /// Bytes of the protocol from the client.
    pub bytes_up: i64,
    /// Bytes of the protocol to the client.
    pub bytes_down: i64,
    /// Events that could not be recorded.
    pub missing_events: i64,
}

/// One command, as an auditor counts them: `docs/index.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its session.
    pub session: SessionId,
    /// Its event's place in the recording.
    pub sequence: i64,
    /// When it was decided.
    pub at: Timestamp,
    /// The session's protocol.
    pub protocol: Protocol,
    /// The session's target.
    pub target: String,
    /// The session's user.
    pub username: String,
    /// The session's workflow.
    pub workflow: Option<String>,
    /// The session's run.
    pub run: Option<String>,
    /// The form it came in: `query`, `execute`, ….
    pub form: String,
    /// The request view's text; none without `index_text`, or when it is not in the recording.
    pub text: Option<String>,
    /// Whether text, attributes or effects are shortened here; the recording has them whole.
    pub cut: bool,
    /// Facts about the command: parameters, names.
    pub attributes: BTreeMap<String, Value>,
    /// What it would do.
    pub effects: Vec<Effect>,
    /// What was decided.
    pub verdict: Verdict,
    /// The rules that gave the verdict.
    pub rules: Vec<String>,
    /// Their reason.
    pub reason: Option<String>,
    /// Why a stricter rule did not act: `exemption`, `observe`.
    pub overridden: Option<String>,
    /// The rules that did not act.
    pub overridden_rules: Vec<String>,
    /// The protocol's own word for its end; none while it runs and when it never ran.
    pub status: Option<String>,
    /// Rows sent or changed.
    pub rows: Option<i64>,
    /// The code of its failure, for example a SQLSTATE.
    pub error_code: Option<String>,
    /// The message of its failure.
    pub error_message: Option<String>,
    /// Microseconds from forwarding to the end.
    pub duration_us: Option<i64>,
    /// How many values were masked in what came back, by mask; those that patterns found under
    /// `patterns`.
    pub masked: BTreeMap<String, i64>,
}

/// Something to be kept in the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The issuer of who did it; none for `os:<user>`.
    pub issuer: Option<String>,
    /// The subject of who did it; none for `os:<user>`.
    pub subject: Option<String>,
    /// Who did it: a username, or `os:<user>` over the admin socket.
    pub username: String,
    /// The address it came from.
    pub client: Option<String>,
    /// What was done, for example `session.show`.
    pub action: String,
    /// To what, for example a session's id.
    pub object: Option<String>,
    /// `done` or `refused`.
    pub outcome: String,
    /// More, by the action.
    pub detail: BTreeMap<String, Value>,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number; later ones are larger.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// JSON that PostgreSQL takes: it has no text with the character U+0000, which stands in for
/// itself as U+FFFD.
pub(super) fn storable_json<T: Serialize>(rows: &T) -> serde_json::Result<String> {
    let json = serde_json::to_string(rows)?;
    let mut clean = String::new();
    let mut rest = json.as_str();
    while let Some((before, after)) = rest.split_once("\\u0000") {
        clean.push_str(before);
        let backslashes = before.len() - before.trim_end_matches('\\').len();
        // An odd number of backslashes before it: the one of `\u` is itself escaped.
        clean.push_str(if backslashes % 2 == 0 { "\\ufffd" } else { "\\u0000" });
        rest = after;
    }
    if clean.is_empty() {
        return Ok(json);
    }
    clean.push_str(rest);
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written_and_as_postgresql_writes_it() {
        let time = Timestamp(1_763_632_800_123_456);
        assert_eq!(time.to_string(), "2025-11-20T10:00:00.123456Z");
        for text in [time.to_string().as_str(), "2025-11-20T11:00:00.123456+01:00"] {
            assert_eq!(text.parse(), Ok(time));
        }
        assert_eq!("2025-11-20T10:00:00+00:00".parse(), Ok(Timestamp(1_763_632_800_000_000)));
        for bad in ["", "now", "2025-11-20", "2025-13-20T10:00:00Z", "9".repeat(40).as_str()] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_character_that_postgresql_has_not_is_replaced_and_its_spelling_is_not() {
        for text in ["", "a", "\0", "\\u0000", "\\\0", "\\\\u0000\0\0x\\", "\u{1}"] {
            let json = storable_json(&[text]).unwrap();
            let read: [String; 1] = serde_json::from_str(&json).unwrap();
            assert_eq!(read[0], text.replace('\0', "\u{fffd}"), "{json}");
        }
    }
}
