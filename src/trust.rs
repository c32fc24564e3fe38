//! Which certificate authorities are trusted: the system's, or those of one file alone.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::files;

/// Reads the trusted roots: of `ca` where it is given, else the system's. Blocks on the file
/// system.
///
/// # Errors
/// When the file cannot be read, or holds no certificate.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    match ca {
        Some(file) => roots_of(file),
        None => Ok(system_roots()),
    }
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system certificate store could not be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let unreadable = |error: String| format!("ca {}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    let text = files::read(file, files::MAX_KEY_FILE).map_err(|e| unreadable(e.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("no certificate in it; it must be PEM".to_owned()));
    }
    Ok(roots)
}
