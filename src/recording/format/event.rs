//! The events of a session, as everybody but the appender and the reader sees them.
//!
//! Stored, an event is one line of JSON (sequence, times, direction, kind, length of the payload)
//! followed by the payload and a newline; `docs/recording-format.md` says it in full. The payload
//! of [`Kind::Data`] is bytes of the protocol; every other kind's is one JSON document of the type
//! named with it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::names::{Protocol, RequestId, SessionId, TargetName};
use crate::policy::{Command, CommandParts, Decision};
use crate::recording::format::clock::rfc3339;

/// [`Closed::how`] of a session whose gateway did not live to close it.
pub(in crate::recording) const INTERRUPTED: &str = "interrupted";

/// What a seal says of how an encrypted session ended that was sealed without its key.
pub(in crate::recording) const UNREAD: &str = "unread";

/// The place of an event in its session, from 0 without gaps.
pub type Sequence = u64;

/// Which way the recorded bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client towards the target.
    Up,
    /// From the target towards the client.
    Down,
    /// Neither: the gateway speaks.
    None,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The session opened; payload [`Opened`]. Always the first event of a session's recording.
    Opened,
    /// A gateway began to note whom it refused; payload [`GatewayOpened`]. Always the first event
    /// of such a recording, which belongs to no session.
    Gateway,
    /// A command was decided; payload [`RecordedCommand`].
    Command,
    /// Bytes passed; payload those bytes.
    Data,
    /// A command came to its end; payload [`Outcome`].
    Outcome,
    /// Someone was refused before a session opened; payload [`RefusedCaller`].
    Refused,
    /// Something worth knowing happened; payload [`Note`].
    Note,
    /// People were asked about a command, or answered; payload [`ApprovalStep`].
    Approval,
    /// Events are missing here; payload [`Gap`].
    Gap,
    /// The session ended; payload [`Closed`]. Always the last event.
    Closed,
}

impl Direction {
    pub(in crate::recording) const ALL: [Self; 3] = [Self::Up, Self::Down, Self::None];

    /// The one that such a stored word means.
    pub(in crate::recording) fn from_word(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.as_str().as_bytes() == word)
    }

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::None => "none",
        }
    }
}

impl Kind {
    pub(in crate::recording) const ALL: [Self; 10] = [
        Self::Opened,
        Self::Gateway,
        Self::Command,
        Self::Data,
        Self::Outcome,
        Self::Refused,
        Self::Note,
        Self::Approval,
        Self::Gap,
        Self::Closed,
    ];

    /// The one that such a stored word means.
    pub(in crate::recording) fn from_word(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().as_bytes() == word)
    }

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Gateway => "gateway",
            Self::Command => "command",
            Self::Data => "data",
            Self::Outcome => "outcome",
            Self::Refused => "refused",
            Self::Note => "note",
            Self::Approval => "approval",
            Self::Gap => "gap",
            Self::Closed => "closed",
        }
    }
}

/// One stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place.
    pub sequence: Sequence,
    /// Microseconds since the session opened, from a clock that never goes back.
    pub monotonic_us: u64,
    /// Microseconds since 1970-01-01 UTC, as the wall clock said.
    pub wall_us: i64,
    /// Which way.
    pub direction: Direction,
    /// What it is.
    pub kind: Kind,
    /// The command that this event belongs to.
    pub of: Option<Sequence>,
    /// Bytes of the protocol, or JSON.
    pub payload: Bytes,
}

impl Event {
    /// The event as JSON for programs: `data` is base64 of a payload that is bytes, `payload` is
    /// one that is JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let base64 = || STANDARD.encode(&self.payload).into();
        let (name, payload) = match self.kind {
            Kind::Data => ("data", base64()),
            _ => match serde_json::from_slice(&self.payload) {
                Ok(json) => ("payload", json),
                Err(_) => ("data", base64()),
            },
        };
        let mut shape = serde_json::json!({
            "sequence": self.sequence,
            "at": rfc3339(self.wall_us),
            "monotonic_us": self.monotonic_us,
            "direction": self.direction,
            "kind": self.kind,
            "of": self.of,
        });
        if let Some(object) = shape.as_object_mut() {
            object.insert(name.to_owned(), payload);
        }
        shape
    }
}

