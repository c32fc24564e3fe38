//! What masks and row filters of another configuration would do with statements that ran.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::Example;
use super::undecidable::{Reasons, Undecidable};
use crate::names::TargetName;
use crate::policy::Caller;
use crate::recording::{Keyring, Opened, Reader};

/// A statement as it was recorded, and who sent it where.
#[derive(Debug)]
pub struct Statement<'a> {
    /// The target.
    pub target: &'a TargetName,
    /// Its database.
    pub database: Option<&'a str>,
    /// The caller, as far as recordings know one: without claims.
    pub caller: &'a Caller,
    /// The text.
    pub text: &'a str,
}

/// What masks and row filters do with a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Masked {
    /// It goes to the server as it is.
    Same,
    /// This goes there in its place.
    Instead(String),
    /// Nothing does.
    Refused {
        /// The masks and row filters that are against it.
        by: Vec<String>,
        /// Why, as the client is told.
        reason: String,
    },
    /// Nobody can tell, for this reason.
    Undecidable(String),
}

/// A target's database whose catalog could not be read.
#[derive(Debug, Serialize)]
pub struct Unreachable {
    /// The target.
    pub target: TargetName,
    /// Its database.
    pub database: String,
    /// Why.
    pub error: String,
}

/// Catalogs of targets that were read.
pub trait Catalogs: Send {
    /// What masks and row filters do with a statement.
    fn masked(&mut self, statement: &Statement<'_>) -> Masked;

    /// The databases whose catalogs could not be read; their statements are undecidable.
    fn unreachable(&self) -> Vec<Unreachable>;
}

/// The databases that these recordings' sessions were opened on. What cannot be read is left out.
pub fn databases<'p>(
    paths: impl IntoIterator<Item = &'p Path>,
    keyring: &Keyring,
) -> BTreeSet<(TargetName, String)> {
    let opened = paths.into_iter().filter_map(|path| {
        let first = Reader::open_with(path, keyring).ok()?.next()?.ok()?;
        let opened: Opened = serde_json::from_slice(&first.payload).ok()?;
        Some((opened.target, opened.database?))
    });
    opened.collect()
}

/// What they would do with all statements of targets that have any.
#[derive(Debug, Default, Serialize)]
pub struct MaskReport {
    /// Statements that go to the server as they are.
    pub same: u64,
    /// The text was withheld, the target cannot be asked, or the caller's claims count.
    pub undecidable: u64,
    /// The same by reason, the most frequent first.
    pub undecidable_by_reason: Vec<Undecidable>,
    /// Statements that the server answers otherwise: it gets another text.
    pub instead: Instead,
    /// Statements that are refused, the most frequent reason first.
    pub refused: Vec<Refused>,
}

/// Statements in whose place others go to the server.
#[derive(Debug, Default, Serialize)]
pub struct Instead {
    /// How many.
    pub count: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
    /// The beginning of what goes to the server in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
}

/// Statements that are refused for one reason.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// The masks and row filters that are against them.
    pub by: Vec<String>,
    /// Why, as the client is told.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Those of them that masks or row filters refused when they were recorded.
    pub before: u64,
    /// The first of them.
    pub example: Example,
}

/// Counts what masks do.
#[derive(Debug, Default)]
pub(super) struct Counted {
    report: MaskReport,
    refused: BTreeMap<(Vec<String>, String), (u64, u64, Example)>,
    undecided: Reasons,
}

impl Counted {
    /// Counts one statement; `before` says that masks or row filters refused it.
    pub(super) fn count(
        &mut self,
        masked: Masked,
        before: bool,
        example: impl FnOnce() -> Example,
    ) {
        let report = &mut self.report;
        match masked {
            Masked::Same => report.same += 1,
            Masked::Undecidable(reason) => {
                report.undecidable += 1;
                self.undecided.count(reason, example);
            }
            Masked::Instead(sent) => {
                report.instead.count += 1;
                if report.instead.example.is_none() {
                    report.instead.example = Some(example());
                    report.instead.sent = Some(super::shortened(&sent));
                }
            }
            Masked::Refused { by, reason } => {
                let kind = self.refused.entry((by, reason));
                let (count, again, _) = kind.or_insert_with(|| (0, 0, example()));
                *count += 1;
                *again += u64::from(before);
            }
        }
    }

    pub(super) fn finish(self) -> MaskReport {
        let kinds = self.refused.into_iter();
        let mut refused: Vec<_> = kinds
            .map(|((by, reason), (count, before, example))| Refused {
                by,
                reason,
                count,
                before,
                example,
            })
            .collect();
        refused.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        let undecidable_by_reason = self.undecided.finish();
        MaskReport { refused, undecidable_by_reason, ..self.report }
    }
}
