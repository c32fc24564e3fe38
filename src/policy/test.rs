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
    /// The row filters that must act on the caller there: these, and no others.
    pub rows: Option<Vec<String>>,
}

/// What is masked and filtered on a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetMasks {
    /// Columns, for whosever eyes: what cannot be understood may then concern them.
    pub columns: bool,
    /// The names of those that hide values from the caller.
    pub hiding: Vec<String>,
    /// The row filters that act on the caller.
    pub filtering: Vec<ActingRows>,
}

/// A row filter that acts on a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActingRows {
    /// Its name.
    pub name: String,
    /// The values that its condition needs and the caller does not have, in words.
    pub lacking: Vec<String>,
    /// Why the gateway refuses the command for it, as far as the command's text says that.
    pub refuses: Option<String>,
}

/// Why a test did not pass, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TestFailure(pub String);

impl PolicyTest {
    /// Runs the test. `masks` says what is masked and filtered on the target for the caller and the
    /// command, `decode` reads the command as the target's protocol would. A command that a row filter
    /// refuses fails a test that expects it to run or to wait for people.
    pub fn run(
        &self,
        policy: &Policy,
        targets: &[TargetFacts],
        masks: impl FnOnce(&TargetFacts, &Caller, &Command) -> TargetMasks,
        decode: impl FnOnce(&TargetFacts, &str) -> Result<Command, String>,
    ) -> Result<Decision, TestFailure> {
        let Some(target) = targets.iter().find(|target| target.name.as_str() == self.target) else {
            return Err(TestFailure(format!("there is no target {}", self.target)));
        };
        let command = decode(target, &self.command).map_err(TestFailure)?;
        let session = SessionFacts::default();
        let masked = masks(target, &self.caller, &command);
        let rules = policy.for_caller(&self.caller, target, &session).masked(masked.columns);
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
        self.meets_masks(&masked)?;
        let mut refusing = masked.filtering.iter().filter_map(|rows| rows.refuses.as_ref());
        if let Some(why) = refusing.next().filter(|_| self.expect != Verdict::Block) {
            return Err(TestFailure(format!(
                "expected {}, got a refusal: {why} (by the rules alone: {} {})",
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

    /// Holds the masks and row filters that the test names against those that act.
    fn meets_masks(&self, masked: &TargetMasks) -> Result<(), TestFailure> {
        let TargetMasks { hiding, filtering, .. } = masked;
        if let Some(expected) = &self.masks
            && !same(expected, hiding)
        {
            let (expected, hiding) = (named(expected, "no mask"), named(hiding, "no mask"));
            return Err(TestFailure(format!(
                "expected {expected} to hide values from the caller, got {hiding}"
            )));
        }
        let Some(expected) = &self.rows else { return Ok(()) };
        let acting: Vec<String> = filtering.iter().map(|rows| rows.name.clone()).collect();
        if !same(expected, &acting) {
            let (expected, acting) =
                (named(expected, "no row filter"), named(&acting, "no row filter"));
            return Err(TestFailure(format!(
                "expected {expected} to act on the caller, got {acting}"
            )));
        }
        match filtering.iter().find(|rows| !rows.lacking.is_empty()) {
            Some(ActingRows { name, lacking, .. }) => {
                Err(TestFailure(format!("the row filter {name} needs {}", lacking.join(" and "))))
            }
            None => Ok(()),
        }
    }
}

/// Whether two lists have the same names, in any order.
fn same(a: &[String], b: &[String]) -> bool {
    let all = |a: &[String], b: &[String]| a.iter().all(|name| b.contains(name));
    all(a, b) && all(b, a)
}

fn named(names: &[String], none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.join(", ") }
}
