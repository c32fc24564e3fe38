//! The ledger of one gateway: which recordings it opened and how each was sealed, one line of
//! JSON each, every line naming the hash of the line before. It is only ever added to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Read};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::block::Sealed;
use super::clock;
use super::repair::Standing;
use super::tail::Tail;
use crate::names::SessionId;

/// Longer than any line that is written.
pub(super) const MAX_LINE: u64 = 4096;
const NO_LINE_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Its number, from 0.
    pub(super) n: u64,
    /// blake3 of the line before, without its newline, in hexadecimal; zeros in the first.
    pub(super) prev: String,
    /// When it was written, by the wall clock, RFC 3339.
    pub(super) at: String,
    /// What it says.
    #[serde(flatten)]
    pub(super) entry: Entry,
    /// Ed25519 over the line; not yet.
    pub(super) signature: Option<String>,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Entry {
    /// The ledger begins; always the first line.
    Ledger {
        /// The version of the format: 1.
        format: u32,
        /// The gateway's id.
        gateway: String,
    },
    /// A recording was opened.
    Opened {
        /// Which.
        session: SessionId,
    },
    /// A recording was sealed.
    Sealed {
        /// Which.
        session: SessionId,
        /// How it stands.
        #[serde(flatten)]
        sealed: Sealed,
    },
    /// A recording could not be repaired and was left as it was found.
    Damaged {
        /// Which.
        session: SessionId,
        /// What is wrong with it.
        what: String,
    },
}

/// A ledger could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// The operating system could not read it.
    #[error("cannot read the ledger: {0}")]
    Io(#[from] io::Error),
    /// A line is not what was written.
    #[error("the ledger's line {0} was changed, or one before it was taken out: {1}")]
    Line(u64, &'static str),
}

/// Reads a ledger and proves its chain; gives each line to `see`.
///
/// # Errors
/// Names the first line that is not what was written. A last line without its newline is what a
/// crash leaves, and not looked at.
pub(super) fn read(path: &Path, see: impl FnMut(&Line)) -> Result<(), LedgerError> {
    walk(&File::open(path)?, see).map(drop)
}

/// Where a ledger ends.
struct End {
    lines: u64,
    prev: String,
    /// Bytes of whole lines.
    len: u64,
}

fn walk(file: &File, mut see: impl FnMut(&Line)) -> Result<End, LedgerError> {
    let mut reader = BufReader::new(file);
    let mut end = End { lines: 0, prev: NO_LINE_BEFORE.to_owned(), len: 0 };
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)?;
        let Some(text) = bytes.strip_suffix(b"\n") else {
            if read as u64 == MAX_LINE {
                return Err(LedgerError::Line(end.lines, "it is too long"));
            }
            return Ok(end);
        };
        let line: Line = serde_json::from_slice(text)
            .map_err(|_| LedgerError::Line(end.lines, "it is not a ledger's line"))?;
        if line.n != end.lines {
            return Err(LedgerError::Line(end.lines, "its number is another"));
        }
        if line.prev != end.prev {
            return Err(LedgerError::Line(end.lines, "it does not follow the line before"));
        }
        if matches!(line.entry, Entry::Ledger { .. }) != (line.n == 0) {
            return Err(LedgerError::Line(end.lines, "only the first line begins a ledger"));
        }
        see(&line);
        end.lines += 1;
        end.prev = blake3::hash(text).to_hex().to_string();
        end.len += read as u64;
    }
}

/// The ledger that this gateway writes.
#[derive(Debug)]
pub(super) struct Ledger {
    tail: Tail,
    next: u64,
    prev: String,
    gateway: String,
}

/// What the ledger says of recordings that the last gateway left.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Opened, and neither sealed nor found damaged.
    pub(super) open: BTreeSet<SessionId>,
    /// Of those asked about: sealed.
    sealed: BTreeSet<SessionId>,
    /// Of those asked about: found damaged.
    damaged: BTreeSet<SessionId>,
}

impl Known {
    /// What the ledger says of one that was asked about, or is open.
    pub(super) fn standing(&self, session: &SessionId) -> Standing {
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

impl Ledger {
    /// Opens the ledger, cuts a torn last line, and begins a new one when there is none. Tells
    /// what it knows of the sessions in `asked`, and of all that are open.
    ///
    /// # Errors
    /// When it cannot be written, or when it was changed: a gateway does not add to a history
    /// that is not the one it wrote.
    pub(super) fn open(file: File, asked: &[SessionId]) -> Result<(Self, Known), LedgerError> {
        let asked: BTreeSet<_> = asked.iter().collect();
        let mut known = Known::default();
        let mut gateway = None;
        let end = walk(&file, |line| match &line.entry {
            Entry::Ledger { gateway: id, .. } => gateway = Some(id.clone()),
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
        })?;
        let len = file.metadata()?.len();
        let mut tail = Tail::new(file, len, std::sync::Arc::default());
        tail.roll_back(end.len);
        let begun = gateway.is_some();
        let mut ledger = Self {
            tail,
            next: end.lines,
            prev: end.prev,
            gateway: gateway.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        };
        if !begun {
            let entry = Entry::Ledger { format: 1, gateway: ledger.gateway.clone() };
            ledger.add(entry)?;
        }
        Ok((ledger, known))
    }

    /// The gateway's id.
    pub(super) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Adds a line.
    pub(super) fn add(&mut self, entry: Entry) -> io::Result<()> {
        let line = Line {
            n: self.next,
            prev: self.prev.clone(),
            at: clock::rfc3339(clock::wall_us(SystemTime::now())),
            entry,
            signature: None,
        };
        let text = serde_json::to_vec(&line)?;
        self.tail.append(&mut [IoSlice::new(&text), IoSlice::new(b"\n")])?;
        self.next += 1;
        self.prev = blake3::hash(&text).to_hex().to_string();
        Ok(())
    }

    /// The file's end, for the disk.
    pub(super) fn tail(&mut self) -> &mut Tail {
        &mut self.tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<(Ledger, Known), LedgerError> {
        let mut options = std::fs::OpenOptions::new();
        Ledger::open(options.create(true).append(true).read(true).open(path)?, &[])
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
            let mut seen = Vec::new();
            read(&path, |line| seen.push(line.clone())).unwrap();
            assert_eq!(seen.len(), known.open.len() + 2);
            assert_eq!(seen.last().unwrap().entry, Entry::Opened { session });
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
