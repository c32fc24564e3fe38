//! A terminal of an SSH session as a file for asciinema's players: asciicast, version 2.
//!
//! Output goes through the same list as in the terminal, so that a file does to a player's terminal
//! what drawing does, and no more.

use std::io::{self, Write};

use serde_json::json;

use super::super::ReplayError;
use super::super::terminal_filter::Screen;
use super::ExportError;
use crate::decode::ssh::message::{Message, Size};
use crate::recording::{Direction, Kind, Opened, Reader};

/// Writes the first terminal of a recording, or that of a channel.
///
/// # Errors
/// When there is none, the recording is damaged, or the file cannot be written.
pub fn asciicast(
    reader: Reader,
    wanted: Option<u32>,
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut title = String::new();
    let mut found: Option<(u32, u64)> = None;
    let mut screen = Screen::default();
    for event in reader {
        let event = event.map_err(ReplayError::from)?;
        if event.kind == Kind::Opened
            && let Ok(opened) = serde_json::from_slice::<Opened>(&event.payload)
        {
            title = format!("{} on {}", opened.identity.username, opened.target);
        }
        if event.kind != Kind::Data {
            continue;
        }
        let Some(message) = Message::read(&event.payload) else { continue };
        match (found, message) {
            (None, Message::Pty { channel, term, size })
                if wanted.is_none_or(|wanted| wanted == channel) =>
            {
                found = Some((channel, event.monotonic_us));
                let header = json!({
                    "version": 2,
                    "width": size.columns.max(1),
                    "height": size.rows.max(1),
                    "timestamp": event.wall_us / 1_000_000,
                    "title": title,
                    "env": { "TERM": term },
                });
                writeln!(out, "{header}")?;
            }
            (Some((channel, since)), message) if message.channel() == channel => {
                let at = event.monotonic_us.saturating_sub(since);
                line(out, at, event.direction, message, &mut screen)?;
            }
            _ => {}
        }
    }
    found.map(|_| ()).ok_or(ExportError::NoTerminal(wanted))
}

fn line(
    out: &mut dyn Write,
    at: u64,
    direction: Direction,
    message: Message,
    screen: &mut Screen,
) -> io::Result<()> {
    let (code, text) = match message {
        Message::Data { bytes, .. } | Message::Extended { bytes, .. } => match direction {
            Direction::Up => ("i", Screen::default().feed(&bytes)),
            _ => ("o", screen.feed(&bytes)),
        },
        Message::WindowChange { size: Size { columns, rows }, .. } => {
            ("r", format!("{columns}x{rows}"))
        }
        _ => return Ok(()),
    };
    if text.is_empty() {
        return Ok(());
    }
    let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
    writeln!(out, "[{seconds}.{micros:06}, \"{code}\", {}]", json!(text))
}
