//! What policy says to a command.

use serde::{Deserialize, Serialize};

/// What happens to a command; the later, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It runs.
    Allow,
    /// It waits for a human.
    Approve,
    /// It does not run.
    Block,
}

/// The verdict on a command with the rules that gave it.
///
/// Only [`super::Policy::decide`] makes one for a live command; readers of recordings
/// deserialize what was decided then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    verdict: Verdict,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Decision {
    pub(super) fn allowed_by_default() -> Self {
        Self { verdict: Verdict::Allow, rules: Vec::new(), reason: None }
    }

    /// What happens to the command.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The names of the rules that gave the verdict; empty when the target's default did.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// The strictest rule's reason, for the client.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}
