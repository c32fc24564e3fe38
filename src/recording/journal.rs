//! The `.journal`: events that are with the operating system but not yet in a block.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::encode;
use super::event::Event;
use super::tail::Tail;
use crate::names::SessionId;

/// Bytes of the header: magic, version, cipher, two zeros, session, checksum.
pub(super) const HEADER_LEN: usize = 32;
/// Bytes before a record's events: length and checksum.
const RECORD_HEAD: usize = 12;
/// Some times what any journal grows to; what is longer was not written by a gateway.
pub(super) const MAX_JOURNAL: u64 = 16 << 20;

const MAGIC: [u8; 4] = *b"PCJ1";
/// Format version 1, cipher 0 (none).
const VERSION: [u8; 4] = [1, 0, 0, 0];

/// The header of a session's journal.
pub(super) fn header(session: &SessionId) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let mut fields = Vec::with_capacity(HEADER_LEN);
    fields.extend_from_slice(&MAGIC);
    fields.extend_from_slice(&VERSION);
    fields.extend_from_slice(session.as_bytes());
    let checksum = checksum(&fields);
    fields.extend_from_slice(&checksum);
    if fields.len() == HEADER_LEN {
        out.copy_from_slice(&fields);
    }
    out
}

/// Writes encoded events as one record, in one write.
pub(super) fn append(tail: &mut Tail, events: &[u8]) -> io::Result<()> {
    let length = u32::try_from(events.len()).map_err(io::Error::other)?;
    let mut head = [0; RECORD_HEAD];
    let (place, rest) = head.split_at_mut(4);
    place.copy_from_slice(&length.to_le_bytes());
    rest.copy_from_slice(&checksum(events));
    tail.append(&mut [IoSlice::new(&head), IoSlice::new(events)])
}

/// An event of a journal with its encoded bytes.
#[derive(Debug)]
pub(super) struct Journaled {
    pub(super) event: Event,
    pub(super) encoded: Bytes,
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The events of all whole records, in the order they were written.
    pub(super) events: Vec<Journaled>,
    /// How many bytes at the end are not a whole record.
    pub(super) torn: u64,
}

/// Reads a journal up to the first record that is not whole. A crash may leave such a record;
/// nothing in it was forwarded.
pub(super) fn parse(session: &SessionId, bytes: &Bytes) -> Contents {
    let mut contents = Contents::default();
    let mut at = HEADER_LEN;
    if bytes.get(..HEADER_LEN) != Some(&header(session)) {
        contents.torn = bytes.len() as u64;
        return contents;
    }
    while let Some(record) = record(bytes, at) {
        let whole = contents.events.len();
        let mut within = 0;
        while within < record.len() {
            let start = within;
            let Ok(event) = encode::take(&record, &mut within) else {
                contents.events.truncate(whole);
                contents.torn = (bytes.len() - at) as u64;
                return contents;
            };
            contents.events.push(Journaled { event, encoded: record.slice(start..within) });
        }
        at += RECORD_HEAD + record.len();
    }
    contents.torn = (bytes.len() - at) as u64;
    contents
}

fn record(bytes: &Bytes, at: usize) -> Option<Bytes> {
    let rest = bytes.get(at..)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let events = rest.get(..length)?;
    let start = at + RECORD_HEAD;
    (length > 0 && checksum(events) == *sum).then(|| bytes.slice(start..start + length))
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};

    use super::*;
    use crate::recording::clock::Stamp;
    use crate::recording::event::Direction;
    use crate::recording::pending::Pending;

    #[test]
    fn a_journal_cut_anywhere_gives_its_whole_records() {
        let session = SessionId::generate();
        let mut file: File = tempfile::tempfile().unwrap();
        let mut tail = Tail::new(file.try_clone().unwrap(), 0, std::sync::Arc::default());
        tail.append(&mut [IoSlice::new(&header(&session))]).unwrap();
        let mut ends = vec![];
        for n in 0..5u8 {
            let mut pending = Pending::starting_at(u64::from(n) * 2);
            let stamp = Stamp { monotonic_us: 0, wall_us: 0 };
            pending.data(stamp, Direction::Up, None, &[n; 20]);
            pending.data(stamp, Direction::Up, None, &[n; 3]);
            append(&mut tail, pending.since(&Pending::default().mark())).unwrap();
            ends.push(usize::try_from(tail.len()).unwrap());
        }
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        for cut in 0..=bytes.len() {
            let contents = parse(&session, &Bytes::copy_from_slice(&bytes[..cut]));
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(contents.events.len(), whole * 2, "cut at {cut}");
        }
        assert!(parse(&SessionId::generate(), &Bytes::from(bytes)).events.is_empty());
    }
}
