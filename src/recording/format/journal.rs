//! The `.journal`: events that are with the operating system but not yet in a block.
//!
//! A journal is written from its start again and again ([`crate::recording::write::journal_file`]), so records of an
//! earlier turn stand behind those of this one. Each turn has a salt of its own, in the header and
//! in every checksum: what is left of earlier records, whose text clients chose, is none of this turn's.
//!
//! In an encrypted recording each record is sealed, and its head tells what a repair has to know
//! that cannot open it.

use std::io;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use crate::names::SessionId;
use crate::recording::format::cipher::{RecordingKey, Sealing, TAG};
use crate::recording::format::encode;
use crate::recording::format::event::{Event, Sequence};
use crate::recording::format::header::Span;
use crate::recording::format::header::take;

/// Bytes of the header that say what it is: magic, version, cipher, two zeros, session.
const ABOUT: usize = 24;
/// Bytes of a salt, and of a checksum.
const SUM: usize = 8;
/// Bytes before what is in a record: length and checksum.
const RECORD_HEAD: usize = 4 + SUM;
/// Bytes behind these that tell of a sealed record.
const SEALED_HEAD: usize = 48;
/// Some times what any journal grows to; what is longer was not written by a gateway.
pub(in crate::recording) const MAX_JOURNAL: u64 = 16 << 20;

const MAGIC: [u8; 4] = *b"PCJ1";

/// What the records of a journal are, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Events with a hash, as gateways before 0.2 wrote them.
    Hashed,
    /// Events with a CRC of salt and events: what a crash leaves of a record is no attack on it, and
    /// two records are written for each command.
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

    /// Of a record's bytes, in a turn with this salt.
    fn checksum(self, salt: Salt, bytes: &[u8]) -> [u8; SUM] {
        match self {
            Self::Summed => {
                let mut sum = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
                sum.update(&salt.0);
                sum.update(bytes);
                sum.finalize().to_le_bytes()
            }
            Self::Hashed | Self::Sealed => hash(bytes),
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; SUM] {
    blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What tells the records of one turn from those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::recording) struct Salt([u8; SUM]);

impl Salt {
    /// One that nobody can guess.
    pub(in crate::recording) fn random() -> io::Result<Self> {
        let mut salt = [0; SUM];
        let filled = aws_lc_rs::rand::fill(&mut salt);
        filled.map_err(|_| io::Error::other("there is no randomness"))?;
        Ok(Self(salt))
    }

    /// The next turn's.
    pub(in crate::recording) fn next(self) -> Self {
        Self(u64::from_le_bytes(self.0).wrapping_add(1).to_le_bytes())
    }
}

/// The header of a journal of events, in a turn with this salt.
pub(in crate::recording) fn header(session: &SessionId, salt: Salt) -> Vec<u8> {
    header_of(Kind::Summed, session, salt)
}

/// The header of an encrypted journal.
pub(in crate::recording) fn sealed_header(session: &SessionId) -> Vec<u8> {
    header_of(Kind::Sealed, session, Salt::default())
}

fn header_of(kind: Kind, session: &SessionId, salt: Salt) -> Vec<u8> {
    let mut header = about(kind, session);
    if kind == Kind::Summed {
        header.extend_from_slice(&salt.0);
    }
    let sum = hash(&header);
    header.extend_from_slice(&sum);
    header
}

fn about(kind: Kind, session: &SessionId) -> Vec<u8> {
    [&MAGIC[..], &kind.fields(), &[0, 0], session.as_bytes()].concat()
}

/// What stands before encoded events in their record.
pub(in crate::recording) fn record_of(salt: Salt, events: &[u8]) -> io::Result<[u8; RECORD_HEAD]> {
    let length = u32::try_from(events.len()).map_err(io::Error::other)?;
    Ok(record_head(length, Kind::Summed.checksum(salt, events)))
}

/// Encoded events as a record that only the recording's key opens.
pub(in crate::recording) fn sealed_record(
    session: &SessionId,
    cipher: &mut Sealing,
    (span, events): (&Span, &[u8]),
) -> io::Result<Vec<u8>> {
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
    let head = record_head(length, hash(&sealed));
    Ok([&head[..], &sealed].concat())
}

fn record_head(length: u32, checksum: [u8; SUM]) -> [u8; RECORD_HEAD] {
    let mut head = [0; RECORD_HEAD];
    let (place, rest) = head.split_at_mut(4);
    place.copy_from_slice(&length.to_le_bytes());
    rest.copy_from_slice(&checksum);
    head
}

/// What a sealed record tells without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) struct SealedHead {
    number: u64,
    pub(in crate::recording) first_sequence: Sequence,
    pub(in crate::recording) next_sequence: Sequence,
    pub(in crate::recording) first_wall_us: i64,
    pub(in crate::recording) last_wall_us: i64,
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
        [&about(Kind::Sealed, session)[..], &self.encode()].concat()
    }

    /// How many of the events have this sequence or a later one. Only a gap uses up more than one
    /// sequence, and it stands first.
    pub(in crate::recording) fn events_from(&self, sequence: Sequence) -> u64 {
        if sequence <= self.first_sequence {
            self.events
        } else {
            self.next_sequence.saturating_sub(sequence)
        }
    }
}

/// A record of an encrypted journal.
#[derive(Debug, Clone)]
pub(in crate::recording) struct SealedRecord {
    pub(in crate::recording) head: SealedHead,
    /// All of it, as it stands in the file.
    pub(in crate::recording) bytes: Bytes,
}

