//! The queue of replies that a session expects of its server, and what the server's answers tell.
//!
//! Nothing else keeps state of the session. Whatever is forwarded is entered here first
//! ([`Replies::expect`]); whatever comes back is held against the front of the queue
//! ([`Replies::answer`]), and what does not fit there ends the session ([`Unfit`]). What the
//! gateway believes of prepared statements, portals and the transaction comes from the answers,
//! never from what was asked.
//!
//! The server's side of the conversation, with its sources, is a table in `docs/architecture.md`.

mod answers;
mod candidates;
mod copying;
mod expected;
mod fits;
mod producer;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Moment;
use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::TransactionStatus;
use crate::decode::postgres::frontend::{Message, Named};
use crate::decode::sql::{LexerSettings, Reading, Source, StatementKind};
use crate::gate::Renumber;
use crate::mask::Counts;
use crate::recording::{Outcome, Renumbered, Sequence};

use super::masking::{CopyMasks, RowMasks};
use super::prepared::{Bound, Key, Names};
use super::refusal::Words;
pub(super) use candidates::Candidates;
pub(super) use copying::Course;
use copying::Feed;

use expected::{Copies, Expected, Name, Running, Runs, Stage};
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
    /// Of a command: it may make or drop prepared statements and cursors out of sight.
    pub(super) makes_names: bool,
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

/// Why an answer of the server, or what it means for what the client sent, ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The server answers what it was not asked, or not in this way.
    Answer,
    /// It cannot be read.
    Malformed(Malformed),
    /// The client sent a Sync among COPY data, and the COPY failed before or behind it.
    SyncAmongData,
    /// The client sent something other than COPY data while the server read them.
    NoCopyData,
}

