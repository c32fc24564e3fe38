//! The wiring, all of it: build, bind every socket, spawn, drain.

mod certificate;
pub mod descriptors;
mod files;
pub mod hardening;
pub mod online;
pub mod permissions;
pub mod previews;
pub mod replaying;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use certificate::Certificate;

use crate::admission::Gateway;
use crate::approval::Desk;
use crate::archive::{self, Archived, Kept, Mover, Retention, Shelf};
use crate::catalog::Catalog;
use crate::config::{self, Config, Mistake, Mistakes};
use crate::database::{Database, IndexSettings, Indexer, PrivateServer};
use crate::identity::Verifier;
use crate::identity::login::Logins;
use crate::identity::ticket::Tickets;
use crate::listener::room::Room;
use crate::listener::{self, Accepted, Limits};
use crate::notify::Notifier;
use crate::protocol::{http, postgres, ssh};
use crate::recording::Store;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;
use crate::web::admin::{self, AdminSocket, Reloaded};
use crate::web::api::Api;
use crate::web::certificates;
use crate::web::pages::{self, Doors};
use crate::web::{Entrance, Roles, holds, metrics, server};

/// Runs the gateway of a configuration file until it is told to stop.
pub async fn serve(path: PathBuf) -> anyhow::Result<()> {
    let config = Arc::new(config::load(&path)?);
    warn(&config);
    let descriptors = descriptors::raise();
    let mut signals = Signals::listen()?;

    // Build.
    let data_dir = &config.server.data_dir;
    let telemetry = config.telemetry.otlp.as_deref().map(Telemetry::start).transpose()?;
    let key = files::mask_key(&config).await?;
    let identities = files::identities(&config).await?;
    let store = Store::open(data_dir, &config.recording, &key)?.with_identities(identities);
    let shelf = archive::open(&config, Some(store.gateway()))
        .context("[recording] archive cannot be used")?;
    let store = store.with_elsewhere(shelf.clone().map(Shelf::elsewhere));
    let (database, private_server) = database(&config).await?;
    let public_url = config.web.public_url.clone();
    let notifier = Notifier::new(&config.notify, store.gateway().to_owned(), Arc::default());
    let desk = Desk::new(database.clone(), Arc::clone(&notifier), public_url);
    let tickets = Tickets::new(database.clone());
    let withdrawn = Arc::clone(desk.withdrawn());
    let verifier = Verifier::start_with(&config.issuers, tickets, withdrawn).await?;
    let catalog = Catalog::new(Arc::clone(&config), Arc::clone(&desk));
    let tracer = telemetry.as_ref().map(Telemetry::tracer).unwrap_or_default();
    let catalog = Arc::new(catalog.with_tracer(tracer));
    let room = Room::of(descriptors, &config.listen, config.server.max_sessions);
    let limits = Arc::new(Limits::new(room.sessions, room.unproved));
    let shutdown = Shutdown::new();
    let certificate = config.tls.as_ref().map(Certificate::open).transpose()?;
    let tls = |alpn: &[&[u8]]| certificate.as_ref().map(|of| of.server(alpn)).transpose();
    let (host_key, authority) = files::ssh_keys(&config)?;
    let reloader = Arc::new(Reloader {
        started: Arc::clone(&config),
        current: ArcSwap::new(Arc::clone(&config)),
        catalog: Arc::clone(&catalog),
        certificate: certificate.clone(),
        ssh_keys: [host_key.public_key().clone(), authority.public_key().clone()],
        turn: Mutex::new(()),
    });
    let settings = IndexSettings {
        index_text: config.database.index_text,
        private: config.database.url.is_none(),
    };
    let indexer = Indexer::new(database.clone(), store.clone(), data_dir, settings);
    let roles = Roles::new(&config.web);
    let logins = || Logins::new(&config.issuers).map_err(anyhow::Error::msg);
    let public_url = config.web.public_url.clone();
    let doors = Doors::new(public_url.as_deref(), &config.listen, config.tls.is_some());
    let entrance = Entrance::new(logins()?, database.clone(), doors, public_url);
    let gateway = Arc::new(Gateway {
        catalog: Arc::clone(&catalog),
        verifier: Arc::clone(&verifier),
        store: store.clone(),
        limits: Arc::clone(&limits),
        expiry_grace: config.server.expiry_grace,
        shutdown: shutdown.clone(),
    });
    let mut postgres_context =
        postgres::Context::new(Arc::clone(&gateway)).context("no thread for large statements")?;
    postgres_context.insecure = config.listen.postgres_insecure;
    postgres_context.tls = tls(&[postgres::ALPN])?;
    let api = Api::new(
        (data_dir.clone(), store.keyring()),
        (Arc::clone(&catalog), postgres_context.held(), previews::Catalogs::for_web),
        indexer.lag(),
        roles,
        Arc::clone(&verifier),
        entrance,
        shutdown.clone(),
    );
    let authority = Arc::new(authority);
    let certificates = certificates::routes(&api, Arc::clone(&authority), Arc::clone(&catalog));
    let archived =
        shelf.map(|shelf| Archived { archive: shelf.archive().clone(), turn: Arc::default() });
    let mover = archived.clone().map(|Archived { archive, turn }| {
        Mover::new(archive, store.clone(), data_dir, turn, Arc::clone(desk.metrics()))
    });
    let rules = Arc::clone(&catalog);
    let retention = Retention::new(database.clone(), store.clone(), rules, archived)
        .with_grace(data_dir.clone(), config.archive.retention_grace);
    let pruning = holds::pruning(&api, Arc::clone(&retention));
    let router = Arc::clone(&api).router().merge(certificates).merge(pruning);
    let figures = metrics::router(indexer.lag(), store.clone(), Arc::clone(&desk));

    // Bind.
    let admin = AdminSocket::bind(&data_dir.join(admin::FILE_NAME))
        .await
        .context("the admin socket cannot be bound")?;
    let listeners = Listeners::bind(&config).await?;
    let mut http_context = http::Context::new(Arc::clone(&gateway), config.http.clone(), room.http);
    http_context.insecure = config.listen.http_insecure;
    http_context.tls = tls(http::ALPN)?;
    let ssh_context = ssh::Context::new(gateway, authority, logins()?, host_key);
    let web_tls = tls(&[server::ALPN])?;
    let insecure = config.listen.web_insecure;
    let web_context = server::Context::new(
        pages::over(&api, router.clone()),
        web_tls,
        insecure,
        shutdown.clone(),
        room.web,
    );

    // Spawn. What serves needs the index to end behind it, and that the server below it.
    let (below, index, serving) = (Stage::default(), Stage::default(), Stage::default());
    if private_server {
        below.spawn(|cancel| PrivateServer::keep(data_dir.clone(), cancel));
    }
    index.spawn(|cancel| indexer.run(cancel));
    let (heads, anchored) = (database.clone(), store.clone());
    index.spawn(|cancel| archive::keep_head(heads, anchored, cancel));
    let (held, beside) = (database.clone(), store.clone());
    index.spawn(|cancel| archive::keep_holds(held, beside, cancel));
    index.spawn(|cancel| retention.run(cancel));
    if let Some(mover) = mover {
        index.spawn(|cancel| mover.run(cancel));
    }
    if let Some(witness) = &config.archive.witness {
        let kept = Kept::open(witness).context("[recording] witness cannot be used")?;
        let (ledger, metrics) = (store.clone(), Arc::clone(desk.metrics()));
        index.spawn(|cancel| archive::keep_witness(kept, ledger, metrics, cancel));
    }
    serving.spawn(|cancel| store.run(cancel));
    if let Some(certificate) = certificate.clone() {
        serving.spawn(|cancel| certificate.watch(cancel));
    }
    serving.spawn(|cancel| verifier.run(cancel));
    index.spawn(|cancel| desk.run(cancel));
    index.spawn(|cancel| notifier.run(cancel));
    let reload = Arc::clone(&reloader);
    let router = router.merge(admin::routes(move || reload.reload()));
    serving.spawn(|cancel| async move {
        if let Err(error) = admin.serve(router, cancel).await {
            tracing::error!(%error, "admin socket lost");
        }
    });
    let door = Door { limits, trusted: config.listen.trusted_proxies.clone().into(), shutdown };
    let postgres_context = Arc::new(postgres_context);
    door.open(&serving, listeners.postgres, move |accepted| {
        postgres::serve(accepted, Arc::clone(&postgres_context))
    });
    let http_context = Arc::new(http_context);
    door.open(&serving, listeners.http, move |accepted| {
        http::serve(accepted, Arc::clone(&http_context))
    });
    let ssh_context = Arc::new(ssh_context);
    door.open(&serving, listeners.ssh, move |accepted| {
        ssh::serve(accepted, Arc::clone(&ssh_context))
    });
    let figures = server::Context::new(figures, None, true, door.shutdown.clone(), room.web);
    // Neither opens sessions; both tell how the gateway is, whatever comes to the other ports.
    let apart = || Arc::new(Limits::new(0, room.web * 2));
    door.open_apart(&serving, listeners.metrics, apart(), move |accepted| {
        server::serve(accepted, Arc::clone(&figures))
    });
    door.open_apart(&serving, listeners.web, apart(), move |accepted| {
        server::serve(accepted, Arc::clone(&web_context))
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        policy = config.policy.hash(),
        data_dir = %data_dir.display(),
        "gateway ready"
    );

    // Drain.
    let shutdown = door.shutdown;
    signals.until_stop(&reloader).await;
    tracing::info!(sessions = shutdown.sessions().len(), "stopping");
    let cut = shutdown.stop(config.server.drain_timeout, signals.hurry()).await;
    serving.end().await;
    index.end().await;
    database.close().await;
    below.end().await;
    if let Some(telemetry) = telemetry {
        telemetry.end().await;
    }
    tracing::info!(cut, "stopped");
    Ok(())
}

/// The database for index and state, and whether the gateway has to run its server.
async fn database(config: &Config) -> anyhow::Result<(Database, bool)> {
    match &config.database.url {
        Some(url) => {
            let database = Database::from_url(url).context("[database] url")?;
            Ok((database, false))
        }
        None => {
            let options = PrivateServer::check(&config.server.data_dir).await?;
            Ok((Database::new(options), true))
        }
    }
}

/// The sockets that clients connect to.
struct Listeners {
    postgres: Option<TcpListener>,
    http: Option<TcpListener>,
    ssh: Option<TcpListener>,
    web: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let listen = &config.listen;
        Ok(Self {
            postgres: bind("postgres", listen.postgres).await?,
            http: bind("http", listen.http).await?,
            ssh: bind("ssh", listen.ssh).await?,
            web: bind("web", listen.web).await?,
            metrics: bind("metrics", listen.metrics).await?,
        })
    }
}

