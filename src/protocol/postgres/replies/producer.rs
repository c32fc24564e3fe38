//! Which statement made what the server sends now.

use std::sync::Arc;

use crate::decode::sql::{Source, StatementKind};

use super::super::prepared::{Bound, Key};
use super::candidates::MAX_STEPS;
use super::{Expected, Name, Replies, Runs};

/// What made the results that come now.
///
/// A statement that runs others in another way than as an EXECUTE or FETCH of their own
/// (`EXPLAIN EXECUTE p`, `CREATE TABLE … AS EXECUTE p`) is given as it is: its
/// [references](crate::decode::sql::Statement::references) tell.
#[derive(Debug, Clone)]
pub(in crate::protocol::postgres) enum Producer {
    /// Nothing that was asked for: the server speaks by itself.
    Nobody,
    /// It is not known: it may be any statement.
    Unknown,
    /// This statement, by a portal with this behind it.
    Statement(
        Source,
        #[cfg_attr(not(test), expect(dead_code, reason = "formats come with each portal"))]
        Option<Arc<Bound>>,
    ),
}

impl Replies {
    /// What made the results that come now; for what masks and records them. What the server
    /// answers is never behind what it has done, so this is certain where it is known.
    pub(in crate::protocol::postgres) fn producer(&self) -> Producer {
        let named = match self.expected.front() {
            None | Some(Expected::FunctionCall { .. } | Expected::Close(_)) => {
                return Producer::Nobody;
            }
            // A commit that fails tells of rows of any statement before it.
            Some(Expected::Sync { .. } | Expected::Rehearsal { .. }) => {
                return Producer::Unknown;
            }
            Some(Expected::Query(running) | Expected::Execute(running)) => {
                self.running(&running.runs)
            }
            Some(Expected::Parse { reading, .. }) => {
                reading.as_ref().map(|reading| (Source::new(Arc::clone(reading), 0), None))
            }
            Some(
                Expected::Bind { statement, .. }
                | Expected::Describe { name: Name::Statement(statement), .. },
            ) => self.prepared(statement),
            Some(Expected::Probe(name) | Expected::Describe { name: Name::Portal(name), .. }) => {
                self.opened(name)
            }
        };
        let mut named = named;
        for _ in 0..MAX_STEPS {
            let Some((source, bound)) = named else { return Producer::Unknown };
            named = match source.statement().map(|statement| &statement.kind) {
                Some(StatementKind::Execute { name }) => self.prepared(&name.as_str().into()),
                Some(StatementKind::Fetch { name }) => self.opened(&name.as_str().into()),
                _ => return Producer::Statement(source, bound),
            };
        }
        Producer::Unknown
    }

    fn running(&self, runs: &Runs) -> Option<(Source, Option<Arc<Bound>>)> {
        match runs {
            Runs::Text(reading, done) => {
                Some((Source::new(Arc::clone(reading.as_ref()?), *done), None))
            }
            Runs::Portal(name) => self.opened(name),
        }
    }

    /// What a command ran, as far as its portal's name tells.
    pub(super) fn ran(&self, runs: &Runs) -> Option<Source> {
        match runs {
            Runs::Text(..) => self.running(runs).map(|(source, _)| source),
            Runs::Portal(name) => self.names.portal_by(name)?.source.clone(),
        }
    }

    fn prepared(&self, name: &Key) -> Option<(Source, Option<Arc<Bound>>)> {
        Some((self.names.certain_statement(name)?.clone(), None))
    }

    fn opened(&self, name: &Key) -> Option<(Source, Option<Arc<Bound>>)> {
        let portal = self.names.certain_portal(name)?;
        Some((portal.certain_source()?.clone(), portal.bound.clone()))
    }
}
