//! Proving one recording whole from its file, and from the ledger when there is one.

use std::path::Path;

use serde::Serialize;

use super::block::Sealed;
use super::blocks::ReadError;
use super::event::{Closed, Event, Gap, GatewayOpened, INTERRUPTED, Kind, Opened};
use super::layout::ledger_beside;
use super::ledger::{self, Entry};
use super::reader::{End, Reader};
use crate::names::SessionId;

/// What was found about one recording.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Whose recording it is.
    pub session: Option<SessionId>,
    /// What was found.
    pub state: State,
    /// Whether a ledger was there and says the same.
    pub ledger: bool,
    /// Blocks of events that hold, and the first.
    pub blocks: u64,
    /// Events that hold.
    pub events: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Bytes of the file that hold.
    pub file_bytes: u64,
    /// Events that the recording itself says are missing.
    pub missing_events: u64,
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

/// Verifies the recording at `path`, and holds it against `ledger`, or else against the ledger of
/// the `data_dir` that it stands in.
///
/// # Errors
/// When a file cannot be read; what is wrong with what was read is in the report.
pub fn verify(path: &Path, ledger: Option<&Path>) -> std::io::Result<Report> {
    let mut report = Report::default();
    match check(path, ledger, &mut report) {
        Ok(()) => {}
        Err(Failed::Io(error)) => return Err(error),
        Err(Failed::Wrong(wrong)) => {
            report.state = State::Wrong;
            report.wrong = Some(wrong);
        }
    }
    Ok(report)
}

enum Failed {
    Io(std::io::Error),
    Wrong(Wrong),
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
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

fn check(path: &Path, ledger: Option<&Path>, report: &mut Report) -> Result<(), Failed> {
    let mut reader = Reader::open(path)?;
    let session = reader.start().session;
    report.session = Some(session);
    let mut story = Story::default();
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
    report.missing_events = story.missing;
    let sealed = match reader.end() {
        Some(End::Sealed(seal)) => {
            let closed = story.closed.ok_or_else(|| wrong("the last event is not `closed`"))?;
            let interrupted = closed.how == INTERRUPTED;
            if seal.how != closed.how || seal.interrupted != interrupted {
                return Err(wrong("the seal tells of another end than the last event"));
            }
            report.blocks = seal.blocks;
            report.how = Some(seal.how.clone());
            report.interrupted = seal.interrupted;
            report.state = State::Whole;
            Some(reader.sealed(&seal))
        }
        _ => {
            report.state = State::Open;
            None
        }
    };
    let beside = ledger_beside(path);
    if let Some(ledger) = ledger.or(beside.as_deref()) {
        hold_against(ledger, session, sealed.as_ref())?;
        report.ledger = true;
    }
    Ok(())
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

fn hold_against(path: &Path, session: SessionId, file: Option<&Sealed>) -> Result<(), Failed> {
    let mut opened = false;
    let mut noted: Vec<Sealed> = Vec::new();
    let read = ledger::read(path, |line| match &line.entry {
        Entry::Opened { session: of } => opened |= *of == session,
        Entry::Sealed { session: of, sealed } if *of == session => noted.push(sealed.clone()),
        _ => {}
    });
    match read {
        Ok(()) => {}
        Err(ledger::LedgerError::Io(error)) => return Err(Failed::Io(error)),
        Err(error) => return Err(wrong(error.to_string())),
    }
    if !opened {
        return Err(wrong("the ledger does not have it as opened"));
    }
    match file {
        Some(_) if noted.is_empty() => Err(wrong("the ledger does not have it as sealed")),
        Some(file) if noted.iter().any(|noted| noted != file) => {
            Err(wrong("the ledger has another seal"))
        }
        None if !noted.is_empty() => {
            Err(wrong("the ledger has it as sealed, and its seal is not there"))
        }
        _ => Ok(()),
    }
}
