//! The commands of a session as a table for spreadsheets: RFC 4180, UTF-8.
//!
//! No cell is a formula: where one would begin as spreadsheets take formulas to begin, an apostrophe
//! stands before it, and what else would hide or act is written out.

use std::io::{self, Write};

use super::super::text::{Lines, printable};
use super::{Entry, ExportError, commands};
use crate::recording::{Opened, Reader, rfc3339};

const COLUMNS: &[&str] = &[
    "session",
    "sequence",
    "at",
    "username",
    "target",
    "protocol",
    "form",
    "verdict",
    "rules",
    "reason",
    "text",
    "parameters",
    "withheld",
    "status",
    "rows",
    "duration_us",
    "error_code",
    "error_message",
    "masked",
];

/// Writes the commands of a recording as a table.
///
/// # Errors
/// When the recording is damaged, after every command before the damage was written; or the file
/// cannot be written.
pub fn csv(reader: Reader, out: &mut dyn Write) -> Result<(), ExportError> {
    row(out, COLUMNS.iter().map(|name| (*name).to_owned()))?;
    commands(reader, |opened, entry| Ok(row(out, cells(opened, &entry))?))
}

fn cells(opened: &Opened, entry: &Entry) -> impl Iterator<Item = String> {
    let (command, decision) = (&entry.recorded.command, &entry.recorded.decision);
    let outcome = entry.outcome.clone().unwrap_or_default();
    let ended = entry.outcome.is_some();
    let (code, message) = outcome.error.map(|e| (e.code, e.message)).unwrap_or_default();
    let number = |number: u64| number.to_string();
    let parameters = match entry.parameters.as_slice() {
        [] => String::new(),
        some => serde_json::to_string(some).unwrap_or_default(),
    };
    [
        opened.session.to_string(),
        number(entry.sequence),
        rfc3339(entry.wall_us),
        opened.identity.username.clone(),
        opened.target.to_string(),
        opened.protocol.to_string(),
        command.form.to_string(),
        decision.verdict().to_string(),
        decision.rules().join(", "),
        decision.reason().unwrap_or_default().to_owned(),
        entry.text.clone(),
        parameters,
        entry.withheld.to_string(),
        outcome.status.unwrap_or_default(),
        outcome.rows.map(number).unwrap_or_default(),
        if ended { number(outcome.duration_us) } else { String::new() },
        code,
        message,
        number(outcome.masked.values().sum()),
    ]
    .into_iter()
}

fn row(out: &mut dyn Write, cells: impl Iterator<Item = String>) -> io::Result<()> {
    let cells: Vec<String> = cells.map(|text| cell(&text)).collect();
    write!(out, "{}\r\n", cells.join(","))
}

/// One cell: visible, no formula, quoted where it has to be.
fn cell(text: &str) -> String {
    // OWASP, "CSV Injection": these begin formulas, after a quote or a separator too.
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let mut shown = printable(text, Lines::Keep);
    if formula {
        shown.insert(0, '\'');
    }
    if shown.contains(['"', ',', '\n', ';', '\t']) || formula || shown != shown.trim() {
        shown = format!("\"{}\"", shown.replace('"', "\"\""));
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What another program makes of a row.
        #[test]
        fn a_row_is_read_as_its_cells_and_none_is_a_formula(
            cells in prop::collection::vec("([=+@\\-;,\"'\t\r\n ＝]|\\PC){0,6}", 2..5)
        ) {
            let mut written = Vec::new();
            row(&mut written, cells.iter().cloned()).unwrap();
            let mut reader =
                ::csv::ReaderBuilder::new().has_headers(false).from_reader(written.as_slice());
            let read: Vec<_> = reader.records().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(read[0].len(), cells.len());
            for (read, cell) in read[0].iter().zip(&cells) {
                prop_assert!(!read.starts_with(['=', '+', '-', '@', '\t', '\n', '＝']), "{}", read);
                let shown = printable(cell, Lines::Keep);
                prop_assert!(read == shown || read.strip_prefix('\'') == Some(&shown), "{}", read);
            }
        }
    }

    #[test]
    fn no_cell_is_a_formula_or_ends_itself() {
        for (text, shown) in [
            ("select 1", "select 1"),
            ("=1+1", "\"'=1+1\""),
            ("+cmd|' /C calc'!A0", "\"'+cmd|' /C calc'!A0\""),
            ("-2", "\"'-2\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\"'\\r=1\""),
            ("a\",=1,\"b", "\"a\"\",=1,\"\"b\""),
            ("a\n=1", "\"a\n=1\""),
            ("a;=1", "\"a;=1\""),
            ("a\u{202e}b\x1b[2J", "a\\u{202e}b\\x1b[2J"),
        ] {
            assert_eq!(cell(text), shown, "{text:?}");
        }
    }
}
