//! Where the files of a store stand, and how they are opened: relative to directories that are
//! held open, never through a symbolic link, readable for the gateway's user alone.
//!
//! ```text
//! data_dir/lock                             held by the one gateway that writes here
//! data_dir/ledger
//! data_dir/reserve                          keeps room for seals
//! data_dir/recordings/<day>/<session>.rec
//! data_dir/recordings/<day>/<session>.journal
//! data_dir/recordings/<day>/<session>.age       its key, wrapped for other recipients later
//! data_dir/recordings/<day>/<session>.hold      while it must stay whatever its age
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::names::SessionId;
use crate::recording::format::clock;

const RECORDINGS: &str = "recordings";
pub(in crate::recording) const LEDGER: &str = "ledger";
const LOCK: &str = "lock";
/// What is being written before it stands under its name.
const PART: &str = "part";
/// What keeps room for seals.
const RESERVE: &str = "reserve";
/// Days that new recordings may still begin in, by whatever clock.
const LATELY: Duration = Duration::from_secs(48 * 60 * 60);

/// A recording's file in `data_dir`, whether it is there or not.
pub fn recording_path(data_dir: &Path, session: &SessionId) -> PathBuf {
    data_dir.join(RECORDINGS).join(day_of(session)).join(Part::Recording.name(session))
}

/// The lock on a `data_dir`: no gateway runs on it while this is held.
#[derive(Debug)]
pub struct Locked(
    #[expect(dead_code, reason = "it is held, and given back when this is dropped")] DataDir,
);

impl Locked {
    /// Takes the lock.
    ///
    /// # Errors
    /// When somebody else holds it, or the directory cannot be used.
    pub fn take(data_dir: &Path) -> anyhow::Result<Self> {
        DataDir::open(data_dir).map(Self)
    }
}

/// Where the key of a recording stands that was wrapped for other recipients later.
pub fn wrapped_anew(recording: &Path) -> PathBuf {
    recording.with_extension("age")
}

/// All recordings in a `data_dir` that need not be ours to write: id, path and size, by id.
pub(in crate::recording) fn list(data_dir: &Path) -> io::Result<Vec<(SessionId, PathBuf, u64)>> {
    let mut found = Vec::new();
    for day in std::fs::read_dir(data_dir.join(RECORDINGS))? {
        let day = day?;
        if !day.file_type()?.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(day.path())? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".rec")?.parse().ok());
            let Some(session) = id.filter(|id| day.file_name() == *day_of(id)) else { continue };
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                found.push((session, entry.path(), metadata.len()));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What stands in the directory of recordings, whoever wrote it.
#[derive(Debug, Default)]
pub(in crate::recording) struct Survey {
    /// Recordings that are where they belong.
    pub(in crate::recording) sessions: Vec<SessionId>,
    /// What no gateway puts there.
    pub(in crate::recording) strangers: Vec<PathBuf>,
}

/// Looks at everything in the directory of recordings.
pub(in crate::recording) fn survey(data_dir: &Path) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for day in std::fs::read_dir(data_dir.join(RECORDINGS))? {
        let day = day?;
        if !day.file_type()?.is_dir() {
            survey.strangers.push(day.path());
            continue;
        }
        for entry in std::fs::read_dir(day.path())? {
            let entry = entry?;
            let name = entry.file_name();
            let named =
                name.to_str().and_then(|name| name.rsplit_once('.')).and_then(|(id, end)| {
                    let id: SessionId = id.parse().ok()?;
                    (day.file_name() == *day_of(&id) && entry.file_type().ok()?.is_file())
                        .then_some((id, end))
                });
            match named {
                Some((session, "rec")) => survey.sessions.push(session),
                Some((_, "journal" | "age" | "age-new" | "hold")) => {}
                _ => survey.strangers.push(entry.path()),
            }
        }
    }
    survey.strangers.sort_unstable();
    Ok(survey)
}

/// The ledger of the store that a recording's file stands in, if it stands in one.
pub(in crate::recording) fn ledger_beside(recording: &Path) -> Option<PathBuf> {
    // Where it was, when it is elsewhere now.
    let recording = recording.canonicalize().or_else(|_| std::path::absolute(recording)).ok()?;
    let recordings = recording.parent()?.parent()?;
    let ledger = recordings.parent()?.join(LEDGER);
    (recordings.file_name()? == RECORDINGS && ledger.is_file()).then_some(ledger)
}

/// The files of one recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Part {
    /// The blocks.
    Recording,
    /// What is in no block yet.
    Journal,
    /// Why it must stay.
    Hold,
    /// Its key, wrapped for other recipients later.
    Key,
}

impl Part {
    fn name(self, session: &SessionId) -> String {
        match self {
            Self::Recording => format!("{session}.rec"),
            Self::Journal => format!("{session}.journal"),
            Self::Hold => format!("{session}.hold"),
            Self::Key => format!("{session}.age"),
        }
    }
}

/// A `data_dir` that this process holds the lock of.
#[derive(Debug)]
pub(in crate::recording) struct DataDir {
    recordings: OwnedFd,
    root: OwnedFd,
    /// Locked as long as it is open.
    _lock: File,
}

