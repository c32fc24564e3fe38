//! The blocks of a `.rec`: a header that names the stored bytes by hash and chains to the header
//! before, then the stored bytes. Layout and rules: `docs/recording-format.md`.

use std::io::{self, IoSlice};

use serde::{Deserialize, Serialize};
use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter};

use super::encode::MAX_PAYLOAD;
use super::event::{INTERRUPTED, Sequence};
use super::pending::{BLOCK_TARGET, Pending, Span};
use super::signing::{PublicKey, Purpose, SealingKey};
use super::tail::Tail;

/// Bytes of a header with the skippable frame around it.
pub(super) const HEADER_LEN: usize = 160;
/// What a block's events may come to: they end with the one that fills the block, and an event
/// is at most its payload and a line.
pub(super) const MAX_RAW: u64 = (BLOCK_TARGET + MAX_PAYLOAD + 1024) as u64;
/// What the stored bytes may come to: zstd adds less than one byte in 128 to what does not compress.
pub(super) const MAX_STORED: u64 = MAX_RAW + MAX_RAW / 128 + 1024;
/// A start or seal document's bound; recipients of encryption will stand in it.
pub(super) const MAX_DOCUMENT: u64 = 64 << 10;

/// RFC 8878 section 3.1.2: decoders skip frames of these magic numbers.
const SKIPPABLE_HEADER: u32 = 0x184D_2A50;
pub(super) const SKIPPABLE_DOCUMENT: u32 = 0x184D_2A51;
/// RFC 8878 section 3.1.1.
pub(super) const ZSTD_MAGIC: u32 = 0xFD2F_B528;
const MAGIC: [u8; 4] = *b"PCR1";
/// Level 1 takes Postgres rows to a third at 500 MB/s; level 3 buys nothing.
const LEVEL: i32 = 1;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// The document that a file starts with, [`Start`].
    Start,
    /// Events.
    Events,
    /// The document that a file ends with, [`Seal`].
    Seal,
}

/// One block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: BlockKind,
    pub(super) cipher: u8,
    pub(super) index: u64,
    pub(super) first_sequence: Sequence,
    pub(super) next_sequence: Sequence,
    pub(super) first_wall_us: i64,
    pub(super) last_wall_us: i64,
    pub(super) raw_len: u64,
    pub(super) stored_len: u64,
    pub(super) events: u64,
    pub(super) stored_hash: [u8; 32],
    pub(super) chain: [u8; 32],
}

