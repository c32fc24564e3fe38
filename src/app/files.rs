//! The files that the configuration names: certificates and keys.

use std::path::Path;

use anyhow::{Context as _, bail};

use russh::keys::{PrivateKey, PublicKey};

use crate::age;
use crate::config::{self, Config};
use crate::identity::{Authority, ssh_key};

/// The key that the gateway shows to SSH clients, and the one that signs their certificates. Made
/// on the first start.
pub(super) fn ssh_keys(config: &Config) -> anyhow::Result<(PrivateKey, Authority)> {
    let read = |key: &str, file: &Path| {
        ssh_key::read_or_make(file, "portcullis")
            .with_context(|| format!("[ssh] {key}: {} cannot be used", file.display()))
    };
    let host_key = read("host_key", &config.ssh.host_key)?;
    Ok((host_key, Authority::new(read("user_ca", &config.ssh.user_ca)?)))
}

/// Of the keys that are in use, those whose files hold others by now.
pub(super) fn changed_keys(config: &Config, in_use: &[PublicKey; 2]) -> Vec<String> {
    let files = [("host_key", &config.ssh.host_key), ("user_ca", &config.ssh.user_ca)];
    let changed = files.into_iter().zip(in_use).filter(|((_, file), in_use)| {
        ssh_key::read(file).is_ok_and(|key| key.public_key().key_data() != in_use.key_data())
    });
    changed.map(|((key, _), _)| format!("[ssh] {key} (its file)")).collect()
}

/// The key for hashes of what is not stored. Made on the first start where the configuration
/// names a file that is not there.
pub(super) async fn mask_key(config: &Config) -> anyhow::Result<[u8; 32]> {
    const PURPOSE: &str = "portcullis 2026-11 recording mask_key";
    let reference = &config.recording.mask_key;
    if let config::SecretRef::File(file) = reference {
        make_key_file(file)
            .with_context(|| format!("[recording] mask_key: {} cannot be made", file.display()))?;
    }
    let secret = reference.read().await.context("[recording] mask_key")?;
    if secret.expose().len() < 32 {
        bail!(
            "[recording] mask_key: 32 characters or more are needed; leave it out to have one made"
        );
    }
    Ok(blake3::derive_key(PURPOSE, secret.expose().as_bytes()))
}

/// What opens encrypted recordings of before, if the gateway may.
pub(super) async fn identities(config: &Config) -> anyhow::Result<Vec<age::Identity>> {
    match &config.recording.identity {
        Some(secret) => secret.identities().await.context("[recording] identity"),
        None => Ok(Vec::new()),
    }
}

/// Writes 32 random bytes in hexadecimal, unless the file is there.
fn make_key_file(file: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let created = match options.write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        created => created,
    };
    let mut key = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *key)?;
    let text = zeroize::Zeroizing::new(blake3::Hash::from_bytes(*key).to_hex().to_string());
    let mut created = created?;
    created.write_all(text.as_bytes())?;
    created.sync_all()?;
    Ok(())
}
