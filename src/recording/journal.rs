//! The `.journal`: events that are with the operating system but not yet in a block.
//!
//! In an encrypted recording each record is sealed, and its head tells what a repair has to know
//! that cannot open it.

use std::io::{self, IoSlice};

use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use super::cipher::{RecordingKey, Sealing, TAG};
use super::encode;
use super::event::{Event, Sequence};
use super::header::take;
use super::pending::Span;
use super::tail::Tail;
use crate::names::SessionId;

/// Bytes of the header: magic, version, cipher, two zeros, session, checksum.
pub(super) const HEADER_LEN: usize = 32;
/// Bytes of it that say what it is.
const ABOUT: usize = 24;
/// Bytes before what is in a record: length and checksum.
const RECORD_HEAD: usize = 12;
/// Bytes behind these that tell of a sealed record.
const SEALED_HEAD: usize = 48;
/// Some times what any journal grows to; what is longer was not written by a gateway.
pub(super) const MAX_JOURNAL: u64 = 16 << 20;

const MAGIC: [u8; 4] = *b"PCJ1";

/// What the records of a journal are, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Events with a hash, as gateways before 0.2 wrote them.
    Hashed,
    /// Events with a CRC: what a crash leaves of a record is no attack on it, and two records are written
    /// for each command.
    Summed,
    /// Sealed events with a hash, which found blocks take over.
    Sealed,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Summed, Self::Sealed, Self::Hashed];

    /// Version and cipher.
    fn fields(self) -> [u8; 2] {
        match self {
            Self::Hashed => [1, 0],
            Self::Summed => [2, 0],
            Self::Sealed => [1, 1],
        }
    }

    fn checksum(self, bytes: &[u8]) -> [u8; 8] {
        match self {
            Self::Summed => crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes).to_le_bytes(),
            Self::Hashed | Self::Sealed => {
                blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default()
            }
        }
    }
}

/// The header of a session's journal.
pub(super) fn header(session: &SessionId, encrypted: bool) -> [u8; HEADER_LEN] {
    header_of(if encrypted { Kind::Sealed } else { Kind::Summed }, session)
}

fn header_of(kind: Kind, session: &SessionId) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let mut fields = Vec::with_capacity(HEADER_LEN);
    fields.extend_from_slice(&MAGIC);
    fields.extend_from_slice(&kind.fields());
    fields.extend_from_slice(&[0, 0]);
    fields.extend_from_slice(session.as_bytes());
    let checksum = Kind::Hashed.checksum(&fields);
    fields.extend_from_slice(&checksum);
    if fields.len() == HEADER_LEN {
        out.copy_from_slice(&fields);
    }
    out
}

/// Writes encoded events as one record, in one write.
pub(super) fn append(tail: &mut Tail, events: &[u8]) -> io::Result<()> {
    let length = u32::try_from(events.len()).map_err(io::Error::other)?;
    let head = record_head(length, Kind::Summed.checksum(events));
    tail.append(&mut [IoSlice::new(&head), IoSlice::new(events)])
}

/// Writes encoded events as one record that only the recording's key opens, in one write.
pub(super) fn append_sealed(
    tail: &mut Tail,
    (session, cipher): (&SessionId, &mut Sealing),
    (span, events): (&Span, &[u8]),
) -> io::Result<()> {
    let once = cipher.once()?;
    let head = SealedHead {
        number: once.number(),
        first_sequence: span.first_sequence,
        next_sequence: span.next_sequence,
        first_wall_us: span.first_wall_us,
        last_wall_us: span.last_wall_us,
        events: span.events,
    };
    let mut sealed = Vec::with_capacity(SEALED_HEAD + events.len() + TAG);
    sealed.extend_from_slice(&head.encode());
    sealed.extend_from_slice(events);
    cipher.seal(once, &head.about(session), &mut sealed, SEALED_HEAD)?;
    let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
    let head = record_head(length, Kind::Sealed.checksum(&sealed));
    tail.append(&mut [IoSlice::new(&head), IoSlice::new(&sealed)])
}

fn record_head(length: u32, checksum: [u8; 8]) -> [u8; RECORD_HEAD] {
    let mut head = [0; RECORD_HEAD];
    let (place, rest) = head.split_at_mut(4);
    place.copy_from_slice(&length.to_le_bytes());
    rest.copy_from_slice(&checksum);
    head
}

/// What a sealed record tells without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SealedHead {
    number: u64,
    pub(super) first_sequence: Sequence,
    pub(super) next_sequence: Sequence,
    pub(super) first_wall_us: i64,
    pub(super) last_wall_us: i64,
    events: u64,
}

