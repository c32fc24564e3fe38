//! What a recording has to answer with: each statement that ran, and where its answer begins.
//!
//! The recording is read once, from its first event to its last. One queue of expected replies, as
//! in a session, tells which message of the server answers what. Kept are texts, values and places;
//! rows stay in the file until somebody asks for them.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use crate::decode::postgres::command::PARAMETERS;
use crate::decode::postgres::frame::{Side, Walker};
use crate::decode::postgres::frontend::{self, Named};
use crate::decode::postgres::{Malformed, backend};
use crate::decode::sql::{LexerSettings, Unparsed, Withhold, view};
use crate::names::{Protocol, SessionId, TargetName};
use crate::recording::{
    Direction, Event, Kind, Opened, ReadError, Reader, RecordedCommand, Sequence,
};

/// Texts, values and descriptions that are kept of one recording, in bytes.
const MOST_KEPT: usize = 512 << 20;
/// What one entry costs beside its texts.
const ENTRY: usize = 256;
/// Replies that a client may be waiting for.
const MOST_EXPECTED: usize = 1 << 20;

/// Why a recording cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is of something else.
    #[error("it is a recording of {0}, not of Postgres")]
    OtherProtocol(Protocol),
    /// It holds no session.
    #[error("it is no session's recording")]
    NoSession,
    /// Its statements do not fit into memory.
    #[error("its statements take more than {} MiB", MOST_KEPT >> 20)]
    TooMuch,
}

/// A place in a recording: an event, and a byte of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) event: Sequence,
    pub(super) byte: usize,
}

/// A statement that ran.
#[derive(Debug)]
pub(super) struct Run {
    /// The command's sequence.
    pub(super) sequence: Sequence,
    /// Its text in the request view.
    pub(super) text: Box<str>,
    /// Whether the view leaves something of the text out.
    pub(super) withheld: bool,
    /// Of the extended protocol: its values.
    pub(super) bound: Option<Values>,
    /// Where its answers begin: one, or as many as the portal was executed times.
    pub(super) answers: Vec<Place>,
    /// Whether each column of a row is binary; one entry stands for all, none for text.
    pub(super) binary: Vec<bool>,
    /// What it was refused with before it ran.
    pub(super) refused: Option<Bytes>,
}

/// Values that were bound, as they were recorded.
#[derive(Debug, Clone)]
pub(super) struct Values {
    pub(super) shown: Value,
    /// Whether that leaves something out.
    pub(super) withheld: bool,
}

/// How the server described a statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    /// Its `ParameterDescription`.
    pub(super) parameters: Option<Bytes>,
    /// Its `RowDescription`, or `NoData`.
    pub(super) rows: Option<Bytes>,
}

/// A recording of Postgres that answers.
#[derive(Debug)]
pub struct Tape {
    pub(super) path: PathBuf,
    pub(super) session: SessionId,
    pub(super) target: TargetName,
    username: String,
    /// What the target said of itself when the session began.
    pub(super) settings: Vec<(String, String)>,
    pub(super) runs: Vec<Run>,
    /// Runs by their texts without literals.
    shapes: HashMap<Box<str>, Vec<usize>>,
    described: HashMap<Box<str>, Described>,
}

impl Tape {
    /// Reads a recording from its beginning to its end. Blocks on the file system.
    ///
    /// # Errors
    /// When it is none of Postgres, cannot be read, or is too large.
    pub fn read(path: &Path) -> Result<Self, TapeError> {
        let mut reader = Reader::open(path)?;
        let first = reader.next().transpose()?.ok_or(TapeError::NoSession)?;
        let opened: Opened =
            serde_json::from_slice(&first.payload).map_err(|_| TapeError::NoSession)?;
        if opened.protocol != Protocol::Postgres {
            return Err(TapeError::OtherProtocol(opened.protocol));
        }
        let mut listening = Listening::default();
        for event in reader {
            listening.take(&event?)?;
        }
        let Listening { runs, settings, described, .. } = listening;
        let mut shapes: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (at, run) in runs.iter().enumerate() {
            shapes.entry(shape(&run.text)).or_default().push(at);
        }
        Ok(Self {
            path: path.to_owned(),
            session: opened.session,
            target: opened.target,
            username: opened.identity.username,
            settings,
            runs,
            shapes,
            described,
        })
    }

