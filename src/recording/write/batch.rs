//! Events on their way into a recording, all of them or none.

use serde::Serialize;

use crate::recording::format::clock::Stamp;
use crate::recording::format::event::{Direction, Kind, Sequence};
use crate::recording::write::draft::{Draft, Renumbered};
use crate::recording::write::write_buffer::Pending;

/// Events being appended as one unit.
#[derive(Debug)]
pub struct Batch<'a> {
    pub(in crate::recording) pending: &'a mut Pending,
    pub(in crate::recording) stamp: Stamp,
    pub(in crate::recording) failure: Option<String>,
}

impl Batch<'_> {
    /// Adds the events of a draft, and says what became of the sequences that it gave out.
    pub(in crate::recording) fn draft(&mut self, draft: &Draft) -> Renumbered {
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
