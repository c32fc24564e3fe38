//! The ways a connection ends: what the recording says of it, and what the client is told.

use crate::gate::{Fault, How, NotAdmitted, SessionEnd};
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
    /// The gateway cut it.
    #[error("{0}")]
    Cut(SessionEnd),
}

impl From<RecordingFailure> for End {
    fn from(failure: RecordingFailure) -> Self {
        Self::Cut(SessionEnd::not_recorded(&failure))
    }
}

impl From<NotAdmitted> for End {
    fn from(not_admitted: NotAdmitted) -> Self {
        Self::Cut(not_admitted.into())
    }
}

impl End {
    /// As recording, index, metric and log have it.
    pub(super) fn of_session(&self) -> SessionEnd {
        match self {
            Self::Cut(end) => end.clone(),
            Self::Client => SessionEnd::left(),
            Self::Broken(_) => SessionEnd::new(How::Protocol, Fault::Client, self.to_string()),
        }
    }

    /// What the client is told; none where there is nobody to tell.
    pub(super) fn words(&self) -> Option<&'static str> {
        match self {
            Self::Client | Self::Broken(_) => None,
            Self::Cut(end) => Some(match end.how() {
                How::Recording => "the session cannot be recorded",
                How::Expired => "the session's time is over",
                How::Killed => "the session was ended by an administrator",
                How::Shutdown => "the gateway is stopping",
                _ => "the access to this target was withdrawn",
            }),
        }
    }
}
