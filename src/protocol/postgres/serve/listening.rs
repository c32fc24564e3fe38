//! A recording listened to from its first event to its last. One queue of expected replies, as in a
//! session, tells which message of the server answers what.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use serde_json::Value;

use super::pieces::Pieces;
use super::tape::{Described, Place, Run, Values, cursor, trimmed};
use crate::decode::postgres::backend;
use crate::decode::postgres::command::PARAMETERS;
use crate::decode::postgres::frame::{Side, Walker};
use crate::decode::postgres::frontend::{self, Named};
use crate::protocol::taped::{Kept, TapeError};
use crate::recording::{Direction, Event, Kind, RecordedCommand, Sequence};

/// Replies that a client may be waiting for.
const MOST_EXPECTED: usize = 1 << 20;

/// A reply that the client waits for.
#[derive(Debug)]
enum Expected {
    Parse(Sequence),
    Bind(Sequence),
    /// Of a statement by its text, or of a cursor; whether its parameters are told.
    Description(Option<Box<str>>, bool),
    Close,
    /// The run.
    Execute(usize),
    Query(usize),
    Sync,
}

/// A statement that was prepared.
#[derive(Debug, Clone)]
struct Parsed {
    text: Box<str>,
    withheld: bool,
}

/// A portal that was made: of what, with what, how its rows come, and the run that it became once
/// it was executed.
#[derive(Debug, Clone)]
struct Portal {
    parsed: Parsed,
    values: Values,
    binary: Vec<bool>,
    run: Option<usize>,
}

/// What was heard of a recording.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) runs: Vec<Run>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) described: HashMap<Box<str>, Described>,
}

/// A recording on its way through.
#[derive(Debug)]
pub(super) struct Listening {
    kept: Kept,
    runs: Vec<Run>,
    settings: Vec<(String, String)>,
    described: HashMap<Box<str>, Described>,
    parsed: HashMap<Sequence, Parsed>,
    /// The text of a statement or portal, by the name that it has now.
    statements: HashMap<String, Box<str>>,
    portals: HashMap<String, Box<str>>,
    bound: HashMap<Sequence, Portal>,
    expected: VecDeque<Expected>,
    /// Whether the answer to its front has begun.
    begun: bool,
    up: Pieces,
    down: Pieces,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            kept: Kept::of("statements"),
            runs: Vec::new(),
            settings: Vec::new(),
            described: HashMap::new(),
            parsed: HashMap::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            bound: HashMap::new(),
            expected: VecDeque::new(),
            begun: false,
            up: Pieces::new(Side::Frontend),
            down: Pieces::new(Side::Backend),
        }
    }
}

impl Listening {
    /// All of it, once there are no more events.
    pub(super) fn heard(self) -> Heard {
        let Self { runs, settings, described, .. } = self;
        Heard { runs, settings, described }
    }

