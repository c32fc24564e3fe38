//! One client of a replay: what it asks, held against what is recorded.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::block_in_place;

use super::super::messages::to_client;
use super::super::refusal;
use super::super::stream::Stream;
use super::answer::{Messages, Rows, binary, description_in};
use super::fitting::{control_of, fitting};
use super::portal::{Answered, Portal, Source, Unanswered, done, parameters_of};
use super::tape::{Tape, trimmed};
use crate::decode::postgres::backend::TransactionStatus;
use crate::decode::postgres::command;
use crate::decode::postgres::frame::{Side, Walker};
use crate::decode::postgres::frontend::{self, Bind, Message, Named};
use crate::decode::postgres::{Malformed, backend};

/// Answers are sent when they are this long, in bytes.
const FLUSH: usize = 64 << 10;
/// Statements, portals and texts that one client may have at once.
const MOST_NAMES: usize = 100_000;
/// Rows that a client gets of a portal that was suspended when it was recorded.
const NO_LIMIT: u32 = 0;

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Session {
    tape: Arc<Tape>,
    stream: Stream,
    walker: Walker,
    inbox: BytesMut,
    out: BytesMut,
    /// How many times each statement was asked for, by its text and values.
    asked: HashMap<String, usize>,
    statements: HashMap<String, Box<str>>,
    portals: HashMap<String, Portal>,
    /// As `ReadyForQuery` says it.
    status: TransactionStatus,
    /// A message of the extended protocol failed: what comes before the next Sync is passed over.
    failed: bool,
}

impl Session {
    pub(super) fn new(stream: Stream, tape: Arc<Tape>) -> Self {
        Self {
            tape,
            stream,
            walker: Walker::new(Side::Frontend),
            inbox: BytesMut::new(),
            out: BytesMut::new(),
            asked: HashMap::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            status: TransactionStatus::Idle,
            failed: false,
        }
    }

    /// Until the client leaves.
    pub(super) async fn run(mut self) -> io::Result<()> {
        while let Some(message) = self.next().await? {
            match frontend::message(&message) {
                Ok(Message::Terminate) => return Ok(()),
                Ok(Message::Query { sql }) => self.query(sql).await?,
                Ok(Message::Sync) => {
                    self.failed = false;
                    self.ready().await?;
                }
                Ok(Message::Flush) => self.flush().await?,
                Ok(_) if self.failed => {}
                Ok(message) => {
                    if let Err(unanswered) = self.extended(message).await? {
                        self.failed = true;
                        self.refuse(&unanswered);
                    }
                }
                Err(Malformed(what)) => {
                    self.out.extend_from_slice(refusal::replay_error("08P01", what, "").as_bytes());
                    return self.flush().await;
                }
            }
        }
        Ok(())
    }