/// Tasks that end together.
#[derive(Default)]
struct Stage {
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Stage {
    fn spawn<F>(&self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.cancel.clone()));
    }

    async fn end(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What all listeners share.
struct Door {
    limits: Arc<Limits>,
    trusted: Arc<[IpNet]>,
    shutdown: Shutdown,
}

impl Door {
    fn open<S, F>(&self, stage: &Stage, listener: Option<TcpListener>, serve: S)
    where
        S: Fn(Accepted) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.open_apart(stage, listener, Arc::clone(&self.limits), serve);
    }

    /// Opens a listener with limits of its own: what fills the others does not fill it.
    fn open_apart<S, F>(
        &self,
        stage: &Stage,
        listener: Option<TcpListener>,
        limits: Arc<Limits>,
        serve: S,
    ) where
        S: Fn(Accepted) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(listener) = listener else { return };
        let trusted = Arc::clone(&self.trusted);
        let shutdown = self.shutdown.clone();
        stage.spawn(|_| listener::accept(listener, limits, trusted, shutdown, serve));
    }
}

/// Puts another state of the configuration file in force.
struct Reloader {
    /// What the gateway was started with: the sections that need a restart are held against it.
    started: Arc<Config>,
    current: ArcSwap<Config>,
    catalog: Arc<Catalog>,
    certificate: Option<Arc<Certificate>>,
    /// Host key and user CA, as they are used until the next start.
    ssh_keys: [russh::keys::PublicKey; 2],
    /// One at a time, so that the file read last is the one in force.
    turn: Mutex<()>,
}