/// Payload of [`Kind::Opened`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// The session's id.
    pub session: SessionId,
    /// What is spoken.
    pub protocol: Protocol,
    /// The target.
    pub target: TargetName,
    /// Within the target: the database, for Postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The client's address.
    pub client: String,
    /// Who: the identity's public part.
    pub identity: RecordedIdentity,
    /// The workflow, and whether a claim said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Told>,
    /// The run, and whether a claim said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Told>,
    /// What the client says of itself, by the protocol's own names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_parameters: BTreeMap<String, String>,
    /// The hash of the policy in force.
    pub policy: String,
    /// The gateway's version.
    pub gateway_version: String,
}

/// Payload of [`Kind::Gateway`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayOpened {
    /// The recording's own id.
    pub session: SessionId,
    /// The gateway's id, as its ledger has it.
    pub gateway: String,
    /// The gateway's version.
    pub gateway_version: String,
}

/// Who a session belonged to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedIdentity {
    /// The issuer's URL.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The groups at that time.
    pub groups: Vec<String>,
}

/// A name, and who told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The name.
    pub name: String,
    /// True when a verified claim said so, false when the client did.
    pub proved: bool,
}

/// Payload of [`Kind::Command`]: a command in its request view, and what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedCommand<'a> {
    /// The command; `text` and `attributes` are the request view.
    pub command: Cow<'a, Command>,
    /// What was decided.
    pub decision: Cow<'a, Decision>,
    /// Keyed hash of the exact bytes, in hexadecimal, where the view withholds some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
}

/// What is written as a [`RecordedCommand`], of parts that others keep.
#[derive(Debug, Serialize)]
pub struct NewCommand<'a> {
    /// As [`RecordedCommand::command`].
    pub command: &'a CommandParts<'a>,
    /// As [`RecordedCommand::decision`].
    pub decision: &'a Decision,
    /// As [`RecordedCommand::exact`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
}

/// Payload of [`Kind::Outcome`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The protocol's own word for the end: a command tag, an exit status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Rows sent or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CommandError>,
    /// How many values were masked in what came back, by mask; those that patterns found under
    /// `patterns`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub masked: BTreeMap<String, u64>,
    /// Microseconds from forwarding to the end.
    pub duration_us: u64,
}

/// How a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// The protocol's code, for example a SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
}

/// Payload of [`Kind::Refused`]: someone who got no session. Names are as claimed, not proved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedCaller {
    /// What was spoken.
    pub protocol: Protocol,
    /// The client's address.
    pub client: String,
    /// The target as the client wrote it, shortened to 63 characters.
    pub target: String,
    /// The identity, when the token verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<RecordedIdentity>,
    /// Why.
    pub reason: String,
}

/// Payload of [`Kind::Note`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// A short word for the kind of thing: `cancel`, `expiry`, `upstream-lost`.
    pub what: Cow<'static, str>,
    /// What happened, for people.
    pub text: String,
}

/// Payload of [`Kind::Approval`]: what became of the command `of`, which waits for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalStep {
    /// The request that people decide.
    pub request: RequestId,
    /// `asked`; then `released` (it runs), or `denied`, `expired`, `cancelled`, `refused`,
    /// `given-up` (it never does). Nothing follows `asked` where the client does not wait.
    pub step: Cow<'static, str>,
    /// The rules that ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Who said what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<RecordedVote>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

impl ApprovalStep {
    /// The step that lets a command go.
    pub const RELEASED: &'static str = "released";
}

/// What one person said to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedVote {
    /// The person's issuer.
    pub issuer: String,
    /// The person's subject.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// `approve` or `deny`.
    pub verdict: Cow<'static, str>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Payload of [`Kind::Gap`]. The event stands at the first missing sequence, and the next event
/// follows after the last missing one, so no number is ever given twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Events that were not stored.
    pub events: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

/// Payload of [`Kind::Closed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// How it ended, in one of a few words: `client`, `target`, `expired`, `access`, `killed`,
    /// `limit`, `shutdown`, `protocol`, `recording`, `interrupted`.
    pub how: Cow<'static, str>,
    /// The same, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

impl Closed {
    /// The end of a session whose gateway did not live to close it.
    pub(in crate::recording) fn interrupted() -> Self {
        Self { how: Cow::Borrowed(INTERRUPTED), text: String::new() }
    }
}
