//! Commands of one session that later events may refer to, as many as fit in a bound. What was
//! forgotten is read from the recording again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::recording::{RecordedCommand, Sequence};

/// For one session; statements of usual length fit some hundred times.
const MAX_BYTES: usize = 64 << 10;
/// What an entry costs beside its text.
const ENTRY: usize = 256;

/// A command that later events refer to.
#[derive(Debug, Clone)]
pub(super) enum Remembered {
    /// It has its row and has not ended.
    Running,
    /// It only prepares: it has no row, but may yet get one.
    Prepared(Arc<Prepared>),
}

/// A command that only prepares, and when.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) recorded: RecordedCommand<'static>,
    pub(super) of: Option<Sequence>,
    pub(super) wall_us: i64,
}

/// The most recently used of them.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: HashMap<Sequence, (u64, Remembered)>,
    by_use: BTreeMap<u64, Sequence>,
    uses: u64,
    bytes: usize,
}

impl Recent {
    pub(super) fn insert(&mut self, sequence: Sequence, remembered: Remembered) {
        self.remove(sequence);
        self.bytes += remembered.size();
        self.uses += 1;
        self.entries.insert(sequence, (self.uses, remembered));
        self.by_use.insert(self.uses, sequence);
        while self.bytes > MAX_BYTES
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    pub(super) fn get(&mut self, sequence: Sequence) -> Option<&Remembered> {
        let (used, remembered) = self.entries.get_mut(&sequence)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, sequence);
        Some(remembered)
    }

    pub(super) fn remove(&mut self, sequence: Sequence) {
        if let Some((used, remembered)) = self.entries.remove(&sequence) {
            self.by_use.remove(&used);
            self.bytes -= remembered.size();
        }
    }
}

impl Remembered {
    fn size(&self) -> usize {
        match self {
            Self::Running => ENTRY,
            Self::Prepared(prepared) => {
                let command = &prepared.recorded.command;
                let values = command.attributes.values().map(json_size).sum::<usize>();
                2 * ENTRY + command.text.len() + values + command.effects.len() * ENTRY
            }
        }
    }
}

fn json_size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::String(text) => text.len() + 32,
        Value::Array(values) => 32 + values.iter().map(json_size).sum::<usize>(),
        Value::Object(fields) => {
            32 + fields.iter().map(|(name, value)| name.len() + json_size(value)).sum::<usize>()
        }
        _ => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept_and_the_bound_holds() {
        let mut recent = Recent::default();
        for sequence in 0..10_000 {
            recent.insert(sequence, Remembered::Running);
            assert!(recent.get(0).is_some());
            assert!(recent.bytes <= MAX_BYTES);
        }
        assert!(recent.get(1).is_none() && recent.get(9_999).is_some());
        assert_eq!(recent.entries.len(), recent.by_use.len());
        assert_eq!(recent.bytes, recent.entries.len() * ENTRY);
    }
}
