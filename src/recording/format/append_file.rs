//! A file that is only ever added to at its end, with the length that is known to be whole.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of all files of a store, kept as they are written.
#[derive(Debug, Default)]
pub(in crate::recording) struct Usage(AtomicU64);

impl Usage {
    pub(in crate::recording) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(in crate::recording) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    pub(in crate::recording) fn less(&self, bytes: u64) {
        self.change(bytes, 0);
    }

    pub(in crate::recording) fn change(&self, from: u64, to: u64) {
        if to >= from {
            self.0.fetch_add(to - from, Ordering::Relaxed);
        } else {
            let less = |bytes: u64| Some(bytes.saturating_sub(from - to));
            // The closure always gives a value, so there is no failure to look at.
            let _bytes = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

/// The end of a file opened for appending.
#[derive(Debug)]
pub(in crate::recording) struct Tail {
    file: Arc<File>,
    len: u64,
    /// Whether bytes beyond `len` may stand in the file, left by a write that failed.
    torn: bool,
    /// How much of the file is known to be on the disk.
    synced: u64,
    /// Changes when the file gets shorter, so that a sync begun before does not count after.
    generation: u64,
    usage: Arc<Usage>,
}

/// What a sync that begins now will have made durable.
#[derive(Debug)]
pub(in crate::recording) struct Unsynced {
    pub(in crate::recording) file: Arc<File>,
    len: u64,
    generation: u64,
}

impl Unsynced {
    pub(in crate::recording) fn new(file: &Arc<File>, len: u64, generation: u64) -> Self {
        Self { file: Arc::clone(file), len, generation }
    }

    /// How long the file was.
    pub(in crate::recording) fn len(&self) -> u64 {
        self.len
    }

    /// Whether it still says something of that file.
    pub(in crate::recording) fn is_of(&self, file: &Arc<File>, generation: u64) -> bool {
        self.generation == generation && Arc::ptr_eq(&self.file, file)
    }
}

impl Tail {
    /// Takes over a file of `len` whole bytes, opened with `O_APPEND`.
    pub(in crate::recording) fn new(file: File, len: u64, usage: Arc<Usage>) -> Self {
        Self { file: Arc::new(file), len, torn: false, synced: 0, generation: 0, usage }
    }

    pub(in crate::recording) fn len(&self) -> u64 {
        self.len
    }

    /// Writes all parts behind one another, or leaves the file as it was.
    pub(in crate::recording) fn append(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.mend()?;
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if let Err(error) = write_all(&self.file, parts) {
            self.torn = true;
            // When this fails too, the next write tries it first.
            let _later = self.mend();
            return Err(error);
        }
        self.set_len(self.len + length);
        Ok(())
    }

    /// Goes back to a length that the file had. When the operating system refuses, the bytes
    /// behind it are cut before the next write.
    pub(in crate::recording) fn roll_back(&mut self, len: u64) {
        if len < self.len {
            self.synced = self.synced.min(len);
            self.generation += 1;
            self.set_len(len);
            self.torn = true;
            let _later = self.mend();
        }
    }

    pub(in crate::recording) fn unsynced(&self) -> Option<Unsynced> {
        (self.synced < self.len).then(|| Unsynced::new(&self.file, self.len, self.generation))
    }

    /// Notes that what was unsynced then is on the disk now.
    pub(in crate::recording) fn synced(&mut self, then: &Unsynced) {
        if then.is_of(&self.file, self.generation) {
            self.synced = self.synced.max(then.len);
        }
    }

    /// Waits for the disk.
    pub(in crate::recording) fn sync(&mut self) -> io::Result<()> {
        if let Some(unsynced) = self.unsynced() {
            unsynced.file.sync_data()?;
            self.synced(&unsynced);
        }
        Ok(())
    }

    /// Takes the file out of the count, when it is removed.
    pub(in crate::recording) fn forget(&mut self) {
        self.set_len(0);
    }

    fn set_len(&mut self, len: u64) {
        self.usage.change(self.len, len);
        self.len = len;
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Puts another file in the place of this one's, to see what its errors do.
    #[cfg(test)]
    pub(in crate::recording) fn swap(&mut self, file: File) -> Arc<File> {
        std::mem::replace(&mut self.file, Arc::new(file))
    }

    #[cfg(test)]
    pub(in crate::recording) fn swap_back(&mut self, file: Arc<File>) {
        self.file = file;
    }
}

fn write_all(mut file: &File, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing_behind_once_the_file_takes_writes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let usage = Arc::new(Usage::default());
        let mut tail = Tail::new(file, 0, Arc::clone(&usage));
        tail.append(&mut [IoSlice::new(b""), IoSlice::new(b"one"), IoSlice::new(b" two")]).unwrap();

        let full = std::fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
        let real = tail.swap(full);
        assert!(tail.append(&mut [IoSlice::new(b"lost")]).is_err());
        tail.swap_back(real);
        // As if half of it had got through.
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"lo").unwrap();
        tail.append(&mut [IoSlice::new(b" three")]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two three");
        assert_eq!((tail.len(), usage.bytes()), (13, 13));
    }

    #[test]
    fn a_sync_from_before_a_cut_does_not_count() {
        let file = tempfile::tempfile().unwrap();
        let mut tail = Tail::new(file, 0, Arc::default());
        tail.append(&mut [IoSlice::new(b"12345678")]).unwrap();
        let begun = tail.unsynced().unwrap();
        tail.roll_back(4);
        tail.append(&mut [IoSlice::new(b"abcd")]).unwrap();
        tail.synced(&begun);
        // Nor does one of another file, however long that is.
        let other = Arc::new(tempfile::tempfile().unwrap());
        tail.synced(&Unsynced::new(&other, 1 << 20, tail.generation));
        assert!(tail.unsynced().is_some());
        tail.sync().unwrap();
        assert!(tail.unsynced().is_none());
    }
}
