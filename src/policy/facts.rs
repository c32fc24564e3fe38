//! What policy knows beside the command: who calls, what is called, in which session.
//!
//! These are plain descriptions, made elsewhere: a session's from its proved identity, those of
//! policy tests and `policy explain` from what they are given.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::decision::Verdict;
use crate::names::{Protocol, SessionId, TargetName};

/// Who calls, as conditions see it under `identity`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Caller {
    /// The issuer's URL.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The groups, compared byte for byte.
    pub groups: Vec<String>,
    /// All claims.
    pub claims: Map<String, Value>,
    /// The workflow that a claim names.
    pub workflow: Option<String>,
    /// The run that a claim names.
    pub run: Option<String>,
}

/// Claims as a token would have them, of names with a text each: one that comes several times is a list.
pub fn claims(given: impl IntoIterator<Item = (String, String)>) -> Map<String, Value> {
    let mut claims = Map::new();
    for (name, value) in given {
        let value = Value::String(value);
        match claims.get_mut(&name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                claims.insert(name, value);
            }
        }
    }
    claims
}

/// What is called, as conditions see it under `target`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetFacts {
    /// Its name in the catalog.
    pub name: TargetName,
    /// What it speaks.
    pub protocol: Protocol,
    /// Free words that rules select by.
    pub labels: BTreeMap<String, String>,
    /// What happens to effects that no rule matches.
    #[serde(skip)]
    pub default: Verdict,
}

/// The session, as conditions see it under `session`; what is not known is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SessionFacts {
    /// The session's id.
    pub id: Option<SessionId>,
    /// The client's address.
    pub client: Option<String>,
    /// The database that a Postgres session opened.
    pub database: Option<String>,
    /// The workflow: the claim's, else what the client says.
    pub workflow: Option<String>,
    /// The run: the claim's, else what the client says.
    pub run: Option<String>,
}

/// The fields as conditions look them up.
pub(super) fn fields(facts: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(facts) {
        Ok(Value::Object(map)) => map,
        // A struct of texts, lists and maps is always an object.
        Ok(_) | Err(_) => Map::new(),
    }
}
