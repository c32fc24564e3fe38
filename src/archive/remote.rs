//! Reading archived recordings where they are, as if they were files.

use std::io;
use std::path::Path as FilePath;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::store::{Archive, ArchiveError};
use crate::config::Config;
use crate::names::SessionId;
use crate::recording::{Elsewhere, LedgerFollower, LedgerNews, Remote};

/// Bytes that are asked for where somebody looks around, and where somebody reads on.
const WINDOW: (u64, u64) = (64 << 10, 1 << 20);

/// Opens the archive of a configuration, and what one gateway put there: this one, or the one of the
/// configuration's `data_dir`.
///
/// # Errors
/// When the archive cannot be used.
pub fn open(config: &Config, gateway: Option<&str>) -> Result<Option<Shelf>, ArchiveError> {
    let Some(place) = &config.archive.place else { return Ok(None) };
    let archive = Archive::open(place)?;
    let gateway = match gateway {
        Some(gateway) => gateway.to_owned(),
        None => gateway_of(&config.server.data_dir)?,
    };
    Ok(Some(Shelf { archive, gateway, runtime: Handle::current() }))
}

fn gateway_of(data_dir: &FilePath) -> io::Result<String> {
    match LedgerFollower::open(data_dir, 0)?.next_line()? {
        Some(LedgerNews::Gateway(gateway)) => Ok(gateway),
        _ => Err(io::Error::other("the ledger does not begin as one")),
    }
}

/// What one gateway archived.
#[derive(Debug, Clone)]
pub struct Shelf {
    archive: Archive,
    gateway: String,
    runtime: Handle,
}

impl Shelf {
    /// The archive, whosever recordings are there.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// For readers of recordings.
    pub fn elsewhere(self) -> Arc<dyn Elsewhere> {
        Arc::new(self)
    }
}

impl Elsewhere for Shelf {
    fn open(&self, session: SessionId) -> io::Result<Option<Box<dyn Remote>>> {
        let key = self.archive.key(&self.gateway, session);
        let (archive, asked) = (self.archive.clone(), key.clone());
        let length = wait(&self.runtime, async move { archive.length(&asked).await })?;
        Ok(length.map(|length| -> Box<dyn Remote> {
            let (archive, runtime) = (self.archive.clone(), self.runtime.clone());
            Box::new(Object { archive, key, length, runtime, window: Mutex::default() })
        }))
    }
}

/// One archived recording. What was read last is kept.
#[derive(Debug)]
struct Object {
    archive: Archive,
    key: Path,
    length: u64,
    runtime: Handle,
    window: Mutex<(u64, Bytes)>,
}

impl Remote for Object {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut window = self.window.lock();
        let wanted = buffer.len() as u64;
        let end = at.checked_add(wanted).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let (from, there) = (window.0, window.0 + window.1.len() as u64);
        if at < from || end > there {
            let more = if at == there { WINDOW.1 } else { WINDOW.0 };
            let to = (at + wanted.max(more)).min(self.length);
            let (archive, key) = (self.archive.clone(), self.key.clone());
            let bytes = wait(&self.runtime, async move { archive.range(&key, at, to).await })?;
            *window = (at, bytes);
        }
        let skip = usize::try_from(at - window.0).unwrap_or(usize::MAX);
        let bytes = window.1.get(skip..).and_then(|bytes| bytes.get(..buffer.len()));
        match bytes {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
        Ok(())
    }
}

/// Waits for the store on a thread that may block.
fn wait<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = Result<T, ArchiveError>> + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = mpsc::sync_channel(1);
    let _task = runtime.spawn(async move {
        // Nobody waits any more when the process ends.
        let _gone = answer.send(work.await);
    });
    let gone = |_| io::Error::other("the archive cannot be asked any more");
    answered.recv().map_err(gone)?.map_err(io::Error::other)
}