impl SealedHead {
    fn encode(&self) -> [u8; SEALED_HEAD] {
        let mut out = [0; SEALED_HEAD];
        let fields = [
            self.number.to_le_bytes(),
            self.first_sequence.to_le_bytes(),
            self.next_sequence.to_le_bytes(),
            self.first_wall_us.to_le_bytes(),
            self.last_wall_us.to_le_bytes(),
            self.events.to_le_bytes(),
        ];
        out.copy_from_slice(fields.as_flattened());
        out
    }

    fn decode(bytes: &[u8; SEALED_HEAD]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            number: u64::from_le_bytes(take(&mut rest)),
            first_sequence: u64::from_le_bytes(take(&mut rest)),
            next_sequence: u64::from_le_bytes(take(&mut rest)),
            first_wall_us: i64::from_le_bytes(take(&mut rest)),
            last_wall_us: i64::from_le_bytes(take(&mut rest)),
            events: u64::from_le_bytes(take(&mut rest)),
        }
    }

    /// What sealing binds to the events: whose they are, and all of the head.
    fn about(&self, session: &SessionId) -> Vec<u8> {
        let header = header(session, true);
        [header.get(..ABOUT).unwrap_or_default(), &self.encode()].concat()
    }

    /// How many of the events have this sequence or a later one. Only a gap uses up more than one
    /// sequence, and it stands first.
    pub(super) fn events_from(&self, sequence: Sequence) -> u64 {
        if sequence <= self.first_sequence {
            self.events
        } else {
            self.next_sequence.saturating_sub(sequence)
        }
    }
}

/// A record of an encrypted journal.
#[derive(Debug, Clone)]
pub(super) struct SealedRecord {
    pub(super) head: SealedHead,
    /// All of it, as it stands in the file.
    pub(super) bytes: Bytes,
}

impl SealedRecord {
    /// Bytes of its events before they were sealed.
    pub(super) fn raw_len(&self) -> u64 {
        (self.bytes.len().saturating_sub(RECORD_HEAD + SEALED_HEAD + TAG)) as u64
    }

    /// Its events, encoded.
    pub(super) fn open(&self, session: &SessionId, key: &RecordingKey) -> Option<Bytes> {
        let mut sealed = self.bytes.get(RECORD_HEAD + SEALED_HEAD..)?.to_vec();
        let length = key.open(self.head.number, &self.head.about(session), &mut sealed)?.len();
        sealed.truncate(length);
        Some(sealed.into())
    }
}

/// Takes whole sealed records from the beginning; what is left is not one.
pub(super) fn sealed_records(bytes: &Bytes) -> (Vec<SealedRecord>, usize) {
    let (mut records, mut at) = (Vec::new(), 0);
    while let Some(content) = record(Kind::Sealed, bytes, at) {
        let Some((head, events)) = content.split_first_chunk() else { break };
        let head = SealedHead::decode(head);
        if events.len() <= TAG || head.events == 0 || head.next_sequence <= head.first_sequence {
            break;
        }
        let end = at + RECORD_HEAD + content.len();
        records.push(SealedRecord { head, bytes: bytes.slice(at..end) });
        at = end;
    }
    (records, bytes.len() - at)
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
    /// The events of all whole records that were read, in the order they were written.
    pub(super) events: Vec<Journaled>,
    /// All whole records, where they are sealed.
    pub(super) sealed: Vec<SealedRecord>,
    /// How many bytes at the end are not a whole record.
    pub(super) torn: u64,
}

impl Contents {
    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.sealed.is_empty()
    }

    /// Reads the sealed records; false when one is not what was written.
    pub(super) fn open(&mut self, session: &SessionId, key: &RecordingKey) -> bool {
        for record in std::mem::take(&mut self.sealed) {
            let Some(events) = record.open(session, key) else { return false };
            let Some(events) = decoded(&events) else { return false };
            self.events.extend(events);
        }
        true
    }
}

