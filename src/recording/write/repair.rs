//! Sealing what its session could not seal: after a crash, or when the disk was full.
//!
//! Everything here may be cut short anywhere and done again. Bytes that are no whole block at the
//! end of a `.rec` are cut, as a write that was under way leaves them; anything else that is not
//! what was written is left as it is and reported.
//!
//! An encrypted recording is sealed without its key: what its journal holds goes into it as it was
//! found, and only what the repair itself says is not encrypted.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use crate::names::SessionId;
use crate::recording::format::append_file::Tail;
use crate::recording::format::clock::{self, Stamp};
use crate::recording::format::documents::Sealed;
use crate::recording::format::encode;
use crate::recording::format::event::{Closed, Direction, Event, Gap, Kind, Note, UNREAD};
use crate::recording::format::journal::{self, SealedRecord};
use crate::recording::format::layout::Part;
use crate::recording::format::signing::PublicKey;
use crate::recording::ledger::{Entry, Known, Standing};
use crate::recording::read::blocks::{Blocks, BlocksEnd, Damage, ReadError};
use crate::recording::read::reader::{follow, journal_bytes};
use crate::recording::read::source::Source;
use crate::recording::write::block_writer::BlockWriter;
use crate::recording::write::store::Shared;
use crate::recording::write::write_buffer::Pending;

/// How a session ended that could not be sealed then.
#[derive(Debug, Clone)]
pub(in crate::recording) struct Ending {
    pub(in crate::recording) closed: Closed,
    /// Events that it could not store.
    pub(in crate::recording) gap: Option<Gap>,
    pub(in crate::recording) stamp: Stamp,
}

impl Ending {
    /// Of a session whose gateway died.
    pub(in crate::recording) fn interrupted() -> Self {
        let wall_us = clock::wall_us(SystemTime::now());
        Self { closed: Closed::interrupted(), gap: None, stamp: Stamp { monotonic_us: 0, wall_us } }
    }
}

/// Why a recording could not be sealed now.
#[derive(Debug, thiserror::Error)]
pub(in crate::recording) enum RepairError {
    /// Something that may pass: a full disk, too many open files.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what was written, and was left as it is.
    #[error("it is damaged and was left as it is: {0}")]
    Damaged(String),
}

impl From<ReadError> for RepairError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            ReadError::Damage(damage) => damage.into(),
            ReadError::NoKey(error) => Self::Io(io::Error::other(error)),
        }
    }
}

impl From<Damage> for RepairError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage.to_string())
    }
}

/// Seals everything that the last gateway left: whatever has a journal, and whatever the ledger
/// has as opened only. What cannot be sealed now is kept for the store to try again.
pub(in crate::recording) fn at_start(shared: &Arc<Shared>, known: &Known, journals: &[SessionId]) {
    let left: BTreeSet<_> = journals.iter().chain(&known.open).copied().collect();
    let mut sealed = 0;
    for session in left {
        let standing = known.standing(&session);
        match seal_with_room(shared, session, standing, &Ending::interrupted()) {
            Ok(()) => sealed += 1,
            Err(RepairError::Io(error)) => {
                shared.seal_later(session, standing, Ending::interrupted(), &error);
            }
            Err(RepairError::Damaged(what)) => {
                tracing::error!(%session, what, "a recording is damaged and was left as it is");
            }
        }
    }
    if sealed > 0 {
        tracing::info!(recordings = sealed, "sealed what the last gateway left open");
    }
}

/// The same as [`seal`], with the room that is kept for it where the disk has no other.
pub(in crate::recording) fn seal_with_room(
    shared: &Arc<Shared>,
    session: SessionId,
    standing: Standing,
    ending: &Ending,
) -> Result<(), RepairError> {
    shared.lend_room(|| seal(shared, session, standing, ending))
}

