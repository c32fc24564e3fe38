//! Another key for the ledger and the seals.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::{Entry, Ledger, signing_key, walk};
use crate::recording::format::layout::DataDir;
use crate::recording::format::signing::{self, PublicKey, SealingKey};

/// What [`rotate_key`] did.
#[derive(Debug, Clone, Serialize)]
pub struct Rotated {
    /// The key until now.
    pub old: PublicKey,
    /// The key from now on.
    pub new: PublicKey,
    /// Whether the old key signed for the new one.
    pub handed_over: bool,
}

/// Replaces the key in `key_file` by a new one, for which the old one signs in the ledger; the old
/// one is gone then. With `lost`, nobody signs for the new key, which is the one in the file if
/// there is one. Not while a gateway runs.
///
/// Cut short anywhere, the next start goes on with the key that the ledger names.
///
/// # Errors
/// When a gateway holds the lock, the ledger was changed or there is none, or a key cannot be read
/// or written.
pub fn rotate_key(data_dir: &Path, key_file: &Path, lost: bool) -> anyhow::Result<Rotated> {
    let dir = DataDir::open(data_dir)?;
    let file = dir.ledger().context("cannot open the ledger")?;
    let mut gateway = None;
    let end = walk(&file, |line, _| {
        if let Entry::Ledger { gateway: id, .. } = &line.entry {
            gateway = Some(id.clone());
        }
    })?;
    let (Some(gateway), Some(reign)) = (gateway, end.reigns.last()) else {
        anyhow::bail!("nothing is signed yet: the next start makes the key");
    };
    let old = reign.key;
    let next_file = signing::next_to(key_file);
    let (signer, new) = if lost {
        let key = taken_over(key_file, &next_file)?;
        anyhow::ensure!(key.public() != old, "the ledger's key is not lost: it is in the file");
        let public = key.public();
        (key, public)
    } else {
        let key = signing_key(key_file, &end)?;
        (key, SealingKey::make(&next_file)?.public())
    };
    let mut ledger = Ledger::at_end(file, &end, gateway, signer, Vec::new())?;
    ledger.add(Entry::Key { key: new })?;
    ledger.tail().sync()?;
    if next_file.exists() {
        std::fs::rename(&next_file, key_file).context("cannot put the new key in its place")?;
    }
    SealingKey::read(key_file)?.publish(key_file)?;
    Ok(Rotated { old, new, handed_over: !lost })
}

/// The key in the file, or else a new one that stands beside it.
fn taken_over(key_file: &Path, next_file: &Path) -> anyhow::Result<SealingKey> {
    match SealingKey::read(key_file) {
        Ok(key) => {
            // What a rotation left that the ledger never named.
            let _stale = std::fs::remove_file(next_file);
            Ok(key)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(SealingKey::make(next_file)?)
        }
        Err(error) => Err(error).context("cannot read the key"),
    }
}