    /// Whose session it was, and of what.
    pub fn title(&self) -> (&str, &TargetName, SessionId) {
        (&self.username, &self.target, self.session)
    }

    /// How many statements it can answer.
    pub fn statements(&self) -> usize {
        self.runs.len()
    }

    /// The runs of a text, and whether they are that text only as far as the view tells.
    pub(super) fn runs_of(&self, text: &str) -> (Vec<usize>, bool) {
        let Some(found) = self.shapes.get(&shape(text)) else { return (Vec::new(), false) };
        let runs = || found.iter().filter_map(|at| Some((*at, self.runs.get(*at)?)));
        let text = trimmed(text);
        let same: Vec<_> = runs()
            .filter(|(_, run)| !run.withheld && *run.text == *text)
            .map(|(at, _)| at)
            .collect();
        if !same.is_empty() {
            return (same, false);
        }
        (runs().filter(|(_, run)| run.withheld).map(|(at, _)| at).collect(), true)
    }

    /// The rows of a cursor that SQL made, as drivers ask for them by its name.
    pub(super) fn cursor(&self, name: &str) -> Option<&Bytes> {
        self.described.get(&cursor(name))?.rows.as_ref()
    }

    pub(super) fn described(&self, run: &Run) -> Option<&Described> {
        self.described.get(&run.text)
    }
}

/// A text without blanks and semicolons around it.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == ';')
}

/// What a cursor's description is kept by; no text is like it.
fn cursor(name: &str) -> Box<str> {
    format!("\0{name}").into()
}

/// A text without its literals: texts that differ in nothing else have the same.
fn shape(text: &str) -> Box<str> {
    let (text, settings) = (trimmed(text), LexerSettings::default());
    view(text, settings, Err(Unparsed::Unknown), Withhold::Literals).into()
}

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

/// The messages of one direction, each with where it begins. Of those that may be of any size only
/// the first piece is seen.
#[derive(Debug)]
struct Pieces {
    walker: Walker,
    bytes: BytesMut,
    /// The events that the bytes are of: where in each, and how many.
    of: VecDeque<(Place, usize)>,
    lost: bool,
}

impl Pieces {
    fn new(side: Side) -> Self {
        let (walker, bytes) = (Walker::new(side), BytesMut::new());
        Self { walker, bytes, of: VecDeque::new(), lost: false }
    }

    fn feed(&mut self, event: &Event) {
        if !self.lost {
            self.bytes.extend_from_slice(&event.payload);
            let place = Place { event: event.sequence, byte: 0 };
            self.of.push_back((place, event.payload.len()));
        }
    }

    fn next(&mut self) -> Option<(Bytes, Place)> {
        loop {
            let piece = match self.walker.next(&self.bytes) {
                Ok(piece) => piece?,
                Err(Malformed(_)) => {
                    self.lost = true;
                    self.bytes.clear();
                    return None;
                }
            };
            let place = self.pass(piece.length)?;
            let message = self.bytes.split_to(piece.length).freeze();
            if piece.first {
                return Some((message, place));
            }
        }
    }

    /// Goes on by so many bytes, and says where the first of them is.
    fn pass(&mut self, mut length: usize) -> Option<Place> {
        let place = self.of.front()?.0;
        while let Some((at, left)) = self.of.front_mut() {
            if *left > length {
                at.byte += length;
                *left -= length;
                break;
            }
            length -= *left;
            self.of.pop_front();
        }
        Some(place)
    }
}

/// A recording on its way through.
#[derive(Debug)]
struct Listening {
    kept: usize,
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
            kept: 0,
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
    fn take(&mut self, event: &Event) -> Result<(), TapeError> {
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
        self.kept = self.kept.saturating_add(bytes).saturating_add(ENTRY);
        let fits = self.kept <= MOST_KEPT && self.expected.len() <= MOST_EXPECTED;
        fits.then_some(()).ok_or(TapeError::TooMuch)
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