/// Seals one recording from its files, and says so in the ledger. A damage is noted there too,
/// once.
pub(in crate::recording) fn seal(
    shared: &Arc<Shared>,
    session: SessionId,
    standing: Standing,
    ending: &Ending,
) -> Result<(), RepairError> {
    let result = Repair { shared, session, standing }.seal(ending);
    if let Err(RepairError::Damaged(what)) = &result
        && standing == Standing::Opened
    {
        shared.note(Entry::Damaged { session, what: what.clone() })?;
    }
    result
}

struct Repair<'a> {
    shared: &'a Arc<Shared>,
    session: SessionId,
    standing: Standing,
}

impl Repair<'_> {
    fn seal(&self, ending: &Ending) -> Result<(), RepairError> {
        let journal = match self.open(Part::Journal)? {
            Some(file) => journal::parse(&self.session, &journal_bytes(file)?),
            None => journal::Contents::default(),
        };
        let begun = self.standing != Standing::Unknown || !journal.is_empty();
        let Some(file) = self.open(Part::Recording)? else {
            if begun {
                return Err(RepairError::Damaged("its .rec is not there".to_owned()));
            }
            return Ok(self.shared.dir.remove(&self.session, Part::Journal)?);
        };
        let mut found = match Found::read(file, &self.session) {
            // Its creation was cut short.
            Ok(found) if !begun && found.is_blank() => {
                self.shared.remove_half_made(self.session);
                return Ok(());
            }
            Err(RepairError::Damaged(_)) if !begun && self.is_torn_start()? => {
                self.shared.remove_half_made(self.session);
                return Ok(());
            }
            found => found?,
        };
        if let Some((sealed, key)) = found.seal.take() {
            let ours =
                key.map_or(!self.shared.signed_before, |key| self.shared.keys.contains(&key));
            if !ours && self.standing != Standing::Sealed {
                let what = "its seal is signed with no key of this ledger";
                return Err(RepairError::Damaged(what.to_owned()));
            }
            return self.finish(&found, sealed);
        }
        if self.standing == Standing::Sealed {
            let what = "the ledger has it as sealed, and its seal is not there";
            return Err(RepairError::Damaged(what.to_owned()));
        }
        let sealed = if found.encrypted {
            self.write_unread(&found, &journal, ending)?
        } else {
            self.write(&mut found, &journal, ending)?
        };
        self.finish(&found, sealed)
    }

    /// Adds an encrypted journal as it is, the last event, and the seal.
    fn write_unread(
        &self,
        found: &Found,
        journal: &journal::Contents,
        ending: &Ending,
    ) -> Result<Sealed, RepairError> {
        if found.is_blank() && journal.sealed.is_empty() {
            return Err(RepairError::Damaged("it has no events".to_owned()));
        }
        let mut writer = found.writer(self.shared)?;
        let lasted = found.lasted(&journal.sealed);
        let monotonic_us = ending.stamp.monotonic_us.max(lasted);
        let stamp = Stamp { monotonic_us, ..ending.stamp };
        self.add_found(&mut writer, &journal.sealed, stamp)?;
        let mut pending = Pending::starting_at(writer.next_sequence());
        let how = match found.last.as_ref().map(closing).transpose()?.flatten() {
            // An earlier repair got as far as this.
            Some(closed) => closed.how,
            None if found.blocks.ended().is_some() => UNREAD.into(),
            None => {
                // Its text may be the target's own words.
                let closed = Closed { text: String::new(), ..ending.closed.clone() };
                let ending = Ending { closed, ..ending.clone() };
                put_ending(&mut pending, stamp, &ending, found.torn, journal.torn)?;
                ending.closed.how
            }
        };
        let wall_us = clock::wall_us(SystemTime::now());
        let sealed = self.shared.with_packer(|packer| {
            writer.seal(packer, &pending, None, &how, (self.shared.key.as_ref(), wall_us))
        })?;
        Ok(sealed)
    }

    /// Adds the records that no block has, each run of those that follow one another as a block.
    fn add_found(
        &self,
        writer: &mut BlockWriter,
        mut records: &[SealedRecord],
        stamp: Stamp,
    ) -> Result<(), RepairError> {
        while let Some((first, rest)) = records.split_first() {
            let due = writer.next_sequence();
            if first.head.next_sequence <= due {
                records = rest;
                continue;
            }
            if first.head.first_sequence > due {
                let mut pending = Pending::starting_at(due);
                put_lost(&mut pending, stamp, first.head.first_sequence - due)?;
                self.shared.with_packer(|packer| writer.blocks(packer, &pending, None, false))?;
            }
            let pairs = records.iter().zip(rest);
            let follow =
                pairs.take_while(|(one, next)| one.head.next_sequence == next.head.first_sequence);
            let (run, after) = records.split_at_checked(1 + follow.count()).unwrap_or_default();
            writer.found(run)?;
            records = after;
        }
        Ok(())
    }

    /// Adds the events that stand in the journal only, the last event, and the seal.
    fn write(
        &self,
        found: &mut Found,
        journal: &journal::Contents,
        ending: &Ending,
    ) -> Result<Sealed, RepairError> {
        let mut pending = Pending::starting_at(found.blocks.place().next_sequence);
        let mut last = found.last.take();
        for journal::Journaled { event, encoded } in &journal.events {
            let due = pending.next_sequence();
            if event.sequence < due {
                continue;
            }
            let stamp = Stamp { monotonic_us: event.monotonic_us, wall_us: event.wall_us };
            if event.sequence > due {
                put_lost(&mut pending, stamp, event.sequence - due)?;
            }
            let next = follow(event, event.sequence)
                .map_err(|what| RepairError::Damaged(format!("the journal: {what}")))?;
            pending.encoded(encoded, event.wall_us, next);
            last = Some(event.clone());
        }
        let Some(last) = last else {
            return Err(RepairError::Damaged("it has no events".to_owned()));
        };
        let how = match closing(&last)? {
            Some(closed) => closed.how,
            None => {
                let stamp = Stamp {
                    monotonic_us: ending.stamp.monotonic_us.max(last.monotonic_us),
                    ..ending.stamp
                };
                put_ending(&mut pending, stamp, ending, found.torn, journal.torn)?;
                ending.closed.how.clone()
            }
        };
        let wall_us = clock::wall_us(SystemTime::now());
        let sealed = self.shared.with_packer(|packer| {
            let by = (self.shared.key.as_ref(), wall_us);
            found.writer(self.shared)?.seal(packer, &pending, None, &how, by)
        })?;
        Ok(sealed)
    }

    fn finish(&self, found: &Found, sealed: Sealed) -> Result<(), RepairError> {
        let session = self.session;
        if self.shared.commits.is_some() {
            found.file.sync_data()?;
        }
        if self.standing == Standing::Unknown {
            self.shared.note(Entry::Opened { session })?;
        }
        if self.standing != Standing::Sealed {
            self.shared.note(Entry::Sealed { session, sealed })?;
        }
        if self.shared.commits.is_some() {
            self.shared.sync_ledger()?;
        }
        Ok(self.shared.dir.remove(&session, Part::Journal)?)
    }

    fn open(&self, part: Part) -> io::Result<Option<std::fs::File>> {
        match self.shared.dir.open_part(&self.session, part) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the `.rec` ends within its first block.
    fn is_torn_start(&self) -> io::Result<bool> {
        let Some(file) = self.open(Part::Recording)? else { return Ok(true) };
        Blocks::is_torn_start(&file)
    }
}

