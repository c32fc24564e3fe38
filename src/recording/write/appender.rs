//! Writing one recording: events go to the journal before anything is forwarded, and from memory
//! into compressed blocks soon after.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::{Moment, Now};
use crate::config::{Durability, OnRecordingFailure};
use crate::names::SessionId;
use crate::recording::RecordingFailure;
use crate::recording::format::append_file::{Tail, Unsynced};
use crate::recording::format::cipher::{self, Sealing};
use crate::recording::format::clock::{self, Stamp};
use crate::recording::format::documents::{Place, Sealed, Start};
use crate::recording::format::event::{Closed, Direction, Gap, Kind, Sequence};
use crate::recording::format::header::BLOCK_TARGET;
use crate::recording::format::layout::Part;
use crate::recording::ledger::Entry;
use crate::recording::ledger::Standing;
use crate::recording::write::batch::Batch;
use crate::recording::write::block_writer::BlockWriter;
use crate::recording::write::draft::{Draft, Renumbered};
use crate::recording::write::journal_file::JournalFile;
use crate::recording::write::repair::Ending;
use crate::recording::write::store::Shared;
use crate::recording::write::write_buffer::{Mark, Pending};

/// A batch of this size becomes a block at once and never stands in the journal: bulk data is
/// written once.
const DIRECT: usize = 64 << 10;
/// With `durability = "disk"` the journal may only be emptied after the blocks are on the disk;
/// when it gets this long, the writer waits for that.
const JOURNAL_BOUND: u64 = 4 << 20;
/// How often a session that goes on unrecorded tries to write again.
const RETRY: Duration = Duration::from_millis(100);
/// How long events may stand in the journal only.
pub(in crate::recording) const FRAME_AFTER: Duration = Duration::from_millis(100);
/// The same for a few bytes that passed and nothing else, which the index only counts: what is typed
/// into a terminal is a block each second instead of one for each key, and a third of the size.
const FRAME_FEW_AFTER: Duration = Duration::from_secs(1);
/// What is few; more is worth a block, and does not stay in memory.
const FEW: usize = 16 << 10;

/// One open recording. Clones share it; dropping the last without [`Recording::close`] seals it
/// as interrupted.
#[derive(Clone, Debug)]
pub struct Recording(Arc<Inner>);

