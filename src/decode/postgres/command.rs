//! Client messages as commands that policy decides, in their request view.
//!
//! A Query or Parse is its text as [`crate::decode::sql`] reads it. What a Bind, an Execute or
//! SQL's EXECUTE means depends on the session, which knows what their names stand for; here are the
//! attributes that each of them brings. COPY data is not part of a command.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::frontend::{Bind, Format};
use crate::decode::sql::{LexerSettings, Reading, SyntaxError, Unparsed, analyze};
use crate::policy::{Attributes, Command, Effect};

/// Attributes that commands of this protocol have, beside those of their effects.
pub const ATTRIBUTES: &[&str] = &[
    "in_transaction",
    "max_rows",
    "parameter_types",
    "parameters",
    "portal",
    "result_formats",
    "statement",
    "statements",
];

/// The attributes of a Query.
pub fn query(reading: &Reading, in_transaction: bool) -> Attributes {
    let mut attributes = Attributes::new();
    add(&mut attributes, "in_transaction", Value::Bool(in_transaction));
    add(&mut attributes, "statements", count(reading));
    attributes
}

/// The attributes of the settings of a startup message.
pub fn startup(settings: usize) -> Attributes {
    let mut attributes = Attributes::new();
    add(&mut attributes, "in_transaction", Value::Bool(false));
    add(&mut attributes, "statements", json!(settings));
    attributes
}

/// The attributes of a Parse.
pub fn parse(
    reading: &Reading,
    name: &str,
    parameter_types: &[u32],
    in_transaction: bool,
) -> Attributes {
    let mut attributes = Attributes::new();
    add(&mut attributes, "in_transaction", Value::Bool(in_transaction));
    add(&mut attributes, "statement", json!(name));
    add(&mut attributes, "statements", count(reading));
    if !parameter_types.is_empty() {
        add(&mut attributes, "parameter_types", json!(parameter_types));
    }
    attributes
}

/// The attributes of a Bind; its values are left out, as `?`, when they are secret.
pub fn bind(bind: &Bind<'_>, secret: bool) -> Attributes {
    bind_without(bind, |_| secret)
}

/// The attributes of a Bind; the values at places that are `secret` are left out, as `?`.
pub fn bind_without(bind: &Bind<'_>, secret: impl Fn(usize) -> bool) -> Attributes {
    let mut attributes = Attributes::new();
    add(&mut attributes, "statement", json!(bind.statement));
    add(&mut attributes, "portal", json!(bind.portal));
    if !bind.parameters.is_empty() {
        let shown =
            bind.parameters.iter().enumerate().map(|(at, parameter)| match parameter.value {
                Some(_) if secret(at) => json!("?"),
                bytes => value(parameter.format, bytes),
            });
        add(&mut attributes, PARAMETERS, Value::Array(shown.collect()));
    }
    if bind.result_formats.contains(&Format::Binary) {
        let binary = |format: &Format| Value::from(u8::from(*format == Format::Binary));
        let formats = bind.result_formats.iter().map(binary).collect();
        add(&mut attributes, "result_formats", Value::Array(formats));
    }
    attributes
}

/// The attribute of a Bind that holds its values.
pub const PARAMETERS: &str = "parameters";

/// The attributes of an Execute.
pub fn execute(portal: &str, max_rows: u32, in_transaction: bool) -> Attributes {
    let mut attributes = Attributes::new();
    add(&mut attributes, "in_transaction", Value::Bool(in_transaction));
    add(&mut attributes, "portal", json!(portal));
    add(&mut attributes, "statements", json!(1));
    if max_rows != 0 {
        add(&mut attributes, "max_rows", json!(max_rows));
    }
    attributes
}

/// The effect of running something by a name that is not known.
pub fn unknown_name() -> Effect {
    Unparsed::UnknownName.effect()
}

/// A text as a fresh session would send it in a Query, outside of a transaction. Its text is what
/// is decided: not a request view.
pub fn of_text(sql: &str) -> Command {
    let settings = LexerSettings::default();
    let reading = Reading::new(sql, settings, analyze(sql, settings));
    let mut effects: Vec<Effect> = Vec::new();
    for statement in reading.statements() {
        effects.extend_from_slice(&statement.effects);
    }
    if !reading.knows_its_names() {
        effects.push(unknown_name());
    }
    Command {
        form: Cow::Borrowed("query"),
        text: sql.to_owned(),
        attributes: query(&reading, false),
        effects,
    }
}

/// Why a text is not understood, if so.
pub fn misunderstood(sql: &str) -> Option<String> {
    let settings = LexerSettings::default();
    let reading = Reading::new(sql, settings, analyze(sql, settings));
    let unparsed = reading.unparsed()?;
    Some(match reading.syntax_error() {
        Some(SyntaxError { message, position: Some(at), .. }) => {
            format!("{message}, at character {at}")
        }
        Some(SyntaxError { message, .. }) => message,
        None => unparsed.to_string(),
    })
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

fn count(reading: &Reading) -> Value {
    json!(reading.statements().len())
}

fn add(attributes: &mut Attributes, name: &'static str, value: Value) {
    attributes.insert(Cow::Borrowed(name), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frontend::Parameter;

    #[test]
    fn a_text_is_decided_as_a_fresh_session_would_run_it() {
        let actions = |sql: &str| -> Vec<String> {
            of_text(sql).effects.iter().map(|effect| effect.action.to_string()).collect()
        };
        assert_eq!(actions("select 1; drop table t"), ["sql.select", "sql.drop"]);
        assert_eq!(actions("execute p"), ["sql.execute", "sql.unparsed"]);
        assert_eq!(
            actions("prepare p as delete from t; execute p"),
            ["sql.prepare", "sql.delete", "sql.execute"]
        );
        assert_eq!(of_text(" ; ").effects, []);
        assert_eq!(of_text("select 1; select 2").attributes["statements"], 2);
    }

    #[test]
    fn bound_values_are_shown_as_text_or_hexadecimal_or_not_at_all() {
        let text = |value| Parameter { format: Format::Text, value: Some(value) };
        let message = Bind {
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
        let shown = bind(&message, false);
        assert_eq!(shown["result_formats"], json!([0, 1]));
        assert_eq!(shown["parameters"], json!(["a\"b", { "hex": "ff" }, { "hex": "00ab" }, null]));
        assert_eq!(bind(&message, true)["parameters"], json!(["?", "?", "?", null]));
    }
}
