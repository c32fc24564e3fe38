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

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::{self, TransactionStatus};
use crate::decode::postgres::frontend::{Message, Named};
use crate::recording::{CommandError, Outcome, Sequence};

use super::refusal::{NO_SQL_CODE, Words};

/// How many replies may be outstanding. A server sends what it has when its 8 KiB buffer is full,
/// at the latest after 1,638 of the shortest replies, so waiting at this bound always ends.
const MAX_OUTSTANDING: usize = 16_384;

/// How many prepared statements and portals one session may name. Clients that cache statements
/// keep some hundreds.
const MAX_NAMES: usize = 65_536;

/// A reply that the server owes.
#[derive(Debug)]
enum Expected {
    /// Results and `ReadyForQuery`, for a Query message.
    Query(Running),
    /// `ParseComplete`, or the answer to what stands for a refused Parse.
    Parse { of: Sequence, name: Box<str>, refused: Option<Words> },
    /// `BindComplete`.
    Bind { of: Sequence, portal: Box<str> },
    /// `RowDescription` or `NoData`, maybe behind `ParameterDescription`.
    Describe,
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
struct Running {
    of: Sequence,
    since: Instant,
    outcome: Outcome,
    /// What the client is told instead of the server's error, where the command was refused.
    refused: Option<Words>,
}

#[derive(Debug)]
enum Name {
    Statement(Box<str>),
    Portal(Box<str>),
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
    statements: HashMap<Box<str>, Sequence>,
    portals: HashMap<Box<str>, Sequence>,
    transaction: TransactionStatus,
}

impl Replies {
    /// A session that the server has just declared ready.
    pub(super) fn new() -> Self {
        Self {
            expected: VecDeque::new(),
            skipping: false,
            copying_in: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            transaction: TransactionStatus::Idle,
        }
    }

