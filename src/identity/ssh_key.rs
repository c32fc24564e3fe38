//! Ed25519 keys of the gateway's own making, in OpenSSH's format.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use zeroize::Zeroizing;

use crate::files;

/// A new key.
///
/// # Errors
/// When there are no random numbers.
pub fn generate(comment: &str) -> io::Result<PrivateKey> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *seed).map_err(io::Error::other)?;
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    PrivateKey::new(pair, comment).map_err(io::Error::other)
}

/// Writes a private key to a new file that only its owner may read, and the public key beside it,
/// with `.pub` behind its name.
///
/// # Errors
/// When there is such a file already, or it cannot be written.
pub fn write(key: &PrivateKey, file: &Path) -> io::Result<()> {
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let mut options = fs::OpenOptions::new();
    let mut created = options.write(true).create_new(true).mode(0o600).open(file)?;
    created.write_all(text.as_bytes())?;
    created.sync_all()?;
    let public = key.public_key().to_openssh().map_err(io::Error::other)?;
    fs::write(beside(file, ".pub"), format!("{public}\n"))
}

/// The file of the same name with more behind it.
pub fn beside(file: &Path, ending: &str) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The key in a file; made there, and its folder too, when there is none.
///
/// # Errors
/// When it cannot be made or read, or needs a passphrase.
pub fn read_or_make(file: &Path, comment: &str) -> io::Result<PrivateKey> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    match write(&generate(comment)?, file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    read(file)
}

/// The key in a file.
///
/// # Errors
/// When it cannot be read, or needs a passphrase.
pub fn read(file: &Path) -> io::Result<PrivateKey> {
    let text = files::read_text(file, files::MAX_KEY_FILE)?;
    let key = PrivateKey::from_openssh(&*text).map_err(io::Error::other)?;
    if key.is_encrypted() {
        return Err(io::Error::other("it needs a passphrase, which nobody is there to give"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/key");
        let first = read_or_make(&file, "gateway").unwrap();
        let again = read_or_make(&file, "gateway").unwrap();
        assert_eq!(first.public_key().key_data(), again.public_key().key_data());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let public = fs::read_to_string(beside(&file, ".pub")).unwrap();
        assert!(public.starts_with("ssh-ed25519 "), "{public}");
    }
}
