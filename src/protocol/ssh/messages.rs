//! Everything that the gateway itself says on a channel, in one place. What a client may be told
//! is this list; no error text of another layer ever reaches it.

use crate::names::{SessionId, TargetName};
use crate::policy::Decision;

/// The exit status of a command that policy refused; what shells say of a file that may not be
/// run.
pub(super) const BLOCKED: u32 = 126;
/// The exit status of a command that never reached its target; what ssh says of lost connections.
pub(super) const FAILED: u32 = 255;

/// What is said where the target's default refused.
const NO_RULE: &str = "No rule allows it, and this target runs only what a rule allows. Where rules \
                       name a program by its whole path, so must the command.";

/// Why a command does not run, or does not go on.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// Policy refused it; the rule's reason, if it has one.
    Policy {
        /// The rule's reason.
        reason: Option<String>,
        /// The session that it is recorded in.
        session: SessionId,
    },
    /// People were asked, and it does not run.
    NotReleased {
        /// Why, for the client.
        why: String,
        /// The session that it is recorded in.
        session: SessionId,
    },
    /// The session is about to end.
    Closing(&'static str),
    /// The target cannot be reached, or did not let the gateway in.
    Unreachable(TargetName),
    /// The target does not do what was asked.
    TargetRefused(TargetName),
    /// The connection to the target was lost.
    TargetLost(TargetName),
    /// What the client sends as sftp is not.
    Malformed,
}

impl Refusal {
    /// A decision against a command.
    pub(super) fn policy(decision: &Decision, session: SessionId) -> Self {
        let reason = decision.reason().or(decision.rules().is_empty().then_some(NO_RULE));
        Self::Policy { reason: reason.map(str::to_owned), session }
    }

    /// The exit status that goes with it; none when the program's own would be made up.
    pub(super) fn exit_status(&self) -> Option<u32> {
        match self {
            Self::Policy { .. } | Self::NotReleased { .. } | Self::Closing(_) => Some(BLOCKED),
            Self::Unreachable(_) | Self::TargetRefused(_) | Self::Malformed => Some(FAILED),
            Self::TargetLost(_) => None,
        }
    }

    /// What is said on standard error.
    pub(super) fn text(&self) -> String {
        let text = match self {
            Self::Policy { reason, session } => {
                let reason = reason.as_deref().unwrap_or("The command is refused by policy.");
                format!("{reason} (session {session})")
            }
            Self::NotReleased { why, session } => format!("{why} (session {session})"),
            Self::Closing(words) => (*words).to_owned(),
            Self::Unreachable(target) => format!(
                "target \"{target}\" cannot be reached; the gateway's operator finds why in its log"
            ),
            Self::TargetRefused(target) => format!("target \"{target}\" refuses the request"),
            Self::TargetLost(target) => format!("the connection to target \"{target}\" was lost"),
            Self::Malformed => "what was sent is not sftp, version 3".to_owned(),
        };
        // With a terminal in raw mode a line needs both.
        format!("portcullis: {text}\r\n")
    }
}