/// What stands in the directory of recordings.
#[derive(Debug, Default)]
pub(in crate::recording) struct Inventory {
    /// Sessions with a journal: they were not sealed.
    pub(in crate::recording) journals: Vec<SessionId>,
    /// Sessions with a hold beside them.
    pub(in crate::recording) holds: Vec<SessionId>,
    /// Bytes of all files.
    pub(in crate::recording) bytes: u64,
}

impl DataDir {
    /// Makes what is missing and takes the lock.
    pub(in crate::recording) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if !path.is_dir() {
            std::fs::create_dir_all(path).with_context(|| format!("cannot make {shown}"))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(path, mode)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("cannot open data_dir {shown}"))?;
        let of = rustix::fs::fstat(&root)?;
        if of.st_mode & 0o002 != 0 {
            let mode = of.st_mode & 0o7777;
            anyhow::bail!(
                "cannot use data_dir {shown}: everybody may write there (mode {mode:o}), and could \
                 change recordings and keys; chmod 700 {shown}"
            );
        }
        let own = rustix::process::geteuid();
        if !own.is_root() && of.st_uid != own.as_raw() && of.st_uid != 0 {
            anyhow::bail!(
                "cannot use data_dir {shown}: it belongs to another user (uid {}), who could change \
                 recordings and keys; chown it",
                of.st_uid
            );
        }
        let lock = lock(&root).with_context(|| format!("cannot use data_dir {shown}"))?;
        let recordings = make_directory(&root, RECORDINGS).with_context(|| {
            format!("cannot use {shown}/{RECORDINGS}: it must be a directory of its own")
        })?;
        Ok(Self { recordings, root, _lock: lock })
    }

    /// The size of the disk that the directory is on.
    pub(in crate::recording) fn disk_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.root)?;
        Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
    }

    /// Makes the file that keeps room, with so many bytes that are really there.
    pub(in crate::recording) fn make_reserve(&self, bytes: u64) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::RDWR;
        let mut file = open_file(&self.root, RESERVE, flags)?;
        let made = allocate(&file, 0, bytes).and_then(|made| match made {
            true => Ok(()),
            false => fill(&mut file, bytes),
        });
        if made.is_err() {
            // Half of it is of use to nobody.
            let _still_there = self.drop_reserve();
        }
        made
    }

    /// Gives the room back. On a full disk removing works.
    pub(in crate::recording) fn drop_reserve(&self) -> io::Result<()> {
        match unlinkat(&self.root, RESERVE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the ledger, new or not.
    pub(in crate::recording) fn ledger(&self) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::RDWR;
        open_file(&self.root, LEDGER, flags)
    }

    /// Makes one file of a recording, which must not exist.
    pub(in crate::recording) fn create(&self, session: &SessionId, part: Part) -> io::Result<File> {
        let day = make_directory(&self.recordings, &day_of(session))?;
        // A journal is written over; nothing of the others ever is.
        let end = if part == Part::Journal { OFlags::empty() } else { OFlags::APPEND };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | end;
        open_file(&day, &part.name(session), flags)
    }

    /// Opens one file of a recording, to read it and to add to it.
    pub(in crate::recording) fn open_part(
        &self,
        session: &SessionId,
        part: Part,
    ) -> io::Result<File> {
        let day = open_directory(&self.recordings, &day_of(session))?;
        open_file(&day, &part.name(session), OFlags::APPEND | OFlags::RDWR)
    }

    /// Removes one file of a recording; it is no error when there is none.
    pub(in crate::recording) fn remove(&self, session: &SessionId, part: Part) -> io::Result<()> {
        let removed = open_directory(&self.recordings, &day_of(session))
            .and_then(|day| Ok(unlinkat(day, part.name(session), AtFlags::empty())?));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Writes one file of a recording whole, in place of what is there.
    pub(in crate::recording) fn replace(
        &self,
        session: &SessionId,
        part: Part,
        bytes: &[u8],
    ) -> io::Result<()> {
        let day = make_directory(&self.recordings, &day_of(session))?;
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
        let mut file = open_file(&self.root, PART, flags)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        rustix::fs::renameat(&self.root, PART, &day, part.name(session))?;
        Ok(rustix::fs::fsync(day)?)
    }

    /// The length of one file of a recording; none when there is no such file.
    pub(in crate::recording) fn length(
        &self,
        session: &SessionId,
        part: Part,
    ) -> io::Result<Option<u64>> {
        let found = open_directory(&self.recordings, &day_of(session)).and_then(|day| {
            Ok(rustix::fs::statat(day, part.name(session), AtFlags::SYMLINK_NOFOLLOW)?)
        });
        match found {
            Ok(stat) => Ok(Some(u64::try_from(stat.st_size).unwrap_or(0))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the disk knows that files of these sessions are gone, and takes away the
    /// directories of days of which nothing is left.
    pub(in crate::recording) fn settle(&self, sessions: &[SessionId]) -> io::Result<()> {
        let days: std::collections::BTreeSet<_> = sessions.iter().map(day_of).collect();
        let lately = clock::day(std::time::SystemTime::now() - LATELY);
        for day in days {
            match open_directory(&self.recordings, &day) {
                Ok(directory) => rustix::fs::fsync(directory)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            // It fails while anything is in it. Today's may be about to get its first file.
            if day < lately {
                let _not_empty = unlinkat(&self.recordings, day.as_str(), AtFlags::REMOVEDIR);
            }
        }
        Ok(())
    }

    /// Waits until the disk has the directory entries of a session's files.
    pub(in crate::recording) fn sync_entries(&self, session: &SessionId) -> io::Result<()> {
        rustix::fs::fsync(open_directory(&self.recordings, &day_of(session))?)?;
        rustix::fs::fsync(&self.recordings)?;
        Ok(rustix::fs::fsync(&self.root)?)
    }

    /// Waits until the disk has everything that was written to its filesystem.
    #[cfg(target_os = "linux")]
    pub(in crate::recording) fn sync_filesystem(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.recordings)?)
    }

    /// Walks over all recordings. What is not ours is not looked at.
    pub(in crate::recording) fn inventory(&self) -> io::Result<Inventory> {
        let mut inventory = Inventory::default();
        for day in entries(&self.recordings)? {
            let Ok(directory) = open_directory(&self.recordings, &day) else { continue };
            for name in entries(&directory)? {
                let stat = rustix::fs::statat(&directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                let Ok(stat) = stat else { continue };
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    continue;
                }
                inventory.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                let of = |ending| {
                    let id: Option<SessionId> = name.strip_suffix(ending)?.parse().ok();
                    id.filter(|id| day_of(id) == day)
                };
                inventory.journals.extend(of(".journal"));
                inventory.holds.extend(of(".hold"));
            }
        }
        inventory.journals.sort_unstable();
        inventory.holds.sort_unstable();
        Ok(inventory)
    }
}

/// The name of the directory that a session's recording stands in: its UTC day.
pub fn day_of(session: &SessionId) -> String {
    clock::day(session.created())
}

/// How long a gateway waits for one that is just ending, and how often it looks.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(10);

fn lock(root: &OwnedFd) -> anyhow::Result<File> {
    let mut file = open_file(root, LOCK, OFlags::CREATE | OFlags::RDWR)?;
    let begun = Instant::now();
    // The lock of a process that was killed is gone when the last of its file descriptors is, which a
    // program that it was about to start may still hold.
    let locked = loop {
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_POLL);
            }
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Who holds it is a hint only; it may be writing its number just now.
            let _length = (&file).take(20).read_to_string(&mut pid);
            let holder = pid.trim().parse::<u32>().map_or_else(
                |_| "another gateway".to_owned(),
                |pid| format!("another gateway (process {pid})"),
            );
            anyhow::bail!(
                "{holder} is writing there; stop it, or give this one a data_dir of its own"
            );
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
    }
    // On a full disk the number is missing and the lock holds all the same.
    let _hint = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Makes room from `at` on that is really there; false where the file system cannot.
#[cfg(target_os = "linux")]
pub(in crate::recording) fn allocate(file: &File, at: u64, bytes: u64) -> io::Result<bool> {
    loop {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), at, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => return Ok(false),
            done => return Ok(done.map(|()| true)?),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(in crate::recording) fn allocate(_: &File, _: u64, _: u64) -> io::Result<bool> {
    Ok(false)
}

fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    file.rewind()?;
    io::copy(&mut io::repeat(0).take(bytes), file)?;
    file.sync_data()
}

fn make_directory(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match open_directory(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => open_directory(parent, name),
                Err(error) => Err(error.into()),
            }
        }
        opened => opened,
    }
}

fn open_directory(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn open_file(parent: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    // Without O_NONBLOCK a FIFO planted under the name would hold the gateway for ever.
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other(format!("{name} is not a regular file")))
    }
}

fn entries(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Ok(name) = entry?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_is_refused_and_told_who_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let refused = format!("{:#}", DataDir::open(folder.path()).unwrap_err());
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        assert!(DataDir::open(folder.path()).is_ok());
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let session = SessionId::generate();
        let day = folder.path().join(RECORDINGS).join(day_of(&session));
        std::os::unix::fs::symlink(elsewhere.path(), &day).unwrap();
        assert!(data.create(&session, Part::Recording).is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        drop(data);
        std::fs::remove_file(&day).unwrap();
        std::fs::remove_dir(folder.path().join(RECORDINGS)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(RECORDINGS)).unwrap();
        assert!(DataDir::open(folder.path()).is_err());
    }

    #[test]
    fn files_are_for_the_gateway_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        let session = SessionId::generate();
        let file = data.create(&session, Part::Recording).unwrap();
        let path = recording_path(&folder.path().join("data"), &session);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for above in path.ancestors().skip(1).take(3) {
            assert_eq!(above.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert!(data.create(&session, Part::Recording).is_err(), "made twice");
    }
}
