//! The PostgreSQL server that the gateway runs for itself when `[database]` is left out.
//!
//! It is made from the machine's own PostgreSQL, stands under `data_dir/postgres`, listens on a
//! socket that only the gateway's user (and root) can reach, and starts and stops with the
//! gateway. It outlives a gateway that is killed; the next one finds it and goes on with it. That
//! there are never two is PostgreSQL's own promise (`postmaster.pid`), and that there are not two
//! gateways is the lock's on `data_dir`, which must be held here.
//!
//! When the gateway is root the server runs as the system's user `postgres`. Then `data_dir` gets
//! the right to pass for others; everything else in it keeps its own mode.

mod binaries;
mod cluster;
mod user;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::{Either, select};
use rustix::process::Pid;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use binaries::Binaries;
use cluster::Cluster;
use user::Users;

/// How long a start may take; what a crash left may have to be replayed first.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How often a server that is starting is asked whether it is there.
const START_POLL: Duration = Duration::from_millis(50);
/// How long a gateway that stops waits for its server's start, to stop it again.
const LAST_START: Duration = Duration::from_secs(15);
/// How long a server that ends at once is started again, and how often.
const RELAUNCH_PATIENCE: Duration = Duration::from_secs(10);
const RELAUNCH_PAUSE: Duration = Duration::from_millis(500);
/// How long a fast shutdown may take until it becomes an immediate one.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// How often a server that is not our child is looked for, and the log's size looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Waits between attempts to start a server that ended by itself.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The sessions that are served come before the index of what they did.
const NICE: i32 = 10;

