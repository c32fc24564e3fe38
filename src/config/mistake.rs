//! What is wrong with a configuration, where, and what to do about it.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::model::Config;

/// How many mistakes are kept: the next check shows the rest.
const MAX_MISTAKES: usize = 1_000;

/// Everything that is wrong with a configuration, in the order of the files.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

/// One thing that is wrong, or that is hardly meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mistake {
    /// The file as the operator named it.
    pub file: String,
    /// Where in the file; `None` when it is about the whole file.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A place in a text, both counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n  {hint}"))
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
    }
}

/// Where a value stands: a file, and a byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) byte: usize,
}

/// One file that was read.
pub(super) struct Source {
    /// As the operator named it.
    pub(super) name: String,
    /// What its relative paths are relative to; absolute.
    pub(super) folder: PathBuf,
    pub(super) text: String,
}

/// The files read, and what was found in them so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) sources: Vec<Source>,
    mistakes: RefCell<Vec<(Place, Mistake)>>,
    warnings: RefCell<Vec<(Place, Mistake)>>,
}

impl Findings {
    pub(super) fn mistake(&self, place: Place, message: impl fmt::Display, hint: Option<String>) {
        self.add(&self.mistakes, place, self.position(place), &message, hint);
    }

    /// A mistake about a whole file.
    pub(super) fn unusable(&self, file: usize, message: impl fmt::Display, hint: Option<String>) {
        self.add(&self.mistakes, Place { file, byte: 0 }, None, &message, hint);
    }

    pub(super) fn warning(&self, place: Place, message: impl fmt::Display, hint: Option<String>) {
        self.add(&self.warnings, place, self.position(place), &message, hint);
    }

    /// Whether there is any mistake.
    pub(super) fn any(&self) -> bool {
        !self.mistakes.borrow().is_empty()
    }

    /// `file:line:column`, to point at another place from a message.
    pub(super) fn named(&self, place: Place) -> String {
        let name = self.sources.get(place.file).map_or("", |source| &source.name);
        match self.position(place) {
            Some(Position { line, column }) => format!("{name}:{line}:{column}"),
            None => name.to_owned(),
        }
    }

    /// The configuration with its warnings, if nothing is wrong with it.
    pub(super) fn into_result(self, config: Option<Config>) -> Result<Config, Mistakes> {
        match config {
            Some(config) if !self.any() => {
                Ok(Config { warnings: in_order(self.warnings.into_inner()), ..config })
            }
            _ => Err(self.into_mistakes()),
        }
    }

    pub(super) fn into_mistakes(self) -> Mistakes {
        Mistakes(in_order(self.mistakes.into_inner()))
    }

    fn add(
        &self,
        to: &RefCell<Vec<(Place, Mistake)>>,
        place: Place,
        position: Option<Position>,
        message: &dyn fmt::Display,
        hint: Option<String>,
    ) {
        let mut to = to.borrow_mut();
        if to.len() < MAX_MISTAKES {
            let file = self.sources.get(place.file).map(|s| s.name.clone()).unwrap_or_default();
            let mistake = Mistake { file, position, message: message.to_string(), hint };
            // A table may be read for two purposes.
            if !to.iter().any(|(at, known)| *at == place && *known == mistake) {
                to.push((place, mistake));
            }
        }
    }

    pub(super) fn position(&self, place: Place) -> Option<Position> {
        let before = self.sources.get(place.file)?.text.get(..place.byte)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Position {
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before.get(line_start..)?.chars().count() + 1,
        })
    }
}

fn in_order(mut found: Vec<(Place, Mistake)>) -> Vec<Mistake> {
    found.sort();
    found.into_iter().map(|(_, mistake)| mistake).collect()
}
