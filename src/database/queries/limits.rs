//! What may be asked, and what is wrong with what was.

use crate::database::DatabaseError;
use crate::database::rows::Timestamp;
use crate::names::Protocol;
use crate::policy::Verdict;
use serde::{Deserialize, Serialize};

/// Rows of a page when nobody says how many.
const DEFAULT_LIMIT: u32 = 50;
/// Rows of the longest page: with long commands about 64 MiB of JSON, with usual ones 1.
const MAX_LIMIT: u32 = 1000;
/// The longest value of a filter, in bytes.
const MAX_VALUE: usize = 1024;
/// Trigrams need three characters; shorter parts would be looked for in every command.
const MIN_CONTAINS: usize = 3;

/// What to look for: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The username.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// One of the groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The verdict; of a session, that of any of its commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Not before then: when a session opened, when a command was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Words in a command, as one types them into a web search: all of them, `"in this order"`,
    /// `or`, `-without`. Of a session, in any of its commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A part of a command, upper or lower case. Of a session, of any of its commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// How many rows: 1 to 1000, 50 when left out.
    pub limit: Option<u32>,
    /// [`Page::next`] of the page before.
    pub cursor: Option<String>,
}

/// Some rows, and where to go on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor of the next page; none when this is the last.
    pub next: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The question is wrong; the text is for who asked.
    #[error("{0}")]
    Bad(&'static str),
    /// The database could not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Filter {
    pub(super) fn check(&self) -> Result<(), QueryError> {
        let texts = [
            &self.user,
            &self.group,
            &self.target,
            &self.workflow,
            &self.run,
            &self.text,
            &self.contains,
        ];
        for text in texts.into_iter().flatten() {
            if text.len() > MAX_VALUE {
                return Err(QueryError::Bad("a filter's value is at most 1024 bytes"));
            }
            if text.contains('\0') {
                return Err(QueryError::Bad("a filter's value has no character U+0000"));
            }
        }
        if self.contains.as_ref().is_some_and(|part| part.chars().count() < MIN_CONTAINS) {
            return Err(QueryError::Bad("contains: three characters or more are needed"));
        }
        Ok(())
    }
}

impl Wanted {
    pub(in crate::database) fn limit(&self) -> Result<u32, QueryError> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            _ => Err(QueryError::Bad("limit: 1 to 1000 rows")),
        }
    }
}

impl<T> Page<T> {
    /// Makes a page of up to one row too many.
    pub(in crate::database) fn of(
        mut rows: Vec<T>,
        limit: u32,
        place: impl Fn(&T) -> String,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(place);
        Self { items: rows, next }
    }
}
