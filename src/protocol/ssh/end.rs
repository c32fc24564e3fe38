//! The ways a connection ends: what the recording says of it, and what the client is told.

use crate::access::NoAccess;
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
    /// The session could not be recorded.
    #[error("not recorded: {0}")]
    NotRecorded(RecordingFailure),
    /// The token's or the session's time is over.
    #[error("its time was over")]
    Expired,
    /// The access was lost, or somebody ended it.
    #[error("{0}")]
    Lost(SessionEnd),
    /// The gateway stops.
    #[error("the gateway stopped")]
    Shutdown,
}

impl From<NotAdmitted> for End {
    fn from(not_admitted: NotAdmitted) -> Self {
        match not_admitted {
            NotAdmitted::NotRecorded(failure) => Self::NotRecorded(failure),
            NotAdmitted::Lapsed(NoAccess::Over) => Self::Expired,
            NotAdmitted::Lapsed(why) => Self::Lost(SessionEnd::lost(&why)),
        }
    }
}

impl End {
    /// As recording, index, metric and log have it.
    pub(super) fn of_session(&self) -> SessionEnd {
        let (how, fault) = match self {
            Self::Lost(end) => return end.clone(),
            Self::Client => (How::Client, Fault::Client),
            Self::Broken(_) => (How::Protocol, Fault::Client),
            Self::NotRecorded(_) => (How::Recording, Fault::Gateway),
            Self::Expired => (How::Expired, Fault::Client),
            Self::Shutdown => (How::Shutdown, Fault::Operator),
        };
        SessionEnd::new(how, fault, self.to_string())
    }

    /// What the client is told; none where there is nobody to tell.
    pub(super) fn words(&self) -> Option<&'static str> {
        match self {
            Self::Client | Self::Broken(_) => None,
            Self::NotRecorded(_) => Some("the session cannot be recorded"),
            Self::Expired => Some("the session's time is over"),
            Self::Lost(end) if end.how() == How::Killed => {
                Some("the session was ended by an administrator")
            }
            Self::Lost(_) => Some("the access to this target was withdrawn"),
            Self::Shutdown => Some("the gateway is stopping"),
        }
    }
}