impl Reloader {
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
        let renewed = self.certificate.as_ref().zip(config.tls.as_ref()).map(|(current, files)| {
            let renewed = Certificate::look(files)?;
            Ok::<_, anyhow::Error>((current, renewed))
        });
        match renewed.transpose() {
            Ok(renewed) => {
                if let Some((current, renewed)) = renewed {
                    current.renew(renewed);
                }
            }
            Err(error) => {
                let mistakes = Mistakes(vec![Mistake {
                    file: self.started.path.display().to_string(),
                    position: None,
                    message: format!("{error:#}"),
                    hint: Some("the certificate of before is still shown".to_owned()),
                }]);
                tracing::error!(%mistakes, "reload refused, the old configuration stays in force");
                return Err(mistakes);
            }
        }
        let needs_restart = self.started.needs_restart(&config).into_iter().map(str::to_owned);
        let needs_restart: Vec<String> =
            needs_restart.chain(files::changed_keys(&config, &self.ssh_keys)).collect();
        let before = self.current.swap(Arc::clone(&config));
        self.catalog.replace(Arc::clone(&config));
        warn(&config);
        tracing::info!(
            before = before.policy.hash(),
            policy = config.policy.hash(),
            ?needs_restart,
            "configuration reloaded"
        );
        Ok(Reloaded { needs_restart, warnings: config.warnings.clone() })
    }
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(%warning, "configuration");
    }
    for doubt in permissions::doubts(config).into_iter().chain(descriptors::doubts(config)) {
        tracing::warn!(doubt, "files");
    }
    for problem in permissions::unread_credentials(config) {
        tracing::warn!(problem, "credentials");
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

async fn bind(
    protocol: &'static str,
    address: Option<SocketAddr>,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("[listen] {protocol}: {address} cannot be bound"))?;
    tracing::info!(protocol, address = %listener.local_addr()?, "listening");
    Ok(Some(listener))
}