    /// Whether more may be forwarded before the server answers some of it.
    pub(super) fn has_room(&self) -> bool {
        self.expected.len() < MAX_OUTSTANDING
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
                let pending = self.expected.iter().rev().find_map(|expected| match expected {
                    Expected::Parse { of, name, .. } if **name == *bind.statement => Some(*of),
                    _ => None,
                });
                pending.or_else(|| self.statements.get(bind.statement).copied())
            }
            Message::Execute { portal, .. } => {
                let pending = self.expected.iter().rev().find_map(|expected| match expected {
                    Expected::Bind { of, portal: name } if **name == **portal => Some(*of),
                    _ => None,
                });
                pending.or_else(|| self.portals.get(*portal).copied())
            }
            _ => None,
        }
    }

    /// Enters a message that is about to be forwarded; `of` is its recorded command's sequence,
    /// 0 for messages that are no commands. `refused` is what the client will be told when
    /// something that fails is forwarded in the message's place.
    pub(super) fn expect(
        &mut self,
        message: &Message<'_>,
        of: Sequence,
        since: Instant,
        refused: Option<Words>,
    ) -> Result<(), Malformed> {
        if self.statements.len().max(self.portals.len()) > MAX_NAMES {
            return Err(Malformed("too many prepared statements or portals"));
        }
        let running = |refused| Running { of, since, outcome: Outcome::default(), refused };
        let expected = match message {
            Message::Query { .. } => Expected::Query(running(refused)),
            Message::FunctionCall => Expected::FunctionCall { refused },
            Message::Parse { statement, .. } => {
                Expected::Parse { of, name: (*statement).into(), refused }
            }
            Message::Bind(bind) => Expected::Bind { of, portal: bind.portal.into() },
            Message::Describe(_) => Expected::Describe,
            Message::Execute { .. } => Expected::Execute(running(refused)),
            Message::Close(Named::Statement(name)) => {
                Expected::Close(Name::Statement((*name).into()))
            }
            Message::Close(Named::Portal(name)) => Expected::Close(Name::Portal((*name).into())),
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
        if !self.skipping {
            self.expected.push_back(expected);
        }
        Ok(())
    }

    /// Holds one whole message of the server (never `DataRow` or `CopyData`) against the queue.
    pub(super) fn answer(&mut self, message: &[u8], now: Instant) -> Result<Answered, Malformed> {
        let mut ended = Vec::new();
        let mut instead = None;
        let of = self.front();
        match message.first().copied().unwrap_or(0) {
            b'1' => {
                if let Some(Expected::Parse { of, name, .. }) = self.pop_if(is_parse) {
                    self.statements.insert(name, of);
                }
            }
            b'2' => {
                if let Some(Expected::Bind { of, portal }) = self.pop_if(is_bind) {
                    self.portals.insert(portal, of);
                }
            }
            b'3' => match self.pop_if(|e| matches!(e, Expected::Close(_))) {
                Some(Expected::Close(Name::Statement(name))) => {
                    self.statements.remove(&name);
                }
                Some(Expected::Close(Name::Portal(name))) => {
                    self.portals.remove(&name);
                }
                _ => {}
            },
            b'T' | b'n' => {
                self.pop_if(|e| matches!(e, Expected::Describe));
            }
            b'C' => self.complete(backend::command_tag(message)?, now, &mut ended),
            b'I' => self.complete("EMPTY", now, &mut ended),
            b's' => self.complete("SUSPENDED", now, &mut ended),
            b'G' => self.copy_in_began(),
            b'E' => {
                let report = backend::report(message)?;
                instead = self.refusal().filter(|_| report.code == NO_SQL_CODE);
                self.failed(report, now, &mut ended);
            }
            b'Z' => self.ready(backend::ready_for_query(message)?, now, &mut ended),
            _ => {}
        }
        Ok(Answered { of, ended, instead })
    }

    /// The command whose results are next, if it is one that gives results.
    pub(super) fn front(&self) -> Option<Sequence> {
        match self.expected.iter().find(|e| !matches!(e, Expected::CopyEnd)) {
            Some(Expected::Query(running) | Expected::Execute(running)) => Some(running.of),
            _ => None,
        }
    }

    /// What the client is told instead of an error that comes now.
    fn refusal(&mut self) -> Option<Words> {
        self.pop_if(|_| false);
        match self.expected.front_mut() {
            Some(Expected::Query(running) | Expected::Execute(running)) => running.refused.take(),
            Some(Expected::Parse { refused, .. } | Expected::FunctionCall { refused }) => {
                refused.take()
            }
            _ => None,
        }
    }

    fn pop_if(&mut self, wanted: impl Fn(&Expected) -> bool) -> Option<Expected> {
        while matches!(self.expected.front(), Some(Expected::CopyEnd)) {
            self.expected.pop_front();
        }
        if self.expected.front().is_some_and(wanted) { self.expected.pop_front() } else { None }
    }

    /// A statement ended well: a whole Execute, or one of a Query's.
    fn complete(&mut self, tag: &str, now: Instant, ended: &mut Vec<(Sequence, Outcome)>) {
        self.copying_in = false;
        if let Some(Expected::Execute(mut running)) =
            self.pop_if(|e| matches!(e, Expected::Execute(_)))
        {
            succeed(&mut running.outcome, tag);
            ended.push(running.end(now));
        } else if let Some(Expected::Query(running)) = self.expected.front_mut() {
            succeed(&mut running.outcome, tag);
        }
    }

    /// The server reads COPY data now: it ignores Syncs up to the end of the data.
    fn copy_in_began(&mut self) {
        let end = self.expected.iter().position(|e| matches!(e, Expected::CopyEnd));
        let mut at = 0;
        self.expected.retain(|expected| {
            let within = end.is_none_or(|end| at <= end);
            at += 1;
            !(within && matches!(expected, Expected::Sync | Expected::CopyEnd))
        });
        self.copying_in = end.is_none();
    }

    fn failed(
        &mut self,
        report: backend::Report,
        now: Instant,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) {
        self.copying_in = false;
        let error = CommandError { code: report.code, message: report.message };
        self.pop_if(|_| false);
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => running.outcome.error = Some(error),
            // An error at the Sync itself: the commit failed. ReadyForQuery still follows.
            Some(Expected::Sync | Expected::FunctionCall { .. }) | None => {}
            Some(_) => self.skip_to_sync(error, now, ended),
        }
    }

    /// After an error in the extended protocol the server discards everything up to a Sync.
    fn skip_to_sync(
        &mut self,
        error: CommandError,
        now: Instant,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) {
        let mut error = Some(error);
        self.skipping = true;
        while let Some(expected) = self.expected.pop_front() {
            let mut running = match expected {
                Expected::Sync => {
                    self.expected.push_front(Expected::Sync);
                    self.skipping = false;
                    return;
                }
                Expected::Query(running) | Expected::Execute(running) => running,
                Expected::Parse { of, .. } | Expected::Bind { of, .. } => {
                    Running { of, since: now, outcome: Outcome::default(), refused: None }
                }
                Expected::Describe
                | Expected::Close(_)
                | Expected::FunctionCall { .. }
                | Expected::CopyEnd => {
                    error = None;
                    continue;
                }
            };
            match error.take() {
                Some(error) => running.outcome.error = Some(error),
                None => running.outcome.status = Some("SKIPPED".to_owned()),
            }
            ended.push(running.end(now));
        }
    }

    fn ready(
        &mut self,
        status: TransactionStatus,
        now: Instant,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) {
        self.transaction = status;
        self.copying_in = false;
        if status == TransactionStatus::Idle {
            self.portals.clear();
        }
        while let Some(expected) = self.expected.pop_front() {
            match expected {
                Expected::Query(running) => return ended.push(running.end(now)),
                Expected::Sync | Expected::FunctionCall { .. } => return,
                _ => {}
            }
        }
    }
}