/// Why there is no private server. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PrivateServerError {
    /// No PostgreSQL was found.
    #[error(
        "no PostgreSQL server is installed, and [database] names none; install one (Debian, \
         Ubuntu: apt install postgresql; macOS: brew install postgresql@17; Red Hat: dnf install \
         postgresql-server postgresql-contrib), or set [database] url"
    )]
    NotInstalled,
    /// Only old ones were found.
    #[error(
        "the PostgreSQL installed is version {newest}; version {oldest} or later is needed: \
         install one beside it, or set [database] url"
    )]
    TooOld {
        /// The newest that was found.
        newest: u32,
        /// The oldest that is taken.
        oldest: u32,
    },
    /// The data are of a version that is not installed.
    #[error(
        "data_dir/postgres/data is of PostgreSQL {data}, and this machine has {}: install \
         version {data} beside it, or move the data with pg_upgrade", list(.installed)
    )]
    OtherVersion {
        /// The version of the data.
        data: u32,
        /// The versions that were found.
        installed: Vec<u32>,
    },
    /// Something else stands where the cluster should.
    #[error(
        "{} is not the data of a PostgreSQL server; move it aside, and a new one is made (the \
         index comes back from the recordings, the audit log does not)", .data.display()
    )]
    NotACluster {
        /// Where.
        data: PathBuf,
    },
    /// The gateway is root and there is no user for the server.
    #[error(
        "PostgreSQL does not run as root, and there is no system user postgres; make one \
         (useradd --system postgres), run the gateway as another user, or set [database] url"
    )]
    NoServerUser,
    /// The gateway's user has no name.
    #[error(
        "PostgreSQL needs the gateway's user to have a name, and this one has none; add it to \
         /etc/passwd, or set [database] url"
    )]
    NamelessUser,
    /// The server's user cannot reach `data_dir`.
    #[error(
        "PostgreSQL runs as user {user}, who may not pass through {}: choose a data_dir outside \
         it, run the gateway as another user than root, or set [database] url", .blocked.display()
    )]
    NoWay {
        /// Who.
        user: String,
        /// The directory in the way.
        blocked: PathBuf,
    },
    /// A directory is not the server's own.
    #[error("{} must be a directory that only the server's user may enter; remove it", .path.display())]
    NotPrivate {
        /// Which.
        path: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb failed: {complaint}")]
    NotInitialised {
        /// What it said.
        complaint: String,
    },
    /// The server did not come up.
    #[error("the private PostgreSQL server does not start; its log ends:\n{log}")]
    NotStarted {
        /// The end of its log.
        log: String,
    },
    /// It came up and could not be made ready.
    #[error("the private PostgreSQL server cannot be used: {0}")]
    NotUsable(#[from] sqlx::Error),
    /// A file could not be used.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl PrivateServerError {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

fn list(versions: &[u32]) -> String {
    versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A running private server. Dropping it tells the server to stop and waits for nothing;
/// [`PrivateServer::run`] is the way to keep and stop it.
#[derive(Debug)]
pub struct PrivateServer {
    cluster: Cluster,
    binaries: Binaries,
    users: Users,
    /// The server, when this gateway started it; none when it was found running.
    child: Option<Child>,
    stopped: bool,
}

impl PrivateServer {
    /// Finds the server that an earlier gateway left, or starts one, and makes it first where
    /// there is none. The lock on `data_dir` must be held.
    ///
    /// # Errors
    /// Each says what to do about it.
    pub async fn start(data_dir: &Path) -> Result<Self, PrivateServerError> {
        Self::start_where(data_dir, false).await
    }

    /// Like [`PrivateServer::start`], and roles that have a password may connect to a port of
    /// 127.0.0.1 too, with SCRAM: a server of demonstration data, never the gateway's own.
    ///
    /// # Errors
    /// Each says what to do about it.
    pub async fn start_on_loopback(data_dir: &Path) -> Result<Self, PrivateServerError> {
        Self::start_where(data_dir, true).await
    }

    async fn start_where(data_dir: &Path, loopback: bool) -> Result<Self, PrivateServerError> {
        let users = Users::find().await?;
        let cluster = Cluster::prepare(data_dir, &users, loopback)?;
        let version = cluster.version()?;
        let binaries = binaries::find(version).await?;
        if version.is_none() {
            tracing::info!(version = binaries.major, "making the private PostgreSQL server");
            cluster.initialise(&binaries, &users).await?;
        }
        let mut server = Self { cluster, binaries, users, child: None, stopped: false };
        if loopback {
            // One that runs already has its port.
            let noted = if server.is_alive() { server.cluster.noted_port() } else { None };
            server.cluster.loopback = Some(noted.map_or_else(free_port, Ok)?);
        }
        server.bring_up().await?;
        server.make_database().await?;
        Ok(server)
    }

    /// Whether a start could find what it needs, and how to connect once it is done. Starts
    /// nothing; the lock on `data_dir` must be held.
    ///
    /// # Errors
    /// Each says what to do about it.
    pub async fn check(data_dir: &Path) -> Result<PgConnectOptions, PrivateServerError> {
        let users = Users::find().await?;
        let cluster = Cluster::prepare(data_dir, &users, false)?;
        let binaries = binaries::find(cluster.version()?).await?;
        // Nothing runs that would have to be stopped.
        let server = Self { cluster, binaries, users, child: None, stopped: true };
        Ok(server.connect_options())
    }

    /// Starts the server, trying again when that fails, and keeps it going; as
    /// [`PrivateServer::run`] when cancelled.
    pub async fn keep(data_dir: PathBuf, cancel: CancellationToken) {
        let mut pause = RESTART_PAUSE.0;
        loop {
            let starting = pin!(Self::start(&data_dir));
            let started = match select(starting, pin!(cancel.cancelled())).await {
                Either::Left((started, _)) => started,
                // A server that is half started would be left running.
                Either::Right(((), starting)) => match timeout(LAST_START, starting).await {
                    Ok(started) => started,
                    Err(_) => return,
                },
            };
            match started {
                Ok(server) => return server.run(cancel).await,
                Err(error) => {
                    tracing::error!(%error, "the private PostgreSQL server does not start");
                }
            }
            if cancel.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(RESTART_PAUSE.1);
        }
    }

    /// How the gateway connects: over the socket, as the owner of its own database.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options(cluster::NAME, cluster::NAME)
    }

    /// How the server's superuser connects, over the socket too.
    pub fn superuser_options(&self) -> PgConnectOptions {
        self.options(cluster::SUPERUSER, cluster::SUPERUSER)
    }

    /// The port on 127.0.0.1, when it listens there.
    pub fn loopback_port(&self) -> Option<u16> {
        self.cluster.loopback
    }

    /// Starts the server again whenever it ends by itself. Once cancelled, stops it and returns
    /// when it is gone; cancel it after everything that uses the database.
    pub async fn run(mut self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(self.gone()).await.is_some() {
            tracing::error!(log = self.cluster.log_end(), "the private PostgreSQL server ended");
            let mut pause = RESTART_PAUSE.0;
            while let Some(Err(error)) = cancel.run_until_cancelled(self.bring_up()).await {
                tracing::error!(%error, "the private PostgreSQL server does not come back");
                if cancel.run_until_cancelled(sleep(pause)).await.is_none() {
                    break;
                }
                pause = (pause * 2).min(RESTART_PAUSE.1);
            }
        }
        self.stop().await;
    }

    /// Stops the server: what runs is cancelled, what is committed is kept.
    pub async fn stop(mut self) {
        self.stopped = true;
        if !self.told_to_stop("fast").await {
            tracing::warn!("the private PostgreSQL server does not stop; stopping it at once");
            self.told_to_stop("immediate").await;
        }
        if let Some(child) = &mut self.child {
            let _ended = timeout(STOP_PATIENCE, child.wait()).await;
        }
    }

    async fn told_to_stop(&self, mode: &str) -> bool {
        let seconds = STOP_PATIENCE.as_secs().to_string();
        let mut stop = self.users.command(self.binaries.program("pg_ctl"));
        stop.args(["stop", "-s", "-m", mode, "-t", &seconds, "-D"]).arg(&self.cluster.data);
        stop.stdout(Stdio::null()).stderr(Stdio::null());
        matches!(stop.status().await, Ok(status) if status.success()) || !self.is_alive()
    }

    /// Returns when the server is there and takes connections.
    async fn bring_up(&mut self) -> Result<(), PrivateServerError> {
        let begun = Instant::now();
        while !(self.cluster.says_ready() && self.answers().await) {
            // One that is starting, stopping or recovering is waited for. A server cannot start
            // while processes of one that was killed are still there; then it is tried again.
            let running = self.is_running();
            let patience = if running { START_PATIENCE } else { RELAUNCH_PATIENCE };
            if begun.elapsed() > patience {
                return Err(PrivateServerError::NotStarted { log: self.cluster.log_end() });
            }
            if !running {
                if self.child.is_some() {
                    sleep(RELAUNCH_PAUSE).await;
                }
                self.launch()?;
            }
            sleep(START_POLL).await;
        }
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        let child_runs = match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        };
        child_runs || self.is_alive()
    }

    /// Starts the server's process.
    fn launch(&mut self) -> Result<(), PrivateServerError> {
        self.cluster.forget_reused();
        let log = self.cluster.open_log()?;
        let program = self.binaries.program("postgres");
        let failed = || PrivateServerError::io("cannot start", &program);
        let child = self
            .users
            .command(&program)
            .args(self.cluster.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed())?)
            .stderr(log)
            // A signal from the terminal is for the gateway, which then stops the server.
            .process_group(0)
            .spawn()
            .map_err(failed())?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Without it the server is only a less modest neighbour.
            let _modest = rustix::process::setpriority_process(Some(pid), NICE);
        }
        self.child = Some(child);
        Ok(())
    }

    /// Whether our server takes connections.
    async fn answers(&self) -> bool {
        let ask = async {
            let mut connection = self.superuser_options().connect().await?;
            let data: String =
                sqlx::query_scalar("show data_directory").fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(Path::new(&data) == self.cluster.data)
        };
        matches!(timeout(LOOK, ask).await, Ok(Ok(true)))
    }

    /// Whether the process that `postmaster.pid` names is alive and is our server: numbers of
    /// dead processes are given to others.
    fn is_alive(&self) -> bool {
        let Some(pid) = self.cluster.postmaster() else { return false };
        // A postmaster works in its data directory.
        match std::fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(directory) => directory == self.cluster.data,
            Err(_) if Path::new("/proc/self").exists() => false,
            Err(_) => command_line(pid)
                .is_some_and(|line| line.contains(&*self.cluster.data.to_string_lossy())),
        }
    }

    /// Returns when the server has ended.
    async fn gone(&mut self) {
        loop {
            if let Err(error) = self.cluster.bound_log() {
                tracing::warn!(%error, "cannot bound the private PostgreSQL server's log");
            }
            match &mut self.child {
                Some(child) => {
                    let _still_runs = timeout(LOOK, child.wait()).await;
                }
                None => sleep(LOOK).await,
            }
            if !self.is_running() {
                return;
            }
        }
    }

    /// Makes the gateway's role and database, where they are not there yet.
    async fn make_database(&self) -> Result<(), PrivateServerError> {
        let mut connection = self.superuser_options().connect().await?;
        let name = cluster::NAME;
        for (there, make) in [
            ("select 1 from pg_roles where rolname = $1", format!("create role {name} login")),
            (
                "select 1 from pg_database where datname = $1",
                format!("create database {name} owner {name}"),
            ),
        ] {
            let found = sqlx::query(there).bind(name).fetch_optional(&mut connection).await?;
            if found.is_none() {
                match connection.execute(AssertSqlSafe(make)).await {
                    // What a gateway that was killed had asked for may be made only now.
                    Err(sqlx::Error::Database(error)) if is_made_twice(&*error) => {}
                    done => {
                        done?;
                    }
                }
            }
        }
        connection.close().await?;
        Ok(())
    }

    fn options(&self, user: &str, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.cluster.socket)
            .port(self.cluster.port())
            .username(user)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if !self.stopped {
            let mut stop = self.users.command(self.binaries.program("pg_ctl"));
            stop.args(["stop", "-s", "-m", "fast", "-W", "-D"]).arg(&self.cluster.data);
            stop.stdout(Stdio::null()).stderr(Stdio::null());
            let _next_gateway_finds_it = stop.as_std_mut().status();
        }
    }
}

/// A port that nobody listens on now; somebody may before the server does.
fn free_port() -> Result<u16, PrivateServerError> {
    let bound = std::net::TcpListener::bind((cluster::LOOPBACK, 0));
    let port = bound.and_then(|listener| Ok(listener.local_addr()?.port()));
    port.map_err(PrivateServerError::io("cannot listen on", cluster::LOOPBACK))
}

fn command_line(pid: Pid) -> Option<String> {
    let arguments = ["-ww", "-o", "command=", "-p", &pid.to_string()];
    let output = std::process::Command::new("ps").args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether something could not be made because it is there: `duplicate_database`,
/// `duplicate_object`, or `unique_violation` when both are made at one moment.
fn is_made_twice(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| ["42P04", "42710", "23505"].contains(&&*code))
}
