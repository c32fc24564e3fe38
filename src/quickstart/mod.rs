//! `portcullis quickstart`: a whole gateway to try, on loopback, in one process.
//!
//! The development issuer, a private PostgreSQL with demonstration data (the target `shop`), and
//! the gateway in front of it. Nothing here is for production: whoever reaches the issuer on this
//! machine can be anybody. All of it stands in one folder:
//!
//! ```text
//! agent.header        the same as a header, for curl
//! portcullis.toml     the gateway's configuration, written anew at each start
//! quickstart.json     where all is, and the tokens; there while it serves
//! agent.pgpass        the agent's token as libpq reads a password
//! approver.token      the approver's token, for `portcullis approval`
//! agent.token         the same, for `portcullis ssh-cert`
//! known_hosts         the gateway's key, for SSH clients
//! host/               the demonstration host: OpenSSH's server, where that is installed
//! data/               the gateway's data_dir: recordings, keys
//! shop/               the demonstration database
//! shop_password, issuer_key.der, lock
//! ```

mod configuration;
mod crew;
mod folder;
mod host;
mod shop;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::folder::Folder;
use self::host::Host;
use self::shop::Shop;
use crate::app;
use crate::identity::dev_issuer::{self, DevIssuer, Settings};
use crate::secret::Secret;
use crate::web::admin;

/// The target's name, and its database's.
pub const SHOP: &str = "shop";
/// The SSH target's name.
pub const HOST: &str = "host";
/// The HTTP target's name.
pub const CREW: &str = "crew";
/// Whom tokens are made for; each is the one user of a group.
const USERS: [&str; 4] = ["agent", "approver", "auditor", "admin"];
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Where listeners go when nobody says otherwise, or to the next port that is free.
const ISSUER_PORT: u16 = 9100;
const POSTGRES_PORT: u16 = 6432;
const WEB_PORT: u16 = 8443;
const HTTP_PORT: u16 = 8080;
const SSH_PORT: u16 = 2222;
/// More taken ports in a row than that are no accident.
const MAX_PORTS_TRIED: u16 = 100;
/// How often the gateway is asked whether it serves.
const POLL: Duration = Duration::from_millis(20);
/// More than the gateway says of itself.
const MAX_ANSWER: u64 = 64 << 10;

const HEADER: &str = "agent.header";
const CREW_TOKEN: &str = "crew_token";
const STATE: &str = "quickstart.json";
const CONFIGURATION: &str = "portcullis.toml";
const PASSWORDS: &str = "agent.pgpass";
const APPROVER: &str = "approver.token";
const TOKEN: &str = "agent.token";
const KNOWN_HOSTS: &str = "known_hosts";

/// What may be chosen.
#[derive(Debug)]
pub struct Options {
    /// The folder for everything; made when it is missing.
    pub data_dir: PathBuf,
    /// Where the gateway listens for Postgres clients: a loopback address; port 0 takes a free one.
    /// None: port 6432 of 127.0.0.1, or the next that is free.
    pub postgres: Option<SocketAddr>,
    /// The same for pages and API, with port 8443.
    pub web: Option<SocketAddr>,
    /// The same for HTTP clients, with port 8080.
    pub http: Option<SocketAddr>,
    /// The same for SSH clients, with port 2222.
    pub ssh: Option<SocketAddr>,
}

/// What serves now.
#[derive(Debug)]
pub struct Serving {
    /// The folder with everything.
    pub data_dir: PathBuf,
    /// The gateway's configuration.
    pub config: PathBuf,
    /// The agent's password file for libpq.
    pub passwords: PathBuf,
    /// The file with the approver's token.
    pub approver: PathBuf,
    /// The file that says all of this to programs.
    pub state: PathBuf,
    /// The issuer's URL.
    pub issuer: String,
    /// Where Postgres clients connect.
    pub postgres: SocketAddr,
    /// Where pages and API are.
    pub web: SocketAddr,
    /// Where HTTP clients connect.
    pub http: SocketAddr,
    /// The file with the agent's token as a header.
    pub header: PathBuf,
    /// Where SSH clients connect; none where there is no sshd to stand behind the gateway.
    pub ssh: Option<SocketAddr>,
    /// The file with the agent's token.
    pub token: PathBuf,
    /// The file with the gateway's key, for SSH clients.
    pub known_hosts: PathBuf,
    /// How long it took.
    pub after: Duration,
}

