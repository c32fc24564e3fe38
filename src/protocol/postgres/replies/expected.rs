//! What a session's server owes it, in order.

use std::sync::Arc;
use std::time::Instant;

use super::super::masking::{CopyMasks, RowMasks};
use super::super::names::Bound;
use super::super::refusal::Words;
use super::work::Work;
use crate::decode::postgres::frontend::Named;
use crate::decode::sql::{Reading, Source};
use crate::recording::{Outcome, Sequence};

/// A reply that the server owes.
#[derive(Debug)]
pub(super) enum Expected {
    /// Results and `ReadyForQuery`, for a Query message.
    Query(Running),
    /// `ParseComplete`, or the answer to what stands for a refused Parse.
    Parse { of: Sequence, name: Box<str>, reading: Option<Arc<Reading>>, refused: Option<Words> },
    /// `BindComplete`.
    Bind { of: Sequence, portal: Box<str>, statement: Box<str>, bound: Option<Arc<Bound>> },
    /// `RowDescription` or `NoData`, maybe behind `ParameterDescription`.
    Describe(Name),
    /// The same, for a question of the gateway's own about a portal, whose answer the client does
    /// not see.
    Probe(Box<str>),
    /// Rows, and one of the messages that end an Execute.
    Execute(Running),
    /// An error and `ReadyForQuery`, for what stands for a function call message.
    FunctionCall { refused: Option<Words> },
    /// `CloseComplete`.
    Close(Name),
    /// `ReadyForQuery`.
    Sync,
    /// No reply: marks where the client ended the data of a COPY.
    CopyEnd,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) of: Sequence,
    pub(super) since: Instant,
    pub(super) outcome: Outcome,
    /// What the client is told instead of the server's error, where the command was refused.
    pub(super) refused: Option<Words>,
    pub(super) runs: Runs,
    /// Statements in it that make a prepared statement or a cursor.
    pub(super) makes: Vec<Source>,
    /// Of a Query: what is done with the rows that come; `None` while it is not known.
    pub(super) rows: Option<Arc<RowMasks>>,
    /// What is done with the COPY data that come.
    pub(super) copy: Option<CopyMasks>,
    pub(super) work: Work,
}

/// What a command runs.
#[derive(Debug)]
pub(super) enum Runs {
    /// The statements of a text, of which the first so many have ended.
    Text(Option<Arc<Reading>>, usize),
    /// A portal.
    Portal(Box<str>),
}

#[derive(Debug)]
pub(super) enum Name {
    Statement(Box<str>),
    Portal(Box<str>),
}

impl From<&Named<'_>> for Name {
    fn from(named: &Named<'_>) -> Self {
        match named {
            Named::Statement(name) => Self::Statement((*name).into()),
            Named::Portal(name) => Self::Portal((*name).into()),
        }
    }
}

impl Running {
    pub(super) fn end(mut self, now: Instant) -> (Sequence, Outcome) {
        let duration = now.saturating_duration_since(self.since);
        self.outcome.duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        (self.of, self.outcome)
    }
}
