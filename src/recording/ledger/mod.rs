//! The ledger of one gateway: which recordings it opened and how each was sealed, one line of
//! JSON each, every line signed and naming the hash of the line before. It is only ever added to.

mod line;
mod rotate;
mod walk;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::names::SessionId;
use crate::recording::format::append_file::Tail;
use crate::recording::format::clock;
use crate::recording::format::signing::{self, PublicKey, SealingKey};

pub use line::Burial;
pub(in crate::recording) use line::{Entry, Line, MAX_LINE};
pub use rotate::{Rotated, rotate_key};
pub(in crate::recording) use walk::{End, LedgerError, Reign, walk};

/// A length that the ledger had, and the hash of its last line then. Kept elsewhere, it shows
/// whether the ledger was cut or written anew.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// How many lines.
    pub lines: u64,
    /// blake3 of the last one without its newline, in hexadecimal.
    pub hash: String,
}

/// The ledger that this gateway writes.
#[derive(Debug)]
pub(in crate::recording) struct Ledger {
    tail: Tail,
    head: Head,
    /// How long it was at the last checkpoint.
    checked: u64,
    /// The last line that was added.
    last: String,
    gateway: String,
    key: Arc<SealingKey>,
    /// All keys that ever signed it.
    keys: Vec<PublicKey>,
    /// Whether a key had signed it before it was opened.
    signed_before: bool,
}

/// What the ledger says of recordings that the last gateway left.
#[derive(Debug, Default)]
pub(in crate::recording) struct Known {
    /// Opened, and neither sealed nor found damaged.
    pub(in crate::recording) open: BTreeSet<SessionId>,
    /// Of those asked about: sealed.
    sealed: BTreeSet<SessionId>,
    /// Of those asked about: found damaged.
    damaged: BTreeSet<SessionId>,
}

impl Known {
    /// What the ledger says of one that was asked about, or is open.
    pub(in crate::recording) fn standing(&self, session: &SessionId) -> Standing {
        if self.open.contains(session) {
            Standing::Opened
        } else if self.sealed.contains(session) {
            Standing::Sealed
        } else if self.damaged.contains(session) {
            Standing::Damaged
        } else {
            Standing::Unknown
        }
    }
}

/// What the ledger says of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Standing {
    /// Nothing: the gateway died while it made the files, before anything was forwarded.
    Unknown,
    /// That it was opened.
    Opened,
    /// That it was sealed.
    Sealed,
    /// That it was found damaged before.
    Damaged,
}

impl Ledger {
    /// Opens the ledger, cuts a torn last line, and begins a new one when there is none, with the
    /// key in `key_file`, which is made then. Tells what it knows of the sessions in `asked`, and
    /// of all that are open.
    ///
    /// # Errors
    /// When it cannot be written, when the key is not the one that it was signed with, or when it
    /// was changed: a gateway does not add to a history that is not the one it wrote.
    pub(in crate::recording) fn open(
        file: File,
        key_file: &Path,
        asked: &[SessionId],
    ) -> Result<(Self, Known), LedgerError> {
        let asked: BTreeSet<_> = asked.iter().collect();
        let mut known = Known::default();
        let mut gateway = None;
        let end = walk(&file, |line, _| match &line.entry {
            Entry::Ledger { gateway: id, .. } => gateway = Some(id.clone()),
            Entry::Key { .. } | Entry::Checkpoint => {}
            Entry::Opened { session } => {
                known.open.insert(*session);
            }
            Entry::Sealed { session, .. } => {
                known.open.remove(session);
                known.sealed.extend(asked.contains(session).then_some(*session));
            }
            Entry::Damaged { session, .. } => {
                known.open.remove(session);
                known.damaged.extend(asked.contains(session).then_some(*session));
            }
            Entry::Tombstone { session, .. } => {
                known.open.remove(session);
            }
        })?;
        let key = signing_key(key_file, &end)?;
        let keys = end.reigns.iter().map(|reign| reign.key).chain([key.public()]).collect();
        let begun = gateway.is_some();
        let gateway = gateway.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let mut ledger = Self::at_end(file, &end, gateway, key, keys)?;
        let key = ledger.key.public();
        if !begun {
            let gateway = ledger.gateway.clone();
            ledger.add(Entry::Ledger { format: 1, gateway, key: Some(key) })?;
        } else if end.reigns.is_empty() {
            // It was begun before lines were signed; this line now stands for all before it.
            ledger.add(Entry::Key { key })?;
        }
        ledger.signed_before = !end.reigns.is_empty();
        Ok((ledger, known))
    }