#[derive(Debug)]
pub(in crate::recording) struct Inner {
    pub(in crate::recording) shared: Arc<Shared>,
    session: SessionId,
    started: Moment,
    on_failure: OnRecordingFailure,
    /// The sequence that the next event gets, unless somebody appends another one first.
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None once the recording ended.
    files: Option<Files>,
    pending: Pending,
    /// Bytes of events so far, before compression.
    raw: u64,
    /// When the oldest pending event came.
    pending_since: Option<Instant>,
    /// When the last event came, in microseconds since the recording started.
    last_us: u64,
    /// Whether the framer knows of this recording.
    queued: bool,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Files {
    blocks: BlockWriter,
    journal: JournalFile,
    /// Seals both, when recordings are encrypted.
    cipher: Option<Sealing>,
    /// Whether everything in the journal is in blocks too.
    journal_framed: bool,
    /// Whether the directory entries and the ledger's line are still to be made durable.
    entries_unsynced: bool,
    /// Set when the disk refused: what was written may be lost whatever it says later.
    unreliable: Option<String>,
}

/// Events that could not be stored while the session went on.
#[derive(Debug)]
struct Outage {
    gap: Gap,
    retry_at: Instant,
}

/// What a group commit makes durable for one recording.
#[derive(Debug)]
pub(in crate::recording) struct ToSync {
    pub(in crate::recording) files: Vec<Unsynced>,
    pub(in crate::recording) entries: bool,
}

impl Recording {
    /// Makes the files, the first event, and the ledger's line; or nothing.
    pub(in crate::recording) fn create(
        shared: &Arc<Shared>,
        session: SessionId,
        on_failure: OnRecordingFailure,
        first: impl FnOnce(&mut Batch<'_>),
    ) -> Result<Self, RecordingFailure> {
        if shared.usage.bytes() >= shared.max_local {
            return Err(RecordingFailure::StoreFull);
        }
        shared.reserve.hold(&shared.dir)?;
        let created = Self::create_files(shared, session).map_err(RecordingFailure::from);
        let created = created.and_then(|files| {
            let state = State {
                files: Some(files),
                pending: Pending::default(),
                raw: 0,
                pending_since: None,
                last_us: 0,
                queued: false,
                outage: None,
            };
            let inner = Arc::new(Inner {
                shared: Arc::clone(shared),
                session,
                started: Moment::now(),
                on_failure,
                next: AtomicU64::new(0),
                state: Mutex::new(state),
            });
            let begun = inner
                .append(Now::read(), OnRecordingFailure::Refuse, first)
                .and_then(|()| Ok(shared.note(Entry::Opened { session })?));
            if begun.is_err() {
                inner.abandon();
            }
            begun.map(|()| inner)
        });
        created.map(Self).inspect_err(|_| shared.remove_half_made(session))
    }

    fn create_files(shared: &Shared, session: SessionId) -> io::Result<Files> {
        let (cipher, key) = match shared.recipients.as_slice() {
            [] => (None, None),
            recipients => {
                let (cipher, wrapped) = Sealing::make(recipients)?;
                shared.keyring.hold(session, cipher.key());
                (Some(cipher), Some(wrapped))
            }
        };
        // The journal first and removed last: where one stands, a recording is not sealed.
        let file = shared.dir.create(&session, Part::Journal)?;
        let usage = Arc::clone(&shared.usage);
        let journal = JournalFile::create(file, session, cipher.is_some(), usage)?;
        let file = shared.dir.create(&session, Part::Recording)?;
        let tail = Tail::new(file, 0, Arc::clone(&shared.usage));
        let mut blocks = BlockWriter::new(tail, Place::default());
        let wall_us = clock::wall_us(std::time::SystemTime::now());
        let start = Start {
            format: 1,
            session,
            gateway: shared.gateway.clone(),
            started: clock::rfc3339(wall_us),
            cipher: key.is_some().then(|| cipher::NAME.to_owned()),
            recipients: shared.recipients.iter().map(ToString::to_string).collect(),
            dictionary: None,
            key,
        };
        blocks.start(&start, wall_us)?;
        Ok(Files {
            blocks,
            journal,
            cipher,
            journal_framed: false,
            entries_unsynced: true,
            unreliable: None,
        })
    }

    /// The session that it records.
    pub fn session(&self) -> SessionId {
        self.0.session
    }

    /// Bytes of events so far, before compression.
    pub fn raw_bytes(&self) -> u64 {
        self.0.state.lock().raw
    }

    /// Appends events as one unit: all of them are with the operating system when this returns,
    /// or none is stored and the sequence is as before. Never waits for anything but the write.
    ///
    /// # Errors
    /// With `on_recording_failure = "continue"` only [`RecordingFailure::TooLarge`] and
    /// [`RecordingFailure::Closed`]: what cannot be written is counted, and a gap event tells of
    /// it when writing works again. The sequences given out meanwhile stay used up, so `of`
    /// never names another event.
    pub fn append<T>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> T,
    ) -> Result<T, RecordingFailure> {
        self.append_at(Now::read(), write)
    }

