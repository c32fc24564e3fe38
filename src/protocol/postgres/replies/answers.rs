//! The server's answers, each held against what it owes: names, transaction and outcomes come of them.

use std::sync::Arc;

use super::super::messages::to_target::NO_SQL_CODE;
use super::super::refusal::Words;
use super::{Answered, Expected, Key, Name, Replies, Running, Runs, Stage, Unfit};
use crate::clock::Moment;
use crate::decode::postgres::backend::{self, TransactionStatus};
use crate::decode::sql::Source;
use crate::recording::{CommandError, Outcome, Sequence};

/// What stands for the command tag of an Execute that stopped at its number of rows.
const SUSPENDED: &str = "SUSPENDED";

impl Replies {
    /// Holds one whole message of the server (never `DataRow` or `CopyData`) against the queue.
    pub(in crate::protocol::postgres) fn fits_now(&self, message: &[u8]) -> Result<(), Unfit> {
        let tag = message.first().copied().unwrap_or(0);
        let is_fatal = tag == b'E' && backend::report(message)?.is_fatal();
        self.fits(tag, is_fatal)
    }

    /// Takes a message that [fits](Replies::fits_now). `stored` is what is stored of it, where masks
    /// change it.
    pub(in crate::protocol::postgres) fn answer(
        &mut self,
        message: &[u8],
        stored: &[u8],
        now: Moment,
    ) -> Result<Answered, Unfit> {
        let mut ended = Vec::new();
        let mut instead = None;
        let of = self.front();
        let tag = message.first().copied().unwrap_or(0);
        self.doubt_names(tag);
        if let Some(Expected::Rehearsal { .. }) = self.expected.front()
            && b"123tTnCEZN".contains(&tag)
            && !(tag == b'E' && backend::report(message)?.is_fatal())
        {
            self.rehearse(tag);
            return Ok(Answered { of, ended, instead: Some(Words::none()) });
        }
        match tag {
            b'1' => {
                if let Some(Expected::Parse { of, name, reading, .. }) = self.expected.pop_front() {
                    let source = reading.map(|reading| Source::new(reading, 0));
                    self.names.prepare(name, of, source);
                }
            }
            b'2' => {
                if let Some(Expected::Bind { of, portal, statement, bound, .. }) =
                    self.expected.pop_front()
                {
                    self.names.bind(portal, of, &statement, bound);
                }
            }
            b'3' => match self.expected.pop_front() {
                Some(Expected::Close(Name::Statement(name))) => self.names.deallocate(&name),
                Some(Expected::Close(Name::Portal(name))) => self.names.close(&name),
                _ => {}
            },
            b't' => {
                if let Some(Expected::Describe { parameters, .. }) = self.expected.front_mut() {
                    *parameters = true;
                }
            }
            b'T' | b'n' => instead = self.described(tag == b'T'),
            b'S' => {
                let (name, value) = backend::parameter_status(message)?;
                self.parameter(name, value);
            }
            b'C' => self.complete(backend::command_tag(message)?, now, &mut ended),
            b'I' => self.complete("EMPTY", now, &mut ended),
            b's' => self.complete(SUSPENDED, now, &mut ended),
            b'G' => {
                self.goes_to(Stage::CopyIn);
                self.copy_in_began();
            }
            b'H' => self.goes_to(Stage::CopyOut),
            b'c' => self.goes_to(Stage::CopyOutEnded),
            b'E' => instead = self.error(message, stored, now, &mut ended)?,
            b'Z' => self.ready(backend::ready_for_query(message)?, now, &mut ended),
            _ => {}
        }
        Ok(Answered { of, ended, instead })
    }

    /// What answers a command that may have made or dropped names, ended or stopped or failed, comes:
    /// names that were made before may mean something else by now.
    fn doubt_names(&mut self, tag: u8) {
        let of = match self.expected.front() {
            Some(front) if !front.makes_names() || !b"2CIsE".contains(&tag) => return,
            Some(Expected::Query(running) | Expected::Execute(running)) => running.of,
            Some(Expected::Bind { of, .. }) => *of,
            _ => return,
        };
        self.names.doubt(of);
    }

    fn goes_to(&mut self, stage: Stage) {
        if let Some(Expected::Query(running) | Expected::Execute(running)) =
            self.expected.front_mut()
        {
            running.stage = stage;
        }
    }

    /// The server says which columns come, or that none do.
    fn described(&mut self, some: bool) -> Option<Words> {
        if let Some(Expected::Query(_)) = self.expected.front() {
            self.goes_to(Stage::Rows);
            return None;
        }
        let (name, own) = match self.expected.pop_front() {
            Some(Expected::Describe { name: Name::Portal(name), .. }) => (name, false),
            Some(Expected::Probe(name)) => (name, true),
            _ => return None,
        };
        self.names.gives_rows(&name, some);
        own.then(Words::none)
    }

    /// An answer to the gateway's own messages.
    fn rehearse(&mut self, tag: u8) {
        let Some(Expected::Rehearsal { readies, failed }) = self.expected.front_mut() else {
            return;
        };
        match tag {
            b'E' => *failed = true,
            b'Z' => *readies = readies.saturating_sub(1),
            _ => {}
        }
        if *readies == 0 {
            self.rehearsed = Some(!*failed);
            self.expected.pop_front();
        }
    }

