//! The blocks of a `.rec`: a header that names the stored bytes by hash and chains to the header
//! before, then the stored bytes. Layout and rules: `docs/recording-format.md`.

use std::io::{self, Cursor, IoSlice};

use serde::{Deserialize, Serialize};
use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter};

use super::append_file::Tail;
use super::cipher::{Sealing, TAG};
use super::event::{INTERRUPTED, Sequence};
use super::header::{
    BlockKind, HEADER_LEN, Header, SKIPPABLE_DOCUMENT, SKIPPABLE_FOUND, SKIPPABLE_SEALED,
};
use super::journal::SealedRecord;
use super::signing::{PublicKey, Purpose, SealingKey};
use super::write_buffer::{BLOCK_TARGET, Pending, Span};

/// Bytes before what is in a skippable frame.
pub(super) const FRAME_HEAD: usize = 8;
/// Level 1 takes Postgres rows to a third at 500 MB/s; level 3 buys nothing.
const LEVEL: i32 = 1;

/// The document of the first block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The version of the format: 1.
    pub format: u32,
    /// The recording's id.
    pub session: crate::names::SessionId,
    /// The gateway's id, as its ledger has it.
    pub gateway: String,
    /// When, by the wall clock, RFC 3339.
    pub started: String,
    /// The cipher of the events; none when they are not encrypted.
    pub cipher: Option<String>,
    /// Who could decrypt when it was begun: keys of age.
    pub recipients: Vec<String>,
    /// The compression dictionary; none yet.
    pub dictionary: Option<String>,
    /// The key, wrapped to the recipients: a file of age's format in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The document of the last block.
/// Its signature stands behind these members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The hash of the last header before the seal, in hexadecimal: everything hangs on it.
    pub head: String,
    /// Blocks before the seal.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Their bytes before compression.
    pub raw: u64,
    /// How the session ended, as its last event says.
    pub how: String,
    /// Whether a crash ended it.
    pub interrupted: bool,
    /// When, by the wall clock, RFC 3339.
    pub sealed_at: String,
    /// The key of the signature; none in recordings of versions that did not sign.
    pub key: Option<PublicKey>,
}

/// Compresses blocks; costs about half a megabyte, so few are made and each serves many.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    out: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { compressor, out: Vec::new() })
    }

    /// Compresses into `out`, behind so many bytes that are left free.
    fn pack(&mut self, raw: &[u8], free: usize) -> io::Result<()> {
        self.out.clear();
        self.out.resize(free, 0);
        self.out.reserve(zstd_safe::compress_bound(raw.len()) + TAG);
        let mut out = Cursor::new(std::mem::take(&mut self.out));
        out.set_position(free as u64);
        let packed = self.compressor.compress_to_buffer(raw, &mut out);
        self.out = out.into_inner();
        packed.map(drop)
    }

    /// Seals what was packed, behind the head of a skippable frame; the header tells of both then.
    fn seal(&mut self, header: &mut Header, cipher: &mut Sealing) -> io::Result<()> {
        let once = cipher.once()?;
        let length = self.out.len() + TAG;
        header.encrypted = true;
        header.number = once.number();
        header.stored_len = length as u64;
        let head = frame_head(SKIPPABLE_SEALED, length - FRAME_HEAD)?;
        if let Some(place) = self.out.first_chunk_mut() {
            *place = head;
        }
        cipher.seal(once, &header.bound(), &mut self.out, FRAME_HEAD)
    }

    /// After one huge event the buffer would stay huge.
    pub(super) fn shrink(&mut self) {
        if self.out.capacity() > 2 * BLOCK_TARGET {
            self.out = Vec::new();
        }
    }
}

/// The end of a `.rec`, to which blocks are added.
#[derive(Debug)]
pub(super) struct BlockWriter {
    pub(super) tail: Tail,
    place: Place,
}

/// How far the chain is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// The next block's index.
    pub(super) index: u64,
    /// The hash of the last header.
    pub(super) chain: [u8; 32],
    /// Events so far.
    pub(super) events: u64,
    /// Their bytes before compression.
    pub(super) raw: u64,
    /// The sequence of the next event.
    pub(super) next_sequence: Sequence,
}

impl BlockWriter {
    /// Goes on at the end of `tail`, which is at `place`.
    pub(super) fn new(tail: Tail, place: Place) -> Self {
        Self { tail, place }
    }

    /// The sequence of the next event.
    pub(super) fn next_sequence(&self) -> Sequence {
        self.place.next_sequence
    }

    /// Writes the first block.
    pub(super) fn start(&mut self, start: &Start, wall_us: i64) -> io::Result<()> {
        self.document(BlockKind::Start, &serde_json::to_vec(start)?, wall_us)
    }

    /// Writes what is pending as blocks: all of it, or nothing. `ends`: with `closed` at its end.
    pub(super) fn blocks(
        &mut self,
        packer: &mut Packer,
        pending: &Pending,
        mut cipher: Option<&mut Sealing>,
        ends: bool,
    ) -> io::Result<()> {
        let (len, place) = (self.tail.len(), self.place);
        let result = pending.blocks().try_for_each(|(span, raw)| {
            let ends = ends && span.next_sequence == pending.next_sequence();
            self.block(packer, (&span, raw), cipher.as_deref_mut(), ends)
        });
        if result.is_err() {
            self.tail.roll_back(len);
            self.place = place;
        }
        packer.shrink();
        result
    }

