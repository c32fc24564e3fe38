//! What verifying a recording proved, in words.

use super::text;
use crate::recording::{Report, State};

/// The result of verifying one recording.
pub(super) struct Proof {
    /// `whole`, `open` or `wrong`.
    pub(super) state: &'static str,
    /// What was found.
    pub(super) told: String,
    pub(super) proved: Vec<&'static str>,
    pub(super) not_proved: Vec<&'static str>,
    /// Whose signature the seal has.
    pub(super) signed_by: String,
    pub(super) notes: Vec<String>,
    pub(super) facts: String,
}

impl Proof {
    pub(super) fn of(report: &Report) -> Self {
        let (mut proved, mut not_proved, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let (state, told) = match report.state {
            State::Whole => {
                proved.push("every byte is what was written, from the first event to the seal");
                match report.ledger {
                    true => proved.push("the ledger beside it has the same seal"),
                    false => not_proved.push("that the ledger knows it: there was none"),
                }
                not_proved.push(match report.key {
                    Some(_) => "that the key is the gateway's: hold it against one from elsewhere",
                    None => "who wrote it: it is not signed",
                });
                not_proved.push("that no other recording is missing (recording verify --all)");
                ("whole", "Whole")
            }
            State::Open => {
                proved.push("what is in blocks is what was written");
                not_proved.push("that nothing was cut from its end: it is not sealed");
                ("open", "Open, not sealed")
            }
            State::Wrong => ("wrong", "Not what was written"),
        };
        let wrong = report.wrong.as_ref().map(|wrong| text::line(&wrong.to_string()));
        notes.extend(wrong);
        if report.interrupted {
            notes.push("its gateway died, and it was sealed as it was found".to_owned());
        }
        if report.missing_events > 0 {
            let missing = text::number(i64::try_from(report.missing_events).unwrap_or(i64::MAX));
            notes.push(format!("{missing} events are missing where the recording says so"));
        }
        let number = |number: u64| text::number(i64::try_from(number).unwrap_or(i64::MAX));
        Self {
            state,
            told: told.to_owned(),
            proved,
            not_proved,
            signed_by: report.key.map(|key| key.to_string()).unwrap_or_default(),
            notes,
            facts: format!(
                "{} events in {} blocks, {} stored",
                number(report.events),
                number(report.blocks),
                text::size(i64::try_from(report.file_bytes).unwrap_or(i64::MAX))
            ),
        }
    }

    /// In one line, for a badge.
    pub(super) fn line(&self) -> String {
        let key = self.signed_by.get(..16).unwrap_or_default();
        let signed = if key.is_empty() { String::new() } else { format!(", signed by {key}…") };
        format!("{}{signed}. {}.", self.told, self.facts)
    }
}