    /// The client's next message, or the first piece of COPY data.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let piece = self.walker.next(&self.inbox).map_err(io::Error::other)?;
            if let Some(piece) = piece {
                let bytes = self.inbox.split_to(piece.length).freeze();
                if piece.first {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn query(&mut self, sql: &str) -> io::Result<()> {
        self.failed = false;
        if trimmed(sql).is_empty() {
            to_client::empty_query_response(&mut self.out);
            return self.ready().await;
        }
        let answered = match self.choose(sql, None) {
            Ok(Source::Control(tag)) => {
                self.control(tag, sql);
                Ok(())
            }
            Ok(Source::Run(run)) => self.answer_query(run, sql).await?,
            Err(unanswered) => Err(unanswered),
        };
        if let Err(unanswered) = answered {
            self.refuse(&unanswered);
        }
        self.ready().await
    }

    /// Which recorded run answers: the next one of those that fit.
    fn choose(&mut self, text: &str, values: Option<&Value>) -> Answered<Source> {
        let tape = Arc::clone(&self.tape);
        let (runs, mut withheld) = tape.runs_of(text);
        if runs.is_empty() {
            return control_of(text).map(Source::Control).ok_or(Unanswered::NotRecorded);
        }
        let fitting = match values {
            None => runs,
            Some(values) => {
                let (fitting, exactly) = fitting(&tape, &runs, values);
                withheld |= !exactly;
                fitting
            }
        };
        if self.asked.len() >= MOST_NAMES {
            return Err(Unanswered::TooMany);
        }
        let values = values.map(ToString::to_string).unwrap_or_default();
        let times = self.asked.entry(format!("{}\0{values}", trimmed(text))).or_default();
        let run = fitting.get(*times).or(fitting.last()).copied().ok_or(Unanswered::OtherValues)?;
        *times = times.saturating_add(1);
        if withheld {
            let sequence = tape.runs.get(run).map(|run| run.sequence).unwrap_or_default();
            self.out.extend_from_slice(refusal::replay_withholds(sequence).as_bytes());
        }
        Ok(Source::Run(run))
    }

    /// Sends a run's whole answer, with the description of its rows.
    async fn answer_query(&mut self, at: usize, sql: &str) -> io::Result<Answered<()>> {
        let tape = Arc::clone(&self.tape);
        let Some(run) = tape.runs.get(at) else { return Ok(Err(Unanswered::NotRecorded)) };
        if let Some(refused) = &run.refused {
            return Ok(Err(Unanswered::Refused(refused.clone())));
        }
        if run.bound.is_some() {
            let description = tape.described(run).and_then(|described| described.rows.as_ref());
            if let Some(rows) = description.filter(|rows| rows.first() == Some(&b'T')) {
                self.out.extend_from_slice(&description_in(rows, &[]));
            }
            let mut portal = Portal::new(Source::Run(at), sql, Vec::new());
            return self.rows(&mut portal, NO_LIMIT).await;
        }
        let Some(place) = run.answers.first() else {
            return Ok(Err(Unanswered::Broken("its answer is not recorded".to_owned())));
        };
        let mut messages = match block_in_place(|| Messages::open(&tape.of, *place, false)) {
            Ok(messages) => messages,
            Err(broken) => return Ok(Err(broken.into())),
        };
        loop {
            let (piece, bytes) = match block_in_place(|| messages.next()) {
                Ok(next) => next,
                Err(broken) => return Ok(Err(broken.into())),
            };
            match piece.tag {
                b'Z' => return Ok(Ok(())),
                b'C' => self.follow(&bytes, sql),
                b'E' => self.fail(),
                _ => {}
            }
            self.send(&bytes).await?;
            if piece.tag == b'G' && !self.copied_in().await? {
                return Ok(Err(Unanswered::Broken("COPY was given up".to_owned())));
            }
        }
    }

    /// Waits for the end of the client's COPY data, which go nowhere. Whether it was not given up.
    async fn copied_in(&mut self) -> io::Result<bool> {
        self.flush().await?;
        while let Some(message) = self.next().await? {
            match message.first() {
                Some(b'c') => return Ok(true),
                Some(b'f') => return Ok(false),
                _ => {}
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    async fn extended(&mut self, message: Message<'_>) -> io::Result<Answered<()>> {
        Ok(match message {
            Message::Parse { statement, sql, .. } => self.parse(statement, sql),
            Message::Bind(bind) => self.bind(&bind),
            Message::Describe(named) => self.describe(named),
            Message::Execute { portal, max_rows } => match self.portals.remove(portal) {
                None => Err(Unanswered::NoSuchName),
                Some(mut made) => {
                    let answered = self.execute(&mut made, max_rows).await?;
                    self.portals.insert(portal.to_owned(), made);
                    answered
                }
            },
            Message::Close(named) => {
                match named {
                    Named::Statement(name) => drop(self.statements.remove(name)),
                    Named::Portal(name) => drop(self.portals.remove(name)),
                }
                to_client::close_complete(&mut self.out);
                Ok(())
            }
            Message::FunctionCall => Err(Unanswered::NotRecorded),
            // COPY data that nobody asked for, as after an error.
            _ => Ok(()),
        })
    }

    fn parse(&mut self, name: &str, sql: &str) -> Answered<()> {
        let (runs, _) = self.tape.runs_of(sql);
        let refused = |at: &usize| {
            let run = self.tape.runs.get(*at).filter(|run| run.bound.is_none())?;
            run.refused.clone()
        };
        if runs.is_empty() && control_of(sql).is_none() && !trimmed(sql).is_empty() {
            return Err(Unanswered::NotRecorded);
        }
        if !runs.is_empty() && runs.iter().all(|at| refused(at).is_some()) {
            let first = runs.first().and_then(refused).unwrap_or_default();
            return Err(Unanswered::Refused(first));
        }
        if self.statements.len() >= MOST_NAMES {
            return Err(Unanswered::TooMany);
        }
        self.statements.insert(name.to_owned(), sql.into());
        to_client::parse_complete(&mut self.out);
        Ok(())
    }

    fn bind(&mut self, bind: &Bind<'_>) -> Answered<()> {
        let text = self.statements.get(bind.statement).cloned().ok_or(Unanswered::NoSuchName)?;
        let attributes = command::bind(bind, false);
        let values = attributes.get(command::PARAMETERS).cloned();
        let values = values.unwrap_or_else(|| Value::Array(Vec::new()));
        let source = match trimmed(&text) {
            "" => Source::Control(""),
            _ => self.choose(&text, Some(&values))?,
        };
        if self.portals.len() >= MOST_NAMES {
            return Err(Unanswered::TooMany);
        }
        let portal = Portal::new(source, &text, binary(&bind.result_formats));
        self.portals.insert(bind.portal.to_owned(), portal);
        to_client::bind_complete(&mut self.out);
        Ok(())
    }

    fn describe(&mut self, named: Named<'_>) -> Answered<()> {
        if let Named::Portal(name) = named
            && !self.portals.contains_key(name)
            && let Some(rows) = self.tape.cursor(name)
        {
            self.out.extend_from_slice(rows);
            return Ok(());
        }
        let (wanted, run) = match named {
            Named::Statement(name) => {
                let text = self.statements.get(name).ok_or(Unanswered::NoSuchName)?;
                let runs = self.tape.runs_of(text).0;
                let ran = runs
                    .iter()
                    .find(|at| self.tape.runs.get(**at).is_some_and(|run| run.refused.is_none()));
                (&[][..], ran.copied())
            }
            Named::Portal(name) => {
                let portal = self.portals.get(name).ok_or(Unanswered::NoSuchName)?;
                let run = match portal.source {
                    Source::Run(run) => Some(run),
                    Source::Control(_) => None,
                };
                (portal.wanted.as_slice(), run)
            }
        };
        let run = run.and_then(|run| self.tape.runs.get(run));
        let known = run.and_then(|run| self.tape.described(run));
        if matches!(named, Named::Statement(_)) {
            let parameters = known.and_then(|known| known.parameters.clone());
            let parameters = parameters.unwrap_or_else(|| parameters_of(run));
            self.out.extend_from_slice(&parameters);
        }
        let rows = match run {
            Some(run) => self.tape.rows_of(run)?,
            None => None,
        };
        match rows {
            Some(rows) => self.out.extend_from_slice(&description_in(&rows, wanted)),
            None => to_client::no_data(&mut self.out),
        }
        Ok(())
    }

    async fn execute(&mut self, portal: &mut Portal, max_rows: u32) -> io::Result<Answered<()>> {
        match portal.source {
            Source::Control("") => {
                to_client::empty_query_response(&mut self.out);
                Ok(Ok(()))
            }
            Source::Control(tag) => {
                self.control(tag, &portal.text);
                Ok(Ok(()))
            }
            Source::Run(_) => self.rows(portal, max_rows).await,
        }
    }

    /// Sends what a portal gives, up to the client's limit, without descriptions.
    async fn rows(&mut self, portal: &mut Portal, max_rows: u32) -> io::Result<Answered<()>> {
        let tape = Arc::clone(&self.tape);
        let Source::Run(at) = portal.source else { return Ok(Ok(())) };
        let Some(run) = tape.runs.get(at) else { return Ok(Err(Unanswered::NotRecorded)) };
        if let Some(refused) = &run.refused {
            return Ok(Err(Unanswered::Refused(refused.clone())));
        }
        let description = tape.described(run).and_then(|described| described.rows.as_ref());
        let recorded = if run.bound.is_some() { run.binary.as_slice() } else { &[] };
        let Some(rows) = Rows::of(recorded, &portal.wanted, description) else {
            return Ok(Err(Unanswered::OnlyText));
        };
        let mut sent = 0;
        loop {
            if portal.done {
                to_client::command_complete(&mut self.out, "SELECT 0");
                return Ok(Ok(()));
            }
            let next = match portal.pending.take() {
                Some(row) => Ok((b'D', true, row)),
                None => block_in_place(|| portal.next(&tape, run, rows.rewrites())),
            };
            let (tag, first, bytes) = match next {
                Ok(next) => next,
                Err(unanswered) => return Ok(Err(unanswered)),
            };
            match tag {
                b'D' if first && max_rows > 0 && sent == max_rows => {
                    portal.pending = Some(bytes);
                    to_client::portal_suspended(&mut self.out);
                    return Ok(Ok(()));
                }
                b'D' => {
                    sent += u32::from(first);
                    match rows.row(bytes) {
                        Ok(row) => self.send(&row).await?,
                        Err(malformed) => return Ok(Err(malformed.into())),
                    }
                }
                b'C' | b'I' => {
                    portal.done = true;
                    self.follow(&bytes, &portal.text);
                    self.send(&bytes).await?;
                    return Ok(Ok(()));
                }
                b'E' => {
                    portal.done = true;
                    return Ok(Err(Unanswered::Refused(bytes)));
                }
                b'G' => {
                    self.send(&bytes).await?;
                    if !self.copied_in().await? {
                        return Ok(Err(Unanswered::Broken("COPY was given up".to_owned())));
                    }
                }
                b'N' | b'S' | b'A' | b'H' | b'd' | b'c' => self.send(&bytes).await?,
                _ => {}
            }
        }
    }

    /// A transaction that begins or ends without a recording of it.
    fn control(&mut self, tag: &'static str, text: &str) {
        let message = done(tag);
        self.follow(&message, text);
        self.out.extend_from_slice(&message);
    }

    /// What a command's end means for the transaction.
    fn follow(&mut self, message: &[u8], text: &str) {
        let to_savepoint = || text.split_whitespace().any(|word| word.eq_ignore_ascii_case("to"));
        match backend::command_tag(message) {
            Ok("BEGIN" | "START TRANSACTION") => self.status = TransactionStatus::Open,
            Ok("ROLLBACK") if to_savepoint() => self.status = TransactionStatus::Open,
            Ok("COMMIT" | "ROLLBACK" | "PREPARE TRANSACTION") => {
                self.status = TransactionStatus::Idle;
            }
            _ => {}
        }
    }

    fn fail(&mut self) {
        if self.status == TransactionStatus::Open {
            self.status = TransactionStatus::Failed;
        }
    }

    fn refuse(&mut self, unanswered: &Unanswered) {
        self.fail();
        self.out.extend_from_slice(&unanswered.words(&self.tape));
    }

    async fn ready(&mut self) -> io::Result<()> {
        to_client::ready_for_query(&mut self.out, self.status);
        self.flush().await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        if self.out.len() < FLUSH { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        self.stream.flush().await
    }
}
