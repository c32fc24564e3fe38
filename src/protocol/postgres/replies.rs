//! The queue of replies that a session expects of its server, and what the server's answers tell.
//!
//! Nothing else keeps state of the session. Whatever is forwarded is entered here first
//! ([`Replies::expect`]); whatever comes back is held against the front of the queue
//! ([`Replies::answer`]). What the gateway believes of prepared statements, portals and the
//! transaction comes from the answers, never from what was asked.
//!
//! Honest limit: a Sync that a client sends behind an Execute that turns out to be a COPY is
//! swallowed by the server, unless a cancel hits between the two. In that one case replies are
//! credited to no command; none is lost or reordered.

mod answers;
mod candidates;
mod expected;
mod producer;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::TransactionStatus;
use crate::decode::postgres::frontend::Message;
use crate::decode::sql::{LexerSettings, Reading, Source, StatementKind};
use crate::mask::Counts;
use crate::recording::{Outcome, Sequence};

use super::masking::{CopyMasks, RowMasks};
use super::names::{Bound, Names};
use super::refusal::Words;
pub(super) use candidates::Candidates;
use expected::{Expected, Name, Running, Runs};
pub(super) use producer::Producer;
use work::Work;

/// How many replies may be outstanding. A server sends what it has when its 8 KiB buffer is full,
/// at the latest after 1,638 of the shortest replies, so waiting at this bound always ends.
const MAX_OUTSTANDING: usize = 16_384;

/// A message that is about to be forwarded.
#[derive(Debug, Default)]
pub(super) struct Entered {
    /// Its recorded command; 0 for messages that are no commands.
    pub(super) of: Sequence,
    /// What the client will be told when something that fails is forwarded in its place.
    pub(super) refused: Option<Words>,
    /// Of a Query or Parse: its text as it was read.
    pub(super) reading: Option<Arc<Reading>>,
    /// Of a Bind: what it brings.
    pub(super) bound: Option<Arc<Bound>>,
    /// Of an Execute: everything that it may run.
    pub(super) candidates: Candidates,
    /// Of a Query or Execute: COPY data that it takes may be kept nowhere.
    pub(super) takes_secrets: bool,
}

/// How the server reads the next text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lexing {
    /// As it last told.
    pub(super) settings: LexerSettings,
    /// Nothing was forwarded since that could have changed how strings are read.
    pub(super) settled: bool,
    /// Nothing was forwarded since that speaks of changing the encoding.
    pub(super) encoding_settled: bool,
}

/// What an answer of the server meant.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// The command that it belongs to.
    pub(super) of: Option<Sequence>,
    /// Commands that it ended.
    pub(super) ended: Vec<(Sequence, Outcome)>,
    /// What the client is told instead.
    pub(super) instead: Option<Words>,
}

/// All that a session knows of its server.
#[derive(Debug)]
pub(super) struct Replies {
    expected: VecDeque<Expected>,
    /// The server discards messages until the next Sync.
    skipping: bool,
    /// The server reads COPY data and ignores Sync.
    copying_in: bool,
    names: Names,
    /// How many replies were ever expected.
    entered: u64,
    /// The last of them that would make a prepared statement, a cursor; that could change how the
    /// server reads a text; that speaks of changing the encoding.
    last: Last,
    transaction: TransactionStatus,
    /// The transaction cannot commit any more.
    failed: bool,
    /// `None` while the server has not told.
    standard_conforming_strings: Option<bool>,
    unsettled: bool,
    encoding_unsettled: bool,
    /// COPY data that comes now may be kept nowhere.
    takes_secrets: bool,
    /// The transaction, if one is open, has done something.
    worked: bool,
}

/// Places in the queue: 0 is none, 1 the first reply that was ever expected.
#[derive(Debug, Default)]
struct Last {
    statement: u64,
    cursor: u64,
    unsettling: u64,
    encoding: u64,
}

impl Replies {
    /// A session that the server has just declared ready, after telling these parameters.
    pub(super) fn new(parameters: &[(String, String)]) -> Self {
        let mut replies = Self {
            expected: VecDeque::new(),
            skipping: false,
            copying_in: false,
            names: Names::default(),
            entered: 0,
            last: Last::default(),
            transaction: TransactionStatus::Idle,
            failed: false,
            standard_conforming_strings: None,
            unsettled: false,
            encoding_unsettled: false,
            takes_secrets: false,
            worked: false,
        };
        for (name, value) in parameters {
            replies.parameter(name, value);
        }
        replies
    }

