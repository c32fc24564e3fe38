//! Whether a transaction has done something: then it may hold others up, and must not wait long.

use crate::decode::sql::Source;

use super::{Expected, Replies, Running};

/// Actions that take nothing that others wait for.
const HARMLESS: [&str; 4] = ["sql.transaction", "sql.set", "sql.show", "sql.reset"];

/// What a command does to its transaction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    /// It does more than begin, end and set.
    works: bool,
    /// It may begin a transaction that goes on behind it.
    begins: bool,
}

impl Work {
    /// Takes in a statement that the command runs.
    pub(super) fn add(&mut self, source: &Source) {
        for effect in source.effects() {
            self.works |= !HARMLESS.contains(&&*effect.action);
            self.begins |= effect.action == "sql.transaction";
        }
    }

    /// Of a command of which nothing is known.
    pub(super) const UNKNOWN: Self = Self { works: true, begins: true };
}

impl Replies {
    /// Notes a command that is forwarded.
    pub(super) fn works(&mut self, work: Work) {
        self.worked |= work.works;
    }

    /// The server is in no transaction: what is still to come may begin one.
    pub(super) fn rests(&mut self) {
        let works = |running: &Running| running.refused.is_none() && running.work.works;
        self.worked = self.expected.iter().any(|expected| match expected {
            Expected::Query(running) | Expected::Execute(running) => works(running),
            _ => false,
        });
    }

    /// Whether a command that waits now would do so in a transaction that has done something, as
    /// far as is known.
    pub(in crate::protocol::postgres) fn holds_others_up(&self) -> bool {
        if self.in_transaction() && self.worked {
            return true;
        }
        let (mut behind_end, mut works, mut begins) = (false, false, false);
        for expected in self.expected.iter().rev() {
            match expected {
                Expected::Sync { .. } => behind_end = true,
                Expected::Query(running) | Expected::Execute(running)
                    if running.refused.is_none() =>
                {
                    // A simple query ends its own transaction, unless it begins one.
                    behind_end |= matches!(expected, Expected::Query(_));
                    if !behind_end && running.work.works {
                        return true;
                    }
                    works |= running.work.works;
                    begins |= running.work.begins;
                }
                _ => {}
            }
        }
        works && begins
    }
}