impl Running {
    fn end(mut self, now: Instant) -> (Sequence, Outcome) {
        let duration = now.saturating_duration_since(self.since);
        self.outcome.duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        (self.of, self.outcome)
    }
}

/// One statement ended; a Query message may hold several, whose rows add up.
fn succeed(outcome: &mut Outcome, tag: &str) {
    if let Some(rows) = backend::rows(tag) {
        outcome.rows = Some(outcome.rows.unwrap_or(0).saturating_add(rows));
    }
    outcome.status = Some(tag.to_owned());
}

fn is_parse(expected: &Expected) -> bool {
    matches!(expected, Expected::Parse { .. })
}

fn is_bind(expected: &Expected) -> bool {
    matches!(expected, Expected::Bind { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message as frame;
    use crate::decode::postgres::frontend::Bind;
    use crate::protocol::postgres::refusal::Objection;

    fn bind<'a>(portal: &'a str, statement: &'a str) -> Message<'a> {
        let (parameters, result_formats) = (Vec::new(), Vec::new());
        Message::Bind(Bind { portal, statement, parameters, result_formats })
    }

    const EXECUTE: Message<'static> = Message::Execute { portal: "", max_rows: 0 };

    /// Forwards messages; the nth is recorded as sequence n.
    fn forward(replies: &mut Replies, messages: &[Message<'_>]) {
        for (of, message) in (0..).zip(messages) {
            replies.expect(message, of, Instant::now(), None).unwrap();
        }
    }

    /// Gives what ended: sequence, status, error code.
    fn answer(
        replies: &mut Replies,
        tag: u8,
        body: &[u8],
    ) -> Vec<(u64, Option<String>, Option<String>)> {
        let answered = replies.answer(&frame(tag, body), Instant::now()).unwrap();
        let ended = answered.ended.into_iter();
        ended.map(|(of, o)| (of, o.status, o.error.map(|e| e.code))).collect()
    }

    fn parse(statement: &str) -> Message<'_> {
        Message::Parse { statement, sql: "select 1", parameter_types: Vec::new() }
    }

    const ERROR: &[u8] = b"C42P01\0Mno\0\0";

    #[test]
    fn a_query_ends_with_ready_for_query_and_its_rows_add_up() {
        let mut replies = Replies::new();
        forward(&mut replies, &[Message::Query { sql: "…" }]);
        assert!(answer(&mut replies, b'C', b"INSERT 0 2\0").is_empty());
        assert!(answer(&mut replies, b'C', b"SELECT 3\0").is_empty());
        let answered = replies.answer(&frame(b'Z', b"T"), Instant::now()).unwrap();
        assert_eq!(answered.of, Some(0));
        assert_eq!(answered.ended[0].1.rows, Some(5));
        assert!(replies.is_idle());
        assert!(!replies.is_at_rest());
    }

    #[test]
    fn an_error_in_a_pipeline_skips_to_the_sync_and_no_further() {
        let mut replies = Replies::new();
        forward(
            &mut replies,
            &[parse("a"), bind("", "a"), EXECUTE, Message::Sync, Message::Query { sql: "…" }],
        );
        assert!(answer(&mut replies, b'1', b"").is_empty());
        let skipped = |of| (of, Some("SKIPPED".to_owned()), None);
        assert_eq!(
            answer(&mut replies, b'E', ERROR),
            [(1, None, Some("42P01".to_owned())), skipped(2)]
        );
        assert!(answer(&mut replies, b'Z', b"I").is_empty());
        assert!(answer(&mut replies, b'C', b"SELECT 1\0").is_empty());
        assert_eq!(answer(&mut replies, b'Z', b"I").len(), 1);
    }

    #[test]
    fn what_is_sent_after_an_error_and_before_the_sync_is_owed_no_reply() {
        let mut replies = Replies::new();
        forward(&mut replies, &[parse("a")]);
        assert_eq!(answer(&mut replies, b'E', ERROR).len(), 1);
        forward(&mut replies, &[bind("", "a"), EXECUTE]);
        assert!(replies.is_idle());
        forward(&mut replies, &[Message::Sync, parse("b")]);
        answer(&mut replies, b'Z', b"I");
        answer(&mut replies, b'1', b"");
        assert_eq!(replies.basis(&bind("", "b")), Some(1));
        assert_eq!(replies.basis(&bind("", "a")), None, "a Parse that failed made no statement");
    }

    #[test]
    fn a_failed_parse_replaces_nothing() {
        let mut replies = Replies::new();
        forward(&mut replies, &[parse("a"), Message::Sync]);
        answer(&mut replies, b'1', b"");
        answer(&mut replies, b'Z', b"I");
        replies.expect(&parse("a"), 7, Instant::now(), None).unwrap();
        assert_eq!(replies.basis(&bind("", "a")), Some(7), "the pending one is next");
        answer(&mut replies, b'E', ERROR);
        assert_eq!(replies.basis(&bind("", "a")), Some(0));
    }

    #[test]
    fn a_sync_before_the_end_of_copy_data_is_swallowed() {
        for end_first in [false, true] {
            let mut replies = Replies::new();
            forward(&mut replies, &[parse(""), bind("", ""), EXECUTE, Message::Sync]);
            answer(&mut replies, b'1', b"");
            answer(&mut replies, b'2', b"");
            if end_first {
                forward(&mut replies, &[Message::CopyData, Message::CopyDone]);
                answer(&mut replies, b'G', b"\0\0\0");
            } else {
                answer(&mut replies, b'G', b"\0\0\0");
                forward(&mut replies, &[Message::Sync, Message::CopyData, Message::CopyDone]);
            }
            forward(&mut replies, &[Message::Sync]);
            assert_eq!(answer(&mut replies, b'C', b"COPY 1\0").len(), 1);
            assert!(!replies.is_idle());
            answer(&mut replies, b'Z', b"I");
            assert!(replies.is_idle(), "end first: {end_first}");
        }
    }

    #[test]
    fn a_failed_commit_at_the_sync_leaves_the_queue_whole() {
        let mut replies = Replies::new();
        forward(&mut replies, &[parse(""), Message::Sync]);
        answer(&mut replies, b'1', b"");
        answer(&mut replies, b'E', ERROR);
        assert!(!replies.is_idle());
        answer(&mut replies, b'Z', b"I");
        assert!(replies.is_idle());
    }

    #[test]
    fn a_refused_command_answers_with_the_refusal_and_only_for_its_own_error() {
        let refusal = || Some(Objection::FunctionCall.to_words());
        let mut replies = Replies::new();
        replies.expect(&Message::FunctionCall, 0, Instant::now(), refusal()).unwrap();
        let cancelled = frame(b'E', b"C57014\0Mcancelled\0\0");
        assert!(replies.answer(&cancelled, Instant::now()).unwrap().instead.is_none());

        let mut replies = Replies::new();
        replies.expect(&parse("a"), 0, Instant::now(), refusal()).unwrap();
        let syntax = frame(b'E', b"C42601\0Mno\0\0");
        assert!(replies.answer(&syntax, Instant::now()).unwrap().instead.is_some());
        assert!(replies.answer(&syntax, Instant::now()).unwrap().instead.is_none());
    }

    #[test]
    fn portals_end_with_their_transaction() {
        let mut replies = Replies::new();
        forward(&mut replies, &[parse(""), bind("p", ""), Message::Sync]);
        for (tag, body) in [(b'1', &b""[..]), (b'2', b""), (b'Z', b"T")] {
            answer(&mut replies, tag, body);
        }
        let execute = Message::Execute { portal: "p", max_rows: 5 };
        assert_eq!(replies.basis(&execute), Some(1));
        forward(&mut replies, &[Message::Sync]);
        answer(&mut replies, b'Z', b"I");
        assert_eq!(replies.basis(&execute), None);
    }
}