impl SealedRecord {
    /// Bytes of its events before they were sealed.
    pub(in crate::recording) fn raw_len(&self) -> u64 {
        (self.bytes.len().saturating_sub(RECORD_HEAD + SEALED_HEAD + TAG)) as u64
    }

    /// Its events, encoded.
    pub(in crate::recording) fn open(
        &self,
        session: &SessionId,
        key: &RecordingKey,
    ) -> Option<Bytes> {
        let mut sealed = self.bytes.get(RECORD_HEAD + SEALED_HEAD..)?.to_vec();
        let length = key.open(self.head.number, &self.head.about(session), &mut sealed)?.len();
        sealed.truncate(length);
        Some(sealed.into())
    }
}

/// Takes whole sealed records from the beginning; what is left is not one.
pub(in crate::recording) fn sealed_records(bytes: &Bytes) -> (Vec<SealedRecord>, usize) {
    let (mut records, mut at) = (Vec::new(), 0);
    while let Some(content) = record(Kind::Sealed, Salt::default(), bytes, at) {
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
pub(in crate::recording) struct Journaled {
    pub(in crate::recording) event: Event,
    pub(in crate::recording) encoded: Bytes,
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(in crate::recording) struct Contents {
    /// The events of all whole records that were read, in the order they were written.
    pub(in crate::recording) events: Vec<Journaled>,
    /// All whole records, where they are sealed.
    pub(in crate::recording) sealed: Vec<SealedRecord>,
    /// How many bytes at the end are not a whole record.
    pub(in crate::recording) torn: u64,
}

impl Contents {
    /// Whether it holds nothing.
    pub(in crate::recording) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.sealed.is_empty()
    }

    /// Reads the sealed records; false when one is not what was written.
    pub(in crate::recording) fn open(&mut self, session: &SessionId, key: &RecordingKey) -> bool {
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
pub(in crate::recording) fn parse(session: &SessionId, bytes: &Bytes) -> Contents {
    let mut contents = Contents::default();
    let salt = bytes.get(ABOUT..ABOUT + SUM).and_then(|salt| salt.first_chunk().copied());
    let salt = Salt(salt.unwrap_or_default());
    let header = |kind: &Kind| header_of(*kind, session, salt);
    let Some(kind) = Kind::ALL.into_iter().find(|kind| bytes.starts_with(&header(kind))) else {
        // A file that was made, and nothing written to it.
        contents.torn = if bytes.iter().all(|byte| *byte == 0) { 0 } else { bytes.len() as u64 };
        return contents;
    };
    let mut at = header(&kind).len();
    if kind == Kind::Sealed {
        let (records, torn) = sealed_records(&bytes.slice(at..));
        return Contents { sealed: records, torn: torn as u64, ..contents };
    }
    while let Some(record) = record(kind, salt, bytes, at) {
        let Some(events) = decoded(&record) else { break };
        contents.events.extend(events);
        at += RECORD_HEAD + record.len();
    }
    // Behind the records of a turn stands what is left of earlier ones.
    contents.torn = if kind == Kind::Summed { 0 } else { (bytes.len() - at) as u64 };
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

fn record(kind: Kind, salt: Salt, bytes: &Bytes, at: usize) -> Option<Bytes> {
    let rest = bytes.get(at..)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk::<SUM>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let content = rest.get(..length)?;
    let start = at + RECORD_HEAD;
    let whole = length > 0 && kind.checksum(salt, content) == *sum;
    whole.then(|| bytes.slice(start..start + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::format::clock::Stamp;
    use crate::recording::format::event::Direction;
    use crate::recording::write::write_buffer::Pending;

    const STAMP: Stamp = Stamp { monotonic_us: 0, wall_us: 0 };

    /// What gateways before 0.2 left behind when they were killed.
    #[test]
    fn a_journal_with_hashes_is_read() {
        let session = SessionId::generate();
        let mut pending = Pending::starting_at(0);
        pending.data(STAMP, Direction::Up, None, b"select 1");
        let mark = Pending::default().mark();
        let events = pending.since(&mark);
        let salt = Salt([7; SUM]);
        let journal = |kind: Kind, by: Kind| {
            let length = u32::try_from(events.len()).unwrap();
            let head = record_head(length, by.checksum(salt, events));
            let bytes = [&header_of(kind, &session, salt)[..], &head, events].concat();
            parse(&session, &Bytes::from(bytes)).events.len()
        };
        assert_eq!(journal(Kind::Hashed, Kind::Hashed), 1);
        assert_eq!(journal(Kind::Summed, Kind::Summed), 1);
        assert_eq!(journal(Kind::Hashed, Kind::Summed), 0);
        assert_eq!(journal(Kind::Summed, Kind::Hashed), 0);
    }

    /// CRC-64/NVME, as its catalogue gives it.
    #[test]
    fn a_checksum_is_the_one_that_is_documented() {
        let sum = Kind::Summed.checksum(Salt(*b"12345678"), b"9");
        assert_eq!(u64::from_le_bytes(sum), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn a_record_of_another_turn_is_not_read() {
        let session = SessionId::generate();
        let mut pending = Pending::starting_at(0);
        pending.data(STAMP, Direction::Up, None, b"select 1");
        let mark = Pending::default().mark();
        let events = pending.since(&mark);
        let turn = Salt::random().unwrap();
        let record = |salt| [&record_of(salt, events).unwrap()[..], events].concat();
        for (behind, read) in [(turn, 2), (turn.next(), 1), (Salt::random().unwrap(), 1)] {
            let bytes = [header(&session, turn), record(turn), record(behind)].concat();
            let contents = parse(&session, &Bytes::from(bytes));
            assert_eq!((contents.events.len(), contents.torn), (read, 0));
        }
    }
}
