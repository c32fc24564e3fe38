//! Walking over the blocks of a `.rec`: every header is held against the chain, stored bytes are
//! held against the header when they are asked for. The file may be hostile.

use std::cell::RefCell;
use std::fs::File;
use std::io;

use bytes::Bytes;
use zstd::bulk::Decompressor;
use zstd::zstd_safe;

use crate::names::SessionId;
use crate::recording::format::cipher::{self, RecordingKey, TAG};
use crate::recording::format::clock;
use crate::recording::format::documents::{Place, Seal, Sealed, Start};
use crate::recording::format::encode;
use crate::recording::format::header::{
    BlockKind, HEADER_LEN, Header, SKIPPABLE_DOCUMENT, SKIPPABLE_FOUND, SKIPPABLE_SEALED,
    ZSTD_MAGIC,
};
use crate::recording::format::journal::{SealedRecord, sealed_records};
use crate::recording::format::signing::Purpose;
use crate::recording::read::keyring::NoKey;
use crate::recording::read::source::Source;

/// Why a recording could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system could not read it. No source of this error: its text has the cause.
    #[error("cannot read the recording: {0}")]
    Io(io::Error),
    /// The file is not what was written.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// It is encrypted.
    #[error(transparent)]
    NoKey(#[from] NoKey),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
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
pub(in crate::recording) enum BlocksEnd {
    /// With a seal, and nothing behind it.
    Sealed(Seal),
    /// Without; so many bytes at the end are the beginning of a block.
    Open { torn: u64 },
}

/// A block whose header was held against the chain.
#[derive(Debug, Clone, Copy)]
pub(in crate::recording) struct Block {
    pub(in crate::recording) header: Header,
    pub(in crate::recording) offset: u64,
}

impl Block {
    pub(in crate::recording) fn damage(&self, what: impl Into<String>) -> ReadError {
        Damage { block: self.header.index, offset: self.offset, what: what.into() }.into()
    }
}

/// A walk over the blocks of one file, from its start.
#[derive(Debug)]
pub(in crate::recording) struct Blocks {
    source: Source,
    at: u64,
    place: Place,
    end: Option<BlocksEnd>,
    /// Whose recording it is, when it is encrypted, and what opens it.
    encrypted: Option<(SessionId, Option<RecordingKey>)>,
    /// When the last event happened, once an encrypted block told that it is behind.
    ended: Option<i64>,
}

impl Blocks {
    /// Reads the first block.
    pub(in crate::recording) fn open(source: Source) -> Result<(Start, Self), ReadError> {
        let mut blocks = Self::at_start(source);
        match blocks.step()? {
            Some(block) if block.header.kind == BlockKind::Start => {
                let start: Start = parse(&block, &blocks.document(&block)?)?;
                if start.format != 1 {
                    return Err(block.damage("this version of the format is not known"));
                }
                // Whoever opens A's recording must not be shown B's, however whole B's is.
                if let Some(named) = blocks.source.named().filter(|named| *named != start.session) {
                    let other = start.session;
                    return Err(block.damage(format!(
                        "it is another session's recording: the name is {named}, the content {other}"
                    )));
                }
                if start.started != clock::rfc3339(block.header.first_wall_us) {
                    return Err(block.damage("the header and the document tell two times"));
                }
                let known = match start.cipher.as_deref() {
                    None => start.recipients.is_empty() && start.key.is_none(),
                    Some(name) => name == cipher::NAME && start.key.is_some(),
                };
                if !known || start.dictionary.is_some() {
                    return Err(block.damage("it needs what this version does not have"));
                }
                blocks.encrypted = start.cipher.as_ref().map(|_| (start.session, None));
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

    /// Holds the name of a file against the session that it begins with. What does not begin as a
    /// recording is not judged.
    pub(in crate::recording) fn is_of_its_name(source: Source) -> Result<Source, ReadError> {
        let named = source.named();
        let mut blocks = Self::at_start(source);
        let start = match blocks.step() {
            Ok(Some(block)) if block.header.kind == BlockKind::Start => {
                blocks.document(&block).and_then(|text| parse::<Start>(&block, &text))
            }
            _ => return Ok(blocks.source),
        };
        match start {
            Ok(start) if named.is_some_and(|named| named != start.session) => Err(Damage {
                block: 0,
                offset: 0,
                what: "it is another session's recording".to_owned(),
            }
            .into()),
            _ => Ok(blocks.source),
        }
    }

    fn at_start(source: Source) -> Self {
        Self { source, at: 0, place: Place::default(), end: None, encrypted: None, ended: None }
    }

    /// Lets encrypted events be read.
    pub(in crate::recording) fn unlock(&mut self, key: RecordingKey) {
        if let Some((_, place)) = &mut self.encrypted {
            *place = Some(key);
        }
    }

    /// When the last event happened, if an encrypted block told that it holds it.
    pub(in crate::recording) fn ended(&self) -> Option<i64> {
        self.ended
    }

    /// How far the walk is.
    pub(in crate::recording) fn place(&self) -> Place {
        self.place
    }

    /// Bytes walked over.
    pub(in crate::recording) fn offset(&self) -> u64 {
        self.at
    }

    /// How the file ends, once the walk got there.
    pub(in crate::recording) fn end(&self) -> Option<&BlocksEnd> {
        self.end.as_ref()
    }

    /// What the ledger should say of the file, now that its seal was read.
    pub(in crate::recording) fn sealed(&self, seal: &Seal) -> Sealed {
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
    pub(in crate::recording) fn is_torn_start(file: &File) -> io::Result<bool> {
        match Self::at_start(Source::of_file(file.try_clone()?)).step() {
            Ok(None) => Ok(true),
            Ok(Some(_)) | Err(ReadError::Damage(_) | ReadError::NoKey(_)) => Ok(false),
            Err(ReadError::Io(error)) => Err(error),
        }
    }

    /// Goes back to the first block of events.
    pub(in crate::recording) fn rewind(&mut self) -> Result<(), ReadError> {
        (self.at, self.place, self.end, self.ended) = (0, Place::default(), None, None);
        self.step().map(drop)
    }

    /// Goes to a place that an earlier walk got to.
    pub(in crate::recording) fn go_to(&mut self, at: u64, place: Place) -> Result<(), ReadError> {
        if self.source.length()? < at {
            let what = "the file is shorter than it was".to_owned();
            return Err(Damage { block: place.index, offset: at, what }.into());
        }
        (self.at, self.place, self.end, self.ended) = (at, place, None, None);
        Ok(())
    }

    /// Lets the next step look for blocks that were written since the walk came to the end.
    pub(in crate::recording) fn look_again(&mut self) {
        if matches!(self.end, Some(BlocksEnd::Open { .. })) {
            self.end = None;
        }
    }

    /// The next block of events; none at the end.
    pub(in crate::recording) fn next(&mut self) -> Result<Option<Block>, ReadError> {
        let Some(block) = self.step()? else { return Ok(None) };
        match block.header.kind {
            BlockKind::Events | BlockKind::Found => Ok(Some(block)),
            BlockKind::Start => Err(block.damage("a file starts only once")),
            BlockKind::Seal => {
                let seal = self.seal(&block)?;
                self.end = Some(BlocksEnd::Sealed(seal));
                Ok(None)
            }
        }
    }

    /// The events of a block; within the header's bounds whatever the file says. None when they
    /// are encrypted and there is no key; what can be checked without it was checked.
    pub(in crate::recording) fn events(&self, block: &Block) -> Result<Option<Bytes>, ReadError> {
        let stored = self.stored(block)?;
        let encrypted = self.encrypted.as_ref().filter(|_| block.header.encrypted);
        let Some((session, key)) = encrypted else {
            return unpacked(block, &stored).map(Some);
        };
        if block.header.kind == BlockKind::Found {
            return found(block, &stored, (session, key.as_ref()));
        }
        let sealed = framed(&stored, SKIPPABLE_SEALED).filter(|sealed| sealed.len() > TAG);
        let Some(sealed) = sealed else {
            return Err(block.damage("what is stored is not one sealed frame"));
        };
        let Some(key) = key else { return Ok(None) };
        let mut sealed = sealed.to_vec();
        let packed = key.open(block.header.number, &block.header.bound(), &mut sealed);
        let packed = packed.ok_or_else(|| block.damage("it is not what its key sealed"))?;
        unpacked(block, packed).map(Some)
    }

    /// A block's stored bytes, held against the hash in its header.
    pub(in crate::recording) fn stored(&self, block: &Block) -> Result<Vec<u8>, ReadError> {
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
        if header.encrypted && self.encrypted.is_none() {
            return Err(damage("the block is encrypted, and the recording is not").into());
        }
        if self.ended.is_some() && header.kind != BlockKind::Seal {
            return Err(damage("the block comes after the last event").into());
        }
        if header.stored_len > left - HEADER_LEN as u64 {
            self.end = Some(BlocksEnd::Open { torn: left });
            return Ok(None);
        }
        let block = Block { header, offset: self.at };
        self.place.advance(&header, &bytes);
        self.at += HEADER_LEN as u64 + header.stored_len;
        self.ended = self.ended.or(header.ends.then_some(header.last_wall_us));
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
        let json = framed(&stored, SKIPPABLE_DOCUMENT)
            .filter(|json| header.raw_len == json.len() as u64)
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

/// What is in a skippable frame, when that is all there is.
fn framed(stored: &[u8], magic: u32) -> Option<&[u8]> {
    let (length, content) = stored.strip_prefix(&magic.to_le_bytes())?.split_first_chunk()?;
    (u64::from(u32::from_le_bytes(*length)) == content.len() as u64).then_some(content)
}

thread_local! {
    /// Making one takes longer than what most blocks hold takes to decompress.
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses one block's events, as many bytes as the header says.
fn unpacked(block: &Block, packed: &[u8]) -> Result<Bytes, ReadError> {
    let zstd = packed.get(..4) == Some(&ZSTD_MAGIC.to_le_bytes());
    if !zstd || zstd_safe::find_frame_compressed_size(packed) != Ok(packed.len()) {
        return Err(block.damage("what is stored is not one zstd frame"));
    }
    // The header was bounded when it was read.
    let raw_len = usize::try_from(block.header.raw_len).unwrap_or(usize::MAX);
    let claimed = zstd_safe::get_frame_content_size(packed).ok().flatten();
    if claimed != Some(block.header.raw_len) {
        return Err(block.damage("the zstd frame has another length than the header says"));
    }
    let raw = UNPACKER
        .with_borrow_mut(|unpacker| {
            let unpacker = match unpacker {
                Some(unpacker) => unpacker,
                None => unpacker.insert(Decompressor::new()?),
            };
            unpacker.decompress(packed, raw_len)
        })
        .map_err(|error| block.damage(format!("it does not decompress: {error}")))?;
    if raw.len() != raw_len {
        return Err(block.damage("the events have another length than the header says"));
    }
    Ok(raw.into())
}

/// The events of a journal's records, from the header's first sequence on.
fn found(
    block: &Block,
    stored: &[u8],
    (session, key): (&SessionId, Option<&RecordingKey>),
) -> Result<Option<Bytes>, ReadError> {
    let content = framed(stored, SKIPPABLE_FOUND).map(Bytes::copy_from_slice).unwrap_or_default();
    let (records, left) = sealed_records(&content);
    let header = &block.header;
    if left > 0 || !tells_of(header, &records) {
        return Err(block.damage("it does not hold the records that the header tells of"));
    }
    let Some(key) = key else { return Ok(None) };
    let mut events = Vec::new();
    for record in &records {
        let wrong = || block.damage("it is not what its key sealed");
        let opened = record.open(session, key).ok_or_else(wrong)?;
        let mut at = 0;
        // Events that stand in blocks before are passed over.
        while let Some(start) = (at < opened.len()).then_some(at) {
            let event = encode::take(&opened, &mut at).map_err(|what| block.damage(what))?;
            if event.sequence >= header.first_sequence {
                events.extend_from_slice(opened.get(start..at).unwrap_or_default());
            }
        }
    }
    Ok(Some(events.into()))
}

/// Whether records follow one another and are those of a header.
fn tells_of(header: &Header, records: &[SealedRecord]) -> bool {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return false };
    let mut pairs = records.iter().zip(records.iter().skip(1));
    let events = |record: &SealedRecord| record.head.events_from(header.first_sequence);
    pairs.all(|(one, next)| one.head.next_sequence == next.head.first_sequence)
        && first.head.first_sequence <= header.first_sequence
        && first.head.next_sequence > header.first_sequence
        && last.head.next_sequence == header.next_sequence
        && first.head.first_wall_us == header.first_wall_us
        && last.head.last_wall_us == header.last_wall_us
        && records.iter().map(SealedRecord::raw_len).fold(0, u64::saturating_add) == header.raw_len
        && records.iter().map(events).fold(0, u64::saturating_add) == header.events
}
