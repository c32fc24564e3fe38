//! Events that are encoded but not yet in a block, and where they will be cut into blocks.

use serde::Serialize;

use crate::recording::format::clock::Stamp;
use crate::recording::format::encode::{self, DATA_PIECE, Head};
use crate::recording::format::event::{Direction, Gap, Kind, Sequence};
use crate::recording::format::header::{BLOCK_TARGET, Span};
use crate::recording::write::draft::Drafted;

/// Encoded events, in order, and the sequence of the next one.
#[derive(Debug, Default)]
pub(in crate::recording) struct Pending {
    bytes: Vec<u8>,
    /// Spans that reached their size; empty but for a moment.
    full: Vec<Span>,
    current: Option<Span>,
    next: Sequence,
    /// How many events there were, and when the last came.
    events: u64,
    wall_us: i64,
    /// Whether there is anything but bytes that passed.
    telling: bool,
}

/// A state of [`Pending`] to go back to.
#[derive(Debug, Clone, Copy)]
pub(in crate::recording) struct Mark {
    len: usize,
    full: usize,
    current: Option<Span>,
    next: Sequence,
    events: u64,
    telling: bool,
}

impl Mark {
    pub(in crate::recording) fn next_sequence(&self) -> Sequence {
        self.next
    }
}

impl Pending {
    /// Nothing pending; the next event gets this sequence.
    pub(in crate::recording) fn starting_at(next: Sequence) -> Self {
        Self { next, ..Self::default() }
    }

    pub(in crate::recording) fn next_sequence(&self) -> Sequence {
        self.next
    }

    pub(in crate::recording) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(in crate::recording) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(in crate::recording) fn mark(&self) -> Mark {
        Mark {
            len: self.bytes.len(),
            full: self.full.len(),
            current: self.current,
            next: self.next,
            events: self.events,
            telling: self.telling,
        }
    }

    pub(in crate::recording) fn roll_back(&mut self, mark: &Mark) {
        self.bytes.truncate(mark.len);
        self.full.truncate(mark.full);
        self.current = mark.current;
        self.next = mark.next;
        self.events = mark.events;
        self.telling = mark.telling;
    }

    /// The encoded events after a mark.
    pub(in crate::recording) fn since(&self, mark: &Mark) -> &[u8] {
        self.bytes.get(mark.len..).unwrap_or_default()
    }

    /// What they are, when all of them came at one time.
    pub(in crate::recording) fn span_since(&self, mark: &Mark) -> Span {
        Span {
            bytes: self.since(mark).len(),
            events: self.events - mark.events,
            first_sequence: mark.next,
            next_sequence: self.next,
            first_wall_us: self.wall_us,
            last_wall_us: self.wall_us,
        }
    }

    /// The blocks that the pending events make.
    pub(in crate::recording) fn blocks(&self) -> impl Iterator<Item = (Span, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.full.iter().copied().chain(self.current).map(move |span| {
            let (block, after) = rest.split_at_checked(span.bytes).unwrap_or((rest, &[]));
            rest = after;
            (span, block)
        })
    }

    /// Forgets the events, which are in blocks now, and keeps the memory for more.
    pub(in crate::recording) fn clear(&mut self) {
        self.bytes.clear();
        self.full.clear();
        self.current = None;
        self.telling = false;
    }

    /// Whether there is anything but bytes that passed: the index waits for the rest.
    pub(in crate::recording) fn tells(&self) -> bool {
        self.telling
    }

    /// Gives the memory back: an idle session holds none.
    pub(in crate::recording) fn release(&mut self) {
        if self.bytes.is_empty() {
            *self = Self::starting_at(self.next);
        }
    }

    pub(in crate::recording) fn holds_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Adds bytes that passed, in pieces, and says the first piece's sequence.
    pub(in crate::recording) fn data(
        &mut self,
        stamp: Stamp,
        direction: Direction,
        of: Option<Sequence>,
        payload: &[u8],
    ) -> Sequence {
        let first = self.next;
        for piece in payload.chunks(DATA_PIECE) {
            let head = Head { sequence: self.next, stamp, direction, kind: Kind::Data, of };
            let start = self.bytes.len();
            encode::put(&mut self.bytes, &head, piece);
            self.count(start, stamp, 1);
        }
        first
    }

    /// Adds an event with a JSON payload.
    pub(in crate::recording) fn json<T: Serialize>(
        &mut self,
        stamp: Stamp,
        kind: Kind,
        direction: Direction,
        of: Option<Sequence>,
        payload: &T,
    ) -> Result<Sequence, String> {
        let sequence = self.next;
        let start = self.bytes.len();
        encode::put_json(&mut self.bytes, &Head { sequence, stamp, direction, kind, of }, payload)?;
        self.telling = true;
        self.count(start, stamp, 1);
        Ok(sequence)
    }

