//! What policy says to a command.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Approve => "approve",
            Self::Block => "block",
        })
    }
}

/// The verdict on a command with the rules that gave it.
///
/// Only [`super::SessionPolicy::decide`] makes one for a live command; readers of recordings
/// deserialize what was decided then. It does not depend on the order of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub(super) verdict: Verdict,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) approvals: Vec<Arc<Approval>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) observed: Vec<Observed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) exempted: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) besides: Option<Besides>,
}

/// What refuses a command whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Besides {
    /// Masks or row filters, which are named among the rules: they could not be applied.
    Masks,
    /// The session: its time is over, or its encoding would change.
    Session,
}

impl Decision {
    /// Nothing is against it, and no rule was needed.
    pub(super) fn allowed() -> Self {
        Self {
            verdict: Verdict::Allow,
            rules: Vec::new(),
            reason: None,
            approvals: Vec::new(),
            observed: Vec::new(),
            exempted: Vec::new(),
            besides: None,
        }
    }

    /// The same for a command that only prepares what is decided again when it runs: nobody is
    /// asked about it yet.
    #[must_use]
    pub fn of_preparing(self) -> Self {
        match self.verdict {
            Verdict::Approve => Self { observed: self.observed, ..Self::allowed() },
            Verdict::Allow | Verdict::Block => self,
        }
    }

    /// The same for a command that these masks, or the session when there are none, are against,
    /// whatever the rules say.
    #[must_use]
    pub fn against(self, masks: &[Arc<str>], reason: &str) -> Self {
        let mut rules = if self.verdict == Verdict::Block { self.rules } else { Vec::new() };
        let reason = self.reason.filter(|_| !rules.is_empty()).unwrap_or_else(|| reason.into());
        rules.extend_from_slice(masks);
        Self {
            verdict: Verdict::Block,
            rules,
            reason: Some(reason),
            approvals: Vec::new(),
            observed: self.observed,
            exempted: Vec::new(),
            besides: Some(if masks.is_empty() { Besides::Session } else { Besides::Masks }),
        }
    }

    /// The same for a command that comes when the session's time is over, whatever the rules say.
    #[must_use]
    pub fn too_late(self) -> Self {
        self.against(&[], "the session's time is over")
    }

    /// What happens to the command.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The names of the rules that gave the verdict; empty when the target's default did.
    pub fn rules(&self) -> &[Arc<str>] {
        &self.rules
    }

    /// The reason of the rules that gave the verdict, for the client.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// What a command with the verdict approve waits for: every one of these.
    pub fn approvals(&self) -> &[Arc<Approval>] {
        &self.approvals
    }

    /// The rules in observe mode that matched, with what they would have said.
    pub fn observed(&self) -> &[Observed] {
        &self.observed
    }

    /// The rules that would have been stricter, had they not spared one of the caller's groups.
    pub fn exempted(&self) -> &[Arc<str>] {
        &self.exempted
    }

    /// What refuses the command whatever the rules say, if anything does.
    pub fn besides(&self) -> Option<Besides> {
        self.besides
    }

    /// Whether something stricter was in the rules and did not act: an exemption, or a rule in
    /// observe mode. (An approval overrides too; the approval itself tells of it.)
    pub fn is_overridden(&self) -> bool {
        !self.exempted.is_empty() || self.observed.iter().any(|seen| seen.verdict > self.verdict)
    }
}

/// Who must approve a command before it runs, because of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The rule that asks for it.
    pub rule: Arc<str>,
    /// The groups whose members may.
    pub approvers: Vec<String>,
    /// How many of them must.
    pub approvals: u32,
    /// How long their answer is waited for.
    pub timeout_seconds: u64,
}

impl Approval {
    /// How long their answer is waited for.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}

/// A rule in observe mode that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What it would have said.
    pub verdict: Verdict,
}