/// A `.rec` as it was found, every stored byte held against the chain.
struct Found {
    file: std::fs::File,
    blocks: Blocks,
    /// Its seal, and whose signature it has.
    seal: Option<(Sealed, Option<PublicKey>)>,
    /// The last event that is in a block and can be read.
    last: Option<Event>,
    encrypted: bool,
    /// When its first event happened, and the last that is in a block.
    walls: Option<(i64, i64)>,
    torn: u64,
}

impl Found {
    fn read(file: std::fs::File, session: &SessionId) -> Result<Self, RepairError> {
        let (start, mut blocks) = Blocks::open(Source::of_session(file.try_clone()?, *session))?;
        let (mut last, mut walls) = (None, None);
        while let Some(block) = blocks.next()? {
            blocks.stored(&block)?;
            let (begun, _) = walls.unwrap_or((block.header.first_wall_us, 0));
            walls = Some((begun, block.header.last_wall_us));
            last = Some(block);
        }
        let last = match last {
            None => None,
            Some(block) => {
                let events = blocks.events(&block)?.unwrap_or_default();
                let (mut at, mut last) = (0, None);
                while at < events.len() {
                    last = Some(encode::take(&events, &mut at).map_err(|e| block.damage(e))?);
                }
                last
            }
        };
        let (seal, torn) = match blocks.end() {
            Some(BlocksEnd::Sealed(seal)) => (Some((blocks.sealed(seal), seal.key)), 0),
            Some(BlocksEnd::Open { torn }) => (None, *torn),
            None => (None, 0),
        };
        Ok(Self { file, blocks, seal, last, encrypted: start.cipher.is_some(), walls, torn })
    }

