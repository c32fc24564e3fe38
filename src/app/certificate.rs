//! The certificate that Postgres, HTTP and web listeners show. It is read again with every reload,
//! and when its files change: whoever renews certificates does not restart gateways.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::config::Tls;
use crate::files::{MAX_KEY_FILE, read};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// The certificate in force. Connections that stand keep the one that they were shown.
#[derive(Debug)]
pub(super) struct Certificate {
    current: ArcSwap<CertifiedKey>,
    files: ArcSwap<Tls>,
}

impl Certificate {
    /// That of the files.
    pub(super) fn open(files: &Tls) -> anyhow::Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(certified(files)?);
        Ok(Arc::new(Self { current, files: ArcSwap::from_pointee(files.clone()) }))
    }

    /// TLS towards clients that speak one protocol.
    pub(super) fn server(
        self: &Arc<Self>,
        alpn: &[&[u8]],
    ) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        tls.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Arc::new(tls))
    }

    /// What is in these files now, to be put in force with [`Self::renew`].
    pub(super) fn look(files: &Tls) -> anyhow::Result<Renewed> {
        Ok(Renewed { certified: Arc::new(certified(files)?), files: Arc::new(files.clone()) })
    }

    /// Puts a certificate in force.
    pub(super) fn renew(&self, renewed: Renewed) {
        let before = self.current.swap(Arc::clone(&renewed.certified));
        self.files.store(renewed.files);
        if before.cert != renewed.certified.cert {
            tracing::info!("another TLS certificate is shown from now on");
        }
    }

    /// Looks for renewed files until cancelled.
    pub(super) async fn watch(self: Arc<Self>, cancel: CancellationToken) {
        let mut seen = self.stamp();
        while cancel.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let now = self.stamp();
            if now == seen {
                continue;
            }
            seen = now;
            let files = self.files.load_full();
            match tokio::task::spawn_blocking(move || Self::look(&files)).await {
                Ok(Ok(renewed)) => self.renew(renewed),
                // One of the two may not be there yet; that changes the stamp again.
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "the certificate stays as it is");
                }
                Err(_) => {}
            }
        }
    }

    /// What changes when the files do.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        let files = self.files.load();
        let stamp = |path: &Path| {
            let of = path.metadata().ok()?;
            Some((of.modified().ok()?, of.len()))
        };
        [stamp(&files.certificate), stamp(&files.private_key)]
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// A certificate that was read and fits its key.
pub(super) struct Renewed {
    certified: Arc<CertifiedKey>,
    files: Arc<Tls>,
}

fn certified(files: &Tls) -> anyhow::Result<CertifiedKey> {
    let what = |file: &Path| format!("[tls]: {} cannot be used", file.display());
    let chain = read(&files.certificate, MAX_KEY_FILE).with_context(|| what(&files.certificate))?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| what(&files.certificate))?;
    if chain.is_empty() {
        bail!("[tls]: {} holds no certificate", files.certificate.display());
    }
    let key = read(&files.private_key, MAX_KEY_FILE).with_context(|| what(&files.private_key))?;
    let key = PrivateKeyDer::from_pem_slice(&key).with_context(|| what(&files.private_key))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .with_context(|| what(&files.private_key))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Of some keys it cannot be known.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(error) => Err(error).context("[tls]: certificate and private_key do not fit together"),
    }
}
