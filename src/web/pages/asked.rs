//! What a page's address asks for: the API's filters, as forms and links write them.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::Failed;
use crate::web::problem::Problem;
use crate::web::query::Ask;

/// A filter, and the texts that it came from.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ask: Ask,
    pub(super) said: BTreeMap<String, String>,
    /// The command that is looked at, on the page of a session.
    pub(super) command: Option<u64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failed> {
        let pairs: Query<Vec<(String, String)>> =
            Query::try_from_uri(&parts.uri).map_err(|error| Problem::bad(error.body_text()))?;
        Self::of(pairs.0)
    }
}

impl Asked {
    fn of(pairs: Vec<(String, String)>) -> Result<Self, Failed> {
        let mut command = None;
        let mut kept = Vec::new();
        for (key, value) in pairs {
            // A form sends its empty fields too.
            let value = value.trim().to_owned();
            match key.as_str() {
                _ if value.is_empty() => {}
                "command" => command = value.parse().ok(),
                "from" | "to" => kept.push((key, time(value))),
                _ => kept.push((key, value)),
            }
        }
        let said = kept.iter().cloned().collect();
        Ok(Self { ask: Ask::of(kept)?, said, command })
    }

    /// The question for everything.
    pub(super) fn nothing() -> Self {
        let ask =
            Ask { filter: Default::default(), wanted: Default::default(), said: BTreeMap::new() };
        Self { ask, said: BTreeMap::new(), command: None }
    }

    /// What was asked for by this name.
    pub(super) fn get(&self, key: &str) -> &str {
        self.said.get(key).map(String::as_str).unwrap_or_default()
    }

    /// A time as a field for times takes it: of UTC, without its zone.
    pub(super) fn field_of_time(&self, key: &str) -> String {
        self.get(key).get(..19).unwrap_or_default().to_owned()
    }

    /// The same question with some parts changed (none removes one), from its first page.
    pub(super) fn with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let mut said: BTreeMap<&str, &str> =
            self.said.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        said.remove("cursor");
        for (key, value) in changes {
            match value {
                Some(value) => said.insert(key, value),
                None => said.remove(key),
            };
        }
        form_urlencoded::Serializer::for_suffix("?".to_owned(), 1).extend_pairs(said).finish()
    }
}

/// What a field for times gives has no seconds sometimes, and no zone; it is UTC.
fn time(text: String) -> String {
    match text.len() {
        16 if text.is_ascii() => format!("{text}:00Z"),
        19 if text.is_ascii() => format!("{text}Z"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_the_same_question_as_a_link() {
        let pairs = |all: &[(&str, &str)]| {
            all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let asked = Asked::of(pairs(&[
            ("user", "crew & 7"),
            ("target", ""),
            ("from", "2026-11-20T10:00"),
            ("command", "12"),
            ("cursor", "x"),
        ]))
        .unwrap();
        assert_eq!(
            (asked.get("user"), asked.get("target"), asked.command),
            ("crew & 7", "", Some(12))
        );
        assert_eq!(asked.field_of_time("from"), "2026-11-20T10:00:00");
        assert_eq!(
            asked.with(&[("verdict", Some("block"))]),
            "?from=2026-11-20T10%3A00%3A00Z&user=crew+%26+7&verdict=block"
        );
        assert!(Asked::of(pairs(&[("surprise", "1")])).is_err());
    }
}
