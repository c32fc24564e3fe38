//! Reading along: recordings block by block as they are written, and the ledger line by line, each
//! from where the reader left off last time, maybe in an earlier life.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::files;
use crate::names::SessionId;
use crate::recording::format::documents::{Place, Seal, Start};
use crate::recording::format::encode;
use crate::recording::format::event::{Event, Sequence};
use crate::recording::format::layout::{self, LEDGER};
use crate::recording::ledger::{Entry, Line, MAX_LINE};
use crate::recording::read::blocks::{Blocks, BlocksEnd, ReadError};
use crate::recording::read::keyring::Keyring;
use crate::recording::read::reader::{begins, follow};

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

/// The blocks of one recording, from a bookmark on, checked as [`crate::recording::Reader`] checks them.
/// Events are seen once they are in a block, 150 ms after they happened; a few bytes that passed
/// after a second.
#[derive(Debug)]
pub struct Follower {
    start: Start,
    blocks: Blocks,
    unread: u64,
}

impl Follower {
    /// Opens the `.rec` at a bookmark; the default is its beginning. What is encrypted and not
    /// opened by the keyring is passed over, and counted.
    ///
    /// # Errors
    /// When the file cannot be read, does not start as a recording does, or ends before the
    /// bookmark.
    pub fn open(path: &Path, from: &Bookmark, keyring: &Keyring) -> Result<Self, ReadError> {
        let (start, mut blocks) = Blocks::open(keyring.source(path)?)?;
        if let Ok(Some(key)) = keyring.key(&start, path) {
            blocks.unlock(key);
        }
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
        Ok(Self { start, blocks, unread: 0 })
    }

