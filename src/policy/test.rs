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
    /// The masks that must hide values from the caller there: these, and no others.
    pub masks: Option<Vec<String>>,
}

/// What is masked on a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetMasks {
    /// Columns, for whosever eyes: what cannot be understood may then concern them.
    pub columns: bool,
    /// The names of those that hide values from the caller.
    pub hiding: Vec<String>,
}

/// Why a test did not pass, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TestFailure(pub String);

impl PolicyTest {
    /// Runs the test. `masks` says what is masked on the target for the caller, `decode` reads the
    /// command as the target's protocol would.
    pub fn run(
        &self,
        policy: &Policy,
        targets: &[TargetFacts],
        masks: impl FnOnce(&TargetFacts, &Caller) -> TargetMasks,
        decode: impl FnOnce(&TargetFacts, &str) -> Result<Command, String>,
    ) -> Result<Decision, TestFailure> {
        let Some(target) = targets.iter().find(|target| target.name.as_str() == self.target) else {
            return Err(TestFailure(format!("there is no target {}", self.target)));
        };
        let command = decode(target, &self.command).map_err(TestFailure)?;
        let session = SessionFacts::default();
        let TargetMasks { columns, hiding } = masks(target, &self.caller);
        let rules = policy.for_caller(&self.caller, target, &session).masked(columns);
        let decision = rules.decide(&command);
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
        if let Some(expected) = &self.masks {
            let same = |a: &[String], b: &[String]| a.iter().all(|name| b.contains(name));
            if !same(expected, &hiding) || !same(&hiding, expected) {
                let named = |names: &[String]| match names {
                    [] => "no mask".to_owned(),
                    names => names.join(", "),
                };
                let (expected, hiding) = (named(expected), named(&hiding));
                return Err(TestFailure(format!(
                    "expected {expected} to hide values from the caller, got {hiding}"
                )));
            }
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
