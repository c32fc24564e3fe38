//! What becomes of a command: what the rules say, and whether masks or row filters refuse what those
//! allow.
//!
//! Honest limits: without the target's catalog only the text is known. It says that a row filter
//! refuses a command, as for a caller without its claim, and never that masks and row filters do not.

use serde::Serialize;

use super::Rules;
use crate::config::Target;
use crate::mask::{Applied, AppliedRows, Viewer};
use crate::names::Protocol;
use crate::policy::{Caller, Command, Effect, Explanation, SessionFacts, TargetMasks, Verdict};

/// What goes to the server in the place of a statement that a new session sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preview {
    /// The statement as it is.
    Same,
    /// This text.
    Instead(String),
    /// Nothing.
    Refused {
        /// The masks and row filters that are against it.
        by: Vec<String>,
        /// Why, as the client is told.
        reason: String,
    },
}

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It runs.
    Allow,
    /// It waits for people.
    Approve,
    /// Rules, or the target's default, block it.
    Block,
    /// Masks or row filters refuse it, whatever the rules say.
    Refused,
    /// The rules do not block it; whether masks or row filters refuse it only the target's catalog says,
    /// which was not asked.
    Undecided,
}

/// What becomes of a command, and why.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// What becomes of it, by rules, masks and row filters together.
    pub outcome: Outcome,
    /// The masks and row filters that refuse it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_by: Vec<String>,
    /// Why they do, or why it is undecided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// What the rules say, without regard to masks and row filters.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// The masks of the target.
    pub masks: Vec<MaskNamed>,
    /// The row filters of the target.
    pub rows: Vec<FilterNamed>,
    /// What goes to the server, where the catalog was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<Preview>,
}

/// A mask of a target.
#[derive(Debug, Serialize)]
pub struct MaskNamed {
    /// Its name.
    pub mask: String,
    /// The columns that it names.
    pub columns: Vec<String>,
    /// The fields that it names.
    pub fields: Vec<String>,
    /// The patterns that it names.
    pub patterns: Vec<String>,
    /// Whether the caller sees the values; what is stored of them is masked all the same.
    pub lifted: bool,
}

/// A row filter of a target.
#[derive(Debug, Serialize)]
pub struct FilterNamed {
    /// Its name.
    pub rows: String,
    /// The table, as it is written.
    pub table: String,
    /// The condition, as it is written.
    #[serde(rename = "where")]
    pub condition: String,
    /// The condition with the caller's values, as it goes to the server; none where one is missing.
    pub sent: Option<String>,
    /// What of the caller's its condition needs and is not there, where it is for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacking: Option<String>,
    /// Whether it is for the caller.
    pub acts: bool,
}

impl Rules {
    /// What becomes of a caller's command in a new session. `sent` is what the target's catalog says of
    /// it, where that was asked.
    pub fn explained(
        &self,
        target: &Target,
        caller: &Caller,
        command: &Command,
        sent: Option<Preview>,
    ) -> Explained {
        let (facts, session) = (target.facts(), SessionFacts::default());
        let (masks, name) = (self.masks(), target.name.as_str());
        let guarded = masks.guard(name, &caller.groups);
        let explanation = self.policy().explain(caller, &facts, &session, guarded, command);
        let viewer =
            Viewer { username: &caller.username, groups: &caller.groups, claims: &caller.claims };
        let rows = match target.protocol() {
            Protocol::Postgres => masks.rows_of(name, &viewer),
            Protocol::Ssh | Protocol::Http => Vec::new(),
        };
        let masks = masks.of(name, &caller.groups);
        let mut explained = Explained {
            outcome: Outcome::of(explanation.decision.verdict()),
            refused_by: Vec::new(),
            because: None,
            explanation,
            masks: masks.iter().map(MaskNamed::of).collect(),
            rows: rows.iter().map(FilterNamed::of).collect(),
            sent,
        };
        if explained.outcome != Outcome::Block && target.protocol() == Protocol::Postgres {
            let hides = masks.iter().any(|mask| !mask.lifted && !mask.mask.columns.is_empty())
                || rows.iter().any(|rows| rows.acts);
            let by_text = self.config.target_masks(&facts, caller, command);
            explained.weigh(by_text, hides && command.effects.iter().any(may_be_refused));
        }
        explained
    }
}

