//! Taking one recording further, from its file into a batch.

use std::path::Path;

use super::batch::Batch;
use super::catch_up::Place;
use super::reading::{Context, Reading};
use super::undecryptable::LOCKED;
use crate::recording::{Event, Follower, Keyring, ReadError, Reader, Sequence, recording_path};

/// Blocks of one recording that are read in one round: 16 MiB or more of events.
const MAX_BLOCKS: usize = 64;

/// Reads a recording on; false when there is more of it than one round takes.
pub(super) fn read_on(
    place: &Place,
    reading: &mut Reading,
    batch: &mut Batch,
) -> Result<bool, ReadError> {
    if reading.sealed || reading.failed.is_some() {
        return Ok(true);
    }
    let path = recording_path(&place.data_dir, &reading.id);
    let mut follower = Follower::open(&path, &reading.position, &place.keyring)?;
    let mut look_up = |sequence| event_at(&path, &place.keyring, sequence);
    let mut context =
        Context { gateway: &place.gateway, index_text: place.index_text, look_up: &mut look_up };
    for _ in 0..MAX_BLOCKS {
        let Some(events) = follower.next_block()? else {
            reading.position = follower.bookmark();
            reading.sealed = follower.seal().is_some();
            if let Some(seal) = follower.seal().filter(|_| reading.unread) {
                reading.failed = Some(LOCKED.to_owned());
                reading.end_unread(follower.ended_us(), &seal.how);
            }
            return Ok(true);
        };
        reading.unread |= follower.unread() > 0;
        for event in &events {
            reading.take(event, &mut context, batch);
        }
        reading.position = follower.bookmark();
        if batch.is_full() {
            break;
        }
    }
    Ok(false)
}

fn event_at(path: &Path, keyring: &Keyring, sequence: Sequence) -> Option<Event> {
    let mut reader = Reader::open_with(path, keyring).ok()?;
    reader.seek_sequence(sequence).ok()?;
    reader.next()?.ok().filter(|event| event.sequence == sequence)
}
