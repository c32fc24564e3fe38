//! Proving recordings whole from their files, and from the ledger when there is one.

mod all;
mod book;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use all::{Audit, Finding, verify_all, verify_all_with};
use book::Book;

use crate::names::SessionId;
use crate::recording::format::documents::Sealed;
use crate::recording::format::event::{
    Closed, Event, Gap, GatewayOpened, INTERRUPTED, Kind, Opened, UNREAD,
};
use crate::recording::format::layout::ledger_beside;
use crate::recording::format::signing::PublicKey;
use crate::recording::ledger::Head;
use crate::recording::read::blocks::ReadError;
use crate::recording::read::keyring::Keyring;
use crate::recording::read::reader::{End, Reader};

/// What recordings are held against, beside themselves.
#[derive(Debug, Clone, Default)]
pub struct Against {
    /// The ledger; when none is given, that of the `data_dir` that a recording stands in.
    pub ledger: Option<PathBuf>,
    /// Keys of which one must have signed. When empty, what was signed is only held against the
    /// keys that it names itself.
    pub keys: Vec<PublicKey>,
    /// Heads that the ledger had, noted elsewhere.
    pub heads: Vec<Head>,
    /// What opens encrypted recordings, to look at their events too.
    pub keyring: Keyring,
}

/// What a verification can prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Claim {
    /// Every recording that was looked at is what was written.
    Whole,
    /// Whoever has one of the keys given wrote it.
    Signed,
    /// No recording is missing that the ledger knows, and none was added.
    Complete,
    /// The ledger's history up to a head noted elsewhere is the one that was noted.
    Anchored,
}

/// What was found about one recording.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Whose recording it is.
    pub session: Option<SessionId>,
    /// What was found.
    pub state: State,
    /// Whether a ledger was there and says the same.
    pub ledger: bool,
    /// Whose signature the seal has.
    pub key: Option<PublicKey>,
    /// What was proved.
    pub proved: Vec<Claim>,
    /// Blocks of events that hold, and the first.
    pub blocks: u64,
    /// Events that hold.
    pub events: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Bytes of the file that hold.
    pub file_bytes: u64,
    /// Events that the recording itself says are missing, as far as it was read.
    pub missing_events: u64,
    /// Whether its events are encrypted.
    pub encrypted: bool,
    /// Of `events`, those that were not looked at because they are encrypted. Their bytes are what
    /// was written all the same.
    pub unread_events: u64,
    /// How the session ended.
    pub how: Option<String>,
    /// Whether a crash ended it.
    pub interrupted: bool,
    /// The first thing that is wrong.
    pub wrong: Option<Wrong>,
}

/// Whether a recording is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every byte is what was written, from the first event to the seal.
    Whole,
    /// What is there is what was written; it is not sealed.
    Open,
    /// Something is not what was written.
    #[default]
    Wrong,
}

/// The first thing that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// The block, from 0; none when it is not about a block.
    pub block: Option<u64>,
    /// Where the block starts in the file.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(block), Some(offset)) = (self.block, self.offset) {
            write!(f, "block {block} at byte {offset}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self { block: None, offset: None, what }
    }
}

/// Verifies the recording at `path`.
///
/// # Errors
/// When a file cannot be read; what is wrong with what was read is in the report.
pub fn verify(path: &Path, against: &Against) -> std::io::Result<Report> {
    let mut report = Report::default();
    let result = hold(path, against, &mut report);
    report.settle(result)?;
    Ok(report)
}

fn hold(path: &Path, against: &Against, report: &mut Report) -> Result<(), Failed> {
    let seal = check(path, &against.keyring, report)?;
    let beside = ledger_beside(path);
    let book = match against.ledger.as_deref().or(beside.as_deref()) {
        Some(ledger) => Some(Book::read(ledger, report.session, against)?),
        None => None,
    };
    if let (Some(book), Some(session)) = (&book, report.session) {
        book.hold(session, seal.as_ref(), (path, report))?;
        report.ledger = true;
    }
    report.conclude(seal.as_ref(), book.as_ref(), &against.keys)
}

impl Report {
    /// Says what was proved, once everything was held against everything.
    fn conclude(
        &mut self,
        seal: Option<&SealOf>,
        book: Option<&Book>,
        keys: &[PublicKey],
    ) -> Result<(), Failed> {
        let Some(SealOf { key, .. }) = seal else { return Ok(()) };
        let own = || key.is_some_and(|key| keys.contains(&key));
        let trusted = book.map_or_else(own, |book| book.trusted);
        if !keys.is_empty() && !trusted {
            return Err(wrong(match key {
                Some(key) => format!("it is signed with {key}, which is none of the keys given"),
                None => "it is not signed".to_owned(),
            }));
        }
        self.proved.push(Claim::Whole);
        self.proved.extend(trusted.then_some(Claim::Signed));
        self.proved.extend(book.filter(|book| book.anchored).map(|_| Claim::Anchored));
        Ok(())
    }

