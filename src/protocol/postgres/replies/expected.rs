//! What a session's server owes it, in order.

use std::sync::Arc;

use super::super::masking::{CopyMasks, RowMasks};
use super::super::prepared::{Bound, Key};
use super::super::refusal::Words;
use super::work::Work;
use crate::clock::Moment;
use crate::decode::sql::{Reading, Source, StatementKind};
use crate::recording::{Outcome, Sequence};

/// A reply that the server owes.
#[derive(Debug)]
pub(super) enum Expected {
    /// Results and `ReadyForQuery`, for a Query message.
    Query(Running),
    /// `ParseComplete`, or the answer to what stands for a refused Parse.
    Parse { of: Sequence, name: Key, reading: Option<Arc<Reading>>, refused: Option<Words> },
    /// `BindComplete`.
    Bind { of: Sequence, portal: Key, statement: Key, bound: Option<Arc<Bound>>, makes_names: bool },
    /// `RowDescription` or `NoData`; of a statement, `ParameterDescription` before it.
    Describe { name: Name, parameters: bool },
    /// `RowDescription` or `NoData` for a question of the gateway's own about a portal, whose answer
    /// the client does not see.
    Probe(Key),
    /// Rows, and one of the messages that end an Execute.
    Execute(Running),
    /// An error and `ReadyForQuery`, for what stands for a function call message.
    FunctionCall { refused: Option<Words>, failed: bool },
    /// `CloseComplete`.
    Close(Name),
    /// `ReadyForQuery`, with an error before it when the commit fails.
    Sync { failed: bool },
    /// Answers to messages of the gateway's own, up to so many `ReadyForQuery`s. The client sees none.
    Rehearsal { readies: usize, failed: bool },
}

impl Expected {
    /// The recorded command that it answers.
    pub(super) fn command_mut(&mut self) -> Option<&mut Sequence> {
        match self {
            Self::Query(running) | Self::Execute(running) => Some(&mut running.of),
            Self::Parse { of, .. } | Self::Bind { of, .. } => Some(of),
            Self::Describe { .. }
            | Self::Probe(_)
            | Self::FunctionCall { .. }
            | Self::Close(_)
            | Self::Sync { .. }
            | Self::Rehearsal { .. } => None,
        }
    }

    /// Whether the server may make or drop prepared statements and cursors out of sight meanwhile.
    pub(super) fn makes_names(&self) -> bool {
        match self {
            Self::Query(running) | Self::Execute(running) => running.makes_names,
            Self::Bind { makes_names, .. } => *makes_names,
            _ => false,
        }
    }
}

/// How far the answers to a command have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No statement of it has begun to answer that has not ended.
    Between,
    /// Rows come.
    Rows,
    /// The server reads COPY data.
    CopyIn,
    /// COPY data come.
    CopyOut,
    /// The last of them came.
    CopyOutEnded,
    /// It failed: of a Query, `ReadyForQuery` is owed.
    Failed,
}

/// Whether a command may be a COPY of the client's data, or to the client.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copies {
    pub(super) from_client: bool,
    pub(super) to_client: bool,
}

impl Copies {
    /// Of a command of which nothing is known.
    pub(super) const UNKNOWN: Self = Self { from_client: true, to_client: true };

    /// Takes in a statement that the command runs.
    pub(super) fn add(&mut self, source: &Source) {
        match source.statement().map(|statement| &statement.kind) {
            Some(StatementKind::CopyFrom) => self.from_client = true,
            Some(StatementKind::CopyTo(_)) => self.to_client = true,
            Some(StatementKind::NotUnderstood) | None => *self = Self::UNKNOWN,
            Some(_) => {}
        }
    }
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) of: Sequence,
    pub(super) since: Moment,
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
    /// It may make or drop prepared statements and cursors out of sight.
    pub(super) makes_names: bool,
    pub(super) stage: Stage,
    pub(super) copies: Copies,
    /// Of an Execute: it names a number of rows.
    pub(super) may_suspend: bool,
}

/// What a command runs.
#[derive(Debug)]
pub(super) enum Runs {
    /// The statements of a text, of which the first so many have ended.
    Text(Option<Arc<Reading>>, usize),
    /// A portal.
    Portal(Key),
}

#[derive(Debug)]
pub(super) enum Name {
    Statement(Key),
    Portal(Key),
}

impl Running {
    pub(super) fn new(of: Sequence, since: Moment, runs: Runs) -> Self {
        Self {
            of,
            since,
            outcome: Outcome::default(),
            refused: None,
            runs,
            makes: Vec::new(),
            rows: None,
            copy: None,
            work: Work::default(),
            makes_names: false,
            stage: Stage::Between,
            copies: Copies::default(),
            may_suspend: false,
        }
    }

    /// The statement whose answers are next, where the command is a text that is understood; how many
    /// it has, and how many of them have ended.
    pub(super) fn progress(&self) -> Option<(usize, usize)> {
        match &self.runs {
            Runs::Text(Some(reading), done) if reading.is_understood() => {
                Some((*done, reading.statements().len()))
            }
            _ => None,
        }
    }

    pub(super) fn end(mut self, now: Moment) -> (Sequence, Outcome) {
        let duration = now.since(self.since);
        self.outcome.duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        (self.of, self.outcome)
    }
}
