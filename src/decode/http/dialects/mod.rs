//! Dialects: APIs over HTTP of which more is known than methods and paths. The key `kind` of a target
//! names one.
//!
//! A dialect is one file here and one line in [`ALL`]. It says what a request means, which run it
//! belongs to, and what its clients take for a refusal; all else is HTTP's, for every dialect.

mod crewai;
mod plain;
#[cfg(test)]
mod toy;

use std::fmt;

use serde_json::Value;

use super::Refused;
use super::command::{self, Request};
use crate::names::SessionId;
use crate::policy::Command;

/// All of them, by the words that `kind` names them by.
pub const ALL: &[(&str, &dyn Dialect)] = &[
    (plain::NAME, &plain::Plain),
    (crewai::NAME, &crewai::CrewAi),
    #[cfg(test)]
    (toy::NAME, &toy::Toy),
];

/// Those words.
pub const NAMES: &[&str] = &names();

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and looks at each place")]
const fn names() -> [&'static str; ALL.len()] {
    let (mut names, mut at) = ([""; ALL.len()], 0);
    while at < ALL.len() {
        names[at] = ALL[at].0;
        at += 1;
    }
    names
}

/// What is known of an API.
pub trait Dialect: fmt::Debug + Send + Sync {
    /// The word that `kind` names it by.
    fn name(&self) -> &'static str;

    /// What a request means.
    ///
    /// # Errors
    /// When it is not taken: it is malformed, or could be read in two ways.
    fn read(&self, request: &Request<'_>) -> Result<Meaning, Refused> {
        command::of(request).map(Meaning::from)
    }

    /// Reads a request as people write one in policy tests.
    ///
    /// # Errors
    /// When it cannot be one, with what it should look like.
    fn read_text(&self, text: &str) -> Result<Command, String> {
        command::from_text(text, self)
    }

    /// Whether a target of this dialect is a workflow, which is known by the target's name.
    fn is_workflow(&self) -> bool {
        false
    }

    /// The run that the beginning of an answer tells of, where the request [begins](Run::Begins)
    /// one.
    fn run_of_answer(&self, _answer: &[u8]) -> Option<String> {
        None
    }

    /// The gateway's own answer in the form that clients of this API understand; none is a problem
    /// document (RFC 9457).
    fn refusal(&self, _refusal: &Refusal<'_>) -> Option<Answer> {
        None
    }

    /// The words that rules can use of its commands, beside those of HTTP.
    fn words(&self) -> Words {
        Words::default()
    }
}

impl PartialEq for dyn Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Dialect {}

/// What a request means.
#[derive(Debug, Clone, PartialEq)]
pub struct Meaning {
    /// What policy decides about.
    pub command: Command,
    /// Which run it belongs to.
    pub run: Run,
    /// What [`Dialect::refusal`] has to know of the request: an id, for example.
    pub reply_to: Value,
}

impl From<Command> for Meaning {
    fn from(command: Command) -> Self {
        Self { command, run: Run::None, reply_to: Value::Null }
    }
}

/// What a request is to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// It begins one, whose name the answer tells.
    Begins,
    /// It belongs to this one.
    Of(String),
    /// It belongs to none.
    None,
}

/// The gateway's own answer to a request, before it has a form.
#[derive(Debug, Clone)]
pub struct Refusal<'a> {
    /// The status that HTTP has for it.
    pub status: u16,
    /// A word for what it is: `blocked`.
    pub word: &'static str,
    /// What is wrong, in one line.
    pub detail: &'a str,
    /// The rules that refused.
    pub rules: Vec<&'a str>,
    /// The session, where there is one.
    pub session: Option<SessionId>,
    /// [`Meaning::reply_to`] of the request; null where it was refused before it was read.
    pub reply_to: &'a Value,
}

/// The gateway's own answer, in the form of a dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// `Content-Type`
    pub content_type: &'static str,
    /// Its body.
    pub body: Vec<u8>,
}

/// Words that rules can use of commands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words {
    /// Actions.
    pub actions: &'static [&'static str],
    /// Kinds of objects.
    pub kinds: &'static [&'static str],
    /// Attributes of effects.
    pub attributes: &'static [&'static str],
}

/// That of a target whose `kind` is not given.
pub fn plain() -> &'static dyn Dialect {
    &plain::Plain
}
