//! Client messages as commands that policy decides, in their request view.
//!
//! Statements are not parsed yet: their one effect is `sql.unparsed`, and the only literal that
//! the view withholds is what follows the word PASSWORD. COPY data is not part of a command.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::frontend::{Bind, Format, Message};
use crate::policy::{Attributes, Command, Effect};

/// A command, and whether its view withholds something of the exact bytes.
#[derive(Debug)]
pub struct Decoded {
    /// The command in its request view.
    pub command: Command,
    /// Whether the exact bytes must be bound by a hash, because the view does not hold them all.
    pub withheld: bool,
}

/// The command in a message, or `None` for messages that carry none: they only steer the
/// protocol, describe, or bring the data of a command that was decided before.
pub fn of(message: &Message<'_>) -> Option<Decoded> {
    match message {
        Message::Query { sql } => Some(statement("query", sql, Attributes::new())),
        Message::Parse { statement: name, sql, parameter_types } => {
            let mut attributes = Attributes::new();
            add(&mut attributes, "statement", json!(name));
            if !parameter_types.is_empty() {
                add(&mut attributes, "parameter_types", json!(parameter_types));
            }
            Some(statement("parse", sql, attributes))
        }
        Message::Bind(bind) => Some(bound(bind)),
        Message::Execute { portal, max_rows } => {
            let mut attributes = Attributes::new();
            add(&mut attributes, "portal", json!(portal));
            if *max_rows != 0 {
                add(&mut attributes, "max_rows", json!(max_rows));
            }
            Some(Decoded {
                command: command("execute", String::new(), attributes),
                withheld: false,
            })
        }
        _ => None,
    }
}

fn statement(form: &'static str, sql: &str, attributes: Attributes) -> Decoded {
    let view = without_password(sql);
    let withheld = matches!(view, Cow::Owned(_));
    let mut command = command(form, view.into_owned(), attributes);
    command.effects.push(Effect::of("sql.unparsed"));
    Decoded { command, withheld }
}

fn bound(bind: &Bind<'_>) -> Decoded {
    let mut attributes = Attributes::new();
    add(&mut attributes, "statement", json!(bind.statement));
    add(&mut attributes, "portal", json!(bind.portal));
    if !bind.parameters.is_empty() {
        let values = bind.parameters.iter().map(|p| value(p.format, p.value)).collect();
        add(&mut attributes, "parameters", Value::Array(values));
    }
    if bind.result_formats.contains(&Format::Binary) {
        let binary = |format: &Format| Value::from(u8::from(*format == Format::Binary));
        let formats = bind.result_formats.iter().map(binary).collect();
        add(&mut attributes, "result_formats", Value::Array(formats));
    }
    Decoded { command: command("bind", String::new(), attributes), withheld: false }
}

/// Text as text; what is binary or not UTF-8 as `{"hex": "…"}`.
fn value(format: Format, bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match (format, std::str::from_utf8(bytes)) {
        (Format::Text, Ok(text)) => Value::String(text.to_owned()),
        _ => json!({ "hex": hex(bytes) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn command(form: &'static str, text: String, attributes: Attributes) -> Command {
    Command { form: Cow::Borrowed(form), text, attributes, effects: Vec::new() }
}

fn add(attributes: &mut Attributes, name: &'static str, value: Value) {
    attributes.insert(Cow::Borrowed(name), value);
}

/// The statement up to and with the first `password`, the rest withheld: until statements are
/// parsed, where a password ends cannot be proved.
fn without_password(sql: &str) -> Cow<'_, str> {
    const WORD: &[u8] = b"password";
    let found = sql.as_bytes().windows(WORD.len()).position(|w| w.eq_ignore_ascii_case(WORD));
    match found.and_then(|at| sql.split_at_checked(at + WORD.len())) {
        None | Some((_, "")) => Cow::Borrowed(sql),
        Some((shown, withheld)) => {
            Cow::Owned(format!("{shown} [{} bytes withheld]", withheld.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frontend::Parameter;

    #[test]
    fn a_password_in_a_statement_is_not_in_the_view() {
        let sql = "ALTER ROLE bob PassWord 'hunter2'";
        let decoded = of(&Message::Query { sql }).unwrap();
        assert_eq!(decoded.command.text, "ALTER ROLE bob PassWord [10 bytes withheld]");
        assert!(decoded.withheld);
        assert!(!of(&Message::Query { sql: "select 1" }).unwrap().withheld);
    }

    #[test]
    fn bound_values_are_shown_as_text_or_hexadecimal() {
        let text = |value| Parameter { format: Format::Text, value: Some(value) };
        let bind = Bind {
            portal: "",
            statement: "s",
            parameters: vec![
                text(b"a\"b"),
                text(b"\xff"),
                Parameter { format: Format::Binary, value: Some(&[0, 171]) },
                Parameter { format: Format::Binary, value: None },
            ],
            result_formats: vec![Format::Text, Format::Binary],
        };
        let command = of(&Message::Bind(bind)).unwrap().command;
        assert_eq!(command.attributes["result_formats"], json!([0, 1]));
        assert_eq!(
            command.attributes["parameters"],
            json!(["a\"b", { "hex": "ff" }, { "hex": "00ab" }, null])
        );
    }

    #[test]
    fn messages_that_only_steer_are_no_commands() {
        for message in [Message::Sync, Message::CopyData, Message::Terminate] {
            assert!(of(&message).is_none());
        }
    }
}