    fn block(
        &mut self,
        packer: &mut Packer,
        (span, raw): (&Span, &[u8]),
        cipher: Option<&mut Sealing>,
        ends: bool,
    ) -> io::Result<()> {
        packer.pack(raw, if cipher.is_some() { FRAME_HEAD } else { 0 })?;
        let mut header = Header {
            kind: BlockKind::Events,
            encrypted: false,
            ends: ends && cipher.is_some(),
            number: 0,
            index: self.place.index,
            first_sequence: span.first_sequence,
            next_sequence: span.next_sequence,
            first_wall_us: span.first_wall_us,
            last_wall_us: span.last_wall_us,
            raw_len: raw.len() as u64,
            stored_len: packer.out.len() as u64,
            events: span.events,
            stored_hash: [0; 32],
            chain: self.place.chain,
        };
        if let Some(cipher) = cipher {
            packer.seal(&mut header, cipher)?;
        }
        header.stored_hash = *blake3::hash(&packer.out).as_bytes();
        Self::write(&mut self.tail, &mut self.place, &header, &packer.out)
    }

    /// Writes records of an encrypted journal that nobody here can read, one behind the other.
    pub(super) fn found(&mut self, records: &[SealedRecord]) -> io::Result<()> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let content: usize = records.iter().map(|record| record.bytes.len()).sum();
        let mut stored = frame_head(SKIPPABLE_FOUND, content)?.to_vec();
        records.iter().for_each(|record| stored.extend_from_slice(&record.bytes));
        let due = self.place.next_sequence;
        let events = records.iter().map(|record| record.head.events_from(due));
        let header = Header {
            kind: BlockKind::Found,
            encrypted: true,
            ends: false,
            number: 0,
            index: self.place.index,
            first_sequence: due,
            next_sequence: last.head.next_sequence,
            first_wall_us: first.head.first_wall_us,
            last_wall_us: last.head.last_wall_us,
            raw_len: records.iter().map(SealedRecord::raw_len).fold(0, u64::saturating_add),
            stored_len: stored.len() as u64,
            events: events.fold(0, u64::saturating_add),
            stored_hash: *blake3::hash(&stored).as_bytes(),
            chain: self.place.chain,
        };
        Self::write(&mut self.tail, &mut self.place, &header, &stored)
    }

    /// Writes what is pending and the last block: all of it, or nothing. The recording ends here.
    pub(super) fn seal(
        &mut self,
        packer: &mut Packer,
        pending: &Pending,
        cipher: Option<&mut Sealing>,
        how: &str,
        (key, wall_us): (&SealingKey, i64),
    ) -> io::Result<Sealed> {
        let len = self.tail.len();
        self.blocks(packer, pending, cipher, true)?;
        let place = self.place;
        let seal = Seal {
            head: blake3::Hash::from_bytes(place.chain).to_hex().to_string(),
            blocks: place.index,
            events: place.events,
            raw: place.raw,
            how: how.to_owned(),
            interrupted: how == INTERRUPTED,
            sealed_at: super::clock::rfc3339(wall_us),
            key: Some(key.public()),
        };
        let mut document = serde_json::to_vec(&seal)?;
        key.sign(Purpose::Seal, &mut document);
        if let Err(error) = self.document(BlockKind::Seal, &document, wall_us) {
            self.tail.roll_back(len);
            return Err(error);
        }
        Ok(Sealed {
            seal: blake3::Hash::from_bytes(self.place.chain).to_hex().to_string(),
            blocks: seal.blocks,
            events: seal.events,
            size: self.tail.len(),
            how: seal.how,
            interrupted: seal.interrupted,
        })
    }

    fn document(&mut self, kind: BlockKind, json: &[u8], wall_us: i64) -> io::Result<()> {
        let mut stored = frame_head(SKIPPABLE_DOCUMENT, json.len())?.to_vec();
        stored.extend_from_slice(json);
        let header = Header {
            kind,
            encrypted: false,
            ends: false,
            number: 0,
            index: self.place.index,
            first_sequence: self.place.next_sequence,
            next_sequence: self.place.next_sequence,
            first_wall_us: wall_us,
            last_wall_us: wall_us,
            raw_len: json.len() as u64,
            stored_len: stored.len() as u64,
            events: 0,
            stored_hash: *blake3::hash(&stored).as_bytes(),
            chain: self.place.chain,
        };
        Self::write(&mut self.tail, &mut self.place, &header, &stored)
    }

    fn write(tail: &mut Tail, place: &mut Place, header: &Header, stored: &[u8]) -> io::Result<()> {
        let bytes = header.encode();
        tail.append(&mut [IoSlice::new(&bytes), IoSlice::new(stored)])?;
        place.advance(header, &bytes);
        Ok(())
    }
}

/// What a skippable frame begins with.
pub(super) fn frame_head(magic: u32, length: usize) -> io::Result<[u8; FRAME_HEAD]> {
    let length = u32::try_from(length).map_err(io::Error::other)?;
    let mut head = [0; FRAME_HEAD];
    let (first, second) = head.split_at_mut(4);
    first.copy_from_slice(&magic.to_le_bytes());
    second.copy_from_slice(&length.to_le_bytes());
    Ok(head)
}

impl Place {
    /// Goes past a block.
    pub(super) fn advance(&mut self, header: &Header, bytes: &[u8; HEADER_LEN]) {
        self.index = header.index.saturating_add(1);
        self.chain = *blake3::hash(bytes).as_bytes();
        self.next_sequence = header.next_sequence;
        if matches!(header.kind, BlockKind::Events | BlockKind::Found) {
            self.events = self.events.saturating_add(header.events);
            self.raw = self.raw.saturating_add(header.raw_len);
        }
    }
}

/// What the ledger says of a sealed recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The hash of the seal block's header, in hexadecimal: it covers every byte of the file.
    pub seal: String,
    /// Blocks before the seal.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of the file.
    pub size: u64,
    /// How the session ended.
    pub how: String,
    /// Whether a crash ended it.
    pub interrupted: bool,
}