impl From<Malformed> for Unfit {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// All that a session knows of its server.
#[derive(Debug)]
pub(super) struct Replies {
    expected: VecDeque<Expected>,
    /// The server discards messages until the next Sync.
    skipping: bool,
    /// Messages were forwarded, and not discarded, behind the last Sync or Query.
    step_is_open: bool,
    /// An Execute was among them: what it ran may have ended the transaction.
    step_has_run: bool,
    /// The server said that it ends the session.
    is_over: bool,
    /// The command on its way that may take COPY data of the client's.
    feed: Option<Feed>,
    /// Syncs that were kept back and count.
    owed_syncs: usize,
    /// How the last rehearsal ended.
    rehearsed: Option<bool>,
    /// Parameters as the server told them when it let the gateway in.
    at_start: Vec<(String, String)>,
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
    /// A text of the session may give a secret setting.
    reveals: bool,
}

/// Places in the queue of the last such reply: 0 is none, 1 the first reply that was ever expected.
#[derive(Debug, Default)]
struct Last {
    statement: u64,
    cursor: u64,
    unsettling: u64,
    encoding: u64,
    naming: u64,
}

impl Replies {
    /// A session that the server has just declared ready, after telling these parameters.
    pub(super) fn new(parameters: &[(String, String)]) -> Self {
        let mut replies = Self {
            expected: VecDeque::new(),
            skipping: false,
            step_is_open: false,
            step_has_run: false,
            is_over: false,
            feed: None,
            owed_syncs: 0,
            rehearsed: None,
            at_start: parameters.to_vec(),
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
            reveals: false,
        };
        for (name, value) in parameters {
            replies.parameter(name, value);
            if name == "server_encoding" {
                replies.names.stored_in(value);
            }
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

    /// What the server told of a parameter when it let the gateway in.
    pub(super) fn told_at_start(&self, name: &str) -> Option<&str> {
        let mut told = self.at_start.iter().filter(|(told, _)| told == name);
        told.next_back().map(|(_, value)| value.as_str())
    }

    /// The server said that it ends the session.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The server discards whatever comes until the next Sync.
    pub(super) fn skips(&self) -> bool {
        self.skipping
    }

    /// The server runs nothing but the end of its transaction.
    pub(super) fn transaction_failed(&self) -> bool {
        self.transaction == TransactionStatus::Failed
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

    /// Whether the rows that come now may hold a secret setting: they are not to be stored.
    pub(super) fn reveals(&self) -> bool {
        self.reveals
            && match self.producer() {
                Producer::Statement(source, _) => source.statement().is_some_and(|s| s.reveals),
                Producer::Nobody | Producer::Unknown => true,
            }
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
                            if name.is(bind.statement) =>
                        {
                            Some(*of)
                        }
                        _ => None,
                    });
                pending.or_else(|| Some(self.names.statement(bind.statement)?.of))
            }
            Message::Execute { portal, .. } => {
                let pending = self.expected.iter().rev().find_map(|expected| match expected {
                    Expected::Bind { of, portal: name, .. } if name.is(portal) => Some(*of),
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
        since: Moment,
        entered: Entered,
    ) -> Result<(), Malformed> {
        if self.names.are_too_many() {
            return Err(Malformed("too many prepared statements or portals"));
        }
        let Entered { of, refused, reading, bound, candidates, takes_secrets, makes_names } =
            entered;
        let makes_names = makes_names && refused.is_none();
        self.reveals |= reading.as_ref().is_some_and(|reading| reading.reveals());
        if matches!(message, Message::Query { .. } | Message::Execute { .. }) {
            self.takes_secrets = takes_secrets || (self.takes_secrets && !self.is_idle());
        }
        let expected = match message {
            Message::Query { .. } => {
                let running = Running::new(of, since, Runs::Text(reading, 0));
                Expected::Query(Running { refused, makes_names, ..running })
            }
            Message::FunctionCall => Expected::FunctionCall { refused, failed: false },
            Message::Parse { statement, .. } => {
                Expected::Parse { of, name: self.key(statement)?, reading, refused }
            }
            Message::Bind(bind) => {
                let (portal, statement) = (self.key(bind.portal)?, self.key(bind.statement)?);
                Expected::Bind { of, portal, statement, bound, makes_names }
            }
            Message::Describe(named) => {
                Expected::Describe { name: self.name(*named)?, parameters: false }
            }
            Message::Execute { portal, max_rows } => {
                let running = Running::new(of, since, Runs::Portal(self.key(portal)?));
                let may_suspend = *max_rows != 0;
                Expected::Execute(Running { refused, may_suspend, makes_names, ..running })
            }
            Message::Close(named) => Expected::Close(self.name(*named)?),
            Message::Sync => {
                self.skipping = false;
                Expected::Sync { failed: false }
            }
            Message::CopyData | Message::CopyDone | Message::CopyFail => {
                self.fed(!matches!(message, Message::CopyData));
                return Ok(());
            }
            Message::Flush | Message::Terminate => return Ok(()),
        };
        self.push(expected, &candidates);
        Ok(())
    }

    fn key(&self, name: &str) -> Result<Key, Malformed> {
        match self.names.compares(name) {
            true => Ok(name.into()),
            false => Err(Malformed(
                "names of statements and portals must be ASCII: the database's encoding is not UTF8",
            )),
        }
    }

    fn name(&self, named: Named<'_>) -> Result<Name, Malformed> {
        Ok(match named {
            Named::Statement(name) => Name::Statement(self.key(name)?),
            Named::Portal(name) => Name::Portal(self.key(name)?),
        })
    }

    /// Enters a question of the gateway's own: a Describe whose answer the client does not see.
    pub(super) fn expect_probe(&mut self, portal: &str) {
        self.push(Expected::Probe(portal.into()), &Candidates::default());
    }

    /// Enters messages of the gateway's own, with so many Syncs among them, that are forwarded now:
    /// ahead of what is entered and was not forwarded.
    pub(super) fn expect_rehearsal(&mut self, readies: usize) {
        self.rehearsed = None;
        self.expected.push_front(Expected::Rehearsal { readies, failed: false });
    }

    /// How the last rehearsal ended, once it has.
    pub(super) fn rehearsed(&self) -> Option<bool> {
        self.rehearsed
    }

    /// The plan in which messages were entered is recorded: commands have their places.
    pub(super) fn renumber(&mut self, renumbered: Renumbered) {
        for expected in &mut self.expected {
            if let Some(of) = expected.command_mut() {
                of.renumber(renumbered);
            }
        }
    }

    /// How many replies were ever expected: a mark to count from.
    pub(super) fn entered(&self) -> u64 {
        self.entered
    }

    /// Whether everything has been answered but the last so many that were entered, or the server
    /// skips them.
    pub(super) fn is_settled_but_for(&self, last: u64) -> bool {
        self.expected.len() as u64 <= last
    }

    /// Whether messages were forwarded, and not discarded, behind the last Sync or Query.
    pub(super) fn step_is_open(&self) -> bool {
        self.step_is_open
    }

    /// Whether portals have names that SQL can use, or will have.
    pub(super) fn has_named_portals(&self) -> bool {
        let makes = |expected: &Expected| match expected {
            Expected::Bind { portal, .. } => !portal.is_empty(),
            _ => false,
        };
        self.names.has_named_portals()
            || self.is_expected(self.last.cursor)
            || self.expected.iter().any(makes)
    }

    /// Whether a command was among the messages behind the last Sync or Query.
    pub(super) fn step_has_run(&self) -> bool {
        self.step_has_run
    }

    /// Whether nobody has asked, or will have asked, for the columns of a portal.
    pub(super) fn lacks_rows(&self, portal: &str) -> bool {
        for expected in self.expected.iter().rev() {
            match expected {
                Expected::Bind { portal: made, .. } if made.is(portal) => return true,
                Expected::Probe(name) | Expected::Describe { name: Name::Portal(name), .. }
                    if name.is(portal) =>
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
        match self.expected.front()? {
            Expected::Query(running) => running.rows.clone(),
            Expected::Execute(Running { runs: Runs::Portal(name), .. }) => {
                self.names.certain_portal(name)?.rows.clone()
            }
            _ => None,
        }
    }

    /// The server says now which columns come: what is to be done with the rows.
    pub(super) fn describe(&mut self, rows: Option<Arc<RowMasks>>) {
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => running.rows = rows,
            Some(Expected::Probe(name) | Expected::Describe { name: Name::Portal(name), .. }) => {
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
        match self.expected.front() {
            Some(Expected::Query(running) | Expected::Execute(running)) => Some(running.of),
            _ => None,
        }
    }

    fn running_now(&mut self) -> Option<&mut Running> {
        match self.expected.front_mut()? {
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
        self.step_is_open = !matches!(
            expected,
            Expected::Sync { .. } | Expected::Query(_) | Expected::FunctionCall { .. }
        );
        self.step_has_run =
            self.step_is_open && (self.step_has_run || matches!(expected, Expected::Execute(_)));
        self.entered += 1;
        let place = self.entered;
        if expected.makes_names() {
            self.last.naming = place;
        }
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
                running.copies = match &running.runs {
                    Runs::Portal(_) if candidates.unknown => Copies::UNKNOWN,
                    Runs::Text(None, _) => Copies::UNKNOWN,
                    _ => Copies::default(),
                };
                let mut see = |source: &Source| {
                    running.work.add(source);
                    running.copies.add(source);
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
            if running.copies.from_client {
                self.feeds(matches!(running.runs, Runs::Text(..)));
            }
        }
        self.unsettled |= self.last.unsettling == place;
        self.encoding_unsettled |= self.last.encoding == place;
        self.expected.push_back(expected);
    }
}

#[cfg(test)]
mod tests;