    fn parameter(&mut self, name: &str, value: &str) {
        if name == "standard_conforming_strings" {
            // What is neither is not known.
            self.standard_conforming_strings = match value {
                "on" => Some(true),
                "off" => Some(false),
                _ => None,
            };
        }
    }

    /// How the server reads the next text.
    pub(super) fn lexing(&self) -> Lexing {
        let told = self.standard_conforming_strings;
        let settings = LexerSettings {
            standard_conforming_strings: told.unwrap_or(true),
            ..LexerSettings::default()
        };
        Lexing {
            settings,
            settled: told.is_some() && !self.unsettled,
            encoding_settled: !self.encoding_unsettled,
        }
    }

    /// Whether a transaction is open, as the server last told.
    pub(super) fn in_transaction(&self) -> bool {
        self.transaction != TransactionStatus::Idle
    }

    /// Whether more may be forwarded before the server answers some of it.
    pub(super) fn has_room(&self) -> bool {
        self.expected.len() < MAX_OUTSTANDING
    }

    /// Whether COPY data that comes now may be kept nowhere.
    pub(super) fn takes_secrets(&self) -> bool {
        self.takes_secrets
    }

    /// Whether the server owes nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.expected.is_empty()
    }

    /// Whether the server owes nothing and holds no transaction open.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_idle() && self.transaction == TransactionStatus::Idle
    }

    /// The recorded command that a message builds on: a Bind on its Parse, an Execute on its Bind.
    pub(super) fn basis(&self, message: &Message<'_>) -> Option<Sequence> {
        match message {
            Message::Bind(bind) => {
                let pending =
                    self.pending(self.last.statement).find_map(|expected| match expected {
                        Expected::Parse { of, name, refused: None, .. }
                            if **name == *bind.statement =>
                        {
                            Some(*of)
                        }
                        _ => None,
                    });
                pending.or_else(|| Some(self.names.statement(bind.statement)?.of))
            }
            Message::Execute { portal, .. } => {
                let pending = self.expected.iter().rev().find_map(|expected| match expected {
                    Expected::Bind { of, portal: name, .. } if **name == **portal => Some(*of),
                    _ => None,
                });
                pending.or_else(|| Some(self.names.portal(portal)?.of))
            }
            _ => None,
        }
    }

    /// Enters a message that is about to be forwarded.
    pub(super) fn expect(
        &mut self,
        message: &Message<'_>,
        since: Instant,
        entered: Entered,
    ) -> Result<(), Malformed> {
        if self.names.are_too_many() {
            return Err(Malformed("too many prepared statements or portals"));
        }
        let Entered { of, refused, reading, bound, candidates, takes_secrets } = entered;
        if matches!(message, Message::Query { .. } | Message::Execute { .. }) {
            self.takes_secrets = takes_secrets || (self.takes_secrets && !self.is_idle());
        }
        let running = |refused, runs| {
            let (makes, work) = (Vec::new(), Work::default());
            let (outcome, rows, copy) = (Outcome::default(), None, None);
            Running { of, since, outcome, refused, runs, makes, rows, copy, work }
        };
        let expected = match message {
            Message::Query { .. } => Expected::Query(running(refused, Runs::Text(reading, 0))),
            Message::FunctionCall => Expected::FunctionCall { refused },
            Message::Parse { statement, .. } => {
                Expected::Parse { of, name: (*statement).into(), reading, refused }
            }
            Message::Bind(bind) => Expected::Bind {
                of,
                portal: bind.portal.into(),
                statement: bind.statement.into(),
                bound,
            },
            Message::Describe(named) => Expected::Describe(named.into()),
            Message::Execute { portal, .. } => {
                Expected::Execute(running(refused, Runs::Portal((*portal).into())))
            }
            Message::Close(named) => Expected::Close(named.into()),
            Message::Sync if self.copying_in => return Ok(()),
            Message::Sync => {
                self.skipping = false;
                Expected::Sync
            }
            Message::CopyDone | Message::CopyFail => {
                if !self.copying_in && !self.expected.is_empty() {
                    self.expected.push_back(Expected::CopyEnd);
                }
                self.copying_in = false;
                return Ok(());
            }
            Message::Flush | Message::CopyData | Message::Terminate => return Ok(()),
        };
        self.push(expected, &candidates);
        Ok(())
    }

    /// Enters a question of the gateway's own: a Describe whose answer the client does not see.
    pub(super) fn expect_probe(&mut self, portal: &str) {
        self.push(Expected::Probe(portal.into()), &Candidates::default());
    }

    /// Whether nobody has asked, or will have asked, for the columns of a portal.
    pub(super) fn lacks_rows(&self, portal: &str) -> bool {
        for expected in self.expected.iter().rev() {
            match expected {
                Expected::Bind { portal: made, .. } if **made == *portal => return true,
                Expected::Probe(name) | Expected::Describe(Name::Portal(name))
                    if **name == *portal =>
                {
                    return false;
                }
                _ => {}
            }
        }
        self.names.portal(portal).is_none_or(|portal| portal.rows.is_none())
    }

    /// What is done with the rows that come now; `None` when it is not known.
    pub(super) fn result(&self) -> Option<Arc<RowMasks>> {
        match self.expected.iter().find(|e| !matches!(e, Expected::CopyEnd))? {
            Expected::Query(running) => running.rows.clone(),
            Expected::Execute(Running { runs: Runs::Portal(name), .. }) => {
                self.names.portal(name)?.rows.clone()
            }
            _ => None,
        }
    }

    /// The server says now which columns come: what is to be done with the rows.
    pub(super) fn describe(&mut self, rows: Option<RowMasks>) {
        let rows = rows.map(Arc::new);
        let at = self.expected.iter().position(|e| !matches!(e, Expected::CopyEnd));
        match at.and_then(|at| self.expected.get_mut(at)) {
            Some(Expected::Query(running)) => running.rows = rows,
            Some(Expected::Probe(name) | Expected::Describe(Name::Portal(name))) => {
                self.names.describe(name, rows);
            }
            _ => {}
        }
    }

    /// COPY data come now: what is to be done with them.
    pub(super) fn copies(&mut self, copy: Option<CopyMasks>) {
        if let Some(running) = self.running_now() {
            running.copy = copy;
        }
    }

    /// What is done with the COPY data that come now.
    pub(super) fn copy(&mut self) -> Option<&mut CopyMasks> {
        self.running_now()?.copy.as_mut()
    }

    /// The command whose results are next, if it is one that gives results.
    pub(super) fn front(&self) -> Option<Sequence> {
        match self.expected.iter().find(|e| !matches!(e, Expected::CopyEnd)) {
            Some(Expected::Query(running) | Expected::Execute(running)) => Some(running.of),
            _ => None,
        }
    }

    fn running_now(&mut self) -> Option<&mut Running> {
        match self.expected.iter_mut().find(|e| !matches!(e, Expected::CopyEnd))? {
            Expected::Query(running) | Expected::Execute(running) => Some(running),
            _ => None,
        }
    }

    /// So many values were masked in what answers the command in front.
    pub(super) fn masked(&mut self, counts: Counts) {
        if let Some(running) = self.running_now() {
            for (name, count) in counts {
                let masked = &mut running.outcome.masked;
                let known = masked.entry(name.to_string()).or_default();
                *known = known.saturating_add(count);
            }
        }
    }

    fn push(&mut self, mut expected: Expected, candidates: &Candidates) {
        if self.skipping {
            return;
        }
        self.entered += 1;
        let place = self.entered;
        match &mut expected {
            Expected::Parse { .. } => self.last.statement = place,
            // It plans, and planning may call functions.
            Expected::Bind { .. } => self.last.unsettling = place,
            Expected::Query(running) | Expected::Execute(running) if running.refused.is_none() => {
                self.last.unsettling = place;
                let mut changes_encoding = candidates.unknown;
                if candidates.unknown {
                    running.work = Work::UNKNOWN;
                }
                let mut see = |source: &Source| {
                    running.work.add(source);
                    changes_encoding |= source.reading().may_change_encoding();
                    match source.statement().map(|statement| &statement.kind) {
                        Some(StatementKind::Prepare { .. }) => self.last.statement = place,
                        Some(StatementKind::Declare { .. }) => self.last.cursor = place,
                        _ => return,
                    }
                    running.makes.push(source.clone());
                };
                if let Runs::Text(Some(reading), _) = &running.runs {
                    for at in 0..reading.statements().len() {
                        see(&Source::new(Arc::clone(reading), at));
                    }
                }
                candidates.iter().for_each(|candidate| see(&candidate.source));
                if changes_encoding {
                    self.last.encoding = place;
                }
            }
            _ => {}
        }
        if let Expected::Query(running) | Expected::Execute(running) = &expected {
            self.works(running.work);
        }
        self.unsettled |= self.last.unsettling == place;
        self.encoding_unsettled |= self.last.encoding == place;
        self.expected.push_back(expected);
    }
}

#[cfg(test)]
mod tests;