/// Reads a journal up to the first record that is not whole. A crash may leave such a record;
/// nothing in it was forwarded.
pub(super) fn parse(session: &SessionId, bytes: &Bytes) -> Contents {
    let mut contents = Contents::default();
    let start = bytes.get(..HEADER_LEN).unwrap_or_default();
    let Some(kind) = Kind::ALL.into_iter().find(|kind| start == header_of(*kind, session)) else {
        contents.torn = bytes.len() as u64;
        return contents;
    };
    if kind == Kind::Sealed {
        let (records, torn) = sealed_records(&bytes.slice(HEADER_LEN..));
        return Contents { sealed: records, torn: torn as u64, ..contents };
    }
    let mut at = HEADER_LEN;
    while let Some(record) = record(kind, bytes, at) {
        let Some(events) = decoded(&record) else { break };
        contents.events.extend(events);
        at += RECORD_HEAD + record.len();
    }
    contents.torn = (bytes.len() - at) as u64;
    contents
}

/// All events of a record, or none.
fn decoded(record: &Bytes) -> Option<Vec<Journaled>> {
    let (mut events, mut at) = (Vec::new(), 0);
    while at < record.len() {
        let start = at;
        let event = encode::take(record, &mut at).ok()?;
        events.push(Journaled { event, encoded: record.slice(start..at) });
    }
    Some(events)
}

fn record(kind: Kind, bytes: &Bytes, at: usize) -> Option<Bytes> {
    let rest = bytes.get(at..)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let content = rest.get(..length)?;
    let start = at + RECORD_HEAD;
    let whole = length > 0 && kind.checksum(content) == *sum;
    whole.then(|| bytes.slice(start..start + length))
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
        let recipient = "age1gfr9v9fwjlj3729l5yq54lmgw7vvznw8584esrfvldf0pd7pcptqlhukv7";
        let (cipher, _) = Sealing::make(&[recipient.parse().unwrap()]).unwrap();
        cut_anywhere(None);
        cut_anywhere(Some(cipher));
    }

    /// What gateways before 0.2 left behind when they were killed.
    #[test]
    fn a_journal_with_hashes_is_read() {
        let session = SessionId::generate();
        let mut pending = Pending::starting_at(0);
        let stamp = Stamp { monotonic_us: 0, wall_us: 0 };
        pending.data(stamp, Direction::Up, None, b"select 1");
        let mark = Pending::default().mark();
        let events = pending.since(&mark);
        let journal = |kind: Kind, by: Kind| {
            let length = u32::try_from(events.len()).unwrap();
            let head = record_head(length, by.checksum(events));
            let bytes = [&header_of(kind, &session)[..], &head, events].concat();
            parse(&session, &Bytes::from(bytes)).events.len()
        };
        assert_eq!(journal(Kind::Hashed, Kind::Hashed), 1);
        assert_eq!(journal(Kind::Summed, Kind::Summed), 1);
        assert_eq!(journal(Kind::Hashed, Kind::Summed), 0);
        assert_eq!(journal(Kind::Summed, Kind::Hashed), 0);
        // CRC-64/NVME, as its catalogue gives it.
        let sum = u64::from_le_bytes(Kind::Summed.checksum(b"123456789"));
        assert_eq!(sum, 0xae8b_1486_0a79_9888);
    }

    fn cut_anywhere(mut cipher: Option<Sealing>) {
        let session = SessionId::generate();
        let mut file: File = tempfile::tempfile().unwrap();
        let mut tail = Tail::new(file.try_clone().unwrap(), 0, std::sync::Arc::default());
        tail.append(&mut [IoSlice::new(&header(&session, cipher.is_some()))]).unwrap();
        let mut ends = vec![];
        for n in 0..5u8 {
            let mut pending = Pending::starting_at(u64::from(n) * 2);
            let stamp = Stamp { monotonic_us: 0, wall_us: 0 };
            pending.data(stamp, Direction::Up, None, &[n; 20]);
            pending.data(stamp, Direction::Up, None, &[n; 3]);
            let mark = Pending::default().mark();
            let events = (&pending.span_since(&mark), pending.since(&mark));
            match &mut cipher {
                Some(cipher) => append_sealed(&mut tail, (&session, cipher), events).unwrap(),
                None => append(&mut tail, events.1).unwrap(),
            }
            ends.push(usize::try_from(tail.len()).unwrap());
        }
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        for cut in 0..=bytes.len() {
            let mut contents = parse(&session, &Bytes::copy_from_slice(&bytes[..cut]));
            let whole = ends.iter().filter(|end| **end <= cut).count();
            if let Some(cipher) = &cipher {
                assert_eq!((contents.events.len(), contents.sealed.len()), (0, whole));
                assert!(contents.open(&session, &cipher.key()));
            }
            assert_eq!(contents.events.len(), whole * 2, "cut at {cut}");
        }
        assert!(parse(&SessionId::generate(), &Bytes::from(bytes)).events.is_empty());
    }
}
