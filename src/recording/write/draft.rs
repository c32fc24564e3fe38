//! Events that are planned: written down without any lock, and appended as one unit afterwards.
//!
//! A draft gives sequences out as if nobody appended anything meanwhile. Somebody may, so whoever
//! keeps such a sequence has it [renumbered](Renumbered) once the draft is appended.

use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;

use crate::recording::format::encode::DATA_PIECE;
use crate::recording::format::encode::MAX_PAYLOAD;
use crate::recording::format::event::{Direction, Kind, Sequence};

/// Events that are planned.
#[derive(Debug)]
pub struct Draft {
    first: Sequence,
    next: Sequence,
    events: Vec<Planned>,
    /// The payloads that are JSON, one behind the other.
    json: Vec<u8>,
    failure: Option<String>,
}

#[derive(Debug)]
struct Planned {
    kind: Kind,
    direction: Direction,
    of: Option<Sequence>,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Json(Range<usize>),
    Data(Bytes),
}

/// A planned event, to be written.
#[derive(Debug)]
pub(in crate::recording) struct Drafted<'d> {
    pub(in crate::recording) kind: Kind,
    pub(in crate::recording) direction: Direction,
    pub(in crate::recording) of: Option<Sequence>,
    pub(in crate::recording) payload: &'d [u8],
}

/// What became of the sequences that a draft gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renumbered {
    from: Sequence,
    by: u64,
}

impl Renumbered {
    /// The sequence of an event, by the one that was known while the draft was made. That of an
    /// event that was recorded before stays.
    pub fn sequence(self, sequence: Sequence) -> Sequence {
        if sequence < self.from { sequence } else { sequence.saturating_add(self.by) }
    }

    /// Whether any changed.
    pub fn any(self) -> bool {
        self.by > 0
    }
}

impl Draft {
    /// No events; the first one would be this.
    pub(in crate::recording) fn starting_at(first: Sequence) -> Self {
        Self { first, next: first, events: Vec::new(), json: Vec::new(), failure: None }
    }

    /// Adds bytes that passed, in pieces of at most 64 KiB, each an event of its own. No bytes are
    /// no event.
    pub fn data(&mut self, direction: Direction, of: Option<Sequence>, payload: Bytes) {
        let pieces = payload.len().div_ceil(DATA_PIECE) as u64;
        if pieces > 0 {
            self.next = self.next.saturating_add(pieces);
            let payload = Payload::Data(payload);
            self.events.push(Planned { kind: Kind::Data, direction, of, payload });
        }
    }

    /// Adds an event whose payload is JSON of at most 128 MiB; a longer one, or one that cannot be
    /// serialized, fails the whole draft.
    pub fn json<T: Serialize>(
        &mut self,
        kind: Kind,
        direction: Direction,
        of: Option<Sequence>,
        payload: &T,
    ) -> Sequence {
        let (sequence, start) = (self.next, self.json.len());
        self.next = self.next.saturating_add(1);
        if let Err(error) = serde_json::to_writer(&mut self.json, payload) {
            self.failure.get_or_insert(error.to_string());
        }
        let length = self.json.len() - start;
        if length > MAX_PAYLOAD {
            self.failure.get_or_insert(format!("an event of {length} bytes is over {MAX_PAYLOAD}"));
        }
        if self.failure.is_some() {
            self.json.truncate(start);
        }
        let payload = Payload::Json(start..self.json.len());
        self.events.push(Planned { kind, direction, of, payload });
        sequence
    }

    /// Why it cannot be appended, if so.
    pub(in crate::recording) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What becomes of its sequences when the first of its events is this one.
    pub(in crate::recording) fn renumbered(&self, first: Sequence) -> Renumbered {
        Renumbered { from: self.first, by: first.saturating_sub(self.first) }
    }

    /// Its events, in order.
    pub(in crate::recording) fn events(&self) -> impl Iterator<Item = Drafted<'_>> {
        self.events.iter().map(|Planned { kind, direction, of, payload }| {
            let payload = match payload {
                Payload::Json(range) => self.json.get(range.clone()).unwrap_or_default(),
                Payload::Data(bytes) => bytes,
            };
            Drafted { kind: *kind, direction: *direction, of: *of, payload }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::recording::format::layout::recording_path;
    use crate::recording::tests::{opened, recorded};
    use crate::recording::{Closed, Event, Reader};

    /// What one task does: plans so much data for a command, while another appends so many events.
    type Turn = (Vec<usize>, usize);

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let sizes = prop_oneof![0..200usize, DATA_PIECE - 1..2 * DATA_PIECE + 2];
        vec((vec(sizes, 0..4), 0..4usize), 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn who_kept_a_sequence_finds_its_event_whatever_others_appended_meanwhile(turns in turns()) {
            let folder = tempfile::tempdir().unwrap();
            let opened = opened();
            let recording = recorded(folder.path(), &opened);
            let mut commands = Vec::new();
            let mut total = 1;
            for (turn, (sizes, others)) in turns.iter().enumerate() {
                let mut draft = recording.draft();
                // Of a command that was recorded before.
                if let Some((earlier, _)) = commands.last() {
                    draft.json(Kind::Note, Direction::None, Some(*earlier), &json!({ "last": turn }));
                    total += 1;
                }
                let command = draft.json(Kind::Command, Direction::Up, None, &json!({ "turn": turn }));
                for size in sizes {
                    draft.data(Direction::Up, Some(command), vec![0; *size].into());
                }
                for _ in 0..*others {
                    recording.append(|batch| batch.data(Direction::Down, None, b"x")).unwrap();
                }
                let renumbered = recording.append_draft(crate::clock::Now::read(), &draft).unwrap();
                prop_assert_eq!(renumbered.any(), *others > 0);
                let pieces: usize = sizes.iter().map(|size| size.div_ceil(DATA_PIECE)).sum();
                commands.push((renumbered.sequence(command), pieces));
                total += 1 + pieces + others;
            }
            recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();

            let path = recording_path(folder.path(), &opened.session);
            let events: Vec<Event> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(events.len(), total + 1);
            prop_assert!(events.iter().zip(0..).all(|(event, place)| event.sequence == place));
            for (turn, (command, pieces)) in commands.iter().enumerate() {
                let event = &events[usize::try_from(*command).unwrap()];
                prop_assert_eq!(event.kind, Kind::Command);
                prop_assert_eq!(
                    std::str::from_utf8(&event.payload).unwrap(),
                    json!({ "turn": turn }).to_string()
                );
                let of = |kind| {
                    let mine = |event: &&Event| event.of == Some(*command) && event.kind == kind;
                    events.iter().filter(mine).count()
                };
                let follows = usize::from(turn + 1 < commands.len());
                prop_assert_eq!((of(Kind::Data), of(Kind::Note)), (*pieces, follows));
            }
        }
    }

    #[test]
    fn what_is_too_large_fails_the_whole_draft() {
        let folder = tempfile::tempdir().unwrap();
        let recording = recorded(folder.path(), &opened());
        let mut draft = recording.draft();
        draft.json(Kind::Note, Direction::None, None, &"small");
        draft.json(Kind::Note, Direction::None, None, &"x".repeat(MAX_PAYLOAD));
        recording.append_draft(crate::clock::Now::read(), &draft).unwrap_err();
        let mut draft = recording.draft();
        let next = draft.json(Kind::Note, Direction::None, None, &"small");
        let renumbered = recording.append_draft(crate::clock::Now::read(), &draft).unwrap();
        assert_eq!((next, renumbered.any()), (1, false));
    }
}
