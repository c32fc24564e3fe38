//! The prepared statements and portals of a session by name, as the server's answers tell.
//!
//! SQL's own PREPARE and DECLARE make the same things as Parse and Bind do, under the same names.
//! What makes or drops them out of sight (a function that opens a cursor) is not known; whoever
//! asks for such a name is told so and takes it for anything.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::decode::postgres::frontend::Format;
use crate::decode::sql::{Source, StatementKind};
use crate::policy::{Attributes, SessionPolicy};
use crate::recording::Sequence;

use super::masking::RowMasks;

/// How many prepared statements and portals one session may name. Clients that cache statements
/// keep some hundreds.
const MAX_NAMES: usize = 65_536;

/// Bytes of texts and values that a session remembers by names; what is beyond is not known.
const MOST_BYTES: usize = 16 << 20;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// The command that made it.
    pub(super) of: Sequence,
    /// Its one statement; `None` when it is not known.
    pub(super) source: Option<Source>,
}

/// A portal.
#[derive(Debug, Clone)]
pub(super) struct Portal {
    /// The command that made it.
    pub(super) of: Sequence,
    /// The statement that gives its rows; `None` when it is not known.
    pub(super) source: Option<Source>,
    /// What was bound; `None` for a cursor of SQL's own.
    pub(super) bound: Option<Arc<Bound>>,
    /// What is done with its rows; `None` while it is not known.
    pub(super) rows: Option<Arc<RowMasks>>,
    life: Life,
}

/// What a Bind brought to its portal.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Formats of the results' columns, as Bind lists them: none, one for all, or one each.
    #[cfg_attr(not(test), expect(dead_code, reason = "masks will ask"))]
    pub(super) formats: Vec<Format>,
    /// The bound values.
    pub(super) values: Values,
    /// The values as people may see them who are asked whether it may run; none when they may
    /// not. Kept while rules ask people.
    pub(super) shown: Option<serde_json::Value>,
    /// A keyed hash of the whole Bind, while rules ask people.
    pub(super) exact: Option<String>,
    /// Bytes that they take.
    pub(super) bytes: usize,
}

/// Bound values as attributes of the command that runs, for rules that look at values.
#[derive(Debug, Default)]
pub(super) enum Values {
    /// There are none.
    #[default]
    None,
    /// They are these.
    Known(Attributes),
    /// There are some, too large to be kept. Under this policy they were looked at when they came,
    /// and nothing was against running what they are bound to.
    Forgotten(Option<Weak<SessionPolicy>>),
}

/// Until when a portal lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// To the end of its transaction.
    Transaction,
    /// To the end of its transaction, or a ROLLBACK TO a savepoint before it.
    Savepoint,
    /// WITH HOLD, in a transaction that has not committed.
    ToBeHeld,
    /// WITH HOLD, committed.
    Held,
}

/// All names of a session.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: HashMap<Box<str>, Prepared>,
    portals: HashMap<Box<str>, Portal>,
    bytes: usize,
    /// A savepoint was set in the transaction.
    savepoint: bool,
}

impl Names {
    /// Whether there is no room for more.
    pub(super) fn are_too_many(&self) -> bool {
        self.statements.len().max(self.portals.len()) > MAX_NAMES
    }

    pub(super) fn statement(&self, name: &str) -> Option<&Prepared> {
        self.statements.get(name)
    }

    pub(super) fn portal(&self, name: &str) -> Option<&Portal> {
        self.portals.get(name)
    }

    /// The server made a prepared statement.
    pub(super) fn prepare(&mut self, name: Box<str>, of: Sequence, source: Option<Source>) {
        self.deallocate(&name);
        let source = source.filter(|source| self.takes(cost(source)));
        self.statements.insert(name, Prepared { of, source });
    }

