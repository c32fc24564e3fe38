//! What commands print: results to standard output, complaints to standard error.
//!
//! A reader that went away (`portcullis check | head`) is not a failure.

use std::io::{self, ErrorKind, Write};

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
