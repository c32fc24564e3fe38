//! What may run by a name, once everything that was forwarded before has run.
//!
//! The server is behind: what would make a prepared statement or a portal may still fail. So a name
//! may stand for several things, and each of them counts when a command is decided.

use std::sync::Arc;

use crate::decode::sql::{Reading, Reference, Source, StatementKind};

use super::super::prepared::{Bound, Key, Portal, same};
use super::{Expected, Replies, Running};

/// How many statements that run others by name are followed from one to the next: SQL has no more
/// than an EXECUTE, within a prepared statement of the protocol, of another such statement.
pub(super) const MAX_STEPS: usize = 8;

/// What a name may stand for once everything forwarded before has run.
#[derive(Debug, Default)]
pub(in crate::protocol::postgres) struct Candidates {
    first: Option<Candidate>,
    rest: Vec<Candidate>,
    /// It may also stand for something that is not known.
    pub(in crate::protocol::postgres) unknown: bool,
    /// Code that nobody looked into may have given the name to something else since.
    pub(in crate::protocol::postgres) doubtful: bool,
}

/// One statement that may run.
#[derive(Debug, Clone)]
pub(in crate::protocol::postgres) struct Candidate {
    pub(in crate::protocol::postgres) source: Source,
    pub(in crate::protocol::postgres) bound: Option<Arc<Bound>>,
}

impl Candidates {
    pub(in crate::protocol::postgres) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.first.iter().chain(&self.rest)
    }

    /// Whether the name is not known to stand for anything.
    pub(in crate::protocol::postgres) fn is_empty(&self) -> bool {
        self.first.is_none() && !self.unknown
    }

    pub(in crate::protocol::postgres) fn add(
        &mut self,
        source: Option<&Source>,
        bound: Option<&Arc<Bound>>,
    ) {
        let Some(source) = source else {
            self.unknown = true;
            return;
        };
        let same = |known: &Candidate| {
            known.source.is(source)
                && match (&known.bound, bound) {
                    (Some(known), Some(bound)) => Arc::ptr_eq(known, bound),
                    (known, bound) => known.is_none() == bound.is_none(),
                }
        };
        if self.iter().any(same) {
            return;
        }
        let candidate = Candidate { source: source.clone(), bound: bound.cloned() };
        match self.first {
            None => self.first = Some(candidate),
            Some(_) => self.rest.push(candidate),
        }
    }
}

impl Replies {
    /// Expected replies, the last first, if the reply at that place is among them.
    pub(super) fn pending(&self, last: u64) -> impl Iterator<Item = &Expected> {
        let some = if self.is_expected(last) { self.expected.len() } else { 0 };
        self.expected.iter().rev().take(some)
    }

    pub(super) fn is_expected(&self, place: u64) -> bool {
        place > self.entered.saturating_sub(self.expected.len() as u64)
    }

    /// What a Bind or EXECUTE of this prepared statement may mean.
    pub(in crate::protocol::postgres) fn statement_candidates(&self, name: &str) -> Candidates {
        self.statement_candidates_before(self.expected.len(), &Key::from(name))
    }

    /// The same, of what was forwarded before a place in the queue: what came later takes no part in
    /// it. Names are as of the last answer, and that came before everything in the queue.
    fn statement_candidates_before(&self, end: usize, name: &Key) -> Candidates {
        let mut candidates = Candidates::default();
        let pending = if self.is_expected(self.last.statement) { end } else { 0 };
        // The last one that makes it does so, unless an error before it has the server skip it:
        // but then it also skips what is asked about here, unless a Sync is between.
        let (mut behind_sync, mut behind_naming) = (false, false);
        for expected in self.expected.iter().take(pending).rev() {
            behind_naming |= expected.makes_names();
            match expected {
                Expected::Parse { name: made, reading, refused: None, .. } if made == name => {
                    candidates.doubtful |= behind_naming && !name.is_empty();
                    let source = reading.as_ref().map(|r| Source::new(Arc::clone(r), 0));
                    candidates.add(source.as_ref(), None);
                    if !behind_sync {
                        return candidates;
                    }
                }
                Expected::Query(running) | Expected::Execute(running) => {
                    behind_sync |= matches!(expected, Expected::Query(_));
                    let made = running.add_made(&mut candidates, |kind| {
                        matches!(kind, StatementKind::Prepare { name: made } if name.is(made))
                    });
                    candidates.doubtful |= made && behind_naming;
                }
                Expected::Sync { .. } => behind_sync = true,
                _ => {}
            }
        }
        if let Some(prepared) = self.names.statement_by(name) {
            candidates.add(prepared.source.as_ref(), None);
            let naming = !name.is_empty() && self.is_expected(self.last.naming);
            candidates.doubtful |= naming || self.names.certain_statement(name).is_none();
        }
        candidates
    }

