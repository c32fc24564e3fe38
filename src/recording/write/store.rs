//! The recordings of one gateway: making them, framing what waits, sealing what could not be
//! sealed at once.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Weak;
use std::sync::{Arc, atomic::AtomicU8, atomic::Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use zeroize::Zeroizing;

use crate::age::{Identity, Recipient};
use crate::config::{self, Durability, OnRecordingFailure};
use crate::names::SessionId;
use crate::recording::RecordingFailure;
use crate::recording::format::append_file::{Tail, Usage};
use crate::recording::format::documents::Sealed;
use crate::recording::format::event::{Direction, Kind, Opened, RefusedCaller};
use crate::recording::format::layout::{DataDir, Part};
use crate::recording::format::signing::{PublicKey, SealingKey};
use crate::recording::ledger::Standing;
use crate::recording::ledger::{Entry, Head, Ledger, LedgerError};
use crate::recording::read::keyring::Keyring;
use crate::recording::read::source::Elsewhere;
use crate::recording::read::tail_reader::{Changed, Changes};
use crate::recording::write::appender::{Inner, Recording};
use crate::recording::write::block_writer::Packer;
use crate::recording::write::group_commit::{Commits, Finish};
use crate::recording::write::refused::Refusals;
use crate::recording::write::repair::{self, Ending, RepairError};
use crate::recording::write::reserve::{self, Reserve};

/// How often the framer looks; with the 100 ms that events may wait, none waits over 150 ms, but for
/// a few bytes that passed: a second.
const FRAME_TICK: Duration = Duration::from_millis(50);
/// How often what failed is looked at again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause between two tries to seal one recording, whose file each try reads whole.
const SEAL_PAUSE: Duration = Duration::from_secs(30);
/// How often the files are counted anew near the bound, as others may remove some.
const RECOUNT: Duration = Duration::from_secs(60);
/// Compressors kept for the next block; more only serve a moment's crowd.
const PACKERS: usize = 4;
/// Per cent of `max_local` at which operators are told.
const FILLING: [u8; 2] = [80, 95];

/// The recordings of one gateway. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    // Beside `shared`, which their recording refers to.
    refusals: Arc<Mutex<Refusals>>,
    identities: Arc<[Identity]>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

pub(in crate::recording) struct Shared {
    pub(in crate::recording) dir: DataDir,
    pub(in crate::recording) gateway: String,
    /// What seals are signed with.
    pub(in crate::recording) key: Arc<SealingKey>,
    /// All keys that ever signed this ledger.
    pub(in crate::recording) keys: Vec<PublicKey>,
    /// Whether what the last gateway left has signed seals.
    pub(in crate::recording) signed_before: bool,
    pub(in crate::recording) durability: Durability,
    pub(in crate::recording) max_session: u64,
    pub(in crate::recording) max_local: u64,
    /// To whom recordings are encrypted; to nobody when there is none.
    pub(in crate::recording) recipients: Vec<Recipient>,
    pub(in crate::recording) keyring: Keyring,
    pub(in crate::recording) usage: Arc<Usage>,
    /// Recordings that the framer should look at.
    pub(in crate::recording) unframed: Mutex<Vec<Weak<Inner>>>,
    pub(in crate::recording) commits: Option<Arc<Commits>>,
    pub(in crate::recording) changes: Changes,
    pub(in crate::recording) reserve: Reserve,
    /// Held while recordings are taken away or kept from it.
    pub(in crate::recording) burying: Mutex<()>,
    pub(in crate::recording) found_holds: Mutex<Vec<SessionId>>,
    ledger: Mutex<Ledger>,
    packers: Mutex<Vec<Packer>>,
    unsealed: Mutex<Vec<Unsealed>>,
    mask_key: Zeroizing<[u8; 32]>,
    told: AtomicU8,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A recording that ended but could not be sealed.
struct Unsealed {
    session: SessionId,
    standing: Standing,
    ending: Ending,
    /// When to try again, and how long to wait after that.
    next: Instant,
    pause: Duration,
}

impl Store {
    /// Takes the lock on `data_dir`, opens the ledger, and seals what a crash left.
    ///
    /// # Errors
    /// When another gateway holds the lock, the directory cannot be used, or the ledger was
    /// changed. A recording that cannot be repaired is logged and left, and no error.
    pub fn open(
        data_dir: &Path,
        settings: &config::Recording,
        mask_key: &[u8; 32],
    ) -> anyhow::Result<Self> {
        let dir = DataDir::open(data_dir)?;
        let shown = data_dir.display();
        let inventory = dir.inventory().with_context(|| format!("cannot list {shown}"))?;
        let file = dir.ledger().with_context(|| format!("cannot open {shown}/ledger"))?;
        let (ledger, known) = Ledger::open(file, &settings.signing_key, &inventory.journals)
            .map_err(|error| explained(error, data_dir))?;
        let key_file = settings.signing_key.display();
        ledger
            .key()
            .publish(&settings.signing_key)
            .with_context(|| format!("cannot write the public key beside {key_file}"))?;
        let usage = Arc::new(Usage::default());
        usage.set(inventory.bytes);
        let commits = match settings.durability {
            Durability::Process => None,
            Durability::Disk => Some(Commits::start()?),
        };
        let shared = Arc::new(Shared {
            gateway: ledger.gateway().to_owned(),
            key: Arc::clone(ledger.key()),
            keys: ledger.keys().to_vec(),
            signed_before: ledger.signed_before(),
            dir,
            durability: settings.durability,
            max_session: settings.max_session,
            max_local: settings.max_local,
            recipients: settings.recipients.clone(),
            keyring: Keyring::default(),
            usage,
            unframed: Mutex::default(),
            commits,
            changes: Changes::default(),
            reserve: Reserve::default(),
            burying: Mutex::default(),
            found_holds: Mutex::new(inventory.holds),
            ledger: Mutex::new(ledger),
            packers: Mutex::default(),
            unsealed: Mutex::default(),
            mask_key: Zeroizing::new(*mask_key),
            told: AtomicU8::new(0),
        });
        repair::at_start(&shared, &known, &inventory.journals);
        if let Err(error) = shared.reserve.hold(&shared.dir) {
            tracing::error!(%error, "no room for seals; sessions are refused until there is some");
        }
        shared.tell_how_full();
        Ok(Self { shared, refusals: Arc::default(), identities: Arc::default(), elsewhere: None })
    }

    /// The same, with which old recordings can be read too.
    #[must_use]
    pub fn with_identities(mut self, identities: Vec<Identity>) -> Self {
        self.identities = identities.into();
        self
    }

    /// The same, whose readers find recordings elsewhere that are not here any more.
    #[must_use]
    pub fn with_elsewhere(self, elsewhere: Option<Arc<dyn Elsewhere>>) -> Self {
        Self { elsewhere, ..self }
    }

    /// What opens the recordings that are written here, and with identities those of before.
    pub fn keyring(&self) -> Keyring {
        self.shared.keyring.with(&self.identities).with_elsewhere(self.elsewhere.clone())
    }

    /// Starts a recording: the ledger has `opened` and the recording its first event when this
    /// returns; [`Recording::committed`] covers both.
    ///
    /// # Errors
    /// When that cannot be written, whatever the target says of recording failures: of a session
    /// without a beginning nothing could be said later. Nothing is left behind then.
    pub fn create(
        &self,
        opened: &Opened,
        on_failure: OnRecordingFailure,
    ) -> Result<Recording, RecordingFailure> {
        Recording::create(&self.shared, opened.session, on_failure, |batch| {
            batch.json(Kind::Opened, Direction::None, None, opened);
        })
    }

    /// Notes a caller who got no session, in the gateway's own recording; bounded in rate.
    pub fn refused(&self, caller: &RefusedCaller) {
        self.refusals.lock().note(&self.shared, caller);
    }

    pub(in crate::recording) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The gateway's id, as its ledger has it.
    pub fn gateway(&self) -> &str {
        &self.shared.gateway
    }

    /// Signs how far the ledger is, if anything was added since this was last done, and says it.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn checkpoint(&self) -> io::Result<Head> {
        self.shared.ledger.lock().checkpoint()
    }

    /// The same, with the line that says it.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn signed_checkpoint(&self) -> io::Result<(Head, String)> {
        self.shared.ledger.lock().signed_checkpoint()
    }

    /// Keyed hash of bytes that are not stored themselves, in hexadecimal.
    pub fn keyed_hash(&self, bytes: &[u8]) -> String {
        blake3::keyed_hash(&self.shared.mask_key, bytes).to_hex().to_string()
    }

    /// A key of its own for a purpose, which is told by a text that is used nowhere else.
    pub fn derived_key(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(purpose, self.shared.mask_key.as_slice()))
    }

    /// How full the directory of recordings is, in per cent of `max_local`.
    pub fn per_cent_full(&self) -> u64 {
        self.shared.per_cent_full()
    }

    /// Bytes of the files here, and how many there may be.
    pub fn local_bytes(&self) -> (u64, u64) {
        (self.shared.usage.bytes(), self.shared.max_local)
    }

    /// How many recordings have events that are not in a block yet.
    pub fn waiting(&self) -> usize {
        self.shared.unframed.lock().len()
    }

    /// The sessions of which blocks were written since this was last asked. For whoever reads
    /// along; when nobody does, only so many are remembered.
    pub fn take_changed(&self) -> Changed {
        self.shared.changes.take()
    }

    /// Frames what waits in journals and retries what could not be sealed, until
    /// cancelled; then frames all that is left, and ends the gateway's own recording.
    pub async fn run(self, cancel: tokio_util::sync::CancellationToken) {
        let mut tick = tokio::time::interval(FRAME_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds = Rounds::default();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = tick.tick() => {}
            }
            if self.shared.unframed.lock().is_empty() && !rounds.looks(Instant::now()) {
                continue;
            }
            let store = self.clone();
            let round = tokio::task::spawn_blocking(move || {
                rounds.round(&store);
                rounds
            });
            match round.await {
                Ok(after) => rounds = after,
                // The runtime is going down.
                Err(_) => return,
            }
        }
        // It fails only when the runtime is going down; then the next start repairs.
        let _last = tokio::task::spawn_blocking(move || rounds.last(&self)).await;
    }
}

