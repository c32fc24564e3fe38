//! Which statement made what the server sends now.

use std::sync::Arc;

use crate::decode::sql::{Source, StatementKind};

use super::super::names::Bound;
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
        let front = self.expected.iter().find(|e| !matches!(e, Expected::CopyEnd));
        let named = match front {
            None | Some(Expected::FunctionCall { .. } | Expected::Close(_)) => {
                return Producer::Nobody;
            }
            // A commit that fails tells of rows of any statement before it.
            Some(Expected::Sync | Expected::CopyEnd) => {
                return Producer::Unknown;
            }
            Some(Expected::Query(running) | Expected::Execute(running)) => {
                self.running(&running.runs)
            }
            Some(Expected::Parse { reading, .. }) => {
                reading.as_ref().map(|reading| (Source::new(Arc::clone(reading), 0), None))
            }
            Some(
                Expected::Bind { statement, .. } | Expected::Describe(Name::Statement(statement)),
            ) => self.prepared(statement),
            Some(Expected::Probe(name) | Expected::Describe(Name::Portal(name))) => {
                self.opened(name)
            }
        };
        let mut named = named;
        for _ in 0..MAX_STEPS {
            let Some((source, bound)) = named else { return Producer::Unknown };
            named = match source.statement().map(|statement| &statement.kind) {
                Some(StatementKind::Execute { name }) => self.prepared(name),
                Some(StatementKind::Fetch { name }) => self.opened(name),
                _ => return Producer::Statement(source, bound),
            };
        }
        Producer::Unknown
    }

    pub(super) fn running(&self, runs: &Runs) -> Option<(Source, Option<Arc<Bound>>)> {
        match runs {
            Runs::Text(reading, done) => {
                Some((Source::new(Arc::clone(reading.as_ref()?), *done), None))
            }
            Runs::Portal(name) => self.opened(name),
        }
    }

    fn prepared(&self, name: &str) -> Option<(Source, Option<Arc<Bound>>)> {
        Some((self.names.statement(name)?.source.clone()?, None))
    }

    fn opened(&self, name: &str) -> Option<(Source, Option<Arc<Bound>>)> {
        let portal = self.names.portal(name)?;
        Some((portal.source.clone()?, portal.bound.clone()))
    }
}
