//! What a recording has to answer with: each statement that ran, and where its answer begins.
//!
//! Kept are texts, values and places; rows stay in the file until somebody asks for them.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::listening::{Heard, Listening};
use crate::decode::sql::{LexerSettings, Unparsed, Withhold, view};
use crate::names::{Protocol, SessionId, TargetName};
use crate::protocol::taped::{TapeError, Taped};
use crate::recording::{Keyring, Sequence};

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
    pub(super) of: Taped,
    /// What the target said of itself when the session began.
    pub(super) settings: Vec<(String, String)>,
    pub(super) runs: Vec<Run>,
    /// Runs by their texts without literals.
    shapes: HashMap<Box<str>, Vec<usize>>,
    described: HashMap<Box<str>, Described>,
}

impl Tape {
    /// Reads a recording from its beginning to its end, with what opens it where it is encrypted.
    /// Blocks on the file system.
    ///
    /// # Errors
    /// When it is none of Postgres, cannot be read, or is too large.
    pub fn read(path: &Path, keyring: &Keyring) -> Result<Self, TapeError> {
        let (of, reader) = Taped::open((path, keyring), (Protocol::Postgres, "Postgres"))?;
        let mut listening = Listening::default();
        for event in reader {
            listening.take(&event?)?;
        }
        let Heard { runs, settings, described } = listening.heard();
        let mut shapes: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (at, run) in runs.iter().enumerate() {
            shapes.entry(shape(&run.text)).or_default().push(at);
        }
        Ok(Self { of, settings, runs, shapes, described })
    }

    /// Whose session it was, and of what.
    pub fn title(&self) -> (&str, &TargetName, SessionId) {
        self.of.title()
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
pub(super) fn cursor(name: &str) -> Box<str> {
    format!("\0{name}").into()
}

/// A text without its literals: texts that differ in nothing else have the same.
fn shape(text: &str) -> Box<str> {
    let (text, settings) = (trimmed(text), LexerSettings::default());
    view(text, settings, Err(Unparsed::Unknown), Withhold::Literals).into()
}