/// What the framer remembers from one round to the next.
#[derive(Default)]
struct Rounds {
    /// When blocks could not be written, if they could not.
    framing_failed: Option<Instant>,
    looked: Option<Instant>,
    counted: Option<Instant>,
}

impl Rounds {
    /// Whether it is time to look at more than the framing.
    fn looks(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now >= looked + RETRY)
    }

    fn round(&mut self, store: &Store) {
        let shared = &store.shared;
        let now = Instant::now();
        if self.framing_failed.is_none_or(|failed| now >= failed + RETRY) {
            self.frame(shared, now, false);
        }
        if self.looks(now) {
            self.looked = Some(now);
            store.refusals.lock().look(shared);
            let was_held = shared.reserve.is_held();
            // With room for all, what waits for some need not wait longer.
            let all = shared.reserve.hold(&shared.dir).is_ok() && !was_held;
            seal_unsealed(shared, |unsealed| all || unsealed.next <= now);
            shared.tell_how_full();
        }
        if shared.per_cent_full() >= u64::from(FILLING[0])
            && self.counted.is_none_or(|counted| now >= counted + RECOUNT)
            && let Ok(inventory) = shared.dir.inventory()
        {
            self.counted = Some(now);
            shared.usage.set(inventory.bytes);
        }
    }

    fn last(&mut self, store: &Store) {
        let shared = &store.shared;
        store.refusals.lock().end();
        self.frame(shared, Instant::now(), true);
        seal_unsealed(shared, |_| true);
        if let Some(commits) = &shared.commits {
            commits.drain();
        }
    }

    fn frame(&mut self, shared: &Shared, now: Instant, all: bool) {
        let waiting = std::mem::take(&mut *shared.unframed.lock());
        let mut failure = None;
        let mut again = Vec::new();
        for weak in waiting {
            let Some(recording) = weak.upgrade() else { continue };
            match recording.frame_due(now, all) {
                Ok(false) => {}
                Ok(true) => again.push(weak),
                Err(error) => {
                    failure = Some(error);
                    again.push(weak);
                }
            }
        }
        shared.unframed.lock().append(&mut again);
        match (&failure, self.framing_failed) {
            (Some(error), None) => {
                tracing::error!(%error, "cannot write blocks; events stay in the journals");
            }
            (None, Some(_)) => tracing::info!("blocks are written again"),
            _ => {}
        }
        self.framing_failed = failure.map(|_| now);
    }
}

