//! Recordings in formats that other programs read.
//!
//! What was recorded is foreign: each format writes it so that it acts on no terminal, no database
//! client, no spreadsheet and no browser that opens the file. All but JSON lines leave out what
//! does not fit the format; JSON lines have every event.

mod asciicast;
mod commands;
mod csv;
mod har;
mod sql;

use std::io::{self, Write};

pub use asciicast::asciicast;
pub use commands::{Entry, commands};
pub use csv::csv;
pub use har::har;
pub use sql::sql;

use super::ReplayError;
use crate::names::Protocol;
use crate::recording::{ReadError, Reader};

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording cannot be read on, or the file not written.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// There is no such thing in it.
    #[error("the recording has no terminal{}", .0.map(|n| format!(" on channel {n}")).unwrap_or_default())]
    NoTerminal(Option<u32>),
    /// It is of another protocol.
    #[error("the recording is of {0}, and this format is not for it")]
    OtherProtocol(Protocol),
    /// It is the gateway's own, of whom it refused.
    #[error("the recording is of no session")]
    NoSession,
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Replay(error.into())
    }
}

impl From<ReadError> for ExportError {
    fn from(error: ReadError) -> Self {
        Self::Replay(error.into())
    }
}

/// Writes every event as a line of JSON; bytes are base64.
///
/// # Errors
/// When the recording is damaged, or the file cannot be written.
pub fn json_lines(reader: Reader, out: &mut dyn Write) -> Result<(), ReplayError> {
    for event in reader {
        serde_json::to_writer(&mut *out, &event?.to_json()).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(())
}