    fn at_end(
        file: File,
        end: &End,
        gateway: String,
        key: SealingKey,
        keys: Vec<PublicKey>,
    ) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let mut tail = Tail::new(file, len, Arc::default());
        tail.roll_back(end.len);
        let head = Head { lines: end.lines, hash: end.head.clone() };
        let (key, last) = (Arc::new(key), String::new());
        Ok(Self { tail, head, checked: 0, last, gateway, key, keys, signed_before: true })
    }

    /// The gateway's id.
    pub(in crate::recording) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The key that signs.
    pub(in crate::recording) fn key(&self) -> &Arc<SealingKey> {
        &self.key
    }

    /// All keys that ever signed it.
    pub(in crate::recording) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Whether recordings that the last gateway left have signed seals.
    pub(in crate::recording) fn signed_before(&self) -> bool {
        self.signed_before
    }

    /// Adds a line.
    pub(in crate::recording) fn add(&mut self, entry: Entry) -> io::Result<()> {
        let line = Line {
            n: self.head.lines,
            prev: self.head.hash.clone(),
            at: clock::rfc3339(clock::wall_us(SystemTime::now())),
            entry,
        };
        let text = line.signed(&self.key)?;
        if text.len() as u64 >= MAX_LINE {
            return Err(io::Error::other("a line would be longer than a ledger's lines are"));
        }
        self.tail.append(&mut [IoSlice::new(&text), IoSlice::new(b"\n")])?;
        self.head.lines += 1;
        self.head.hash = blake3::hash(&text).to_hex().to_string();
        self.last = String::from_utf8(text).unwrap_or_default();
        Ok(())
    }

    /// Adds a checkpoint if there is anything behind the last one, and says where the ledger ends.
    pub(in crate::recording) fn checkpoint(&mut self) -> io::Result<Head> {
        if self.head.lines != self.checked {
            self.add(Entry::Checkpoint)?;
            self.checked = self.head.lines;
        }
        Ok(self.head.clone())
    }

    /// A checkpoint that is the last line, and that line: one that somebody else has asked for just
    /// before, or a new one.
    pub(in crate::recording) fn signed_checkpoint(&mut self) -> io::Result<(Head, String)> {
        let head = self.checkpoint()?;
        Ok((head, self.last.clone()))
    }

    /// The file's end, for the disk.
    pub(in crate::recording) fn tail(&mut self) -> &mut Tail {
        &mut self.tail
    }
}

/// The key of a ledger that ends so.
fn signing_key(path: &Path, end: &End) -> Result<SealingKey, LedgerError> {
    let shown = path.display();
    let Some(reign) = end.reigns.last() else {
        return SealingKey::read_or_make(path)
            .map_err(|error| LedgerError::Key(format!("{shown} cannot be used: {error}")));
    };
    let expected = reign.key;
    let next = signing::next_to(path);
    let read = SealingKey::read(path);
    if let Ok(key) = &read
        && key.public() == expected
    {
        return Ok(read?);
    }
    // A rotation was cut short after the ledger named the new key.
    if SealingKey::read(&next).is_ok_and(|key| key.public() == expected) {
        std::fs::rename(&next, path)?;
        return Ok(SealingKey::read(path)?);
    }
    let found = read.map_or_else(
        |error| format!("{shown} cannot be used: {error}"),
        |key| format!("{shown} holds {}", key.public()),
    );
    Err(LedgerError::Key(format!(
        "the ledger is signed with {expected}, and {found}; put the ledger's key there, or, if it \
         is lost, run portcullis recording rotate-key --lost"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<(Ledger, Known), LedgerError> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).append(true).read(true).open(path)?;
        Ledger::open(file, &path.with_file_name("key"), &[])
    }

    fn read(path: &Path) -> Vec<Line> {
        let mut seen = Vec::new();
        walk(&File::open(path).unwrap(), |line, _| seen.push(line.clone())).unwrap();
        seen
    }

    #[test]
    fn a_ledger_cut_anywhere_goes_on_from_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (mut ledger, _) = open(&path).unwrap();
        for _ in 0..3 {
            ledger.add(Entry::Opened { session: SessionId::generate() }).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (mut ledger, known) = open(&path).unwrap();
            let session = SessionId::generate();
            ledger.add(Entry::Opened { session }).unwrap();
            let seen = read(&path);
            assert_eq!(seen.len(), known.open.len() + 2);
            assert_eq!(seen.last().unwrap().entry, Entry::Opened { session });
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_read(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..6000),
            at in 0..2000usize,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger");
            open(&path).unwrap().0.add(Entry::Checkpoint).unwrap();
            let good = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let end = walk(&File::open(&path).unwrap(), |_, _| {});
            proptest::prop_assert!(end.is_err() || end.is_ok_and(|end| end.lines == 0));
            // Behind and within what is right.
            let at = at.min(good.len());
            std::fs::write(&path, [&good[..at], &bytes, &good[at..]].concat()).unwrap();
            if let Ok(end) = walk(&File::open(&path).unwrap(), |_, _| {}) {
                proptest::prop_assert!(end.lines <= 2);
            }
        }
    }

    #[test]
    fn a_changed_ledger_is_named_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (mut ledger, _) = open(&path).unwrap();
        for _ in 0..3 {
            ledger.add(Entry::Opened { session: SessionId::generate() }).unwrap();
        }
        let good = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = good.lines().collect();
        lines.remove(1);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        assert!(matches!(open(&path), Err(LedgerError::Line(1, _))));
        std::fs::write(&path, good.replacen("\"at\":\"2", "\"at\":\"1", 2)).unwrap();
        assert!(open(&path).is_err());
    }
}
