//! The prepared statements and portals of a session by name, as the server's answers tell.
//!
//! SQL's own PREPARE and DECLARE make the same things as Parse and Bind do, under the same names.
//! What makes or drops them out of sight (a function that opens a cursor) is not known; whoever
//! asks for such a name is told so and takes it for anything. A name that was known before such a
//! function ran is in doubt: for masks it may be anything since ([`Names::doubt`]). Rules go on
//! by what was known: they decided on the function, which could have run the other statement itself.
//!
//! Names are compared as the server compares them ([`Key`]).

use std::borrow::Borrow;
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

/// The bytes of a name that the server looks at: keys of its hash tables are 64 bytes, with a NUL.
/// The cut may fall within a character. Source: `NAMEDATALEN` of `pg_config_manual.h`;
/// `hash_create` with `HASH_STRINGS` in `prepare.c` and `portalmem.c`.
const KEY_BYTES: usize = 63;

/// A name of a prepared statement or a portal as the server knows it: what two names have in common
/// when they name one thing. Nothing else in this gateway compares names.
///
/// It holds for names that the server stores in the bytes that the client sent: see
/// [`Names::compares`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Box<[u8]>);

impl Key {
    /// Whether the server takes the name for this one.
    pub(super) fn is(&self, name: &str) -> bool {
        *self.0 == *cut(name)
    }

    /// The unnamed statement or portal.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self(cut(name).into())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Whether the server takes two names for one.
pub(super) fn same(one: &str, other: &str) -> bool {
    cut(one) == cut(other)
}

fn cut(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    bytes.get(..KEY_BYTES).unwrap_or(bytes)
}

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
    /// The server said that it gives no rows.
    pub(super) no_rows: bool,
    /// It is of the statement that is known, and not of another under the same name.
    certain: bool,
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
    Pending,
}

/// All names of a session.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: HashMap<Key, Prepared>,
    portals: HashMap<Key, Portal>,
    /// The server stores texts in the bytes that the client sends.
    keeps_bytes: bool,
    bytes: usize,
    /// A savepoint was set in the transaction.
    savepoint: bool,
    /// The last command that may have made or dropped names out of sight.
    doubted: Option<Sequence>,
}

impl Names {
    /// Whether there is no room for more.
    pub(super) fn are_too_many(&self) -> bool {
        self.statements.len().max(self.portals.len()) > MAX_NAMES
    }

    /// The server tells the encoding of its database.
    pub(super) fn stored_in(&mut self, server_encoding: &str) {
        self.keeps_bytes = server_encoding == "UTF8";
    }

    /// Whether it is known which names the server takes for this one. In databases of other
    /// encodings than UTF-8 a name is converted before it is cut, two names may become one, and SQL
    /// folds more letters than ASCII's.
    pub(super) fn compares(&self, name: &str) -> bool {
        self.keeps_bytes || name.is_ascii()
    }

    pub(super) fn statement(&self, name: &str) -> Option<&Prepared> {
        self.statements.get(cut(name))
    }

    pub(super) fn statement_by(&self, key: &Key) -> Option<&Prepared> {
        self.statements.get(key)
    }

    pub(super) fn portal(&self, name: &str) -> Option<&Portal> {
        self.portals.get(cut(name))
    }

    pub(super) fn portal_by(&self, key: &Key) -> Option<&Portal> {
        self.portals.get(key)
    }

    /// A command may have made or dropped names out of sight.
    pub(super) fn doubt(&mut self, of: Sequence) {
        self.doubted = self.doubted.max(Some(of));
    }

    /// Whether a name still means what a command made it mean. The unnamed statement and portal are
    /// out of reach: SQL has no empty names, and a cursor that is opened by one gets another.
    fn holds(&self, name: &Key, of: Sequence) -> bool {
        name.is_empty() || Some(of) > self.doubted
    }

    /// Whether there are portals with names.
    pub(super) fn has_named_portals(&self) -> bool {
        self.portals.keys().any(|name| !name.is_empty())
    }

    /// What a prepared statement is for certain.
    pub(super) fn certain_statement(&self, name: &Key) -> Option<&Source> {
        let prepared = self.statements.get(name)?;
        prepared.source.as_ref().filter(|_| self.holds(name, prepared.of))
    }

    /// A portal of which it is certain that nothing else has its name by now.
    pub(super) fn certain_portal(&self, name: &Key) -> Option<&Portal> {
        self.portals.get(name).filter(|portal| self.holds(name, portal.of))
    }

    /// The server made a prepared statement.
    pub(super) fn prepare(&mut self, name: Key, of: Sequence, source: Option<Source>) {
        self.deallocate(&name);
        let source = source.filter(|source| self.takes(cost(source)));
        self.statements.insert(name, Prepared { of, source });
    }

    /// The server made a portal from a prepared statement.
    pub(super) fn bind(
        &mut self,
        name: Key,
        of: Sequence,
        statement: &Key,
        bound: Option<Arc<Bound>>,
    ) {
        let source = self.statement_by(statement).and_then(|prepared| prepared.source.clone());
        let certain = self.certain_statement(statement).is_some();
        let life = if self.savepoint { Life::Savepoint } else { Life::Transaction };
        let portal = Portal { of, source, bound, rows: None, no_rows: false, certain, life };
        self.insert_portal(name, portal);
    }

