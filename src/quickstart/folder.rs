//! The quickstart's folder: one quickstart at a time, and files that only their owner reads.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::secret::Secret;

/// The folder, locked while this exists.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and takes it.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        let failed = || format!("{} cannot be used", root.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).with_context(failed)?;
        let root = root.canonicalize().with_context(failed)?;
        if rustix::process::geteuid().is_root() {
            // PostgreSQL then runs as another user, who has to pass.
            let mode = root.metadata().with_context(failed)?.permissions().mode();
            fs::set_permissions(&root, Permissions::from_mode(mode | 0o001))
                .with_context(failed)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(root.join("lock")).with_context(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("a quickstart runs on {} already; --data-dir names another", root.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(failed),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a folder in it that only its owner may list.
    pub(super) fn subfolder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(path)
    }

    /// Writes a file as a whole: readers see the old one or the new one.
    pub(super) fn write(&self, name: &str, text: &Secret) -> anyhow::Result<()> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        let write = || {
            // What a start that was killed left may have another mode.
            remove(&new)?;
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.expose().as_bytes())?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Reads a secret that an earlier start wrote; a new random one is made where there is none.
    pub(super) fn secret(&self, name: &str) -> anyhow::Result<Secret> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) if !text.is_empty() => return Ok(Secret::new(text)),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be read", path.display()));
            }
            _ => {}
        }
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *bytes).context("no random numbers")?;
        let secret = Secret::new(blake3::Hash::from_bytes(*bytes).to_hex().to_string());
        self.write(name, &secret)?;
        Ok(secret)
    }

    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        remove(&path).with_context(|| format!("{} cannot be removed", path.display()))
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_quickstart_at_a_time_has_a_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/folder");
        let first = Folder::open(&path).unwrap();
        let refused = Folder::open(&path).unwrap_err().to_string();
        assert!(refused.contains("runs on") && refused.contains("--data-dir"), "{refused}");
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn files_are_for_their_owner_and_secrets_are_kept() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        fs::write(folder.path("x.new"), "left").unwrap();
        fs::write(folder.path("x"), "old").unwrap();
        folder.write("x", &Secret::new("new".to_owned())).unwrap();
        assert_eq!(fs::read_to_string(folder.path("x")).unwrap(), "new");
        assert_eq!(folder.path("x").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let secret = folder.secret("s").unwrap();
        assert_eq!((secret.expose().len(), &secret), (64, &folder.secret("s").unwrap()));
    }
}
