//! The blocks of a `.rec`: a header that names the stored bytes by hash and chains to the header
//! before, then the stored bytes. Layout and rules: `docs/recording-format.md`.

use std::io::{self, Cursor, IoSlice};

use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter};

use crate::recording::format::append_file::Tail;
use crate::recording::format::cipher::{Sealing, TAG};
use crate::recording::format::documents::{FRAME_HEAD, Place, Seal, Sealed, Start, frame_head};
use crate::recording::format::event::{INTERRUPTED, Sequence};
use crate::recording::format::header::{BLOCK_TARGET, Span};
use crate::recording::format::header::{
    BlockKind, Header, SKIPPABLE_DOCUMENT, SKIPPABLE_FOUND, SKIPPABLE_SEALED,
};
use crate::recording::format::journal::SealedRecord;
use crate::recording::format::signing::{Purpose, SealingKey};
use crate::recording::write::write_buffer::Pending;

/// Level 1 takes Postgres rows to a third at 500 MB/s; level 3 buys nothing.
const LEVEL: i32 = 1;

/// Compresses blocks; costs about half a megabyte, so few are made and each serves many.
pub(in crate::recording) struct Packer {
    compressor: Compressor<'static>,
    out: Vec<u8>,
}

impl Packer {
    pub(in crate::recording) fn new() -> io::Result<Self> {
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
    pub(in crate::recording) fn shrink(&mut self) {
        if self.out.capacity() > 2 * BLOCK_TARGET {
            self.out = Vec::new();
        }
    }
}

/// The end of a `.rec`, to which blocks are added.
#[derive(Debug)]
pub(in crate::recording) struct BlockWriter {
    pub(in crate::recording) tail: Tail,
    place: Place,
}

impl BlockWriter {
    /// Goes on at the end of `tail`, which is at `place`.
    pub(in crate::recording) fn new(tail: Tail, place: Place) -> Self {
        Self { tail, place }
    }

    /// The sequence of the next event.
    pub(in crate::recording) fn next_sequence(&self) -> Sequence {
        self.place.next_sequence
    }

    /// Writes the first block.
    pub(in crate::recording) fn start(&mut self, start: &Start, wall_us: i64) -> io::Result<()> {
        self.document(BlockKind::Start, &serde_json::to_vec(start)?, wall_us)
    }

    /// Writes what is pending as blocks: all of it, or nothing. `ends`: with `closed` at its end.
    pub(in crate::recording) fn blocks(
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
    pub(in crate::recording) fn found(&mut self, records: &[SealedRecord]) -> io::Result<()> {
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
    pub(in crate::recording) fn seal(
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
            sealed_at: crate::recording::format::clock::rfc3339(wall_us),
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
