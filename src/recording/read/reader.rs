//! Reading a recording, sealed or still open, by anyone who has its files. Every check that a
//! file allows by itself is made on the way; the file may be hostile.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use crate::files;
use crate::names::SessionId;
use crate::recording::format::documents::{Seal, Sealed, Start};
use crate::recording::format::encode;
use crate::recording::format::event::{Event, Gap, Kind, Sequence};
use crate::recording::format::header::BlockKind;
use crate::recording::format::journal::{self, Journaled};
use crate::recording::read::blocks::{Block, Blocks, BlocksEnd, Damage, ReadError};
use crate::recording::read::keyring::{Keyring, NoKey};
use crate::recording::read::source::Source;

/// How a recording ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It is whole.
    Sealed(Seal),
    /// It is being written, or its gateway died and has not started again.
    Open {
        /// Bytes at the end of the `.rec` that are no whole block.
        torn: u64,
        /// Bytes at the end of the `.journal` that are no whole record.
        torn_journal: u64,
    },
}

/// The events of a recording, in order.
///
/// Iterating checks chain, hashes and sequence of all that it passes, and stops after the first
/// error. Holds one block in memory.
#[derive(Debug)]
pub struct Reader {
    start: Start,
    blocks: Blocks,
    journal: journal::Contents,
    /// The block being read, its events, and how far.
    current: Option<(Block, Bytes, usize, Counted)>,
    next_sequence: Sequence,
    /// Events before this are passed over; set by seeking.
    from: Sequence,
    journal_at: usize,
    failed: bool,
    /// Events that were passed over because there is no key.
    unread: u64,
}

/// What was seen of a block, to be held against its header.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    events: u64,
    first_wall_us: Option<i64>,
    last_wall_us: i64,
    closed: bool,
}

impl Reader {
    /// Opens the `.rec`, and the `.journal` when there is one beside it, of a recording that is
    /// not encrypted. One that was moved elsewhere is read there.
    ///
    /// # Errors
    /// When the file cannot be read or does not start as a recording does; when it is encrypted.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_with(path, &Keyring::default())
    }

    /// Opens a recording, with a key of the keyring if it is encrypted.
    ///
    /// # Errors
    /// When the file cannot be read or does not start as a recording does; when nothing opens it.
    pub fn open_with(path: &Path, keyring: &Keyring) -> Result<Self, ReadError> {
        let (reader, locked) = Self::open_all(path, keyring)?;
        match locked {
            Some(locked) => Err(locked.into()),
            None => Ok(reader),
        }
    }

    /// Opens a recording even without a key: of one that is encrypted only what was written
    /// without the key is read then.
    pub(in crate::recording) fn open_all(
        path: &Path,
        keyring: &Keyring,
    ) -> Result<(Self, Option<NoKey>), ReadError> {
        // The journal first: what is framed between the two reads is then in both, not in none.
        let journal = read_journal(&path.with_extension("journal"))?;
        let (start, mut blocks) = Blocks::open(keyring.source(path)?)?;
        let mut journal = journal::parse(&start.session, &journal);
        let locked = match keyring.key(&start, path) {
            Ok(Some(key)) => {
                if !journal.open(&start.session, &key) {
                    let what = "the journal is not what its key sealed".to_owned();
                    return Err(Damage { block: 0, offset: 0, what }.into());
                }
                blocks.unlock(key);
                None
            }
            Ok(None) => None,
            Err(locked) => Some(locked),
        };
        let reader = Self {
            start,
            blocks,
            journal,
            current: None,
            next_sequence: 0,
            from: 0,
            journal_at: 0,
            failed: false,
            unread: 0,
        };
        Ok((reader, locked))
    }

    /// What the file starts with.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// How the recording ends, once all events were read.
    pub fn end(&self) -> Option<End> {
        Some(match self.blocks.end()? {
            BlocksEnd::Sealed(seal) => End::Sealed(seal.clone()),
            BlocksEnd::Open { torn } => End::Open { torn: *torn, torn_journal: self.journal.torn },
        })
    }

    /// Blocks, events and bytes before compression that were walked over; the journal's are not
    /// counted.
    pub fn walked(&self) -> (u64, u64, u64) {
        let place = self.blocks.place();
        (place.index, place.events, place.raw)
    }

    /// Events that were passed over because there is no key; those of the journal are not counted.
    pub(in crate::recording) fn unread(&self) -> u64 {
        self.unread
    }

    /// Whether a block that cannot be read told that it holds the last event.
    pub(in crate::recording) fn ended(&self) -> bool {
        self.blocks.ended().is_some()
    }

    /// Bytes of the `.rec` that were walked over.
    pub(in crate::recording) fn offset(&self) -> u64 {
        self.blocks.offset()
    }

    /// The block that the last event came from, and where it starts; none for the journal.
    pub(in crate::recording) fn place(&self) -> (Option<u64>, Option<u64>) {
        let block = self.current.as_ref().map(|(block, ..)| block);
        (block.map(|block| block.header.index), block.map(|block| block.offset))
    }

    /// What the ledger should say of the file, now that its seal was read.
    pub(in crate::recording) fn sealed(&self, seal: &Seal) -> Sealed {
        self.blocks.sealed(seal)
    }

    /// Goes to the event of that sequence, or the first after it, reading headers only on the
    /// way.
    ///
    /// # Errors
    /// When a header on the way is not what was written.
    pub fn seek_sequence(&mut self, sequence: Sequence) -> Result<(), ReadError> {
        self.seek(sequence, |block| block.header.next_sequence > sequence)
    }

    /// Goes to the first block that ends at that wall clock time or later, reading headers only
    /// on the way. Where the clock was set back, that is the first such block.
    ///
    /// # Errors
    /// When a header on the way is not what was written.
    pub fn seek_time(&mut self, wall_us: i64) -> Result<(), ReadError> {
        self.seek(0, |block| block.header.last_wall_us >= wall_us)
    }

    fn seek(&mut self, from: Sequence, there: impl Fn(&Block) -> bool) -> Result<(), ReadError> {
        (self.current, self.failed, self.journal_at) = (None, false, 0);
        self.from = from;
        self.blocks.rewind()?;
        self.next_sequence = 0;
        while let Some(block) = self.blocks.next()? {
            if there(&block) {
                self.next_sequence = block.header.first_sequence;
                self.enter(block)?;
                return Ok(());
            }
            self.next_sequence = block.header.next_sequence;
        }
        Ok(())
    }

    fn enter(&mut self, block: Block) -> Result<(), ReadError> {
        match self.blocks.events(&block)? {
            Some(events) => self.current = Some((block, events, 0, Counted::default())),
            None => {
                self.unread = self.unread.saturating_add(block.header.events);
                self.next_sequence = block.header.next_sequence;
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            let Some((block, events, at, counted)) = &mut self.current else {
                match self.blocks.next()? {
                    Some(block) => {
                        self.enter(block)?;
                        continue;
                    }
                    None => return self.read_journal(),
                }
            };
            if *at == events.len() {
                counted.matches(block, self.next_sequence)?;
                self.current = None;
                continue;
            }
            let event = encode::take(events, at).map_err(|what| block.damage(what))?;
            begins(&event, self.start.session).map_err(|what| block.damage(what))?;
            self.next_sequence = follow(&event, self.next_sequence)
                .map_err(|what| block.damage(format!("event {}: {what}", event.sequence)))?;
            counted.add(&event);
            if event.sequence >= self.from {
                return Ok(Some(event));
            }
        }
    }

    fn read_journal(&mut self) -> Result<Option<Event>, ReadError> {
        if matches!(self.blocks.end(), Some(BlocksEnd::Sealed(_))) {
            return Ok(None);
        }
        while let Some(Journaled { event, .. }) = self.journal.events.get(self.journal_at) {
            self.journal_at += 1;
            // Framed since, or twice in the journal because it could not be emptied.
            if event.sequence < self.next_sequence {
                continue;
            }
            self.next_sequence = follow(event, self.next_sequence).map_err(|what| Damage {
                block: self.blocks.place().index,
                offset: self.blocks.offset(),
                what: format!("the journal's event {}: {what}", event.sequence),
            })?;
            if event.sequence >= self.from {
                return Ok(Some(event.clone()));
            }
        }
        Ok(None)
    }
}

