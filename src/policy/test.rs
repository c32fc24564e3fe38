//! `[[test]]`: what a policy is meant to say, held against what it says.

use super::Policy;
use super::command::Command;
use super::decision::{Decision, Verdict};
use super::facts::{Caller, SessionFacts, TargetFacts};

/// One `[[test]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTest {
    /// Who calls.
    pub caller: Caller,
    /// The target's name, as in the catalog.
    pub target: String,
    /// The command's text, in the target's protocol.
    pub command: String,
    /// The verdict that it must take.
    pub expect: Verdict,
    /// A rule that must be among those that gave the verdict.
    pub rule: Option<String>,
}

/// Why a test did not pass, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TestFailure(pub String);

impl PolicyTest {
    /// Runs the test. `decode` reads the command as the target's protocol would.
    pub fn run(
        &self,
        policy: &Policy,
        targets: &[TargetFacts],
        decode: impl FnOnce(&TargetFacts, &str) -> Result<Command, String>,
    ) -> Result<Decision, TestFailure> {
        let Some(target) = targets.iter().find(|target| target.name.as_str() == self.target) else {
            return Err(TestFailure(format!("there is no target {}", self.target)));
        };
        let command = decode(target, &self.command).map_err(TestFailure)?;
        let session = SessionFacts::default();
        let decision = policy.for_caller(&self.caller, target, &session).decide(&command);
        let by = |decision: &Decision| match decision.rules() {
            [] => "by the target's default".to_owned(),
            rules => format!("by {}", rules.join(", ")),
        };
        if decision.verdict() != self.expect {
            return Err(TestFailure(format!(
                "expected {}, got {} {}",
                self.expect,
                decision.verdict(),
                by(&decision),
            )));
        }
        match &self.rule {
            Some(rule) if !decision.rules().iter().any(|found| **found == **rule) => {
                Err(TestFailure(format!(
                    "expected {} by {rule}, got it {}",
                    self.expect,
                    by(&decision),
                )))
            }
            _ => Ok(decision),
        }
    }
}
