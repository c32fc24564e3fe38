//! Why nobody can tell how a command would end.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Example;
use crate::policy::NotRecorded;

/// Commands of which nobody can tell how they would end, for one reason.
#[derive(Debug, Serialize)]
pub struct Undecidable {
    /// Why, in words.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub example: Example,
}

/// Why a command is not decided anew.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Undecided {
    #[error("the configuration has no such target")]
    NoTarget,
    /// It runs what was prepared before.
    #[error("what it runs is not in the recording, or was prepared too many commands before")]
    NotPrepared,
    /// A rule looks at this.
    #[error("the rule {0} looks at {what}", what = in_words(*.1))]
    NotRecorded(String, NotRecorded),
    #[error("masks or row filters refused it, and the target has none in this configuration")]
    Unmasked,
    #[error("what refused it does so whatever the rules say")]
    AsBefore,
}

fn in_words(what: NotRecorded) -> &'static str {
    match what {
        NotRecorded::Claims => "claims of the caller, which recordings do not hold",
        NotRecorded::Text => "the text, of which something was withheld from the recording",
        NotRecorded::Values => "bound values, which were withheld from the recording",
    }
}

/// Counts reasons, each with the first command that it concerns.
#[derive(Debug, Default)]
pub(super) struct Reasons(BTreeMap<String, (u64, Example)>);

impl Reasons {
    pub(super) fn count(&mut self, reason: String, example: impl FnOnce() -> Example) {
        self.0.entry(reason).or_insert_with(|| (0, example())).0 += 1;
    }

    /// The most frequent first.
    pub(super) fn finish(self) -> Vec<Undecidable> {
        let counted = self.0.into_iter();
        let mut counted: Vec<_> = counted
            .map(|(reason, (count, example))| Undecidable { reason, count, example })
            .collect();
        counted.sort_by_key(|undecidable| std::cmp::Reverse(undecidable.count));
        counted
    }
}
