//! An SSH session's channels, played to a terminal: terminals as they were, everything else as
//! text that cannot act.

use std::collections::BTreeMap;

use super::terminal_filter::Screen;
use super::text::{Lines, printable_bytes, shortened};
use crate::decode::ssh::message::Message;
use crate::recording::{Direction, Event};

/// What is shown of one piece of output.
const OUTPUT_SHOWN: usize = 20_000;
/// What is shown of one piece of input.
const INPUT_SHOWN: usize = 400;
/// Terminals that are followed; the oldest go first.
const REMEMBERED: usize = 256;

/// What there is to show of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// A terminal's output, to be written as it is.
    Screen(String),
    /// Lines of text: standard output, or (with true) standard error or the gateway's words.
    Text(String, bool),
    /// A remark.
    Remark(String),
    /// Nothing.
    Nothing,
    /// It is no message of a channel.
    Unknown,
}

/// The channels of one session.
#[derive(Debug, Default)]
pub(super) struct Channels {
    terminals: BTreeMap<u32, Screen>,
}

impl Channels {
    /// What an event shows; terminals as they were only where `live`.
    pub(super) fn show(&mut self, event: &Event, live: bool) -> Shown {
        let Some(message) = Message::read(&event.payload) else { return Shown::Unknown };
        let terminal = self.terminals.contains_key(&message.channel());
        match message {
            Message::Pty { channel, term, size } => {
                self.terminals.insert(channel, Screen::default());
                if self.terminals.len() > REMEMBERED {
                    self.terminals.pop_first();
                }
                let term = printable_bytes(term.as_bytes(), Lines::Escape);
                let (columns, rows) = (size.columns, size.rows);
                Shown::Remark(format!("channel {channel}: terminal {term}, {columns}x{rows}"))
            }
            Message::WindowChange { .. } if live && terminal => Shown::Nothing,
            Message::WindowChange { channel, size } => {
                Shown::Remark(format!("channel {channel}: now {}x{}", size.columns, size.rows))
            }
            Message::Signal { channel, name } => {
                let name = printable_bytes(name.as_bytes(), Lines::Escape);
                Shown::Remark(format!("channel {channel}: signal {name}"))
            }
            Message::Data { channel, bytes } if event.direction != Direction::Up => {
                match self.terminals.get_mut(&channel).filter(|_| live) {
                    Some(screen) => Shown::Screen(screen.feed(&bytes)),
                    None => Shown::Text(output(&bytes), false),
                }
            }
            Message::Extended { bytes, .. } if event.direction != Direction::Up => {
                Shown::Text(output(&bytes), true)
            }
            Message::Data { bytes, .. } | Message::Extended { bytes, .. } => {
                if live && terminal {
                    return Shown::Nothing;
                }
                let text = shortened(&printable_bytes(&bytes, Lines::Escape), INPUT_SHOWN);
                Shown::Remark(format!("> {text}"))
            }
            Message::Withheld { .. } if live => Shown::Nothing,
            Message::Withheld { channel, length } => {
                let what = if terminal { "typed, not stored" } else { "not stored" };
                Shown::Remark(format!("channel {channel}: {length} bytes {what}"))
            }
            Message::Eof { .. } => Shown::Nothing,
        }
    }

    /// Whether an event is part of a terminal that is shown as it was.
    pub(super) fn is_screen(&self, event: &Event) -> bool {
        event.direction == Direction::Down
            && Message::read(&event.payload).is_some_and(|message| {
                matches!(message, Message::Data { channel, .. } if self.terminals.contains_key(&channel))
            })
    }
}

fn output(bytes: &[u8]) -> String {
    shortened(&printable_bytes(&without_returns(bytes), Lines::Keep), OUTPUT_SHOWN)
}

/// The line ends of terminals and of Windows, as those of text.
fn without_returns(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if !(*first == b'\r' && after.first() == Some(&b'\n')) {
            out.push(*first);
        }
        rest = after;
    }
    out
}