    /// What an Execute of this portal, or a FETCH from it, may run.
    pub(in crate::protocol::postgres) fn portal_candidates(&self, name: &str) -> Candidates {
        let mut candidates = Candidates::default();
        let key = Key::from(name);
        let naming = !key.is_empty() && self.is_expected(self.last.naming);
        for expected in self.pending(self.last.cursor) {
            if let Expected::Query(running) | Expected::Execute(running) = expected {
                candidates.doubtful |= naming;
                running.add_made(&mut candidates, |kind| {
                    matches!(kind, StatementKind::Declare { name: made, .. } if same(made, name))
                });
            }
        }
        let mut behind_sync = false;
        for (at, expected) in self.expected.iter().enumerate().rev() {
            match expected {
                Expected::Bind { portal, bound, statement, .. } if portal.is(name) => {
                    let of = self.statement_candidates_before(at, statement);
                    candidates.unknown |= of.unknown;
                    candidates.doubtful |= of.doubtful || naming;
                    for candidate in of.iter() {
                        candidates.add(Some(&candidate.source), bound.as_ref());
                    }
                    if !behind_sync {
                        return candidates;
                    }
                }
                Expected::Sync { .. } | Expected::Query(_) => behind_sync = true,
                _ => {}
            }
        }
        if let Some(Portal { source, bound, .. }) = self.names.portal(name) {
            candidates.add(source.as_ref(), bound.as_ref());
            let certain = self.names.certain_portal(&key).and_then(Portal::certain_source);
            candidates.doubtful |= naming || certain.is_none();
        }
        candidates
    }

    /// Everything that the statements of a text run by name: what the text makes itself, too.
    pub(in crate::protocol::postgres) fn named_in(&self, reading: &Arc<Reading>) -> Candidates {
        let mut found = Candidates::default();
        self.add_named(reading, &mut found);
        found
    }

    /// The same for the statements that a portal may run, added to them.
    pub(in crate::protocol::postgres) fn follow(&self, found: &mut Candidates) {
        let refer = |candidate: &Candidate| {
            candidate.source.statement().is_some_and(|s| s.references().next().is_some())
        };
        if !found.iter().any(refer) {
            return;
        }
        let readings: Vec<_> = found.iter().map(|c| Arc::clone(c.source.reading())).collect();
        for reading in readings {
            self.add_named(&reading, found);
        }
    }

    fn add_named(&self, reading: &Arc<Reading>, found: &mut Candidates) {
        let mut seen: Vec<Arc<Reading>> = Vec::new();
        let mut ahead = vec![Arc::clone(reading)];
        while let Some(reading) = ahead.pop() {
            if seen.iter().any(|known| Arc::ptr_eq(known, &reading)) {
                continue;
            }
            if seen.len() >= MAX_STEPS {
                found.unknown = true;
                return;
            }
            for statement in reading.statements() {
                for reference in statement.references() {
                    let named = self.referred(&reading, reference);
                    found.unknown |= named.unknown || named.is_empty();
                    found.doubtful |= named.doubtful;
                    for candidate in named.iter() {
                        found.add(Some(&candidate.source), candidate.bound.as_ref());
                        ahead.push(Arc::clone(candidate.source.reading()));
                    }
                }
            }
            seen.push(reading);
        }
    }

    fn referred(&self, reading: &Arc<Reading>, reference: Reference<'_>) -> Candidates {
        let mut named = match reference {
            Reference::Statement(name) | Reference::Cursor(name) if !self.names.compares(name) => {
                Candidates { unknown: true, ..Candidates::default() }
            }
            Reference::Statement(name) => self.statement_candidates(name),
            Reference::Cursor(name) => self.portal_candidates(name),
        };
        for (at, statement) in reading.statements().iter().enumerate() {
            let made = match (&statement.kind, reference) {
                (StatementKind::Prepare { name }, Reference::Statement(wanted))
                | (StatementKind::Declare { name, .. }, Reference::Cursor(wanted)) => {
                    same(name, wanted)
                }
                _ => false,
            };
            if made {
                named.add(Some(&Source::new(Arc::clone(reading), at)), None);
            }
        }
        named
    }
}

impl Running {
    /// Adds the statements in it that make what is asked for; says whether there are any.
    fn add_made(
        &self,
        candidates: &mut Candidates,
        makes: impl Fn(&StatementKind) -> bool,
    ) -> bool {
        let mut any = false;
        for source in &self.makes {
            if source.statement().is_some_and(|statement| makes(&statement.kind)) {
                candidates.add(Some(source), None);
                any = true;
            }
        }
        any
    }
}
