//! The ways a connection ends: what the recording says of it, and what the client is told.

use crate::recording::RecordingFailure;

/// Why a session ended.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum End {
    /// The client left.
    #[error("the client left")]
    Client,
    /// The client broke the protocol, or its connection broke.
    #[error("the connection to the client broke: {0}")]
    Broken(String),
    /// The session could not be recorded.
    #[error("not recorded: {0}")]
    NotRecorded(RecordingFailure),
    /// The token's or the session's time is over.
    #[error("its time was over")]
    Expired,
    /// A reload took the access away.
    #[error("the access was withdrawn")]
    AccessLost,
    /// The gateway stops.
    #[error("the gateway stopped")]
    Shutdown,
}

impl End {
    /// The word for it in the recording's last event.
    pub(super) fn how(&self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Broken(_) => "protocol",
            Self::NotRecorded(_) => "recording",
            Self::Expired => "expired",
            Self::AccessLost => "access",
            Self::Shutdown => "shutdown",
        }
    }

    /// What the client is told; none where there is nobody to tell.
    pub(super) fn words(&self) -> Option<&'static str> {
        match self {
            Self::Client | Self::Broken(_) => None,
            Self::NotRecorded(_) => Some("the session cannot be recorded"),
            Self::Expired => Some("the session's time is over"),
            Self::AccessLost => Some("the access to this target was withdrawn"),
            Self::Shutdown => Some("the gateway is stopping"),
        }
    }
}
