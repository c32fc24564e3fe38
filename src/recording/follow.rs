//! Reading along: recordings block by block as they are written, and the ledger line by line, each
//! from where the reader left off last time, maybe in an earlier life.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::block::{Place, Seal, Start};
use super::blocks::{Blocks, BlocksEnd, ReadError};
use super::encode;
use super::event::{Event, Sequence};
use super::layout::{self, LEDGER};
use super::ledger::{Entry, Line, MAX_LINE};
use super::reader::follow;
use crate::names::SessionId;

/// Sessions that are remembered as changed; beyond, it is only known that there are more.
const MAX_CHANGED: usize = 1 << 14;

/// A place behind a block of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bookmark {
    /// Bytes of the `.rec` before it.
    pub offset: u64,
    /// Blocks before it.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Their bytes before compression.
    pub raw: u64,
    /// The next event's sequence.
    pub next_sequence: Sequence,
    /// The hash of the header before it, which the next block must name.
    pub chain: [u8; 32],
}

/// The blocks of one recording, from a bookmark on, checked as [`super::Reader`] checks them.
/// Events are seen once they are in a block, 150 ms after they happened.
#[derive(Debug)]
pub struct Follower {
    start: Start,
    blocks: Blocks,
}

impl Follower {
    /// Opens the `.rec` at a bookmark; the default is its beginning.
    ///
    /// # Errors
    /// When the file cannot be read, does not start as a recording does, or ends before the
    /// bookmark.
    pub fn open(path: &Path, from: &Bookmark) -> Result<Self, ReadError> {
        let (start, mut blocks) = Blocks::open(File::open(path)?)?;
        if *from != Bookmark::default() {
            let place = Place {
                index: from.blocks,
                chain: from.chain,
                events: from.events,
                raw: from.raw,
                next_sequence: from.next_sequence,
            };
            blocks.go_to(from.offset, place)?;
        }
        Ok(Self { start, blocks })
    }

    /// What the file starts with.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The events of the next block; none when there is no whole one more, yet or for ever.
    ///
    /// # Errors
    /// When the block is not what was written.
    pub fn next_block(&mut self) -> Result<Option<Vec<Event>>, ReadError> {
        let Some(block) = self.blocks.next()? else {
            self.blocks.look_again();
            return Ok(None);
        };
        let bytes = self.blocks.events(&block)?;
        let (mut events, mut at, mut due) = (Vec::new(), 0, block.header.first_sequence);
        while at < bytes.len() {
            let event = encode::take(&bytes, &mut at).map_err(|what| block.damage(what))?;
            due = follow(&event, due).map_err(|what| block.damage(what))?;
            events.push(event);
        }
        if due != block.header.next_sequence || events.len() as u64 != block.header.events {
            return Err(block.damage("the header tells of other events"));
        }
        Ok(Some(events))
    }

    /// The place behind the last block that was given.
    pub fn bookmark(&self) -> Bookmark {
        let place = self.blocks.place();
        Bookmark {
            offset: self.blocks.offset(),
            blocks: place.index,
            events: place.events,
            raw: place.raw,
            next_sequence: place.next_sequence,
            chain: place.chain,
        }
    }

    /// The seal, once all before it was given.
    pub fn seal(&self) -> Option<&Seal> {
        match self.blocks.end() {
            Some(BlocksEnd::Sealed(seal)) => Some(seal),
            _ => None,
        }
    }
}

/// What a line of the ledger tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerNews {
    /// The ledger begins: the gateway's id.
    Gateway(String),
    /// A recording was opened.
    Opened(SessionId),
    /// A recording was sealed.
    Sealed(SessionId),
    /// A recording is damaged and will not be sealed.
    Damaged(SessionId),
}

/// The lines of a gateway's ledger from some byte on. Their chain is not proved here; that is
/// what verifying is for.
#[derive(Debug)]
pub struct LedgerFollower {
    reader: BufReader<File>,
    offset: u64,
    line: Vec<u8>,
}

impl LedgerFollower {
    /// Opens the ledger in `data_dir` at a byte that an earlier reader got to.
    ///
    /// # Errors
    /// When it cannot be read, or is shorter.
    pub fn open(data_dir: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(data_dir.join(LEDGER))?;
        if file.metadata()?.len() < offset {
            return Err(io::Error::other("the ledger is shorter than it was"));
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { reader: BufReader::new(file), offset, line: Vec::new() })
    }

    /// Bytes of whole lines that were read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that were not read yet.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn behind(&self) -> io::Result<u64> {
        Ok(self.reader.get_ref().metadata()?.len().saturating_sub(self.offset))
    }

    /// The next line; none when there is no whole one more yet.
    ///
    /// # Errors
    /// When it cannot be read or is no line of a ledger.
    pub fn next_line(&mut self) -> io::Result<Option<LedgerNews>> {
        self.line.clear();
        io::Read::take(&mut self.reader, MAX_LINE).read_until(b'\n', &mut self.line)?;
        let Some(text) = self.line.strip_suffix(b"\n") else {
            if self.line.len() as u64 == MAX_LINE {
                return Err(io::Error::other("a line of the ledger is too long"));
            }
            // What is not whole may yet be taken back and written anew.
            self.reader.seek(SeekFrom::Start(self.offset))?;
            return Ok(None);
        };
        let line: Line = serde_json::from_slice(text)?;
        self.offset += self.line.len() as u64;
        Ok(Some(match line.entry {
            Entry::Ledger { gateway, .. } => LedgerNews::Gateway(gateway),
            Entry::Opened { session } => LedgerNews::Opened(session),
            Entry::Sealed { session, .. } => LedgerNews::Sealed(session),
            Entry::Damaged { session, .. } => LedgerNews::Damaged(session),
        }))
    }
}

/// Sessions of which blocks were written lately.
#[derive(Debug, Default)]
pub struct Changed {
    /// Which.
    pub sessions: HashSet<SessionId>,
    /// Whether there were more than are remembered.
    pub and_others: bool,
}

/// Collects [`Changed`].
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<Changed>);

impl Changes {
    pub(super) fn note(&self, session: SessionId) {
        let mut changed = self.0.lock();
        if changed.sessions.len() < MAX_CHANGED {
            changed.sessions.insert(session);
        } else {
            changed.and_others |= !changed.sessions.contains(&session);
        }
    }

    pub(super) fn take(&self) -> Changed {
        std::mem::take(&mut self.0.lock())
    }
}

/// All recordings that stand in `data_dir`, by session, which is by the time they opened.
///
/// # Errors
/// When a directory cannot be listed.
pub fn recordings(data_dir: &Path) -> io::Result<Vec<(SessionId, PathBuf, u64)>> {
    layout::list(data_dir)
}