impl Header {
    /// The header as it is stored.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let kind: u8 = match self.kind {
            BlockKind::Start => 0,
            BlockKind::Events => 1,
            BlockKind::Seal => 2,
        };
        let length = u32::try_from(HEADER_LEN - 8).unwrap_or_default();
        let fields: [&[u8]; 16] = [
            &SKIPPABLE_HEADER.to_le_bytes(),
            &length.to_le_bytes(),
            &MAGIC,
            &[kind, self.cipher, 0, 0],
            &self.index.to_le_bytes(),
            &self.first_sequence.to_le_bytes(),
            &self.next_sequence.to_le_bytes(),
            &self.first_wall_us.to_le_bytes(),
            &self.last_wall_us.to_le_bytes(),
            &self.raw_len.to_le_bytes(),
            &self.stored_len.to_le_bytes(),
            &self.events.to_le_bytes(),
            &[0; 8],
            &[0; 8],
            &self.stored_hash,
            &self.chain,
        ];
        let mut rest = out.as_mut_slice();
        for field in fields {
            let Some((place, after)) = rest.split_at_mut_checked(field.len()) else { break };
            place.copy_from_slice(field);
            rest = after;
        }
        out
    }

    /// Reads a header and refuses every byte that the writer would not have written.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, &'static str> {
        let mut rest = bytes.get(8..).unwrap_or_default();
        let magic = take::<4>(&mut rest);
        let [kind, cipher, _, _] = take(&mut rest);
        let kind = match kind {
            0 => BlockKind::Start,
            1 => BlockKind::Events,
            2 => BlockKind::Seal,
            _ => return Err("the block is of an unknown kind"),
        };
        let mut u64 = || u64::from_le_bytes(take(&mut rest));
        let header = Self {
            kind,
            cipher,
            index: u64(),
            first_sequence: u64(),
            next_sequence: u64(),
            first_wall_us: i64::from_le_bytes(u64().to_le_bytes()),
            last_wall_us: i64::from_le_bytes(u64().to_le_bytes()),
            raw_len: u64(),
            stored_len: u64(),
            events: u64(),
            stored_hash: {
                take::<16>(&mut rest);
                take(&mut rest)
            },
            chain: take(&mut rest),
        };
        if magic != MAGIC || header.encode() != *bytes {
            return Err("this is not a block's header");
        }
        if cipher != 0 {
            return Err("the block is encrypted, which this version cannot read");
        }
        let (raw, stored) = match kind {
            BlockKind::Events => (MAX_RAW, MAX_STORED),
            BlockKind::Start | BlockKind::Seal => (MAX_DOCUMENT, MAX_DOCUMENT + 8),
        };
        if header.raw_len > raw || header.stored_len > stored {
            return Err("the block is longer than a block may be");
        }
        if header.next_sequence < header.first_sequence {
            return Err("the block's sequence goes back");
        }
        Ok(header)
    }

    /// Whether a file's last bytes, too few for a header, could be the start of one.
    pub(super) fn may_start_with(bytes: &[u8]) -> bool {
        let length = u32::try_from(HEADER_LEN - 8).unwrap_or_default();
        let fixed = [SKIPPABLE_HEADER.to_le_bytes(), length.to_le_bytes(), MAGIC];
        bytes.iter().zip(fixed.as_flattened()).all(|(a, b)| a == b)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, after)) => {
            *rest = after;
            *field
        }
        None => [0; N],
    }
}

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
    /// The cipher of the events; none yet.
    pub cipher: Option<String>,
    /// Who can decrypt; nobody yet.
    pub recipients: Vec<String>,
    /// The compression dictionary; none yet.
    pub dictionary: Option<String>,
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

    fn pack(&mut self, raw: &[u8]) -> io::Result<&[u8]> {
        self.out.clear();
        self.out.reserve(zstd_safe::compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, &mut self.out)?;
        Ok(&self.out)
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

    /// Writes the first block.
    pub(super) fn start(&mut self, start: &Start, wall_us: i64) -> io::Result<()> {
        self.document(BlockKind::Start, &serde_json::to_vec(start)?, wall_us)
    }

    /// Writes what is pending as blocks: all of it, or nothing.
    pub(super) fn blocks(&mut self, packer: &mut Packer, pending: &Pending) -> io::Result<()> {
        let (len, place) = (self.tail.len(), self.place);
        let result = pending.blocks().try_for_each(|(span, raw)| self.block(packer, &span, raw));
        if result.is_err() {
            self.tail.roll_back(len);
            self.place = place;
        }
        packer.shrink();
        result
    }

    fn block(&mut self, packer: &mut Packer, span: &Span, raw: &[u8]) -> io::Result<()> {
        let stored = packer.pack(raw)?;
        let header = Header {
            kind: BlockKind::Events,
            cipher: 0,
            index: self.place.index,
            first_sequence: span.first_sequence,
            next_sequence: span.next_sequence,
            first_wall_us: span.first_wall_us,
            last_wall_us: span.last_wall_us,
            raw_len: raw.len() as u64,
            stored_len: stored.len() as u64,
            events: span.events,
            stored_hash: *blake3::hash(stored).as_bytes(),
            chain: self.place.chain,
        };
        Self::write(&mut self.tail, &mut self.place, &header, stored)
    }

    /// Writes what is pending and the last block: all of it, or nothing. The recording ends here.
    pub(super) fn seal(
        &mut self,
        packer: &mut Packer,
        pending: &Pending,
        how: &str,
        (key, wall_us): (&SealingKey, i64),
    ) -> io::Result<Sealed> {
        let len = self.tail.len();
        self.blocks(packer, pending)?;
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
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut stored = Vec::with_capacity(json.len() + 8);
        stored.extend_from_slice(&SKIPPABLE_DOCUMENT.to_le_bytes());
        stored.extend_from_slice(&length.to_le_bytes());
        stored.extend_from_slice(json);
        let header = Header {
            kind,
            cipher: 0,
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

impl Place {
    /// Goes past a block.
    pub(super) fn advance(&mut self, header: &Header, bytes: &[u8; HEADER_LEN]) {
        self.index = header.index.saturating_add(1);
        self.chain = *blake3::hash(bytes).as_bytes();
        self.next_sequence = header.next_sequence;
        if header.kind == BlockKind::Events {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_any_bit_changed_is_another_header_or_none() {
        let header = Header {
            kind: BlockKind::Events,
            cipher: 0,
            index: 3,
            first_sequence: 10,
            next_sequence: 20,
            first_wall_us: -1,
            last_wall_us: 2,
            raw_len: 500,
            stored_len: 300,
            events: 10,
            stored_hash: [7; 32],
            chain: [9; 32],
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..HEADER_LEN * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Header::decode(&changed), Ok(header), "bit {bit}");
        }
    }
}