impl Explained {
    /// Takes masks and row filters into account. `may_be` says that they may refuse the command.
    fn weigh(&mut self, by_text: TargetMasks, may_be: bool) {
        match &self.sent {
            Some(Preview::Refused { by, reason }) => {
                (self.refused_by, self.because) = (by.clone(), Some(reason.clone()));
                self.outcome = Outcome::Refused;
            }
            Some(Preview::Same | Preview::Instead(_)) => {}
            None => {
                let mut refusing = by_text.filtering.into_iter();
                let refusing = refusing.find_map(|rows| Some((rows.name, rows.refuses?)));
                if let Some((name, why)) = refusing {
                    (self.refused_by, self.because) = (vec![name], Some(why));
                    self.outcome = Outcome::Refused;
                } else if may_be {
                    self.because = Some(NOT_ASKED.to_owned());
                    self.outcome = Outcome::Undecided;
                }
            }
        }
    }
}

/// Why it is undecided.
const NOT_ASKED: &str = "masks or row filters may refuse it; only the target's catalog says whether, and it was not asked";

/// Whether masks or row filters may look at what an effect is on.
fn may_be_refused(effect: &Effect) -> bool {
    effect.object.is_some() || effect.opaque.is_some() || effect.action.ends_with(".unparsed")
}

impl Outcome {
    fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Allow,
            Verdict::Approve => Self::Approve,
            Verdict::Block => Self::Block,
        }
    }
}

impl MaskNamed {
    fn of(applied: &Applied) -> Self {
        let mask = &applied.mask;
        Self {
            mask: mask.name.to_string(),
            columns: mask.columns.iter().map(|column| column.as_str().to_owned()).collect(),
            fields: mask.fields.iter().map(|field| field.as_str().to_owned()).collect(),
            patterns: mask.patterns.iter().map(|pattern| pattern.name().to_owned()).collect(),
            lifted: applied.lifted,
        }
    }

    /// What it does to the caller.
    pub fn in_words(&self) -> String {
        let what = [&self.columns, &self.fields, &self.patterns];
        let what: Vec<&str> = what.into_iter().flatten().map(String::as_str).collect();
        let who = if self.lifted { " from storage alone: the caller sees it" } else { "" };
        format!("mask {}: hides {}{who}", self.mask, what.join(", "))
    }
}

impl FilterNamed {
    fn of(applied: &AppliedRows) -> Self {
        let AppliedRows { filter, acts, bound } = applied;
        Self {
            rows: filter.name.to_string(),
            table: filter.table.to_string(),
            condition: filter.text.to_string(),
            sent: bound.as_ref().ok().filter(|_| *acts).map(|bound| bound.written("t")),
            lacking: applied.lacking(),
            acts: *acts,
        }
    }

    /// What it does to the caller: a line, and another below it.
    pub fn in_words(&self) -> [String; 2] {
        let Self { rows, table, condition, sent, lacking, acts } = self;
        let what = match (acts, sent) {
            (false, _) => "not for this caller".to_owned(),
            (true, Some(sent)) => format!("sent as {sent}"),
            (true, None) => format!(
                "statements on the table are refused: the caller lacks {}, or it is no value that can stand there",
                lacking.as_deref().unwrap_or("a claim")
            ),
        };
        [format!("rows {rows}: of {table} only where {condition}"), what]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_one_word_or_a_word_with_its_text() {
        let json = |preview| serde_json::to_string(&preview).unwrap();
        assert_eq!(json(Preview::Same), "\"same\"");
        assert_eq!(json(Preview::Instead("x".into())), "{\"instead\":\"x\"}");
    }
}
