//! What commands print: results to standard output, complaints to standard error.
//!
//! A reader that went away (`portcullis check | head`) is not a failure.

use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::config::Mistakes;

/// Prints one result.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints one result for programs.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(print(&serde_json::to_string_pretty(value)?)?)
}

/// Prints what came of a command: for programs, or in words.
pub(super) fn print_done(
    json: bool,
    done: &impl serde::Serialize,
    words: &str,
) -> anyhow::Result<()> {
    if json { print_json(done) } else { Ok(print(words)?) }
}

/// Prints a list: for programs as an array, or as [`print_rows`] does.
pub(super) fn print_list<T: serde::Serialize>(
    json: bool,
    list: &[T],
    columns: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> anyhow::Result<()> {
    if json {
        return print_json(&list);
    }
    Ok(print_rows(columns, list.iter().map(row).collect())?)
}

/// Prints why a command ended.
pub(super) fn complain(error: &anyhow::Error) {
    // There is nowhere to say that nothing can be said.
    let _gone = match error.downcast_ref::<Mistakes>() {
        // They begin with a file and a line, as editors and terminals know to follow.
        Some(mistakes) => writeln!(io::stderr(), "{mistakes}"),
        None => writeln!(io::stderr(), "portcullis: {error:#}"),
    };
}

/// Whether a command ended because nobody reads what it prints.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Prints rows: as a table on a terminal, else one line each with tabs between, for other
/// programs. Control characters of foreign texts are escaped.
pub(super) fn print_rows(columns: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let rows = rows.into_iter().map(|row| row.iter().map(|text| visible(text)).collect());
    if !io::stdout().is_terminal() {
        let lines: Vec<_> = rows.map(|row: Vec<String>| row.join("\t")).collect();
        return if lines.is_empty() { Ok(()) } else { print(&lines.join("\n")) };
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(columns);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    for row in rows {
        table.add_row(row);
    }
    print(&table.trim_fmt())
}

/// A time to the second, as tables show it.
pub(super) fn seconds(at: crate::database::Timestamp) -> String {
    at.to_string().chars().take(19).collect()
}

/// Reads a duration as people write it on a command line: `90s`, `30m`, `2h`, `1d`; in seconds.
pub(super) fn duration(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a duration; write 90s, 30m, 2h or 1d");
    let unit = text.chars().next_back().ok_or_else(bad)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(bad)
}

/// A text without what would move a terminal's cursor or hide itself.
pub(super) fn visible(text: &str) -> String {
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .flat_map(|c| if unseen(c) { c.escape_debug().collect() } else { vec![c] })
        .collect()
}