    /// The server says which columns a portal has.
    pub(super) fn describe(&mut self, name: &Key, rows: Option<Arc<RowMasks>>) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.rows = rows;
        }
    }

    /// The server says whether a portal gives rows.
    pub(super) fn gives_rows(&mut self, name: &Key, gives: bool) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.no_rows = !gives;
        }
    }

    fn insert_portal(&mut self, name: Key, portal: Portal) {
        self.close(&name);
        if self.takes(portal.bytes()) {
            self.portals.insert(name, portal);
        } else {
            self.portals.insert(name, Portal { source: None, bound: None, ..portal });
        }
    }

    pub(super) fn deallocate(&mut self, name: &Key) {
        let gone = self.statements.remove(name).and_then(|prepared| prepared.source);
        if let Some(source) = gone {
            self.bytes = self.bytes.saturating_sub(cost(&source));
        }
    }

    pub(super) fn close(&mut self, name: &Key) {
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

    /// The unnamed statement and the unnamed portal are gone.
    pub(super) fn forget_unnamed(&mut self) {
        let unnamed = Key::from("");
        self.deallocate(&unnamed);
        self.close(&unnamed);
    }

    /// A statement of a text ended well, and did to the names what such a statement does.
    pub(super) fn done(&mut self, of: Sequence, source: &Source, tag: &str) {
        let Some(statement) = source.statement() else { return };
        match &statement.kind {
            // What cannot be compared is never known.
            StatementKind::Prepare { name } | StatementKind::Declare { name, .. }
                if !self.compares(name) => {}
            StatementKind::Prepare { name } => {
                self.prepare(name.as_str().into(), of, Some(source.clone()));
            }
            StatementKind::Deallocate { name: Some(name) } => {
                self.deallocate(&name.as_str().into());
            }
            StatementKind::Deallocate { name: None } => self.deallocate_all(),
            StatementKind::Declare { name, hold } => {
                let life = match (hold, self.savepoint) {
                    (true, _) => Life::ToBeHeld,
                    (false, true) => Life::Savepoint,
                    (false, false) => Life::Transaction,
                };
                let source = Some(source.clone());
                let (rows, no_rows, certain) = (None, false, true);
                let portal = Portal { of, source, bound: None, rows, no_rows, certain, life };
                self.insert_portal(name.as_str().into(), portal);
            }
            StatementKind::Close { name: Some(name) } => self.close(&name.as_str().into()),
            StatementKind::Close { name: None } => self.keep(|_| false),
            StatementKind::DiscardAll => {
                self.deallocate_all();
                self.keep(|_| false);
            }
            StatementKind::EndTransaction => self.transaction_ended(tag == "COMMIT"),
            StatementKind::Savepoint => self.savepoint = true,
            StatementKind::RollbackToSavepoint => {
                // A cursor to be held may be younger than the savepoint, too.
                self.keep(|portal| matches!(portal.life, Life::Transaction | Life::Pending));
            }
            _ => {}
        }
    }

    /// A transaction ended: its portals are gone, but for those that are held beyond a commit.
    pub(super) fn transaction_ended(&mut self, committed: bool) {
        self.savepoint = false;
        self.keep(|portal| {
            if committed && portal.life == Life::ToBeHeld {
                portal.life = Life::Pending;
            }
            portal.life == Life::Pending
        });
    }

    /// DEALLOCATE ALL and DISCARD ALL: SQL does not know the unnamed statement, which stays
    /// (`DropAllPreparedStatements` of `prepare.c`).
    fn deallocate_all(&mut self) {
        self.statements.retain(|name, _| name.is_empty());
        let sources = self.statements.values().filter_map(|prepared| prepared.source.as_ref());
        let portals: usize = self.portals.values().map(Portal::bytes).sum();
        self.bytes = portals + sources.map(cost).sum::<usize>();
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
    /// The statement that gives its rows, for certain.
    pub(super) fn certain_source(&self) -> Option<&Source> {
        self.source.as_ref().filter(|_| self.certain)
    }

    fn bytes(&self) -> usize {
        self.bound.as_ref().map_or(0, |bound| bound.bytes)
    }
}

/// Bytes that remembering a statement may take.
fn cost(source: &Source) -> usize {
    source.reading().text().len() + 500 * source.reading().statements().len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_when_their_first_63_bytes_are() {
        let (a, b) = ("n".repeat(63) + "a", "n".repeat(63) + "b");
        assert!(same(&a, &b) && Key::from(&*a).is(&b) && same(&a, &"n".repeat(63)));
        assert!(!same(&a, &"n".repeat(62)));
        // The cut may fall within a character.
        let (within, other) = ("é".repeat(31) + "éé", "é".repeat(31) + "è");
        assert!(same(&within, &other), "0xc3 is the 63rd byte of both");
        assert_eq!(Key::from(&*within).0.len(), 63);
    }

    #[test]
    fn names_are_compared_where_the_server_keeps_their_bytes() {
        let mut names = Names::default();
        assert!(names.compares("ascii") && !names.compares("é"), "it did not tell its encoding");
        names.stored_in("LATIN1");
        assert!(names.compares("ascii") && !names.compares("é"));
        names.stored_in("UTF8");
        assert!(names.compares("é"));
    }
}