    fn error(
        &mut self,
        message: &[u8],
        stored: &[u8],
        now: Moment,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) -> Result<Option<Words>, Unfit> {
        let report = backend::report(message)?;
        if report.is_fatal() {
            self.is_over = true;
        }
        let instead = self.refusal().filter(|_| report.code == NO_SQL_CODE);
        if let Some(Expected::Query(running) | Expected::Execute(running)) = self.expected.front()
            && running.copies.from_client
        {
            self.feed_failed(&report)?;
        }
        // A refused command failed by the gateway's words, not by what stood in its place.
        let own = instead.as_ref().and_then(|words| backend::report(words.stored()).ok());
        let report = match own {
            Some(own) => own,
            None => backend::report(stored)?,
        };
        self.failed(report, now, ended);
        Ok(instead)
    }

    /// What the client is told instead of an error that comes now.
    fn refusal(&mut self) -> Option<Words> {
        match self.expected.front_mut() {
            Some(Expected::Query(running) | Expected::Execute(running)) => running.refused.take(),
            Some(Expected::Parse { refused, .. } | Expected::FunctionCall { refused, .. }) => {
                refused.take()
            }
            _ => None,
        }
    }

    /// A statement ended well: a whole Execute, or one of a Query's.
    fn complete(&mut self, tag: &str, now: Moment, ended: &mut Vec<(Sequence, Outcome)>) {
        let of = self.front();
        let done = match self.expected.front_mut() {
            Some(Expected::Query(running)) => {
                let took = running.stage == Stage::CopyIn;
                (running.rows, running.copy, running.stage) = (None, None, Stage::Between);
                succeed(&mut running.outcome, tag);
                let source = match &mut running.runs {
                    Runs::Text(reading, at) => {
                        let source = reading.as_ref().map(|r| Source::new(Arc::clone(r), *at));
                        *at += 1;
                        source
                    }
                    Runs::Portal(_) => None,
                };
                if took {
                    self.copy_in_done();
                }
                source
            }
            Some(Expected::Execute(_)) => match self.expected.pop_front() {
                Some(Expected::Execute(mut running)) => {
                    if running.stage == Stage::CopyIn {
                        self.copy_in_done();
                    }
                    let done = self.ran(&running.runs);
                    succeed(&mut running.outcome, tag);
                    self.end(running, now, ended);
                    done
                }
                _ => None,
            },
            _ => None,
        };
        self.failed |= tag == "ROLLBACK";
        if let (Some(of), Some(source)) = (of, done)
            && tag != SUSPENDED
        {
            self.names.done(of, &source, tag);
        }
    }

    /// A command ended.
    fn end(&mut self, running: Running, now: Moment, ended: &mut Vec<(Sequence, Outcome)>) {
        if running.copies.from_client {
            self.feed_ended();
        }
        ended.push(running.end(now));
    }

    fn failed(
        &mut self,
        report: backend::Report,
        now: Moment,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) {
        self.failed = true;
        let error = CommandError { code: report.code, message: report.message };
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => {
                running.outcome.error = Some(error);
                running.stage = Stage::Failed;
            }
            // An error at the Sync itself: the commit failed. ReadyForQuery still follows.
            Some(Expected::Sync { failed } | Expected::FunctionCall { failed, .. }) => {
                *failed = true;
            }
            // An error between messages: ReadyForQuery follows, and nothing is skipped.
            None if self.step_is_open && !self.skipping => {
                self.expected.push_back(Expected::Sync { failed: true });
                self.step_is_open = false;
            }
            // The session ends.
            None | Some(Expected::Rehearsal { .. }) => {}
            Some(_) => self.skip_to_sync(error, now, ended),
        }
    }

    /// After an error in the extended protocol the server discards everything up to a Sync.
    fn skip_to_sync(
        &mut self,
        error: CommandError,
        now: Moment,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) {
        let mut error = Some(error);
        self.skipping = true;
        if let Some(Expected::Parse { name, .. }) = self.expected.front()
            && name.is_empty()
        {
            // The unnamed statement goes before the text is even read.
            self.names.deallocate(&Key::from(""));
        }
        while let Some(expected) = self.expected.pop_front() {
            let mut running = match expected {
                Expected::Sync { .. } => {
                    self.expected.push_front(expected);
                    self.skipping = false;
                    return;
                }
                Expected::Query(running) | Expected::Execute(running) => running,
                Expected::Parse { of, .. } | Expected::Bind { of, .. } => {
                    Running::new(of, now, Runs::Text(None, 0))
                }
                // The error is that of the Execute that the question was asked for.
                Expected::Probe(_) => continue,
                Expected::Describe { .. }
                | Expected::Close(_)
                | Expected::FunctionCall { .. }
                | Expected::Rehearsal { .. } => {
                    error = None;
                    continue;
                }
            };
            match error.take() {
                Some(error) => running.outcome.error = Some(error),
                None => running.outcome.status = Some("SKIPPED".to_owned()),
            }
            self.end(running, now, ended);
        }
        self.step_is_open = false;
    }

    fn ready(
        &mut self,
        status: TransactionStatus,
        now: Moment,
        ended: &mut Vec<(Sequence, Outcome)>,
    ) {
        self.transaction = status;
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

    fn take_to_ready(&mut self, now: Moment, ended: &mut Vec<(Sequence, Outcome)>) {
        match self.expected.pop_front() {
            Some(Expected::Query(running)) => {
                // The unnamed statement and portal do not outlive a simple query.
                self.names.forget_unnamed();
                self.end(running, now, ended);
            }
            // A Query stood in its place.
            Some(Expected::FunctionCall { .. }) => self.names.forget_unnamed(),
            _ => {}
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