/// Sets everything up, tells once it serves, and goes on until SIGINT or SIGTERM. Data stay.
///
/// # Errors
/// When something cannot be set up, with what to do about it; then nothing is left running.
pub async fn run(options: Options, tell: impl FnOnce(&Serving)) -> anyhow::Result<()> {
    let begun = Instant::now();
    let chosen = [options.postgres, options.web, options.ssh, options.http];
    if let Some(address) = chosen.iter().flatten().find(|address| !address.ip().is_loopback()) {
        bail!("{address} is not loopback: the quickstart is for this machine alone");
    }
    let folder = Folder::open(&options.data_dir)?;
    folder.remove(STATE)?;
    let listener = next_free(ISSUER_PORT).await?;
    let Some(shop) = unless_stopped(Shop::start(&folder)).await? else { return Ok(()) };
    let host = Host::start(&folder).await?;
    let background = TaskTracker::new();
    let cancel = CancellationToken::new();
    let (shop_port, shop_owner) = (shop.port, shop.owner());
    background.spawn(shop.server.run(cancel.clone()));
    let crew = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let crew_address = crew.local_addr()?;
    background.spawn(crew::serve(crew, folder.secret(CREW_TOKEN)?, cancel.clone()));

    // The issuer sends browsers back to it, and has to know where that is.
    let (web, _) = free(options.web, WEB_PORT).await?;
    let served = match start_issuer(listener, &folder, web) {
        Ok(issuer) => {
            let host = host.as_ref();
            let (folder, crew) = (&folder, crew_address);
            let gateway =
                Gateway { folder, issuer: &issuer, web, shop_port, shop_owner, host, crew };
            let served = gateway.serve(&options, begun, tell).await;
            issuer.stop().await;
            served
        }
        Err(error) => Err(error),
    };
    if let Some(host) = host {
        host.stop().await;
    }
    cancel.cancel();
    background.close();
    background.wait().await;
    folder.remove(STATE)?;
    served
}

/// Waits for what is being set up; none when the process is told to stop before.
async fn unless_stopped<T>(
    set_up: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = set_up => done.map(Some),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| None).map_err(Into::into),
        _ = terminate.recv() => Ok(None),
    }
}

fn start_issuer(
    listener: TcpListener,
    folder: &Folder,
    web: SocketAddr,
) -> anyhow::Result<DevIssuer> {
    let mut settings = Settings::parse(&configuration::issuer(web))?;
    settings.key_file = Some(folder.path("issuer_key.der"));
    dev_issuer::start(listener, settings).context("the development issuer's signing key")
}

/// What the gateway is set up from.
struct Gateway<'a> {
    folder: &'a Folder,
    issuer: &'a DevIssuer,
    web: SocketAddr,
    shop_port: u16,
    shop_owner: PgConnectOptions,
    host: Option<&'a Host>,
    crew: SocketAddr,
}

