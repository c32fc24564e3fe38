//! Room on the disk that is kept for seals.
//!
//! A recording that filled the disk must still be sealed, or it can never be moved to the archive,
//! and the disk stays full, also after a restart. So a file of some megabytes stands in `data_dir`,
//! and its room is given to a seal that finds none. While the file is not whole, no session opens
//! and none goes on.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::recording::format::layout::DataDir;

/// A block of events, a seal and the ledger's line take some hundred KiB; on a small disk the
/// reserve is its sixteenth part.
const SIZE: u64 = 4 << 20;
const PART_OF_DISK: u64 = 16;

/// Whether the room is there.
#[derive(Debug, Default)]
pub(in crate::recording) struct Reserve {
    held: AtomicBool,
    /// One seal at a time has the room.
    turn: Mutex<()>,
}

impl Reserve {
    /// Whether the room is there, as of the last look.
    pub(in crate::recording) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Takes the room, if it is not held; whether it is then.
    pub(in crate::recording) fn hold(&self, dir: &DataDir) -> io::Result<()> {
        if self.is_held() {
            return Ok(());
        }
        let _turn = self.turn.lock();
        self.take(dir)
    }

    fn take(&self, dir: &DataDir) -> io::Result<()> {
        let whole = dir.disk_bytes().unwrap_or(u64::MAX);
        dir.make_reserve(SIZE.min(whole / PART_OF_DISK))?;
        self.held.store(true, Ordering::Release);
        Ok(())
    }

    /// Does something that may find no room; when it does, once more with the room that is kept,
    /// which is taken again after it.
    pub(in crate::recording) fn lend<T, E>(
        &self,
        dir: &DataDir,
        mut work: impl FnMut() -> Result<T, E>,
        no_room: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        match work() {
            Err(error) if no_room(&error) => {}
            done => return done,
        }
        let _turn = self.turn.lock();
        self.held.store(false, Ordering::Release);
        if let Err(error) = dir.drop_reserve() {
            tracing::warn!(%error, "the room kept for seals cannot be given up");
        }
        let done = work();
        // Where there is no room for it, that is tried again by whoever opens the next session.
        let _later = self.take(dir);
        done
    }
}

/// Whether the operating system said that there is no room.
pub(in crate::recording) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_to_what_finds_none_and_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let reserve = Reserve::default();
        let length = || folder.path().join("reserve").metadata().map_or(0, |of| of.len());
        reserve.hold(&dir).unwrap();
        assert!(reserve.is_held() && length() > 0);
        let mut tries = 0;
        let done: Result<(), io::Error> = reserve.lend(
            &dir,
            || {
                tries += 1;
                if length() == 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
            },
            is_full,
        );
        done.unwrap();
        assert!(tries == 2 && reserve.is_held() && length() > 0);
        let failed: Result<(), io::Error> =
            reserve.lend(&dir, || Err(io::ErrorKind::NotFound.into()), is_full);
        assert!(failed.is_err() && reserve.is_held());
    }
}
