//! Walking over the blocks of a `.rec`: every header is held against the chain, stored bytes are
//! held against the header when they are asked for. The file may be hostile.

use std::fs::File;
use std::io;

use bytes::Bytes;
use zstd::zstd_safe;

use super::block::{
    BlockKind, HEADER_LEN, Header, Place, SKIPPABLE_DOCUMENT, Seal, Sealed, Start, ZSTD_MAGIC,
};
use super::clock;
use super::signing::Purpose;
use super::source::Source;

/// Why a recording could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system could not read it.
    #[error("cannot read the recording: {0}")]
    Io(#[from] io::Error),
    /// The file is not what was written.
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// The first thing in a file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {block} at byte {offset}: {what}")]
pub struct Damage {
    /// The block, from 0.
    pub block: u64,
    /// Where the block starts in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// How the blocks of a file end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlocksEnd {
    /// With a seal, and nothing behind it.
    Sealed(Seal),
    /// Without; so many bytes at the end are the beginning of a block.
    Open { torn: u64 },
}

/// A block whose header was held against the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) header: Header,
    pub(super) offset: u64,
}

impl Block {
    pub(super) fn damage(&self, what: impl Into<String>) -> ReadError {
        Damage { block: self.header.index, offset: self.offset, what: what.into() }.into()
    }
}

/// A walk over the blocks of one file, from its start.
#[derive(Debug)]
pub(super) struct Blocks {
    source: Source,
    at: u64,
    place: Place,
    end: Option<BlocksEnd>,
}

impl Blocks {
    /// Reads the first block.
    pub(super) fn open(source: Source) -> Result<(Start, Self), ReadError> {
        let mut blocks = Self { source, at: 0, place: Place::default(), end: None };
        match blocks.step()? {
            Some(block) if block.header.kind == BlockKind::Start => {
                let start: Start = parse(&block, &blocks.document(&block)?)?;
                if start.format != 1 {
                    return Err(block.damage("this version of the format is not known"));
                }
                if start.started != clock::rfc3339(block.header.first_wall_us) {
                    return Err(block.damage("the header and the document tell two times"));
                }
                let plain = start.cipher.is_none() && start.dictionary.is_none();
                if !plain || !start.recipients.is_empty() {
                    return Err(block.damage("it needs what this version does not have"));
                }
                Ok((start, blocks))
            }
            _ => Err(Damage {
                block: 0,
                offset: 0,
                what: "the file does not start as a recording does".to_owned(),
            }
            .into()),
        }
    }

    /// How far the walk is.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Bytes walked over.
    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// How the file ends, once the walk got there.
    pub(super) fn end(&self) -> Option<&BlocksEnd> {
        self.end.as_ref()
    }

    /// What the ledger should say of the file, now that its seal was read.
    pub(super) fn sealed(&self, seal: &Seal) -> Sealed {
        Sealed {
            seal: blake3::Hash::from_bytes(self.place.chain).to_hex().to_string(),
            blocks: seal.blocks,
            events: seal.events,
            size: self.at,
            how: seal.how.clone(),
            interrupted: seal.interrupted,
        }
    }

    /// Whether a file ends within what would be its first block.
    pub(super) fn is_torn_start(file: &File) -> io::Result<bool> {
        let source = Source::File(file.try_clone()?);
        let mut blocks = Self { source, at: 0, place: Place::default(), end: None };
        match blocks.step() {
            Ok(None) => Ok(true),
            Ok(Some(_)) | Err(ReadError::Damage(_)) => Ok(false),
            Err(ReadError::Io(error)) => Err(error),
        }
    }

    /// Goes back to the first block of events.
    pub(super) fn rewind(&mut self) -> Result<(), ReadError> {
        (self.at, self.place, self.end) = (0, Place::default(), None);
        self.step().map(drop)
    }

    /// Goes to a place that an earlier walk got to.
    pub(super) fn go_to(&mut self, at: u64, place: Place) -> Result<(), ReadError> {
        if self.source.length()? < at {
            let what = "the file is shorter than it was".to_owned();
            return Err(Damage { block: place.index, offset: at, what }.into());
        }
        (self.at, self.place, self.end) = (at, place, None);
        Ok(())
    }

    /// Lets the next step look for blocks that were written since the walk came to the end.
    pub(super) fn look_again(&mut self) {
        if matches!(self.end, Some(BlocksEnd::Open { .. })) {
            self.end = None;
        }
    }

