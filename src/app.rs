//! The wiring, all of it: build, bind every socket, spawn, drain.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::config::{self, Config, Mistakes};
use crate::identity::Verifier;
use crate::listener::{self, Limits};
use crate::protocol::postgres;
use crate::recording::Store;
use crate::shutdown::Shutdown;
use crate::web::admin::{self, AdminSocket, Reloaded};

/// Runs the gateway of a configuration file until it is told to stop.
pub async fn serve(path: PathBuf) -> anyhow::Result<()> {
    let config = Arc::new(config::load(&path)?);
    warn(&config);
    raise_descriptor_limit();
    let mut signals = Signals::listen()?;

    // Build.
    let data_dir = &config.server.data_dir;
    let key = mask_key(&config).await?;
    let store = Store::open(data_dir, &config.recording, &key)?;
    let verifier = Verifier::start(&config.issuers).await?;
    let catalog = Arc::new(Catalog::new(Arc::clone(&config)));
    let limits = Arc::new(Limits::new(config.server.max_sessions));
    let shutdown = Shutdown::new();
    let reloader = Arc::new(Reloader::new(Arc::clone(&config), Arc::clone(&catalog)));

    // Bind.
    let admin = AdminSocket::bind(&data_dir.join(admin::FILE_NAME))
        .await
        .context("the admin socket cannot be bound")?;
    let postgres = match config.listen.postgres {
        Some(address) => Some(bind("postgres", address).await?),
        None => None,
    };
    let mut postgres_context = postgres::Context::new(
        catalog,
        Arc::clone(&verifier),
        store.clone(),
        Arc::clone(&limits),
        shutdown.clone(),
    );
    postgres_context.expiry_grace = config.server.expiry_grace;
    postgres_context.insecure = config.listen.postgres_insecure;
    postgres_context.tls = tls(&config, postgres::ALPN)?;
    let postgres_context = Arc::new(postgres_context);

    // Spawn.
    let background = TaskTracker::new();
    let cancel = CancellationToken::new();
    background.spawn(store.run(cancel.clone()));
    background.spawn(verifier.run(cancel.clone()));
    let reload = Arc::clone(&reloader);
    let stopped = cancel.clone();
    background.spawn(async move {
        if let Err(error) = admin.serve(move || reload.reload(), stopped).await {
            tracing::error!(%error, "admin socket lost");
        }
    });
    let trusted: Arc<[_]> = config.listen.trusted_proxies.clone().into();
    if let Some(listener) = postgres {
        let serve = move |accepted| postgres::serve(accepted, Arc::clone(&postgres_context));
        background.spawn(listener::accept(listener, limits, trusted, shutdown.clone(), serve));
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        policy = config.policy.hash(),
        data_dir = %data_dir.display(),
        "gateway ready"
    );

    // Drain.
    signals.until_stop(&reloader).await;
    tracing::info!(sessions = shutdown.sessions().len(), "stopping");
    let cut = shutdown.stop(config.server.drain_timeout, signals.hurry()).await;
    cancel.cancel();
    background.close();
    background.wait().await;
    tracing::info!(cut, "stopped");
    Ok(())
}

/// Puts another state of the configuration file in force.
struct Reloader {
    /// What the gateway was started with: the sections that need a restart are held against it.
    started: Arc<Config>,
    current: ArcSwap<Config>,
    catalog: Arc<Catalog>,
    /// One at a time, so that the file read last is the one in force.
    turn: Mutex<()>,
}

impl Reloader {
    fn new(started: Arc<Config>, catalog: Arc<Catalog>) -> Self {
        let current = ArcSwap::new(Arc::clone(&started));
        Self { started, current, catalog, turn: Mutex::new(()) }
    }

    /// Reads the file again; with a mistake in it, everything stays as it is.
    fn reload(&self) -> Result<Reloaded, Mistakes> {
        let _turn = self.turn.lock();
        let config = match config::load(&self.started.path) {
            Ok(config) => Arc::new(config),
            Err(mistakes) => {
                tracing::error!(%mistakes, "reload refused, the old configuration stays in force");
                return Err(mistakes);
            }
        };
        let needs_restart = self.started.needs_restart(&config);
        let before = self.current.swap(Arc::clone(&config));
        self.catalog.replace(Arc::clone(&config));
        warn(&config);
        tracing::info!(
            before = before.policy.hash(),
            policy = config.policy.hash(),
            ?needs_restart,
            "configuration reloaded"
        );
        let needs_restart = needs_restart.into_iter().map(str::to_owned).collect();
        Ok(Reloaded { needs_restart, warnings: config.warnings.clone() })
    }
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(%warning, "configuration");
    }
}

/// The signals that the gateway listens to, caught from the moment this exists.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; reloads on SIGHUP meanwhile.
    async fn until_stop(&mut self, reloader: &Arc<Reloader>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    let reloader = Arc::clone(reloader);
                    // What was wrong is logged there.
                    let _reloaded =
                        tokio::task::spawn_blocking(move || reloader.reload().is_ok()).await;
                }
            }
        }
    }

    /// Waits for a second SIGTERM or SIGINT.
    async fn hurry(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn bind(protocol: &'static str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("[listen] {protocol}: {address} cannot be bound"))?;
    tracing::info!(protocol, address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// TLS towards clients that speak one protocol.
fn tls(config: &Config, alpn: &[u8]) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
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
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Some(Arc::new(tls)))
}

/// The key for hashes of what is not stored. Made on the first start where the configuration
/// names a file that is not there.
async fn mask_key(config: &Config) -> anyhow::Result<[u8; 32]> {
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

/// Each session holds four descriptors; the usual soft limit of 1,024 ends at 250 sessions.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "the limit of open files cannot be raised");
    }
}