    /// The server made a portal from a prepared statement.
    pub(super) fn bind(
        &mut self,
        name: Box<str>,
        of: Sequence,
        statement: &str,
        bound: Option<Arc<Bound>>,
    ) {
        let source = self.statement(statement).and_then(|prepared| prepared.source.clone());
        let life = if self.savepoint { Life::Savepoint } else { Life::Transaction };
        self.insert_portal(name, Portal { of, source, bound, rows: None, life });
    }

    /// The server says which columns a portal has.
    pub(super) fn describe(&mut self, name: &str, rows: Option<Arc<RowMasks>>) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.rows = rows;
        }
    }

    fn insert_portal(&mut self, name: Box<str>, portal: Portal) {
        self.close(&name);
        if self.takes(portal.bytes()) {
            self.portals.insert(name, portal);
        } else {
            self.portals.insert(name, Portal { source: None, bound: None, ..portal });
        }
    }

    pub(super) fn deallocate(&mut self, name: &str) {
        let gone = self.statements.remove(name).and_then(|prepared| prepared.source);
        if let Some(source) = gone {
            self.bytes = self.bytes.saturating_sub(cost(&source));
        }
    }

    pub(super) fn close(&mut self, name: &str) {
        if let Some(portal) = self.portals.remove(name) {
            self.bytes = self.bytes.saturating_sub(portal.bytes());
        }
    }

    /// Keeps some portals.
    fn keep(&mut self, mut keeps: impl FnMut(&mut Portal) -> bool) {
        let bytes = &mut self.bytes;
        self.portals.retain(|_, portal| {
            let kept = keeps(portal);
            if !kept {
                *bytes = bytes.saturating_sub(portal.bytes());
            }
            kept
        });
    }

    /// A statement of a text ended well, and did to the names what such a statement does.
    pub(super) fn done(&mut self, of: Sequence, source: &Source, tag: &str) {
        let Some(statement) = source.statement() else { return };
        match &statement.kind {
            StatementKind::Prepare { name } => {
                self.prepare(name.as_str().into(), of, Some(source.clone()));
            }
            StatementKind::Deallocate { name: Some(name) } => self.deallocate(name),
            StatementKind::Deallocate { name: None } => self.deallocate_all(),
            StatementKind::Declare { name, hold } => {
                let life = match (hold, self.savepoint) {
                    (true, _) => Life::ToBeHeld,
                    (false, true) => Life::Savepoint,
                    (false, false) => Life::Transaction,
                };
                let source = Some(source.clone());
                let portal = Portal { of, source, bound: None, rows: None, life };
                self.insert_portal(name.as_str().into(), portal);
            }
            StatementKind::Close { name: Some(name) } => self.close(name),
            StatementKind::Close { name: None } => self.keep(|_| false),
            StatementKind::DiscardAll => {
                self.deallocate_all();
                self.keep(|_| false);
            }
            StatementKind::EndTransaction => self.transaction_ended(tag == "COMMIT"),
            StatementKind::Savepoint => self.savepoint = true,
            StatementKind::RollbackToSavepoint => {
                // A cursor to be held may be younger than the savepoint, too.
                self.keep(|portal| matches!(portal.life, Life::Transaction | Life::Held));
            }
            _ => {}
        }
    }

    /// A transaction ended: its portals are gone, but for those that are held beyond a commit.
    pub(super) fn transaction_ended(&mut self, committed: bool) {
        self.savepoint = false;
        self.keep(|portal| {
            if committed && portal.life == Life::ToBeHeld {
                portal.life = Life::Held;
            }
            portal.life == Life::Held
        });
    }

    fn deallocate_all(&mut self) {
        self.statements.clear();
        self.bytes = self.portals.values().map(Portal::bytes).sum();
    }

    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= MOST_BYTES;
        if fits {
            self.bytes += bytes;
        }
        fits
    }
}

impl Portal {
    fn bytes(&self) -> usize {
        self.bound.as_ref().map_or(0, |bound| bound.bytes)
    }
}

/// Bytes that remembering a statement may take.
fn cost(source: &Source) -> usize {
    source.reading().text().len() + 500 * source.reading().statements().len().max(1)
}
