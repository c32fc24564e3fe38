//! The files that the configuration names: certificates and keys.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use russh::keys::PrivateKey;

use crate::age;
use crate::config::{self, Config};
use crate::identity::{Authority, ssh_key};

/// TLS towards clients that speak one protocol.
pub(super) fn tls(
    config: &Config,
    alpn: &[&[u8]],
) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    let Some(files) = &config.tls else { return Ok(None) };
    let what = |file: &Path| format!("[tls]: {} cannot be used", file.display());
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| what(&files.certificate))?;
    if chain.is_empty() {
        bail!("[tls]: {} holds no certificate", files.certificate.display());
    }
    let key = PrivateKeyDer::from_pem_file(&files.private_key)
        .with_context(|| what(&files.private_key))?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("[tls]: certificate and private_key do not fit together")?;
    tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    tls.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Some(Arc::new(tls)))
}

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