    /// The same for what happens at that moment.
    ///
    /// # Errors
    /// As [`Recording::append`].
    pub fn append_at<T>(
        &self,
        now: Now,
        write: impl FnOnce(&mut Batch<'_>) -> T,
    ) -> Result<T, RecordingFailure> {
        self.0.append(now, self.0.on_failure, write)
    }

    /// Begins to plan events.
    pub fn draft(&self) -> Draft {
        Draft::starting_at(self.0.next.load(Ordering::Acquire))
    }

    /// Appends what was planned, as what happens at that moment, and says what became of the
    /// sequences that the draft gave out.
    ///
    /// # Errors
    /// As [`Recording::append`].
    pub fn append_draft(&self, now: Now, draft: &Draft) -> Result<Renumbered, RecordingFailure> {
        self.append_at(now, |batch| batch.draft(draft))
    }

    /// With `durability = "disk"`, waits until all that was appended before is on the disk; one
    /// fsync may serve many sessions. Returns at once with `"process"`. Cancel safe.
    ///
    /// # Errors
    /// When the disk refused; the recording takes no more events then.
    pub async fn committed(&self) -> Result<(), RecordingFailure> {
        let Some(commits) = &self.0.shared.commits else { return Ok(()) };
        let result = match self.0.to_sync() {
            Ok(None) => Ok(()),
            Ok(Some(_)) => commits.wait_for(&self.0).await,
            Err(failure) => Err(failure),
        };
        match (self.0.on_failure, result) {
            (OnRecordingFailure::Continue, Err(_)) => Ok(()),
            (_, result) => result,
        }
    }

    /// Writes the last event and the seal, and closes the files.
    ///
    /// # Errors
    /// When the seal could not be written now; the store goes on trying.
    pub fn close(&self, closed: &Closed) -> Result<(), RecordingFailure> {
        self.0.end(closed)
    }
}

impl Inner {
    fn append<T>(
        self: &Arc<Self>,
        now: Now,
        on_failure: OnRecordingFailure,
        write: impl FnOnce(&mut Batch<'_>) -> T,
    ) -> Result<T, RecordingFailure> {
        let mut state = self.state.lock();
        if state.files.is_none() {
            return Err(RecordingFailure::Closed);
        }
        let stamp = Stamp::at(now, self.started).not_before(state.last_us);
        state.last_us = stamp.monotonic_us;
        let mark = state.pending.mark();
        let result = state.put_gap(stamp);
        let after_gap = state.pending.mark();
        let mut batch = Batch { pending: &mut state.pending, stamp, failure: None };
        let value = write(&mut batch);
        let result = result
            .and(batch.failure.map_or(Ok(()), |error| Err(RecordingFailure::Io(error))))
            .and_then(|()| state.store(self, &mark));
        let result = match result {
            Ok(()) => {
                if let Some(outage) = state.outage.take() {
                    let Gap { events, bytes, reason } = outage.gap;
                    tracing::warn!(session = %self.session, events, bytes, reason, "recorded again after a gap");
                }
                self.queue(&mut state);
                Ok(value)
            }
            Err(failure) => {
                let go_on = on_failure == OnRecordingFailure::Continue
                    && !matches!(failure, RecordingFailure::TooLarge);
                if go_on {
                    self.miss(&mut state, &after_gap, &failure);
                }
                state.pending.roll_back(&mark);
                if go_on { Ok(value) } else { Err(failure) }
            }
        };
        self.next.store(state.next_sequence(), Ordering::Release);
        result
    }

    /// Counts the events after `mark` as missing.
    fn miss(&self, state: &mut State, mark: &Mark, failure: &RecordingFailure) {
        let events = state.pending.next_sequence() - mark.next_sequence();
        let bytes = state.pending.since(mark).len() as u64;
        let now = Instant::now();
        let outage = state.outage.get_or_insert_with(|| {
            tracing::warn!(session = %self.session, %failure, "the session goes on unrecorded");
            let reason = failure.to_string();
            Outage { gap: Gap { events: 0, bytes: 0, reason }, retry_at: now }
        });
        outage.gap.events += events;
        outage.gap.bytes += bytes;
        if outage.retry_at <= now {
            outage.retry_at = now + RETRY;
        }
    }

    /// Tells the framer of this recording, when it holds anything that the framer should see to.
    fn queue(self: &Arc<Self>, state: &mut State) {
        if !state.queued && state.pending.holds_memory() {
            state.queued = true;
            self.shared.unframed.lock().push(Arc::downgrade(self));
        }
    }

    /// Frames what has been pending long enough, or with `all` whatever is. Says whether the
    /// framer has to come again.
    pub(in crate::recording) fn frame_due(&self, now: Instant, all: bool) -> io::Result<bool> {
        let mut state = self.state.lock();
        let few = !state.pending.tells() && state.pending.len() < FEW;
        let after = if few { FRAME_FEW_AFTER } else { FRAME_AFTER };
        let due = state.pending_since.is_none_or(|since| all || now >= since + after);
        if due {
            let quiet = state.pending.is_empty();
            state.frame(&self.shared)?;
            self.shared.changes.note(self.session);
            // A busy session would only take the memory again.
            if quiet || all {
                state.pending.release();
                if let Some(files) = &mut state.files {
                    files.journal.rest();
                }
            }
        }
        let rests = state.files.as_ref().is_none_or(|files| files.journal.rests());
        state.queued = state.pending.holds_memory() || !rests;
        Ok(state.queued)
    }

    /// What is not yet on the disk, or why that will never be known.
    pub(in crate::recording) fn to_sync(&self) -> Result<Option<ToSync>, RecordingFailure> {
        let state = self.state.lock();
        let Some(files) = &state.files else { return Ok(None) };
        if let Some(error) = &files.unreliable {
            return Err(RecordingFailure::Io(error.clone()));
        }
        let unsynced = [files.blocks.tail.unsynced(), files.journal.unsynced()];
        let files_unsynced = unsynced.into_iter().flatten().collect::<Vec<_>>();
        let to_sync = ToSync { files: files_unsynced, entries: files.entries_unsynced };
        Ok((to_sync.entries || !to_sync.files.is_empty()).then_some(to_sync))
    }

    /// Notes what the disk said, and empties the journal when the blocks behind it are safe.
    pub(in crate::recording) fn synced(&self, then: &ToSync, result: &io::Result<()>) {
        let mut state = self.state.lock();
        let Some(files) = &mut state.files else { return };
        match result {
            Ok(()) => {
                for unsynced in &then.files {
                    files.blocks.tail.synced(unsynced);
                    files.journal.synced(unsynced);
                }
                files.entries_unsynced &= !then.entries;
                if files.journal_framed && files.blocks.tail.unsynced().is_none() {
                    files.journal.begin_anew();
                }
            }
            Err(error) => files.unreliable = Some(error.to_string()),
        }
    }

    pub(in crate::recording) fn session(&self) -> SessionId {
        self.session
    }

    /// Lets go of files that will be removed: there is nothing to seal.
    fn abandon(&self) {
        if let Some(mut files) = self.state.lock().files.take() {
            files.blocks.tail.forget();
            files.journal.forget();
        }
    }

    fn end(&self, closed: &Closed) -> Result<(), RecordingFailure> {
        let mut state = self.state.lock();
        if state.files.is_none() {
            return Err(RecordingFailure::Closed);
        }
        let stamp = Stamp::at(Now::read(), self.started).not_before(state.last_us);
        let sealed = state.seal(&self.shared, stamp, closed);
        let gap = state.outage.take().map(|outage| outage.gap);
        let Some(mut files) = state.files.take() else { return Err(RecordingFailure::Closed) };
        state.pending = Pending::default();
        drop(state);
        files.journal.forget();
        let finished = match sealed {
            Ok(sealed) => self.shared.finish(self.session, &mut files.blocks.tail, sealed),
            Err(error) => Err(error),
        };
        finished.map_err(|error| {
            let ending = Ending { closed: closed.clone(), gap, stamp };
            self.shared.seal_later(self.session, Standing::Opened, ending, &error);
            error.into()
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.state.get_mut().files.is_some() {
            // A failure is logged and tried again by the store.
            let _later = self.end(&Closed::interrupted());
        }
    }
}

impl State {
    /// The sequence that the next event gets: behind those that a gap will use up.
    fn next_sequence(&self) -> Sequence {
        let missing = self.outage.as_ref().map_or(0, |outage| outage.gap.events.max(1));
        self.pending.next_sequence().saturating_add(missing)
    }

    /// Puts the event that tells of an outage in front of what follows it.
    fn put_gap(&mut self, stamp: Stamp) -> Result<(), RecordingFailure> {
        let Some(outage) = &self.outage else { return Ok(()) };
        self.pending.gap(stamp, &outage.gap).map_err(RecordingFailure::Io)?;
        if Instant::now() < outage.retry_at {
            return Err(RecordingFailure::Io(outage.gap.reason.clone()));
        }
        Ok(())
    }

    /// Hands the events after `mark` to the operating system.
    fn store(&mut self, of: &Inner, mark: &Mark) -> Result<(), RecordingFailure> {
        let shared = &*of.shared;
        let length = self.pending.since(mark).len();
        if length == 0 {
            return Ok(());
        }
        let raw = self.raw.saturating_add(length as u64);
        if raw > shared.max_session {
            return Err(RecordingFailure::TooLarge);
        }
        if shared.usage.bytes().saturating_add(length as u64) > shared.max_local {
            return Err(RecordingFailure::StoreFull);
        }
        // What is lent to a seal is not for others.
        if !shared.reserve.is_held() {
            return Err(RecordingFailure::Io("no space is left on the disk".to_owned()));
        }
        let Some(files) = &mut self.files else { return Err(RecordingFailure::Closed) };
        if let Some(error) = &files.unreliable {
            return Err(RecordingFailure::Io(error.clone()));
        }
        if length >= DIRECT || self.pending.len() >= BLOCK_TARGET {
            self.frame(shared)?;
        } else {
            files.journal_framed = false;
            let (span, events) = (self.pending.span_since(mark), self.pending.since(mark));
            files.journal.append(files.cipher.as_mut(), (&span, events))?;
        }
        self.raw = raw;
        if !self.pending.is_empty() {
            self.pending_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Writes everything pending as blocks and empties the journal, which nothing needs then.
    fn frame(&mut self, shared: &Shared) -> io::Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        if self.pending.is_empty() {
            return Ok(());
        }
        shared.with_packer(|packer| {
            files.blocks.blocks(packer, &self.pending, files.cipher.as_mut(), false)
        })?;
        self.pending.clear();
        self.pending_since = None;
        files.journal_framed = true;
        match shared.durability {
            Durability::Process => files.journal.begin_anew(),
            Durability::Disk if files.journal.len() > JOURNAL_BOUND => {
                match files.blocks.tail.sync() {
                    Ok(()) => files.journal.begin_anew(),
                    Err(error) => files.unreliable = Some(error.to_string()),
                }
            }
            Durability::Disk => {}
        }
        Ok(())
    }

    /// Writes everything pending, the last event and the seal: all of it, or nothing.
    fn seal(&mut self, shared: &Shared, stamp: Stamp, closed: &Closed) -> io::Result<Sealed> {
        if let Some(outage) = &self.outage {
            self.pending.gap(stamp, &outage.gap).map_err(io::Error::other)?;
        }
        self.pending
            .json(stamp, Kind::Closed, Direction::None, None, closed)
            .map_err(io::Error::other)?;
        let files = self.files.as_mut().ok_or_else(|| io::Error::other("it is closed"))?;
        if let Some(error) = &files.unreliable {
            return Err(io::Error::other(error.clone()));
        }
        shared.with_packer(|packer| {
            let by = (&*shared.key, stamp.wall_us);
            files.blocks.seal(packer, &self.pending, files.cipher.as_mut(), &closed.how, by)
        })
    }
}
