//! The ways a session ends: what the recording says of it, and what the client is told.

use std::io;

use crate::decode::postgres::Malformed;
use crate::gate::{Fault, How, NotAdmitted, SessionEnd};
use crate::names::TargetName;
use crate::recording::RecordingFailure;

use super::refusal::Refusal;
use super::replies::Unfit;

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
    /// The target broke the protocol, or answers what cannot be masked.
    #[error("{}", of_target(*.0))]
    TargetMalformed(Malformed),
    /// The target gave an answer that was not asked for.
    #[error("the target gave an answer that was not asked for")]
    OutOfStep,
    /// The client changed `client_encoding` away from UTF-8, to this.
    #[error("client_encoding was changed to {0}")]
    Encoding(String),
    /// The gateway cut it.
    #[error("{0}")]
    Cut(SessionEnd),
}

fn of_target(malformed: Malformed) -> String {
    match malformed.is_unmaskable() {
        true => format!("an answer of the target cannot be masked: {malformed}"),
        false => format!("the target broke the protocol: {malformed}"),
    }
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
    /// Of an answer that does not fit.
    pub(super) fn of(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Answer => Self::OutOfStep,
            Unfit::Malformed(malformed) => Self::TargetMalformed(malformed),
            Unfit::SyncAmongData => Self::ClientMalformed(Malformed(
                "a Sync came among COPY data that then failed: whether it counted is not known",
            )),
            Unfit::NoCopyData => Self::ClientMalformed(Malformed(
                "a message that is no COPY data came during COPY from stdin",
            )),
        }
    }

    /// As recording, index, metric and log have it.
    pub(super) fn of_session(&self) -> SessionEnd {
        let (how, fault) = match self {
            Self::Cut(end) => return end.clone(),
            Self::Client | Self::ClientBroken(_) => (How::Client, Fault::Client),
            Self::Target | Self::TargetBroken(_) => (How::Target, Fault::Target),
            Self::ClientMalformed(_) | Self::Encoding(_) => (How::Protocol, Fault::Client),
            Self::TargetMalformed(what) if what.is_unmaskable() => (How::Policy, Fault::Operator),
            Self::TargetMalformed(_) | Self::OutOfStep => (How::Protocol, Fault::Target),
        };
        SessionEnd::new(how, fault, self.to_string())
    }

    /// What the client is told, where it can still be told and the target has not said it: `said`
    /// is whether it has.
    pub(super) fn refusal(&self, target: &TargetName, said: bool) -> Option<Refusal> {
        match self {
            Self::Client | Self::ClientBroken(_) => None,
            Self::ClientMalformed(malformed) => Some(Refusal::Malformed(*malformed)),
            // The session has ended: a second last word would answer the client's next question.
            _ if said => None,
            Self::TargetMalformed(what) if what.is_unmaskable() => Some(Refusal::Unmaskable(*what)),
            Self::Target | Self::TargetBroken(_) | Self::TargetMalformed(_) => {
                Some(Refusal::TargetLost(target.clone()))
            }
            Self::OutOfStep => Some(Refusal::OutOfStep(target.clone())),
            Self::Encoding(name) => Some(Refusal::Encoding(name.clone())),
            Self::Cut(end) => Some(match end.how() {
                How::Recording => Refusal::NotRecorded,
                How::Expired => Refusal::Expired,
                How::Killed => Refusal::Killed,
                How::Shutdown => Refusal::Shutdown,
                _ => Refusal::AccessLost,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::{COPY_OF_UNKNOWN, TOO_LARGE_TO_MASK};

    #[test]
    fn what_cannot_be_masked_is_said_and_is_not_the_targets_fault() {
        let told = |what| {
            let end = End::TargetMalformed(what);
            let words = end.refusal(&"orders".parse().unwrap(), false).unwrap().to_words();
            let words = String::from_utf8_lossy(words.as_bytes()).into_owned();
            (words, end.of_session())
        };
        for what in [COPY_OF_UNKNOWN, TOO_LARGE_TO_MASK] {
            let (words, end) = told(what);
            assert!(words.contains("C42501\0") && words.contains(what.0), "{words}");
            assert_eq!((end.how(), end.fault()), (How::Policy, Fault::Operator));
        }
        let (words, end) = told(Malformed("a row ends too early"));
        assert!(words.contains("C08006\0") && !words.contains("too early"), "{words}");
        assert_eq!((end.how(), end.fault()), (How::Protocol, Fault::Target));
    }
}
