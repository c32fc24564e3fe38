//! Taking recordings away when their time is over, and the holds beside them that keep them.
//!
//! A tombstone is in the ledger, on the disk, before a file goes, so whatever is interrupted can
//! be done again. A recording beside which a hold stands is left, whatever else is said of it.

use std::io::{self, Read as _};

use crate::names::SessionId;
use crate::recording::format::layout::Part;
use crate::recording::ledger::{Burial, Entry};
use crate::recording::write::store::Store;

/// Larger than the holds of any one recording: some hundreds.
const MAX_HOLD: u64 = 1 << 20;

/// One recording that may go.
#[derive(Debug, Clone)]
pub struct Due {
    /// Which.
    pub session: SessionId,
    /// Why.
    pub burial: Burial,
    /// Whether its file is nowhere.
    pub missing: bool,
}

impl Store {
    /// How large a recording's file here is; none when there is none.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn length_of(&self, session: SessionId) -> io::Result<Option<u64>> {
        self.shared().dir.length(&session, Part::Recording)
    }

    /// Writes the tombstones of recordings, and gives back those that stay because a hold stands
    /// beside them.
    ///
    /// # Errors
    /// When a file cannot be looked at or the ledger cannot be written; some of them may have
    /// their tombstones then.
    pub fn entomb(&self, due: &[Due]) -> io::Result<Vec<SessionId>> {
        let shared = self.shared();
        let _turn = shared.burying.lock();
        let mut held = Vec::new();
        for Due { session, burial, missing } in due {
            if shared.dir.length(session, Part::Hold)?.is_some() {
                held.push(*session);
                continue;
            }
            let (session, burial, missing) = (*session, burial.clone(), *missing);
            shared.note(Entry::Tombstone { session, burial, missing })?;
        }
        shared.sync_ledger()?;
        Ok(held)
    }

    /// Takes away the files here of recordings that have their tombstones; how many bytes that
    /// were.
    ///
    /// # Errors
    /// When a file cannot be removed; those before it are.
    pub fn take_away(&self, sessions: &[SessionId]) -> io::Result<u64> {
        let shared = self.shared();
        let _turn = shared.burying.lock();
        let mut bytes = 0;
        for session in sessions {
            if shared.dir.length(session, Part::Hold)?.is_some() {
                continue;
            }
            // It stays here when its recording is moved elsewhere.
            shared.dir.remove(session, Part::Key)?;
            let Some(length) = shared.dir.length(session, Part::Recording)? else { continue };
            shared.dir.remove(session, Part::Recording)?;
            shared.usage.less(length);
            bytes += length;
        }
        shared.dir.settle(sessions)?;
        Ok(bytes)
    }

    /// Takes away the file here of a recording that was moved elsewhere.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn was_moved(&self, session: SessionId) -> io::Result<()> {
        let shared = self.shared();
        let Some(length) = shared.dir.length(&session, Part::Recording)? else { return Ok(()) };
        shared.dir.remove(&session, Part::Recording)?;
        shared.usage.less(length);
        Ok(())
    }

    /// Puts a hold beside a recording, in place of what stands there; an empty one is taken away.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_hold(&self, session: SessionId, hold: &[u8]) -> io::Result<()> {
        let shared = self.shared();
        let _turn = shared.burying.lock();
        if hold.is_empty() {
            return shared.dir.remove(&session, Part::Hold);
        }
        if hold.len() as u64 > MAX_HOLD {
            return Err(io::Error::other("there are too many holds on one recording"));
        }
        shared.dir.replace(&session, Part::Hold, hold)
    }

    /// The hold that stands beside a recording, if one does.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn hold_beside(&self, session: SessionId) -> io::Result<Option<Vec<u8>>> {
        let file = match self.shared().dir.open_part(&session, Part::Hold) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_HOLD).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The recordings beside which a hold stood when the store was opened; told once.
    pub fn found_holds(&self) -> Vec<SessionId> {
        std::mem::take(&mut self.shared().found_holds.lock())
    }
}
