//! Waiting for the disk, once for many sessions: `durability = "disk"`.
//!
//! One thread takes whoever waits, syncs every distinct file once, and answers all. While it
//! waits for the disk the next group gathers.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::names::SessionId;
use crate::recording::RecordingFailure;
use crate::recording::format::documents::Sealed;
use crate::recording::format::layout::Part;
use crate::recording::ledger::Entry;
use crate::recording::ledger::Standing;
use crate::recording::write::appender::{Inner, ToSync};
use crate::recording::write::repair::Ending;
use crate::recording::write::store::Shared;

/// From so many files on, one sync of the filesystem is cheaper than one of each. It also waits
/// for what others wrote there; below this, that cost more than it saved.
#[cfg(target_os = "linux")]
const SYNC_FILESYSTEM_FROM: usize = 8;

type Answer = oneshot::Sender<Result<(), RecordingFailure>>;

/// Who waits for the disk. At most one wait and one finish a session, so the bound on sessions
/// bounds it.
#[derive(Default)]
pub(in crate::recording) struct Commits {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Arc<Inner>, Answer)>,
    finishing: Vec<Finish>,
    busy: bool,
    stopped: bool,
}

/// A sealed recording whose ledger line and journal wait for the disk.
pub(in crate::recording) struct Finish {
    pub(in crate::recording) shared: Arc<Shared>,
    pub(in crate::recording) session: SessionId,
    pub(in crate::recording) file: Option<Arc<File>>,
    pub(in crate::recording) sealed: Sealed,
}

impl Commits {
    /// Starts the thread.
    pub(in crate::recording) fn start() -> io::Result<Arc<Self>> {
        let commits = Arc::new(Self::default());
        let working = Arc::clone(&commits);
        std::thread::Builder::new().name("commit".to_owned()).spawn(move || working.work())?;
        Ok(commits)
    }

    /// Waits until what the recording appended is on the disk. Cancel safe.
    pub(in crate::recording) async fn wait_for(
        &self,
        recording: &Arc<Inner>,
    ) -> Result<(), RecordingFailure> {
        let (answer, answered) = oneshot::channel();
        self.queue.lock().waiting.push((Arc::clone(recording), answer));
        self.changed.notify_all();
        answered
            .await
            .unwrap_or_else(|_| Err(RecordingFailure::Io("the gateway is stopping".to_owned())))
    }

    pub(in crate::recording) fn finish(&self, finish: Finish) {
        self.queue.lock().finishing.push(finish);
        self.changed.notify_all();
    }

    /// Returns when nothing waits any more.
    pub(in crate::recording) fn drain(&self) {
        let mut queue = self.queue.lock();
        while queue.busy || !queue.waiting.is_empty() || !queue.finishing.is_empty() {
            self.changed.wait(&mut queue);
        }
    }

    /// Lets the thread end when nothing waits any more.
    pub(in crate::recording) fn stop(&self) {
        self.queue.lock().stopped = true;
        self.changed.notify_all();
    }

    fn work(&self) {
        loop {
            let (waiting, finishing) = {
                let mut queue = self.queue.lock();
                queue.busy = false;
                self.changed.notify_all();
                while queue.waiting.is_empty() && queue.finishing.is_empty() {
                    if queue.stopped {
                        return;
                    }
                    self.changed.wait(&mut queue);
                }
                queue.busy = true;
                (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.finishing))
            };
            commit(waiting);
            for one in finishing {
                one.finish();
            }
        }
    }
}

fn commit(waiting: Vec<(Arc<Inner>, Answer)>) {
    // One recording may wait in two tasks; it is synced once for both.
    let mut seen = HashSet::new();
    let mut syncing: Vec<(Arc<Inner>, ToSync)> = Vec::new();
    for (recording, _) in &waiting {
        if seen.insert(recording.session())
            && let Ok(Some(to_sync)) = recording.to_sync()
        {
            syncing.push((Arc::clone(recording), to_sync));
        }
    }
    let all_at_once = sync_filesystem(&syncing);
    for (recording, to_sync) in &syncing {
        let result = if all_at_once { Ok(()) } else { sync_one(recording, to_sync) };
        recording.synced(to_sync, &result);
    }
    for (recording, answer) in waiting {
        // A recording that failed now or earlier says so itself. Who stopped waiting hears nothing.
        let _gone = answer.send(recording.to_sync().map(drop));
    }
}

/// Syncs everything at once when that is cheaper. One bad file fails this for all, so who is to
/// blame is then found out one by one.
#[cfg(target_os = "linux")]
fn sync_filesystem(syncing: &[(Arc<Inner>, ToSync)]) -> bool {
    let files: usize = syncing.iter().map(|(_, to_sync)| to_sync.files.len()).sum();
    files >= SYNC_FILESYSTEM_FROM
        && syncing
            .first()
            .is_some_and(|(recording, _)| recording.shared.dir.sync_filesystem().is_ok())
}

#[cfg(not(target_os = "linux"))]
fn sync_filesystem(_: &[(Arc<Inner>, ToSync)]) -> bool {
    false
}

fn sync_one(recording: &Inner, to_sync: &ToSync) -> io::Result<()> {
    for unsynced in &to_sync.files {
        unsynced.file.sync_data()?;
    }
    if to_sync.entries {
        recording.shared.sync_ledger()?;
        recording.shared.dir.sync_entries(&recording.session())?;
    }
    Ok(())
}

impl Finish {
    fn finish(self) {
        let result = self.try_finish();
        if let Err(error) = result {
            // The repair finds the seal in the file, so what this ending says is not used.
            self.shared.seal_later(self.session, Standing::Opened, Ending::interrupted(), &error);
        }
    }

    fn try_finish(&self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        let (session, sealed) = (self.session, self.sealed.clone());
        self.shared.note(Entry::Sealed { session, sealed })?;
        self.shared.sync_ledger()?;
        self.shared.dir.remove(&session, Part::Journal)
    }
}
