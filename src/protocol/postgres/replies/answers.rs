//! The server's answers, each held against what it owes: names, transaction and outcomes come of them.

use std::sync::Arc;
use std::time::Instant;

use super::super::refusal::{NO_SQL_CODE, Words};
use super::{Answered, Expected, Name, Replies, Running, Runs, Work};
use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::{self, TransactionStatus};
use crate::decode::sql::Source;
use crate::recording::{CommandError, Outcome, Sequence};

/// What stands for the command tag of an Execute that stopped at its number of rows.
const SUSPENDED: &str = "SUSPENDED";

impl Replies {
    /// Holds one whole message of the server (never `DataRow` or `CopyData`) against the queue.
    pub(in crate::protocol::postgres) fn answer(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> Result<Answered, Malformed> {
        let mut ended = Vec::new();
        let mut instead = None;
        let of = self.front();
        match message.first().copied().unwrap_or(0) {
            b'1' => {
                if let Some(Expected::Parse { of, name, reading, .. }) = self.pop_if(is_parse) {
                    let source = reading.map(|reading| Source::new(reading, 0));
                    self.names.prepare(name, of, source);
                }
            }
            b'2' => {
                if let Some(Expected::Bind { of, portal, statement, bound }) = self.pop_if(is_bind)
                {
                    self.names.bind(portal, of, &statement, bound);
                }
            }
            b'3' => match self.pop_if(|e| matches!(e, Expected::Close(_))) {
                Some(Expected::Close(Name::Statement(name))) => self.names.deallocate(&name),
                Some(Expected::Close(Name::Portal(name))) => self.names.close(&name),
                _ => {}
            },
            b'T' | b'n' => {
                let asked = |e: &Expected| matches!(e, Expected::Describe(_) | Expected::Probe(_));
                if let Some(Expected::Probe(_)) = self.pop_if(asked) {
                    instead = Some(Words::none());
                }
            }
            b'S' => {
                let (name, value) = backend::parameter_status(message)?;
                self.parameter(name, value);
            }
            b'C' => self.complete(backend::command_tag(message)?, now, &mut ended),
            b'I' => self.complete("EMPTY", now, &mut ended),
            b's' => self.complete(SUSPENDED, now, &mut ended),
            b'G' => self.copy_in_began(),
            b'E' => {
                let report = backend::report(message)?;
                instead = self.refusal().filter(|_| report.code == NO_SQL_CODE);
                // A refused command failed by the gateway's words, not by what stood in its place.
                let own = instead.as_ref().and_then(|words| backend::report(words.as_bytes()).ok());
                self.failed(own.unwrap_or(report), now, &mut ended);
            }
            b'Z' => self.ready(backend::ready_for_query(message)?, now, &mut ended),
            _ => {}
        }
        Ok(Answered { of, ended, instead })
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
        let of = self.front();
        let done = match self.pop_if(|e| matches!(e, Expected::Execute(_))) {
            Some(Expected::Execute(mut running)) => {
                let done = self.running(&running.runs).map(|(source, _)| source);
                succeed(&mut running.outcome, tag);
                ended.push(running.end(now));
                done
            }
            _ => match self.expected.front_mut() {
                Some(Expected::Query(running)) => {
                    (running.rows, running.copy) = (None, None);
                    succeed(&mut running.outcome, tag);
                    match &mut running.runs {
                        Runs::Text(Some(reading), at) => {
                            let source = Source::new(Arc::clone(reading), *at);
                            *at += 1;
                            Some(source)
                        }
                        _ => None,
                    }
                }
                _ => None,
            },
        };
        self.failed |= tag == "ROLLBACK";
        if let (Some(of), Some(source)) = (of, done)
            && tag != SUSPENDED
        {
            self.names.done(of, &source, tag);
        }
    }

    /// The server reads COPY data now: it ignores Syncs up to the end of the data.
    fn copy_in_began(&mut self) {
        let end = self.expected.iter().position(|e| matches!(e, Expected::CopyEnd));
        let mut at = 0;
        let before = self.expected.len();
        self.expected.retain(|expected| {
            let within = end.is_none_or(|end| at <= end);
            at += 1;
            !(within && matches!(expected, Expected::Sync | Expected::CopyEnd))
        });
        // Places behind those that went are now further ahead than they are: still expected.
        self.entered -= (before - self.expected.len()) as u64;
        self.copying_in = end.is_none();
    }

    fn failed(
        &mut self,
        report: backend::Report,
        now: Instant,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) {
        self.copying_in = false;
        self.failed = true;
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
        if let Some(Expected::Parse { name, .. }) = self.expected.front()
            && name.is_empty()
        {
            // The unnamed statement goes before the text is even read.
            self.names.deallocate("");
        }
        while let Some(expected) = self.expected.pop_front() {
            let mut running = match expected {
                Expected::Sync => {
                    self.expected.push_front(Expected::Sync);
                    self.skipping = false;
                    return;
                }
                Expected::Query(running) | Expected::Execute(running) => running,
                Expected::Parse { of, .. } | Expected::Bind { of, .. } => {
                    let (outcome, makes) = (Outcome::default(), Vec::new());
                    let runs = Runs::Text(None, 0);
                    let (rows, copy, work) = (None, None, Work::default());
                    let refused = None;
                    Running { of, since: now, outcome, refused, runs, makes, rows, copy, work }
                }
                // The error is that of the Execute that the question was asked for.
                Expected::Probe(_) => continue,
                Expected::Describe(_)
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
            self.names.transaction_ended(!self.failed);
            self.failed = false;
        }
        self.take_to_ready(now, ended);
        if status == TransactionStatus::Idle {
            self.rests();
        }
        self.unsettled = self.is_expected(self.last.unsettling);
        self.encoding_unsettled = self.is_expected(self.last.encoding);
    }

    fn take_to_ready(&mut self, now: Instant, ended: &mut Vec<(Sequence, Outcome)>) {
        while let Some(expected) = self.expected.pop_front() {
            match expected {
                Expected::Query(running) => {
                    // The unnamed statement and portal do not outlive a simple query.
                    self.names.deallocate("");
                    self.names.close("");
                    return ended.push(running.end(now));
                }
                Expected::Sync | Expected::FunctionCall { .. } => return,
                _ => {}
            }
        }
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
