//! A recording's commands in their order, each with how it ended.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::ExportError;
use crate::decode::postgres::command::PARAMETERS;
use crate::names::Protocol;
use crate::recording::{Event, Kind, Opened, Outcome, Reader, RecordedCommand, Sequence};

/// Commands that may wait for their end; beyond that the first goes without.
const WAITING: usize = 4_096;
/// Statements and portals that are remembered; the oldest go first.
const PREPARED: usize = 4_096;

/// A command, and how it ended.
#[derive(Debug)]
pub struct Entry {
    /// Its place in the session.
    pub sequence: Sequence,
    /// Microseconds since 1970-01-01 UTC.
    pub wall_us: i64,
    /// Microseconds since the session opened.
    pub monotonic_us: u64,
    /// What was asked, and decided.
    pub recorded: RecordedCommand<'static>,
    /// The text that it runs: its own, or that of the statement it executes.
    pub text: String,
    /// The values that it runs with.
    pub parameters: Vec<Value>,
    /// Whether text or values leave something out.
    pub withheld: bool,
    /// How it ended, when it did.
    pub outcome: Option<Outcome>,
}

/// Hands out every command, with who opened the session on what.
///
/// # Errors
/// When the recording is damaged, after every command before the damage was handed out; or what
/// `each` gives.
pub fn commands(
    reader: Reader,
    mut each: impl FnMut(&Opened, Entry) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let (mut opened, mut waiting) = (None, Waiting::default());
    let mut damage = None;
    for event in reader {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                damage = Some(error);
                break;
            }
        };
        if event.kind == Kind::Opened {
            opened = serde_json::from_slice::<Opened>(&event.payload).ok();
        }
        let Some(opened) = &opened else { continue };
        waiting.take(&event);
        while let Some(entry) = waiting.next() {
            each(opened, entry)?;
        }
    }
    if let Some(opened) = &opened {
        for (entry, _) in waiting.entries {
            each(opened, entry)?;
        }
    }
    damage.map_or(Ok(()), |error| Err(error.into()))
}

#[derive(Debug, Default)]
struct Waiting {
    /// In their order; whether each has ended.
    entries: VecDeque<(Entry, bool)>,
    prepared: BTreeMap<Sequence, (Option<Sequence>, RecordedCommand<'static>)>,
}

impl Waiting {
    fn take(&mut self, event: &Event) {
        match event.kind {
            Kind::Command => {
                let Ok(recorded) =
                    serde_json::from_slice::<RecordedCommand<'static>>(&event.payload)
                else {
                    return;
                };
                let entry = self.entry(event, recorded.clone());
                let prepares = matches!(&*recorded.command.form, "parse" | "bind");
                if prepares {
                    if self.prepared.len() >= PREPARED {
                        self.prepared.pop_first();
                    }
                    self.prepared.insert(event.sequence, (event.of, recorded));
                }
                self.entries.push_back((entry, prepares));
            }
            Kind::Outcome => {
                let place = event.of.and_then(|of| {
                    self.entries.binary_search_by_key(&of, |(entry, _)| entry.sequence).ok()
                });
                if let Some((entry, ended)) = place.and_then(|at| self.entries.get_mut(at)) {
                    entry.outcome = serde_json::from_slice(&event.payload).ok();
                    *ended = true;
                }
            }
            _ => {}
        }
    }

    fn entry(&self, event: &Event, recorded: RecordedCommand<'static>) -> Entry {
        let mut text = recorded.command.text.clone();
        let mut withheld = recorded.exact.is_some();
        let values = |recorded: &RecordedCommand<'_>| {
            let found = recorded.command.attributes.get(PARAMETERS).and_then(Value::as_array);
            found.cloned().unwrap_or_default()
        };
        let (mut parameters, mut of) = (values(&recorded), event.of);
        // An Execute is of a Bind, and that of a Parse.
        for _ in 0..2 {
            let base = of.and_then(|of| self.prepared.get(&of));
            let Some((next, base)) = base else { break };
            if text.is_empty() {
                text.clone_from(&base.command.text);
            }
            if parameters.is_empty() {
                parameters = values(base);
            }
            withheld |= base.exact.is_some();
            of = *next;
        }
        Entry {
            sequence: event.sequence,
            wall_us: event.wall_us,
            monotonic_us: event.monotonic_us,
            recorded,
            text,
            parameters,
            withheld,
            outcome: None,
        }
    }

    /// The first command, once it ended or too many wait behind it.
    fn next(&mut self) -> Option<Entry> {
        let (_, ended) = self.entries.front()?;
        let due = *ended || self.entries.len() > WAITING;
        if due { self.entries.pop_front().map(|(entry, _)| entry) } else { None }
    }
}

impl Entry {
    /// Whether it only prepares others.
    pub(super) fn prepares(&self) -> bool {
        matches!(&*self.recorded.command.form, "parse" | "bind")
    }
}

/// Whether a format is for sessions of Postgres alone.
pub(super) fn only_postgres(opened: &Opened) -> Result<(), ExportError> {
    match opened.protocol {
        Protocol::Postgres => Ok(()),
        other => Err(ExportError::OtherProtocol(other)),
    }
}
