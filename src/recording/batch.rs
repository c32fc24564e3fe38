//! Events on their way into a recording, all of them or none.

use serde::Serialize;

use super::clock::Stamp;
use super::draft::{Draft, Renumbered};
use super::event::{Direction, Kind, Sequence};
use super::write_buffer::Pending;

/// Events being appended as one unit.
#[derive(Debug)]
pub struct Batch<'a> {
    pub(super) pending: &'a mut Pending,
    pub(super) stamp: Stamp,
    pub(super) failure: Option<String>,
}

impl Batch<'_> {
    /// Adds the events of a draft, and says what became of the sequences that it gave out.
    pub(super) fn draft(&mut self, draft: &Draft) -> Renumbered {
        let renumbered = draft.renumbered(self.pending.next_sequence());
        for event in draft.events() {
            let of = event.of.map(|of| renumbered.sequence(of));
            self.pending.planned(self.stamp, of, &event);
        }
        if let Some(failure) = draft.failure() {
            self.failure.get_or_insert_with(|| failure.to_owned());
        }
        renumbered
    }

    /// Adds bytes that passed, in pieces of at most 64 KiB, each an event of its own; says the
    /// first one's sequence. No bytes are no event.
    pub fn data(&mut self, direction: Direction, of: Option<Sequence>, payload: &[u8]) -> Sequence {
        self.pending.data(self.stamp, direction, of, payload)
    }

    /// Adds an event whose payload is JSON of at most 128 MiB; a longer one, or one that cannot be
    /// serialized, fails the whole batch.
    pub fn json<T: Serialize>(
        &mut self,
        kind: Kind,
        direction: Direction,
        of: Option<Sequence>,
        payload: &T,
    ) -> Sequence {
        self.pending.json(self.stamp, kind, direction, of, payload).unwrap_or_else(|error| {
            self.failure = Some(error);
            self.pending.skip()
        })
    }
}