/// Says what to do about a ledger that cannot be used.
fn explained(error: LedgerError, data_dir: &Path) -> anyhow::Error {
    let changed = matches!(error, LedgerError::Line(..));
    let error = anyhow::Error::from(error);
    if changed {
        error.context(format!(
            "cannot use {}/ledger; restore it, or move it aside to begin another (recordings stay \
             readable, but are then proved by no ledger)",
            data_dir.display()
        ))
    } else {
        error
    }
}

fn seal_unsealed(shared: &Arc<Shared>, due: impl Fn(&Unsealed) -> bool) {
    let waiting: Vec<_> = shared.unsealed.lock().extract_if(.., |one| due(one)).collect();
    for mut one in waiting {
        let session = one.session;
        match repair::seal_with_room(shared, session, one.standing, &one.ending) {
            Ok(()) => {
                shared.keyring.sealed(session);
                tracing::info!(%session, "the recording is sealed now");
            }
            Err(RepairError::Io(_)) => {
                one.next = Instant::now() + one.pause;
                one.pause = (one.pause * 2).min(SEAL_PAUSE);
                shared.unsealed.lock().push(one);
            }
            Err(RepairError::Damaged(what)) => {
                tracing::error!(%session, what, "a recording is damaged and was left as it is");
            }
        }
    }
}