impl Gateway<'_> {
    /// Serves until told to stop.
    async fn serve(
        &self,
        options: &Options,
        begun: Instant,
        tell: impl FnOnce(&Serving),
    ) -> anyhow::Result<()> {
        // Ports are found as late as can be: they are free for others until the gateway has them.
        // Each is held until all are found, so that none is found twice.
        let (postgres, held) = free(options.postgres, POSTGRES_PORT).await?;
        let web = self.web;
        let (http, also_held) = free(options.http, HTTP_PORT).await?;
        let ssh = match self.host {
            Some(_) => Some(free(options.ssh, SSH_PORT).await?.0),
            None => None,
        };
        drop((held, also_held));
        let (issuer, host) = (self.issuer.url(), self.host.zip(ssh));
        let listeners = configuration::Listeners { postgres, http, web };
        let targets = configuration::Targets { shop_port: self.shop_port, host, crew: self.crew };
        let text = configuration::gateway(issuer, &listeners, targets);
        self.folder.write(CONFIGURATION, &Secret::new(text))?;
        shop::harden(&self.folder.path(CONFIGURATION), &self.shop_owner).await?;
        let mut serving = Serving {
            data_dir: self.folder.root().to_owned(),
            config: self.folder.path(CONFIGURATION),
            passwords: self.folder.path(PASSWORDS),
            approver: self.folder.path(APPROVER),
            state: self.folder.path(STATE),
            issuer: self.issuer.url().to_owned(),
            postgres,
            web,
            http,
            header: self.folder.path(HEADER),
            ssh,
            token: self.folder.path(TOKEN),
            known_hosts: self.folder.path(KNOWN_HOSTS),
            after: Duration::ZERO,
        };
        let mut gateway = Box::pin(app::serve(serving.config.clone()));
        let admin = self.folder.path(configuration::DATA_DIR).join(admin::FILE_NAME);
        tokio::select! {
            ended = &mut gateway => return ended,
            () = answers(postgres, &admin) => {}
        }
        self.write_tokens(&serving)?;
        serving.after = begun.elapsed();
        tell(&serving);
        gateway.await
    }

    /// Writes what programs read: the agent's password file, then the file that says all.
    fn write_tokens(&self, serving: &Serving) -> anyhow::Result<()> {
        let (host, port) = (serving.postgres.ip(), serving.postgres.port());
        let mut tokens = serde_json::Map::new();
        for user in USERS {
            let token = self.issuer.issue(user, TOKEN_LIFETIME).context("no token was made")?;
            if user == "agent" {
                // A token has no character that the format takes for its own; an IPv6 address has.
                let host = host.to_string().replace(':', "\\:");
                let line = format!("{host}:{port}:{SHOP}:{user}:{}\n", token.expose());
                self.folder.write(PASSWORDS, &Secret::new(line))?;
                let header = format!("Authorization: Bearer {}\n", token.expose());
                self.folder.write(HEADER, &Secret::new(header))?;
                self.folder.write(TOKEN, &Secret::new(token.expose().to_owned()))?;
            }
            if user == "approver" {
                self.folder.write(APPROVER, &token)?;
            }
            tokens.insert(user.to_owned(), token.expose().into());
        }
        let agent = tokens.get("agent").and_then(|token| token.as_str()).unwrap_or_default();
        let mut state = json!({
            "pid": std::process::id(),
            "data_dir": serving.data_dir,
            "config": serving.config,
            "web": format!("http://{}", serving.web),
            "issuer": serving.issuer,
            "postgres": {
                "url": format!("postgres://agent:{agent}@{}/{SHOP}", serving.postgres),
                "target": SHOP,
            },
            "http": { "url": format!("http://{}/{CREW}", serving.http) },
            "tokens": tokens,
        });
        if let (Some(ssh), Some(state)) = (serving.ssh, state.as_object_mut()) {
            self.write_known_hosts(ssh)?;
            let (host, port) = (ssh.ip().to_string(), ssh.port());
            let known_hosts = &serving.known_hosts;
            let ssh = json!({
                "host": host, "port": port, "user": HOST, "known_hosts": known_hosts,
            });
            state.insert("ssh".to_owned(), ssh);
        }
        self.folder.write(STATE, &Secret::new(serde_json::to_string_pretty(&state)?))
    }

    /// Writes what SSH clients know the gateway by.
    fn write_known_hosts(&self, ssh: SocketAddr) -> anyhow::Result<()> {
        let file = self.folder.path(configuration::DATA_DIR).join("ssh_host_ed25519.pub");
        let key = std::fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let line = format!("[{}]:{} {key}", ssh.ip(), ssh.port());
        self.folder.write(KNOWN_HOSTS, &Secret::new(line))
    }
}

/// Returns when the gateway takes connections, and its database what people decide.
async fn answers(postgres: SocketAddr, admin: &Path) {
    while !knows_state(admin).await || TcpStream::connect(postgres).await.is_err() {
        sleep(POLL).await;
    }
}

/// Whether the gateway says that it has read its state.
async fn knows_state(admin: &Path) -> bool {
    let asked = async {
        let mut socket = UnixStream::connect(admin).await?;
        let request = b"GET /readyz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n";
        socket.write_all(request).await?;
        let mut answer = Vec::new();
        socket.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).contains(r#""state":"current""#))
    };
    asked.await.unwrap_or(false)
}

/// An address whose port is free now: the one that was chosen, or one by its usual port.
async fn free(chosen: Option<SocketAddr>, usual: u16) -> anyhow::Result<(SocketAddr, TcpListener)> {
    let listener = match chosen {
        Some(address) => TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?,
        None => next_free(usual).await?,
    };
    Ok((listener.local_addr()?, listener))
}

/// Listens on the first free port of 127.0.0.1 from this one on.
async fn next_free(first: u16) -> anyhow::Result<TcpListener> {
    for port in first..first.saturating_add(MAX_PORTS_TRIED) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound.with_context(|| format!("cannot listen on port {port}")),
        }
    }
    bail!("{MAX_PORTS_TRIED} ports from {first} on are taken")
}
