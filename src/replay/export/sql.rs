//! What a session of Postgres ran, as SQL to read, with what became of each statement.
//!
//! What ran stands as it was sent; what was refused or failed, and what a client like psql could
//! take for a command of its own, stands in comments. Literals that were withheld are `?`.

use std::io::{self, Write};

use serde_json::Value;

use super::super::text::{Lines, printable};
use super::commands::only_postgres;
use super::{Entry, ExportError, commands};
use crate::policy::{Effect, Verdict};
use crate::recording::{Opened, Reader, rfc3339};

/// Writes the statements of a recording.
///
/// # Errors
/// When it is of another protocol or damaged, or the file cannot be written.
pub fn sql(reader: Reader, out: &mut dyn Write) -> Result<(), ExportError> {
    let mut begun = false;
    commands(reader, |opened, entry| {
        if !begun {
            only_postgres(opened)?;
            head(opened, out)?;
            begun = true;
        }
        if entry.prepares() && entry.recorded.decision.verdict() == Verdict::Allow {
            return Ok(());
        }
        Ok(statement(&entry, out)?)
    })
}

fn head(opened: &Opened, out: &mut dyn Write) -> io::Result<()> {
    let database = opened.database.as_deref().map(|name| format!("/{name}")).unwrap_or_default();
    let who = format!("{} on {}{database}", opened.identity.username, opened.target);
    comment(out, &format!("session {}: {who}, from {}", opened.session, opened.client))
}

fn statement(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let decision = &entry.recorded.decision;
    writeln!(out)?;
    let mut about =
        format!("#{} {} {}", entry.sequence, rfc3339(entry.wall_us), decision.verdict());
    for (before, text) in [
        (" by ", decision.rules().join(", ")),
        (": ", decision.reason().unwrap_or_default().to_owned()),
    ] {
        if !text.is_empty() {
            about.push_str(before);
            about.push_str(&text);
        }
    }
    comment(out, &about)?;
    for (at, value) in entry.parameters.iter().enumerate() {
        comment(out, &format!("${} = {}", at + 1, literal(value)))?;
    }
    let failed = entry.outcome.as_ref().and_then(|outcome| outcome.error.as_ref());
    let ran = entry.outcome.is_some() && failed.is_none();
    let text = printable(&entry.text, Lines::Keep);
    // A backslash begins commands of psql, and which one is within quotes is the server's to say;
    // behind a COPY it would wait for data.
    let copies = |effect: &Effect| effect.action.starts_with("sql.copy");
    let plain = !text.contains('\\') && !entry.recorded.command.effects.iter().any(copies);
    if ran && decision.verdict() != Verdict::Block && plain {
        let text = text.trim_end_matches(|c: char| c.is_whitespace() || c == ';');
        // What ends in a comment would take the semicolon with it.
        writeln!(out, "{text}\n;")?;
    } else {
        for line in text.lines() {
            writeln!(out, "--   {line}")?;
        }
    }
    let Some(outcome) = &entry.outcome else { return comment(out, "no end is recorded") };
    match failed {
        Some(error) => comment(out, &format!("failed: {} {}", error.code, error.message)),
        None => {
            let rows = outcome.rows.map(|rows| format!(", {rows} rows")).unwrap_or_default();
            let status = outcome.status.as_deref().unwrap_or_default();
            comment(out, &format!("{status}{rows}, {} µs", outcome.duration_us))
        }
    }
}

/// A line that no database runs, whatever is in it.
fn comment(out: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(out, "-- {}", printable(text, Lines::Escape))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Object(map) => match map.get("hex").and_then(Value::as_str) {
            Some(hex) => format!("'\\x{hex}'"),
            None => value.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::Session;
    use super::*;

    #[test]
    fn only_what_ran_is_more_than_a_comment() {
        let session = Session::open("ann\n; drop table t; --");
        let none = serde_json::json!({});
        let ran = session.command(None, "query", "select 1 -- x", &none);
        session.outcome(ran, "SELECT 1", 1);
        let lost = session.command(None, "query", "delete from t\n\\! rm", &none);
        session.outcome(lost, "DELETE 1", 1);
        session.command(None, "query", "select pg_sleep(9);\ndrop table t", &none);
        let mut out = Vec::new();
        sql(Reader::open(session.path()).unwrap(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let live: Vec<_> =
            text.lines().filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
        assert_eq!(live, ["select 1 -- x", ";"], "{text}");
        assert!(text.contains("--   drop table t") && text.contains("SELECT 1, 1 rows"), "{text}");
    }
}