    /// The next event.
    pub(super) fn take(&mut self, event: &Event) -> Result<(), TapeError> {
        match (event.kind, event.direction) {
            (Kind::Command, _) => {
                if let Ok(command) = serde_json::from_slice(&event.payload) {
                    self.command(event, &command)?;
                }
            }
            (Kind::Data, Direction::None) => self.greeted(&event.payload),
            (Kind::Data, Direction::Up) => {
                self.up.feed(event);
                while let Some((message, _)) = self.up.next() {
                    self.asked(&message)?;
                }
            }
            (Kind::Data, Direction::Down) => {
                self.down.feed(event);
                while let Some((message, place)) = self.down.next() {
                    self.answered(&message, place)?;
                }
            }
            (Kind::Gap, _) => {
                // Who answers what is not known any more.
                self.expected.clear();
                self.begun = false;
                (self.up, self.down) = (Pieces::new(Side::Frontend), Pieces::new(Side::Backend));
            }
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, bytes: usize) -> Result<(), TapeError> {
        self.kept.entry(bytes)?;
        if self.expected.len() <= MOST_EXPECTED { Ok(()) } else { Err(self.kept.too_much()) }
    }

    /// What the target said of itself.
    fn greeted(&mut self, bytes: &[u8]) {
        let (mut walker, mut rest) = (Walker::whole(Side::Backend), bytes);
        while let Ok(Some(piece)) = walker.next(rest) {
            let Some((message, behind)) = rest.split_at_checked(piece.length) else { return };
            rest = behind;
            if let (b'S', Ok((name, value))) = (piece.tag, backend::parameter_status(message)) {
                self.settings.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    fn command(&mut self, event: &Event, recorded: &RecordedCommand<'_>) -> Result<(), TapeError> {
        let command = &recorded.command;
        let withheld = recorded.exact.is_some();
        self.keep(command.text.len())?;
        let name = |key: &str| {
            let name = command.attributes.get(key).and_then(Value::as_str);
            name.unwrap_or_default().to_owned()
        };
        let text = || Box::<str>::from(trimmed(&command.text));
        match &*command.form {
            "query" => {
                let run = self.run(event.sequence, Parsed { text: text(), withheld }, None);
                self.expected.push_back(Expected::Query(run));
            }
            "parse" => {
                self.statements.insert(name("statement"), text());
                self.parsed.insert(event.sequence, Parsed { text: text(), withheld });
                self.expected.push_back(Expected::Parse(event.sequence));
            }
            "bind" => {
                let parsed = event.of.and_then(|of| self.parsed.get(&of)).cloned();
                if let Some(parsed) = parsed {
                    let shown = command.attributes.get(PARAMETERS).cloned();
                    let shown = shown.unwrap_or_else(|| Value::Array(Vec::new()));
                    self.keep(shown.to_string().len())?;
                    let formats =
                        command.attributes.get("result_formats").and_then(Value::as_array);
                    let binary = formats.into_iter().flatten().map(|f| f.as_u64() == Some(1));
                    let binary = binary.collect();
                    self.portals.insert(name("portal"), parsed.text.clone());
                    let values = Values { shown, withheld };
                    let portal = Portal { parsed, values, binary, run: None };
                    self.bound.insert(event.sequence, portal);
                }
                self.expected.push_back(Expected::Bind(event.sequence));
            }
            "execute" => {
                let portal = event.of.and_then(|of| self.bound.get(&of)).cloned();
                let run = match portal {
                    Some(Portal { run: Some(run), .. }) => run,
                    Some(Portal { parsed, values, binary, .. }) => {
                        let run = self.run(event.sequence, parsed, Some(values));
                        if let Some(made) = self.runs.get_mut(run) {
                            made.binary = binary;
                        }
                        run
                    }
                    // Of a portal whose making is not recorded: nobody can ask for it, and its
                    // answer has to be passed over.
                    None => {
                        let nothing = Parsed { text: "".into(), withheld: false };
                        self.run(event.sequence, nothing, None)
                    }
                };
                if let Some(portal) = event.of.and_then(|of| self.bound.get_mut(&of)) {
                    portal.run = Some(run);
                }
                self.expected.push_back(Expected::Execute(run));
            }
            _ => {}
        }
        Ok(())
    }

    fn run(&mut self, sequence: Sequence, parsed: Parsed, bound: Option<Values>) -> usize {
        let Parsed { text, withheld } = parsed;
        let (answers, binary, refused) = (Vec::new(), Vec::new(), None);
        self.runs.push(Run { sequence, text, withheld, bound, answers, binary, refused });
        self.runs.len() - 1
    }

    /// A message of the client that is no command.
    fn asked(&mut self, message: &Bytes) -> Result<(), TapeError> {
        let expected = match frontend::message(message) {
            Ok(frontend::Message::Describe(Named::Statement(name))) => {
                Expected::Description(self.statements.get(name).cloned(), true)
            }
            Ok(frontend::Message::Describe(Named::Portal(name))) => {
                let text = self.portals.get(name).cloned();
                Expected::Description(Some(text.unwrap_or_else(|| cursor(name))), false)
            }
            Ok(frontend::Message::Close(_)) => Expected::Close,
            Ok(frontend::Message::Sync) => Expected::Sync,
            _ => return Ok(()),
        };
        self.expected.push_back(expected);
        self.keep(0)
    }

    /// A message of the server, or the beginning of one.
    fn answered(&mut self, message: &Bytes, place: Place) -> Result<(), TapeError> {
        let Some(tag) = message.first().copied() else { return Ok(()) };
        if let Some(Expected::Execute(run) | Expected::Query(run)) = self.expected.front()
            && !std::mem::replace(&mut self.begun, true)
            && let Some(run) = self.runs.get_mut(*run)
        {
            run.answers.push(place);
        }
        match (tag, self.expected.front()) {
            (b'Z', _) => {
                while let Some(expected) = self.pop() {
                    if matches!(expected, Expected::Query(_) | Expected::Sync) {
                        break;
                    }
                }
            }
            (b'E', Some(Expected::Query(_))) | (_, None) => {}
            (b'E', Some(_)) => {
                let failed = self.pop();
                self.failed(failed.as_ref(), message);
                let end =
                    |expected: &Expected| matches!(expected, Expected::Sync | Expected::Query(_));
                while self.expected.front().is_some_and(|expected| !end(expected)) {
                    self.pop();
                }
            }
            (b'1', Some(Expected::Parse(_)))
            | (b'2', Some(Expected::Bind(_)))
            | (b'3', Some(Expected::Close))
            | (b'C' | b'I' | b's', Some(Expected::Execute(_))) => {
                self.pop();
            }
            (b't', Some(Expected::Description(text, true))) => {
                if let Some(text) = text.clone() {
                    self.keep(message.len())?;
                    self.described.entry(text).or_default().parameters = Some(message.clone());
                }
            }
            (b'T' | b'n', Some(Expected::Description(text, _))) => {
                if let Some(text) = text.clone() {
                    self.keep(message.len())?;
                    self.described.entry(text).or_default().rows = Some(message.clone());
                }
                self.pop();
            }
            _ => {}
        }
        Ok(())
    }

    /// The front of the queue is answered.
    fn pop(&mut self) -> Option<Expected> {
        self.begun = false;
        self.expected.pop_front()
    }

    /// What was refused before it ran is answered with the refusal.
    fn failed(&mut self, expected: Option<&Expected>, message: &Bytes) {
        let (sequence, parsed, values) = match expected {
            Some(Expected::Parse(sequence)) => {
                (*sequence, self.parsed.get(sequence).cloned(), None)
            }
            Some(Expected::Bind(sequence)) => match self.bound.get(sequence).cloned() {
                Some(portal) => (*sequence, Some(portal.parsed), Some(portal.values)),
                None => return,
            },
            _ => return,
        };
        let Some(parsed) = parsed else { return };
        let run = self.run(sequence, parsed, values);
        if let Some(run) = self.runs.get_mut(run) {
            run.refused = Some(message.clone());
        }
    }
}
