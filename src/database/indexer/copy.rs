//! Rows of `commands` as PostgreSQL's COPY takes them in text form: a third cheaper for the server
//! than the same rows as JSON, and they are most of what the index is written.

use std::fmt::{Display, Write as _};

use serde::Serialize;
use sqlx::postgres::PgConnection;

use crate::database::DatabaseError;
use crate::database::rows::{Command, storable_json};

/// The columns, in the order in which [`Row::of`] gives them.
const COMMANDS: &str = "copy commands (session, sequence, at, protocol, target, username, workflow, \
    run, form, text, cut, attributes, effects, verdict, rules, reason, overridden, \
    overridden_rules, status, rows, error_code, error_message, duration_us, masked) from stdin";
/// What one row takes, about.
const ROW: usize = 512;

/// Adds rows that are not in the table.
pub(super) async fn commands(
    connection: &mut PgConnection,
    commands: &[Command],
) -> Result<(), DatabaseError> {
    if commands.is_empty() {
        return Ok(());
    }
    let mut text = String::with_capacity(commands.len() * ROW);
    for command in commands {
        Row::of(command, &mut text).map_err(|error| DatabaseError::Refused(error.to_string()))?;
    }
    let mut copy = connection.copy_in_raw(COMMANDS).await?;
    copy.send(text.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// A row under way: fields apart by tabs.
struct Row<'a> {
    to: &'a mut String,
    first: bool,
}

impl Row<'_> {
    fn of(command: &Command, to: &mut String) -> serde_json::Result<()> {
        let mut row = Row { to, first: true };
        row.plain(command.session);
        row.plain(command.sequence);
        row.plain(command.at);
        row.plain(command.protocol);
        row.text(&command.target);
        row.text(&command.username);
        row.maybe_text(command.workflow.as_deref());
        row.maybe_text(command.run.as_deref());
        row.text(&command.form);
        row.maybe_text(command.text.as_deref());
        row.plain(command.cut);
        row.json(&command.attributes)?;
        row.json(&command.effects)?;
        row.plain(command.verdict);
        row.texts(&command.rules);
        row.maybe_text(command.reason.as_deref());
        row.maybe_text(command.overridden.as_deref());
        row.texts(&command.overridden_rules);
        row.maybe_text(command.status.as_deref());
        row.maybe(command.rows);
        row.maybe_text(command.error_code.as_deref());
        row.maybe_text(command.error_message.as_deref());
        row.maybe(command.duration_us);
        row.json(&command.masked)?;
        row.to.push('\n');
        Ok(())
    }

    fn next(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.to.push('\t');
        }
    }

    /// A value whose letters mean nothing to COPY.
    fn plain(&mut self, value: impl Display) {
        self.next();
        // Writing to a string does not fail.
        let _written = write!(self.to, "{value}");
    }

    fn maybe(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.plain(value),
            None => self.plain("\\N"),
        }
    }

    fn text(&mut self, text: &str) {
        self.next();
        // Most of a text means nothing to COPY, and is copied at once.
        let mut rest = text;
        while let Some(at) = rest.find(['\0', '\\', '\t', '\n', '\r']) {
            let (plain, special) = rest.split_at_checked(at).unwrap_or((rest, ""));
            self.to.push_str(plain);
            let mut characters = special.chars();
            characters.by_ref().take(1).for_each(|character| push(self.to, character));
            rest = characters.as_str();
        }
        self.to.push_str(rest);
    }

    fn maybe_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.plain("\\N"),
        }
    }

    fn json(&mut self, value: &impl Serialize) -> serde_json::Result<()> {
        self.text(&storable_json(value)?);
        Ok(())
    }

    /// An array: its elements in quotes, in which quotes and backslashes are escaped.
    fn texts(&mut self, texts: &[String]) {
        self.next();
        self.to.push('{');
        for (i, text) in texts.iter().enumerate() {
            self.to.push_str(if i == 0 { "\"" } else { ",\"" });
            for character in text.chars() {
                if matches!(character, '"' | '\\') {
                    push(self.to, '\\');
                }
                push(self.to, character);
            }
            self.to.push('"');
        }
        self.to.push('}');
    }
}

/// Writes a character of a field. PostgreSQL has no text with U+0000, as in [`storable_json`].
fn push(to: &mut String, character: char) {
    match character {
        '\0' => to.push('\u{fffd}'),
        '\\' => to.push_str("\\\\"),
        '\t' => to.push_str("\\t"),
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        other => to.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Row<'_>)) -> String {
        let mut to = String::new();
        write(&mut Row { to: &mut to, first: true });
        to
    }

    #[test]
    fn what_means_something_to_copy_is_escaped() {
        assert_eq!(written(|row| row.text("a\tb\nc\rd\\.\0é")), "a\\tb\\nc\\rd\\\\.\u{fffd}é");
        assert_eq!(written(|row| row.maybe_text(None)), "\\N");
        assert_eq!(written(|row| row.text("\\N")), "\\\\N");
    }

    #[test]
    fn an_element_of_an_array_is_escaped_for_the_array_and_then_for_copy() {
        let texts = ["a\"b\\".to_owned(), "null".to_owned(), String::new(), "{,}\t".to_owned()];
        let array = r#"{"a\\"b\\\\","null","","{,}\t"}"#;
        assert_eq!(written(|row| row.texts(&texts)), array);
        assert_eq!(written(|row| row.texts(&[])), "{}");
    }

    #[test]
    fn fields_are_apart_by_tabs() {
        assert_eq!(written(|row| [1, 2, 3].into_iter().for_each(|n| row.plain(n))), "1\t2\t3");
    }
}