    fn settle(&mut self, result: Result<(), Failed>) -> std::io::Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(Failed::Io(error)) => Err(error),
            Err(Failed::Wrong(wrong)) => {
                self.state = State::Wrong;
                self.wrong = Some(wrong);
                self.proved.clear();
                Ok(())
            }
        }
    }
}

/// A recording's seal, as the ledger should have it, and whose signature it has.
struct SealOf {
    sealed: Sealed,
    key: Option<PublicKey>,
}

enum Failed {
    Io(std::io::Error),
    Wrong(Wrong),
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            ReadError::NoKey(error) => Self::Io(std::io::Error::other(error)),
            ReadError::Damage(damage) => Self::Wrong(Wrong {
                block: Some(damage.block),
                offset: Some(damage.offset),
                what: damage.what,
            }),
        }
    }
}

fn wrong(what: impl Into<String>) -> Failed {
    Failed::Wrong(Wrong::from(what.into()))
}

/// Checks what a file says by itself.
fn check(path: &Path, keyring: &Keyring, report: &mut Report) -> Result<Option<SealOf>, Failed> {
    let (mut reader, locked) = Reader::open_all(path, keyring)?;
    let session = reader.start().session;
    report.session = Some(session);
    report.encrypted = reader.start().cipher.is_some();
    let mut story = Story { begun: locked.is_some(), ..Story::default() };
    while let Some(event) = reader.next() {
        let told = event.map_err(Failed::from).and_then(|event| {
            story.tell(&event, session).map_err(|what| {
                // The block that is being read started after those that were walked over whole.
                let (block, offset) = reader.place();
                Failed::Wrong(Wrong { block, offset, what })
            })
        });
        (report.blocks, report.events, report.raw_bytes) = reader.walked();
        told?;
    }
    (report.blocks, report.events, report.raw_bytes) = reader.walked();
    report.file_bytes = reader.offset();
    report.unread_events = reader.unread();
    report.missing_events = story.missing;
    let Some(End::Sealed(seal)) = reader.end() else {
        report.state = State::Open;
        return Ok(None);
    };
    let same = match &story.closed {
        // A repair seals what it cannot read.
        Some(closed) => closed.how == seal.how || report.encrypted && seal.how == UNREAD,
        None if locked.is_some() && reader.ended() => true,
        None => return Err(wrong("the last event is not `closed`")),
    };
    if !same || seal.interrupted != (seal.how == INTERRUPTED) {
        return Err(wrong("the seal tells of another end than the last event"));
    }
    report.blocks = seal.blocks;
    report.how = Some(seal.how.clone());
    report.interrupted = seal.interrupted;
    report.key = seal.key;
    report.state = State::Whole;
    Ok(Some(SealOf { sealed: reader.sealed(&seal), key: seal.key }))
}

/// What the events tell, as far as they were read.
#[derive(Default)]
struct Story {
    begun: bool,
    closed: Option<Closed>,
    missing: u64,
}

impl Story {
    fn tell(&mut self, event: &Event, session: SessionId) -> Result<(), String> {
        let at = |what: &str| format!("event {}: {what}", event.sequence);
        if self.closed.is_some() {
            return Err(at("it comes after `closed`"));
        }
        let unreadable = |_| at("its payload is not what its kind says");
        match event.kind {
            Kind::Opened | Kind::Gateway if self.begun => {
                return Err(at("a recording begins only once"));
            }
            Kind::Opened => {
                let opened: Opened = serde_json::from_slice(&event.payload).map_err(unreadable)?;
                if opened.session != session {
                    return Err(at("it opens another session"));
                }
            }
            Kind::Gateway => {
                let opened: GatewayOpened =
                    serde_json::from_slice(&event.payload).map_err(unreadable)?;
                if opened.session != session {
                    return Err(at("it opens another recording"));
                }
            }
            _ if !self.begun => return Err(at("a recording begins with `opened` or `gateway`")),
            Kind::Gap => {
                let gap: Gap = serde_json::from_slice(&event.payload).map_err(unreadable)?;
                self.missing = self.missing.saturating_add(gap.events);
            }
            Kind::Closed => {
                self.closed = Some(serde_json::from_slice(&event.payload).map_err(unreadable)?);
            }
            Kind::Data => {}
            Kind::Command | Kind::Outcome | Kind::Approval | Kind::Refused | Kind::Note => {
                serde_json::from_slice::<serde::de::IgnoredAny>(&event.payload)
                    .map_err(unreadable)?;
            }
        }
        self.begun = true;
        Ok(())
    }
}
