//! The ways a session ends: what the recording says of it, and what the client is told.

use std::io;

use crate::decode::postgres::Malformed;
use crate::names::TargetName;
use crate::recording::RecordingFailure;

use super::refusal::Refusal;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The client left.
    #[error("the client left")]
    Client,
    /// The connection to the client broke.
    #[error("the connection to the client broke: {0}")]
    ClientBroken(io::Error),
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    ClientMalformed(Malformed),
    /// The target closed the connection.
    #[error("the target closed the connection")]
    Target,
    /// The connection to the target broke.
    #[error("the connection to the target broke: {0}")]
    TargetBroken(io::Error),
    /// The target broke the protocol.
    #[error("the target broke the protocol: {0}")]
    TargetMalformed(Malformed),
    /// The client changed `client_encoding` away from UTF-8.
    #[error("client_encoding was changed")]
    Encoding,
    /// The session could not be recorded.
    #[error("not recorded: {0}")]
    NotRecorded(#[from] RecordingFailure),
    /// The token's or the session's time is over.
    #[error("its time was over")]
    Expired,
    /// A reload took the access away, or somebody withdrew it.
    #[error("the access was withdrawn")]
    AccessLost,
    /// Somebody ended it.
    #[error("ended by {0}")]
    Killed(String),
    /// The gateway stops.
    #[error("the gateway stopped")]
    Shutdown,
}

impl End {
    /// The word for it in the recording's last event.
    pub(super) fn how(&self) -> &'static str {
        match self {
            Self::Client | Self::ClientBroken(_) => "client",
            Self::Target | Self::TargetBroken(_) => "target",
            Self::ClientMalformed(_) | Self::TargetMalformed(_) | Self::Encoding => "protocol",
            Self::NotRecorded(_) => "recording",
            Self::Expired => "expired",
            Self::AccessLost => "access",
            Self::Killed(_) => "killed",
            Self::Shutdown => "shutdown",
        }
    }

    /// What the client is told, where it can still be told and the target has not said it.
    pub(super) fn refusal(&self, target: &TargetName) -> Option<Refusal> {
        match self {
            Self::Client | Self::ClientBroken(_) | Self::Target => None,
            Self::ClientMalformed(malformed) => Some(Refusal::Malformed(*malformed)),
            Self::TargetBroken(_) | Self::TargetMalformed(_) => {
                Some(Refusal::TargetLost(target.clone()))
            }
            Self::Encoding => Some(Refusal::Encoding),
            Self::NotRecorded(_) => Some(Refusal::NotRecorded),
            Self::Expired => Some(Refusal::Expired),
            Self::AccessLost => Some(Refusal::AccessLost),
            Self::Killed(_) => Some(Refusal::Killed),
            Self::Shutdown => Some(Refusal::Shutdown),
        }
    }
}