/// The stored bytes of the recording at `path`, which may be elsewhere, if they are of the session
/// that the name says.
///
/// # Errors
/// When they are nowhere or cannot be read; when they are another session's.
pub fn source(path: &Path, keyring: &Keyring) -> Result<Source, ReadError> {
    Blocks::is_of_its_name(keyring.source(path)?)
}

impl Iterator for Reader {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl Counted {
    fn add(&mut self, event: &Event) {
        self.events += 1;
        self.first_wall_us.get_or_insert(event.wall_us);
        self.last_wall_us = event.wall_us;
        self.closed = event.kind == Kind::Closed;
    }

    fn matches(&self, block: &Block, next: Sequence) -> Result<(), ReadError> {
        let header = &block.header;
        // What was found may begin with events that stand in blocks before.
        let begins =
            header.kind == BlockKind::Found || self.first_wall_us == Some(header.first_wall_us);
        let ends = !header.encrypted || header.ends == self.closed;
        let same = self.events == header.events
            && begins
            && ends
            && self.last_wall_us == header.last_wall_us
            && next == header.next_sequence;
        if same { Ok(()) } else { Err(block.damage("the header tells of other events")) }
    }
}

/// Refuses a first event that opens another session than the file starts with.
pub(in crate::recording) fn begins(event: &Event, session: SessionId) -> Result<(), &'static str> {
    #[derive(serde::Deserialize)]
    struct Begun {
        session: SessionId,
    }
    if !matches!(event.kind, Kind::Opened | Kind::Gateway) {
        return Ok(());
    }
    match serde_json::from_slice(&event.payload) {
        Ok(Begun { session: opened }) if opened == session => Ok(()),
        Ok(Begun { .. }) => Err("the first event opens another session"),
        Err(_) => Err("the first event does not say which session it opens"),
    }
}

/// The sequence after an event, if the event is the one that was due.
pub(in crate::recording) fn follow(event: &Event, due: Sequence) -> Result<Sequence, &'static str> {
    if event.sequence != due {
        return Err("it does not follow the event before");
    }
    let sequences = if event.kind == Kind::Gap {
        let gap: Gap =
            serde_json::from_slice(&event.payload).map_err(|_| "it is not a gap's payload")?;
        gap.events.max(1)
    } else {
        1
    };
    due.checked_add(sequences).ok_or("there is no sequence after it")
}

fn read_journal(path: &Path) -> Result<Bytes, ReadError> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(std::io::Error::other("the journal is not a file").into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Bytes::new()),
        Err(error) => return Err(error.into()),
    }
    match files::open(path) {
        Ok(file) => Ok(journal_bytes(file)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Bytes::new()),
        Err(error) => Err(error.into()),
    }
}

/// A journal's bytes, up to the bound.
pub(in crate::recording) fn journal_bytes(file: File) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.take(journal::MAX_JOURNAL).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