    /// The next block of events; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Block>, ReadError> {
        let Some(block) = self.step()? else { return Ok(None) };
        match block.header.kind {
            BlockKind::Events => Ok(Some(block)),
            BlockKind::Start => Err(block.damage("a file starts only once")),
            BlockKind::Seal => {
                let seal = self.seal(&block)?;
                self.end = Some(BlocksEnd::Sealed(seal));
                Ok(None)
            }
        }
    }

    /// The events of a block, decompressed; within the header's bounds whatever the file says.
    pub(super) fn events(&self, block: &Block) -> Result<Bytes, ReadError> {
        let stored = self.stored(block)?;
        let zstd = stored.get(..4) == Some(&ZSTD_MAGIC.to_le_bytes());
        if !zstd || zstd_safe::find_frame_compressed_size(&stored) != Ok(stored.len()) {
            return Err(block.damage("what is stored is not one zstd frame"));
        }
        // The header was bounded when it was read.
        let raw_len = usize::try_from(block.header.raw_len).unwrap_or(usize::MAX);
        let claimed = zstd_safe::get_frame_content_size(&stored).ok().flatten();
        if claimed != Some(block.header.raw_len) {
            return Err(block.damage("the zstd frame has another length than the header says"));
        }
        let raw = zstd::bulk::decompress(&stored, raw_len)
            .map_err(|error| block.damage(format!("it does not decompress: {error}")))?;
        if raw.len() != raw_len {
            return Err(block.damage("the events have another length than the header says"));
        }
        Ok(raw.into())
    }

    /// A block's stored bytes, held against the hash in its header.
    pub(super) fn stored(&self, block: &Block) -> Result<Vec<u8>, ReadError> {
        // Both were bounded when the header was read, and the file is that long.
        let length = usize::try_from(block.header.stored_len).unwrap_or_default();
        let mut stored = vec![0; length];
        self.source.read_at(&mut stored, block.offset + HEADER_LEN as u64)?;
        if blake3::hash(&stored) != block.header.stored_hash {
            return Err(block.damage("the stored bytes do not have the hash in the header"));
        }
        Ok(stored)
    }

    fn step(&mut self) -> Result<Option<Block>, ReadError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let damage =
            |what: &str| Damage { block: self.place.index, offset: self.at, what: what.to_owned() };
        let left = self.source.length()?.saturating_sub(self.at);
        let mut bytes = [0; HEADER_LEN];
        if left < HEADER_LEN as u64 {
            let torn = bytes.get_mut(..usize::try_from(left).unwrap_or(0)).unwrap_or_default();
            self.source.read_at(torn, self.at)?;
            if !Header::may_start_with(torn) {
                return Err(damage("this is not a block's header").into());
            }
            self.end = Some(BlocksEnd::Open { torn: left });
            return Ok(None);
        }
        self.source.read_at(&mut bytes, self.at)?;
        let header = Header::decode(&bytes).map_err(damage)?;
        if header.index != self.place.index {
            return Err(damage("the block's number does not follow the block before").into());
        }
        if header.chain != self.place.chain {
            return Err(damage("the chain to the block before is broken").into());
        }
        if header.first_sequence != self.place.next_sequence {
            return Err(damage("the sequence does not follow the block before").into());
        }
        if header.stored_len > left - HEADER_LEN as u64 {
            self.end = Some(BlocksEnd::Open { torn: left });
            return Ok(None);
        }
        let block = Block { header, offset: self.at };
        self.place.advance(&header, &bytes);
        self.at += HEADER_LEN as u64 + header.stored_len;
        Ok(Some(block))
    }

    fn seal(&self, block: &Block) -> Result<Seal, ReadError> {
        let document = self.document(block)?;
        let seal: Seal = parse(block, &document)?;
        if seal.key.is_some_and(|key| !key.signed(Purpose::Seal, &document)) {
            return Err(block.damage("the seal's signature is not its key's"));
        }
        let header = &block.header;
        let place = self.place;
        if seal.head != blake3::Hash::from_bytes(header.chain).to_hex().as_str() {
            return Err(block.damage("the seal is of another chain"));
        }
        if (seal.blocks, seal.events, seal.raw) != (header.index, place.events, place.raw) {
            return Err(block.damage("the seal counts other blocks, events or bytes"));
        }
        if seal.sealed_at != clock::rfc3339(header.first_wall_us) {
            return Err(block.damage("the header and the seal tell two times"));
        }
        if self.at != self.source.length()? {
            return Err(block.damage("there are bytes behind the seal"));
        }
        Ok(seal)
    }

    fn document(&self, block: &Block) -> Result<Vec<u8>, ReadError> {
        let stored = self.stored(block)?;
        let header = &block.header;
        let json = stored
            .strip_prefix(&SKIPPABLE_DOCUMENT.to_le_bytes())
            .and_then(<[u8]>::split_first_chunk)
            .filter(|(length, json)| {
                u64::from(u32::from_le_bytes(**length)) == json.len() as u64
                    && header.raw_len == json.len() as u64
            })
            .map(|(_, json)| json)
            .ok_or_else(|| block.damage("what is stored is not one document"))?;
        let plain = header.events == 0
            && header.first_sequence == header.next_sequence
            && header.first_wall_us == header.last_wall_us;
        if !plain {
            return Err(block.damage("a document's header tells of events"));
        }
        Ok(json.to_vec())
    }
}

fn parse<T: serde::de::DeserializeOwned>(block: &Block, json: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(json)
        .map_err(|error| block.damage(format!("its document cannot be read: {error}")))
}