impl Shared {
    pub(in crate::recording) fn with_packer<T>(
        &self,
        work: impl FnOnce(&mut Packer) -> io::Result<T>,
    ) -> io::Result<T> {
        let kept = self.packers.lock().pop();
        let mut packer = kept.map_or_else(Packer::new, Ok)?;
        let result = work(&mut packer);
        let mut packers = self.packers.lock();
        if packers.len() < PACKERS {
            packers.push(packer);
        }
        result
    }

    /// Whether a failure was for want of room on the disk, which the reserve can give.
    pub(in crate::recording) fn lend_room<T>(
        &self,
        work: impl FnMut() -> Result<T, RepairError>,
    ) -> Result<T, RepairError> {
        let no_room = |error: &RepairError| matches!(error, RepairError::Io(error) if reserve::is_full(error));
        self.reserve.lend(&self.dir, work, no_room)
    }

    /// Adds a line to the ledger.
    pub(in crate::recording) fn note(&self, entry: Entry) -> io::Result<()> {
        self.ledger.lock().add(entry)
    }

    /// Makes the ledger durable up to now.
    pub(in crate::recording) fn sync_ledger(&self) -> io::Result<()> {
        let unsynced = self.ledger.lock().tail().unsynced();
        if let Some(unsynced) = unsynced {
            unsynced.file.sync_data()?;
            self.ledger.lock().tail().synced(&unsynced);
        }
        Ok(())
    }

    /// Takes away what a failed creation left. On a full disk removing works.
    pub(in crate::recording) fn remove_half_made(&self, session: SessionId) {
        self.keyring.release(&session);
        for part in [Part::Recording, Part::Journal] {
            if let Err(error) = self.dir.remove(&session, part) {
                tracing::warn!(%session, %error, "cannot remove a recording that did not start");
            }
        }
    }

    /// Writes a seal into the ledger and removes the journal; with `durability = "disk"` on the
    /// thread that waits for the disk, and when the recording is there.
    pub(in crate::recording) fn finish(
        self: &Arc<Self>,
        session: SessionId,
        tail: &mut Tail,
        sealed: Sealed,
    ) -> io::Result<()> {
        self.changes.note(session);
        self.keyring.sealed(session);
        match &self.commits {
            Some(commits) => {
                let file = tail.unsynced().map(|unsynced| unsynced.file);
                commits.finish(Finish { shared: Arc::clone(self), session, file, sealed });
                Ok(())
            }
            None => {
                self.note(Entry::Sealed { session, sealed })?;
                self.dir.remove(&session, Part::Journal)
            }
        }
    }

    /// Keeps a recording that could not be sealed, to try again.
    pub(in crate::recording) fn seal_later(
        &self,
        session: SessionId,
        standing: Standing,
        ending: Ending,
        error: &io::Error,
    ) {
        tracing::error!(%session, %error, "cannot seal a recording; trying again");
        let (next, pause) = (Instant::now() + RETRY, RETRY);
        self.unsealed.lock().push(Unsealed { session, standing, ending, next, pause });
    }

    pub(in crate::recording) fn per_cent_full(&self) -> u64 {
        self.usage.bytes().saturating_mul(100).checked_div(self.max_local).unwrap_or(100)
    }

    fn tell_how_full(&self) {
        let full = self.per_cent_full();
        let reached =
            FILLING.into_iter().rfind(|bound| full >= u64::from(*bound)).unwrap_or_default();
        if self.told.swap(reached, Ordering::Relaxed) < reached {
            tracing::warn!(
                per_cent = full,
                max_local = self.max_local,
                "the recordings near max_local; new sessions are refused there"
            );
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(commits) = &self.commits {
            commits.stop();
        }
    }
}
