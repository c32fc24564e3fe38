//! How a session ended, for every protocol: in which way, whose doing it was, and by whom.

use std::fmt;

use super::NotAdmitted;
use crate::access::NoAccess;
use crate::recording::RecordingFailure;

/// The ways, as recording, index, metric and log name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The client left.
    Client,
    /// The target left, cannot be reached, or is another by now.
    Target,
    /// One side broke the protocol.
    Protocol,
    /// It could not be recorded.
    Recording,
    /// The time of its token or of the session was over.
    Expired,
    /// A reload took the access away, or somebody withdrew it.
    Access,
    /// Somebody ended it.
    Killed,
    /// The gateway stopped.
    Shutdown,
    /// Nothing came for long.
    Idle,
    /// A limit was reached.
    Limit,
    /// A rule refused what the session was to open with, or masks what it was to be answered.
    Policy,
}

impl How {
    /// The word in the recording's last event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Target => "target",
            Self::Protocol => "protocol",
            Self::Recording => "recording",
            Self::Expired => "expired",
            Self::Access => "access",
            Self::Killed => "killed",
            Self::Shutdown => "shutdown",
            Self::Idle => "idle",
            Self::Limit => "limit",
            Self::Policy => "policy",
        }
    }
}

/// Whose doing an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's.
    Client,
    /// The target's.
    Target,
    /// Of people who run the gateway, or of what they configured.
    Operator,
    /// The gateway's own.
    Gateway,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Target => "target",
            Self::Operator => "operator",
            Self::Gateway => "gateway",
        })
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    how: How,
    fault: Fault,
    by: Option<String>,
    text: String,
}

impl SessionEnd {
    /// One that nobody in particular brought about.
    pub fn new(how: How, fault: Fault, text: impl Into<String>) -> Self {
        Self { how, fault, by: None, text: text.into() }
    }

    /// The client left.
    pub fn left() -> Self {
        Self::new(How::Client, Fault::Client, "the client left")
    }

    /// The time of its token or of the session was over.
    pub fn expired() -> Self {
        Self::new(How::Expired, Fault::Client, "its time was over")
    }

    /// The gateway stopped.
    pub fn shutdown() -> Self {
        Self::new(How::Shutdown, Fault::Operator, "the gateway stopped")
    }

    /// It could not be recorded.
    pub fn not_recorded(failure: &RecordingFailure) -> Self {
        Self::new(How::Recording, Fault::Gateway, format!("not recorded: {failure}"))
    }

    /// Somebody ended the session.
    pub fn killed(by: &str) -> Self {
        let text = format!("ended by {by}");
        Self { how: How::Killed, fault: Fault::Operator, by: Some(by.to_owned()), text }
    }

    /// The right that the session had is gone, and why.
    pub fn lost(why: &NoAccess) -> Self {
        let access = |by: Option<&String>, text: String| Self {
            how: How::Access,
            fault: Fault::Operator,
            by: by.cloned(),
            text,
        };
        match why {
            NoAccess::Killed(by) => Self::killed(by),
            NoAccess::Over => Self::expired(),
            NoAccess::Withdrawn(by) => {
                access(Some(by), format!("the access was withdrawn by {by}"))
            }
            _ => access(None, "the access was withdrawn".to_owned()),
        }
    }

    /// In which way.
    pub fn how(&self) -> How {
        self.how
    }

    /// Whose doing it was.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Who brought it about, where somebody did.
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// In words, for the recording and the log.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<NotAdmitted> for SessionEnd {
    fn from(not_admitted: NotAdmitted) -> Self {
        match not_admitted {
            NotAdmitted::NotRecorded(failure) => Self::not_recorded(&failure),
            NotAdmitted::Lapsed(why) => Self::lost(&why),
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
