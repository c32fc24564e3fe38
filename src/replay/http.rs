//! An HTTP session played to a terminal: heads and bodies as text that cannot act, each told from
//! which request it is.

use std::collections::BTreeMap;

use super::text::{Lines, printable_bytes};
use crate::recording::{Direction, Event, Sequence};

/// What is shown of one request, and of one answer, in bytes.
const SHOWN: usize = 8_000;
/// Requests that are followed; the oldest go first.
const REMEMBERED: usize = 256;

/// The requests of one session, and how much of each was shown.
#[derive(Debug, Default)]
pub(super) struct Requests {
    shown: BTreeMap<(Sequence, bool), usize>,
}

impl Requests {
    /// The lines that an event of bytes shows: `>` is up, `<` is down.
    pub(super) fn show(&mut self, event: &Event) -> Vec<String> {
        let up = event.direction == Direction::Up;
        let key = (event.of.unwrap_or_default(), up);
        let before = self.shown.get(&key).copied().unwrap_or(0);
        self.shown.insert(key, before.saturating_add(event.payload.len()));
        if self.shown.len() > REMEMBERED {
            self.shown.pop_first();
        }
        let sign = if up { '>' } else { '<' };
        if before >= SHOWN {
            return Vec::new();
        }
        let most = event.payload.len().min(SHOWN - before);
        let bytes = event.payload.get(..most).unwrap_or_default();
        let text = printable_bytes(bytes, Lines::Keep).replace("\\r\n", "\n");
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| format!("#{} {sign} {}", key.0, line.trim_end_matches('\r')))
            .collect();
        if most < event.payload.len() {
            lines.push(format!("#{} {sign} … what follows is not shown", key.0));
        }
        lines
    }
}