    /// How long the session was recorded by the wall clock, in microseconds: what stands for its own
    /// clock where that cannot be read.
    fn lasted(&self, records: &[SealedRecord]) -> u64 {
        let heads =
            || records.iter().map(|record| (record.head.first_wall_us, record.head.last_wall_us));
        let begun = self.walls.or(heads().next()).unwrap_or_default().0;
        let last = heads().last().or(self.walls).unwrap_or_default().1;
        u64::try_from(last.saturating_sub(begun)).unwrap_or_default()
    }

    /// Whether there is nothing behind its first block.
    fn is_blank(&self) -> bool {
        self.blocks.place().index <= 1 && self.seal.is_none()
    }

    /// The end of the whole blocks, to add to.
    fn writer(&self, shared: &Shared) -> io::Result<BlockWriter> {
        let whole = self.blocks.offset();
        let usage = Arc::clone(&shared.usage);
        let mut tail = Tail::new(self.file.try_clone()?, whole + self.torn, usage);
        tail.roll_back(whole);
        Ok(BlockWriter::new(tail, self.blocks.place()))
    }
}

fn closing(event: &Event) -> Result<Option<Closed>, RepairError> {
    if event.kind != Kind::Closed {
        return Ok(None);
    }
    let closed = serde_json::from_slice(&event.payload)
        .map_err(|_| RepairError::Damaged("its last event cannot be read".to_owned()))?;
    Ok(Some(closed))
}

fn put_gap(
    pending: &mut Pending,
    stamp: Stamp,
    events: u64,
    bytes: u64,
    reason: String,
) -> io::Result<()> {
    pending.gap(stamp, &Gap { events, bytes, reason }).map_err(io::Error::other)
}

/// Tells of events that only the death of the machine takes.
fn put_lost(pending: &mut Pending, stamp: Stamp, events: u64) -> io::Result<()> {
    put_gap(pending, stamp, events, 0, "blocks were lost with the machine".to_owned())
}

fn put_ending(
    pending: &mut Pending,
    stamp: Stamp,
    ending: &Ending,
    torn: u64,
    torn_journal: u64,
) -> io::Result<()> {
    if let Some(Gap { events, bytes, reason }) = &ending.gap {
        put_gap(pending, stamp, *events, *bytes, reason.clone())?;
    }
    if torn + torn_journal > 0 {
        let note = Note {
            what: "torn".into(),
            text: format!(
                "{torn} bytes at the end of the recording and {torn_journal} of its journal were \
                 not whole and were left out; nothing in them was forwarded"
            ),
        };
        pending.json(stamp, Kind::Note, Direction::None, None, &note).map_err(io::Error::other)?;
    }
    pending
        .json(stamp, Kind::Closed, Direction::None, None, &ending.closed)
        .map(drop)
        .map_err(io::Error::other)
}