    /// Adds an event that was planned.
    pub(in crate::recording) fn planned(
        &mut self,
        stamp: Stamp,
        of: Option<Sequence>,
        event: &Drafted<'_>,
    ) {
        let Drafted { kind, direction, payload, .. } = *event;
        if kind == Kind::Data {
            self.data(stamp, direction, of, payload);
            return;
        }
        let head = Head { sequence: self.next, stamp, direction, kind, of };
        let start = self.bytes.len();
        encode::put(&mut self.bytes, &head, payload);
        self.telling = true;
        self.count(start, stamp, 1);
    }

    /// Adds a gap, which uses up as many sequences as events are missing.
    pub(in crate::recording) fn gap(&mut self, stamp: Stamp, gap: &Gap) -> Result<(), String> {
        let head = Head {
            sequence: self.next,
            stamp,
            direction: Direction::None,
            kind: Kind::Gap,
            of: None,
        };
        let start = self.bytes.len();
        encode::put_json(&mut self.bytes, &head, gap)?;
        self.telling = true;
        self.count(start, stamp, gap.events.max(1));
        Ok(())
    }

    /// Adds an event as it was encoded before.
    pub(in crate::recording) fn encoded(&mut self, event: &[u8], wall_us: i64, next: Sequence) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(event);
        let sequences = next.saturating_sub(self.next);
        self.count(start, Stamp { monotonic_us: 0, wall_us }, sequences);
    }

    /// Uses up a sequence for an event that could not be encoded; the batch is rolled back.
    pub(in crate::recording) fn skip(&mut self) -> Sequence {
        let sequence = self.next;
        self.next = self.next.saturating_add(1);
        sequence
    }

    fn count(&mut self, start: usize, stamp: Stamp, sequences: u64) {
        let first_sequence = self.next;
        self.next = self.next.saturating_add(sequences);
        self.events += 1;
        self.wall_us = stamp.wall_us;
        let span = self.current.get_or_insert(Span {
            bytes: 0,
            events: 0,
            first_sequence,
            next_sequence: first_sequence,
            first_wall_us: stamp.wall_us,
            last_wall_us: stamp.wall_us,
        });
        span.bytes += self.bytes.len() - start;
        span.events += 1;
        span.next_sequence = self.next;
        span.last_wall_us = stamp.wall_us;
        if span.bytes >= BLOCK_TARGET {
            self.full.extend(self.current.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { monotonic_us: 1, wall_us: 2 };

    #[test]
    fn a_block_ends_with_the_event_that_fills_it() {
        let mut pending = Pending::default();
        let first = pending.data(STAMP, Direction::Down, None, &vec![b'x'; 5 * DATA_PIECE]);
        assert_eq!((first, pending.next_sequence()), (0, 5));
        let blocks: Vec<_> = pending.blocks().map(|(span, bytes)| (span, bytes.len())).collect();
        assert_eq!(blocks.len(), 2);
        assert!(blocks.iter().all(|(span, len)| span.bytes == *len));
        assert_eq!((blocks[0].0.events, blocks[1].0.first_sequence), (4, 4));
        assert_eq!(blocks.iter().map(|(_, len)| len).sum::<usize>(), pending.len());
    }

    #[test]
    fn rolling_back_leaves_nothing_of_a_batch() {
        let mut pending = Pending::default();
        pending.data(STAMP, Direction::Up, None, b"one");
        let mark = pending.mark();
        let before: Vec<_> = pending.blocks().map(|(s, b)| (s, b.to_vec())).collect();
        pending.data(STAMP, Direction::Up, None, &vec![0; 10 * DATA_PIECE]);
        pending.roll_back(&mark);
        let after: Vec<_> = pending.blocks().map(|(s, b)| (s, b.to_vec())).collect();
        assert_eq!((before, pending.next_sequence()), (after, 1));
    }

    #[test]
    fn bytes_alone_tell_nothing() {
        let mut pending = Pending::default();
        pending.data(STAMP, Direction::Down, None, b"echo");
        let mark = pending.mark();
        assert!(!pending.tells());
        pending.json(STAMP, Kind::Note, Direction::None, None, &1).unwrap();
        assert!(pending.tells());
        pending.roll_back(&mark);
        assert!(!pending.tells());
        pending.json(STAMP, Kind::Note, Direction::None, None, &1).unwrap();
        pending.clear();
        assert!(!pending.tells());
    }

    #[test]
    fn an_empty_payload_is_no_event() {
        let mut pending = Pending::default();
        pending.data(STAMP, Direction::Up, None, b"");
        assert!(pending.is_empty());
    }
}