    /// What the file starts with.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Events that were passed over because there is no key.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// When the last event happened, if it is encrypted and was passed over or given.
    pub fn ended_us(&self) -> Option<i64> {
        self.blocks.ended()
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
        let Some(bytes) = self.blocks.events(&block)? else {
            self.unread = self.unread.saturating_add(block.header.events);
            return Ok(Some(Vec::new()));
        };
        let (mut events, mut at, mut due) = (Vec::new(), 0, block.header.first_sequence);
        while at < bytes.len() {
            let event = encode::take(&bytes, &mut at).map_err(|what| block.damage(what))?;
            begins(&event, self.start.session).map_err(|what| block.damage(what))?;
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
    /// A recording was taken away by retention, or is about to be.
    Buried(SessionId),
    /// Something about the ledger itself.
    Other,
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
        let mut file = files::open(&data_dir.join(LEDGER))?;
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
            Entry::Key { .. } | Entry::Checkpoint => LedgerNews::Other,
            Entry::Opened { session } => LedgerNews::Opened(session),
            Entry::Sealed { session, .. } => LedgerNews::Sealed(session),
            Entry::Damaged { session, .. } => LedgerNews::Damaged(session),
            Entry::Tombstone { session, .. } => LedgerNews::Buried(session),
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
pub(in crate::recording) struct Changes(Mutex<Changed>);

impl Changes {
    pub(in crate::recording) fn note(&self, session: SessionId) {
        let mut changed = self.0.lock();
        if changed.sessions.len() < MAX_CHANGED {
            changed.sessions.insert(session);
        } else {
            changed.and_others |= !changed.sessions.contains(&session);
        }
    }

    pub(in crate::recording) fn take(&self) -> Changed {
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

/// The same, and those that the ledger has as sealed and that are not here, with no size: they are
/// in the archive, unless they are lost.
///
/// # Errors
/// When the recordings cannot be listed, or the ledger cannot be read.
pub fn all_recordings(data_dir: &Path) -> io::Result<Vec<(SessionId, PathBuf, u64)>> {
    let here = recordings(data_dir)?;
    let known: BTreeSet<_> = here.iter().map(|(session, ..)| *session).collect();
    let mut moved = BTreeSet::new();
    let mut ledger = LedgerFollower::open(data_dir, 0)?;
    while let Some(news) = ledger.next_line()? {
        match news {
            LedgerNews::Sealed(session) => moved.insert(session),
            LedgerNews::Buried(session) => moved.remove(&session),
            _ => false,
        };
    }
    let moved = moved.into_iter().filter(|session| !known.contains(session));
    let moved = moved.map(|session| (session, layout::recording_path(data_dir, &session), 0));
    let mut all: Vec<_> = here.into_iter().chain(moved).collect();
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Durability, OnRecordingFailure, SecretRef};
    use crate::recording::tests::opened;
    use crate::recording::{Closed, Direction, Reader, Store};

    fn store(data_dir: &Path) -> Store {
        let settings = config::Recording {
            durability: Durability::Process,
            max_session: 1 << 30,
            max_local: 1 << 30,
            signing_key: data_dir.join("seal_ed25519"),
            mask_key: SecretRef::Env("UNUSED".to_owned()),
            recipients: Vec::new(),
            identity: None,
        };
        Store::open(data_dir, &settings, &[7; 32]).unwrap()
    }

    #[test]
    fn reading_along_sees_every_event_once_wherever_it_was_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let recording = store.create(&opened(), OnRecordingFailure::Refuse).unwrap();
        let path = layout::recording_path(folder.path(), &recording.session());
        let (mut bookmark, mut seen) = (Bookmark::default(), Vec::new());
        for n in 0..9u8 {
            // From 64 KiB on, bytes are in a block at once.
            recording.append(|batch| batch.data(Direction::Up, None, &vec![n; 70_000])).unwrap();
            if n == 7 {
                recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();
            }
            let mut follower = Follower::open(&path, &bookmark, &Keyring::default()).unwrap();
            while let Some(events) = follower.next_block().unwrap() {
                seen.extend(events);
            }
            assert_eq!(follower.seal().is_some(), n == 7);
            bookmark = follower.bookmark();
            if n == 7 {
                break;
            }
        }
        let events: Vec<_> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(seen, events);
        assert!(store.take_changed().sessions.contains(&recording.session()));

        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200).unwrap();
        assert!(matches!(
            Follower::open(&path, &bookmark, &Keyring::default()),
            Err(ReadError::Damage(_))
        ));
    }

    #[test]
    fn the_ledger_is_read_line_by_line_and_a_torn_line_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut follower = LedgerFollower::open(folder.path(), 0).unwrap();
        assert!(matches!(follower.next_line().unwrap(), Some(LedgerNews::Gateway(_))));
        assert_eq!(follower.next_line().unwrap(), None);
        let recording = store.create(&opened(), OnRecordingFailure::Refuse).unwrap();
        let session = recording.session();
        assert_eq!(follower.next_line().unwrap(), Some(LedgerNews::Opened(session)));
        drop(recording);
        let mut again = LedgerFollower::open(folder.path(), follower.offset()).unwrap();
        assert_eq!(again.next_line().unwrap(), Some(LedgerNews::Sealed(session)));
        drop(store);

        let ledger = folder.path().join(LEDGER);
        let whole = std::fs::read(&ledger).unwrap();
        std::fs::write(&ledger, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(follower.next_line().unwrap(), None);
        std::fs::write(&ledger, &whole).unwrap();
        assert_eq!(follower.next_line().unwrap(), Some(LedgerNews::Sealed(session)));
        assert_eq!(follower.behind().unwrap(), 0);
        assert!(LedgerFollower::open(folder.path(), follower.offset() + 1).is_err());
    }

    #[test]
    fn changes_are_bounded_and_say_when_there_were_more() {
        let changes = Changes::default();
        let first = SessionId::generate();
        changes.note(first);
        for _ in 1..MAX_CHANGED {
            changes.note(SessionId::generate());
        }
        changes.note(first);
        assert!(!changes.take().and_others);
        for _ in 0..=MAX_CHANGED {
            changes.note(SessionId::generate());
        }
        let changed = changes.take();
        assert!(changed.and_others && changed.sessions.len() == MAX_CHANGED);
    }
}
