//! Real PostgreSQL servers in directories of their own.
//!
//! ```ignore
//! let server = PostgresServer::start(&Options { log_statements: true, ..Options::default() });
//! server.psql("postgres", "create role app login password 'x'");
//! connect_to("127.0.0.1", server.port());
//! assert!(server.log_text().contains("statement: select 1"));
//! ```
//!
//! The role `postgres` is superuser and needs no password from 127.0.0.1; other roles log in as
//! [`Options::hba`] says. Needs the server's binaries (Debian: `postgresql`), not a running server.
//! A server does not run as root: for root, it runs as the system's user `postgres`.
//!
//! A small shell stands between a test process and its server and waits on a pipe, so that the
//! server stops and its directory goes however the test process ends, `kill -9` included. (Before
//! the server runs, while `initdb` does, a killed test leaves the directory.)

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::certificates::{Authority, Issued};

/// How long a server may take to start or stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the server until a line or the end of the pipe comes in; after a line, leaves the directory.
const KEEPER: &str = r#"
trap : HUP INT TERM
directory=$1; shift
"$@" </dev/null & server=$!
read -r keep
kill -INT $server 2>/dev/null
while kill -0 $server 2>/dev/null; do wait $server; done
[ "$keep" = keep ] || rm -rf "$directory"
"#;

/// How a server is set up.
pub struct Options {
    /// The certificate and key it shows; without one it answers `N` to TLS.
    pub ssl: Option<Issued>,
    /// Lines of `pg_hba.conf` behind the one that lets `postgres` in.
    pub hba: Vec<String>,
    /// Settings, over those the tests use.
    pub settings: Vec<(String, String)>,
    /// Whether every statement received stands in the log.
    pub log_statements: bool,
    /// Run once as superuser, in the database `postgres`.
    pub setup: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ssl: None,
            hba: vec!["host all all 127.0.0.1/32 scram-sha-256".to_owned()],
            settings: Vec::new(),
            log_statements: false,
            setup: String::new(),
        }
    }
}

/// A server. It stops, and its directory goes, when this is dropped or the process ends.
pub struct PostgresServer {
    directory: PathBuf,
    port: u16,
    arguments: Vec<String>,
    running: Mutex<Option<Keeper>>,
}

/// The shell that keeps a server.
struct Keeper {
    shell: Child,
    pipe: ChildStdin,
}

impl PostgresServer {
    /// One server for every test of this process that needs nothing special: TLS with a
    /// certificate of [`Shared::authority`] for `localhost` and 127.0.0.1, SCRAM for all roles,
    /// every statement logged. Tests make roles and databases of their own in it.
    pub fn shared() -> &'static Shared {
        static SHARED: OnceLock<Shared> = OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = Authority::new();
            let ssl = Some(authority.issue(&["localhost", "127.0.0.1"]));
            let options = Options { ssl, log_statements: true, ..Options::default() };
            Shared { server: Self::start(&options), authority }
        })
    }

    /// The URL of an empty database for a gateway's index, in a server that logs no statements:
    /// what is indexed is not what a target received.
    pub fn fresh_index() -> String {
        static SERVER: OnceLock<PostgresServer> = OnceLock::new();
        let server = SERVER.get_or_init(|| Self::start(&Options::default()));
        server.url(&server.create_database())
    }

    /// How the superuser reaches one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a cluster and starts its server; returns when it takes connections.
    pub fn start(options: &Options) -> Self {
        let directory = new_directory();
        let data = directory.join("data");
        run(as_server_user(&binary("initdb"))
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust"])
            .args(["--username=postgres", "--pgdata"])
            .arg(&data));

        let hba = "host all postgres 127.0.0.1/32 trust\n".to_owned() + &options.hba.join("\n");
        fs::write(data.join("pg_hba.conf"), hba + "\n").unwrap();
        let mut settings: Vec<(&str, &str)> = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("max_connections", "200"),
            ("shared_buffers", "32MB"),
            ("log_connections", "on"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
            ("log_statement", if options.log_statements { "all" } else { "none" }),
        ];
        if let Some(issued) = &options.ssl {
            private_file(&data.join("server.crt"), &issued.certificate.pem());
            private_file(&data.join("server.key"), &issued.key.serialize_pem());
            settings.push(("ssl", "on"));
        }
        settings.extend(options.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let mut arguments = vec!["-D".to_owned(), data.to_str().unwrap().to_owned()];
        for (name, value) in settings {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }

        let mut server = Self { directory, port: 0, arguments, running: Mutex::new(None) };
        // Somebody may take the free port before the server does; then another is tried.
        let started = (0..5).any(|_| {
            server.port = free_port();
            server.try_launch()
        });
        assert!(started, "the server does not start:\n{}", server.log_text());
        if !options.setup.is_empty() {
            server.psql("postgres", &options.setup);
        }
        server
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its data stand.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Runs SQL as superuser; the rows come unaligned, `|` between fields. Panics with the
    /// server's words when it fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"])
            .args(["-U", "postgres", "-p", &self.port.to_string(), "-d", database, "-c", sql])
            .env("PGAPPNAME", "test setup");
        run(&mut psql).trim_end().to_owned()
    }

    /// Runs SQL in the database at a URL.
    pub fn psql_at(url: &str, sql: &str) -> String {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url]);
        run(&mut psql).trim_end().to_owned()
    }

    /// [`PostgresServer::psql`] in the database `postgres`.
    pub fn superuser_psql(&self, sql: &str) -> String {
        self.psql("postgres", sql)
    }

    /// Makes an empty database whose name no other has.
    pub fn create_database(&self) -> String {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.superuser_psql(&format!("create database {name}"));
        name
    }

    /// All that the server logged so far, over all its starts.
    pub fn log_text(&self) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until the log holds the text.
    pub fn wait_for_log(&self, text: &str) {
        wait(&format!("{text:?} in the server's log"), || self.log_text().contains(text));
    }

    /// Stops the server the fast way (SIGINT) and leaves its data for [`PostgresServer::restart`].
    pub fn stop(&self) {
        let keeper = self.running.lock().unwrap().take();
        if let Some(keeper) = keeper {
            keeper.end(b"keep\n");
        }
    }

    /// Kills the server as `kill -9` does, its sessions with it.
    pub fn kill(&self) {
        let pid = self.pid().expect("a running server");
        kill_process(pid, Signal::KILL).unwrap();
        self.stop();
    }

    /// Starts it again after a stop or a kill, on the same port.
    pub fn restart(&self) {
        self.stop();
        // After a kill, the server waits for nobody: it fails until its last session is gone.
        wait("the server to start again", || self.try_launch());
    }

    /// Whether the server came up.
    fn try_launch(&self) -> bool {
        let (before, log_start) = (self.pid(), self.log_text().len());
        let path = self.directory.join("log");
        let log = fs::File::options().create(true).append(true).open(path).unwrap();
        let mut shell = as_server_user(Path::new("/bin/sh"))
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.directory)
            .arg(binary("postgres"))
            .args(&self.arguments)
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let keeper = Keeper { pipe: shell.stdin.take().unwrap(), shell };

        let mut up = false;
        wait("the server to start", || {
            up = self.pid() != before && self.status_file().lines().any(|l| l.trim() == "ready");
            // A session that comes too early is told so at the same level.
            let gave_up = |line: &str| line.contains("FATAL:") && !line.contains("system is");
            up || self.log_text()[log_start..].lines().any(gave_up)
        });
        if up {
            *self.running.lock().unwrap() = Some(keeper);
        } else {
            keeper.end(b"keep\n");
        }
        up
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.status_file().lines().next()?.parse().ok()?)
    }

    fn status_file(&self) -> String {
        fs::read_to_string(self.data_directory().join("postmaster.pid")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        match self.running.get_mut().unwrap().take() {
            Some(keeper) => keeper.end(b""),
            None => fs::remove_dir_all(&self.directory).unwrap(),
        }
    }
}

impl Keeper {
    /// Tells the shell to stop the server, and waits for both.
    fn end(self, word: &[u8]) {
        let Self { mut shell, mut pipe } = self;
        pipe.write_all(word).unwrap();
        drop(pipe);
        wait("the server to stop", || shell.try_wait().unwrap().is_some());
    }
}

/// The one server that tests share, and what its certificate is proved by.
pub struct Shared {
    pub server: PostgresServer,
    pub authority: Authority,
}

/// Waits for a condition; panics when it takes too long.
pub fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A directory that belongs to the user the server runs as.
fn new_directory() -> PathBuf {
    let directory = TempDir::with_prefix("portcullis-pg-").unwrap().keep();
    if let Some((uid, gid)) = server_user() {
        chown(&directory, Some(uid), Some(gid)).unwrap();
    }
    directory
}

/// Writes a file that a server alone may read.
pub fn private_file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((uid, gid)) = server_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The user `postgres` when the tests run as root, which no server accepts.
fn server_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let id = |flag| run(Command::new("id").args([flag, "postgres"])).trim().parse().unwrap();
        rustix::process::getuid().is_root().then(|| (id("-u"), id("-g")))
    })
}

/// One of PostgreSQL's programs: where Debian keeps them, newest first, or else in the path.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let newest = versions.map(|entry| entry.path()).max_by_key(version);
        newest.map(|path| path.join("bin")).unwrap_or_default()
    });
    folder.join(name)
}

/// What a command printed; panics with what it complained of when it failed.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_server_keeps_its_data_over_a_stop_and_a_kill_and_leaves_nothing() {
    let options = Options {
        setup: "create table kept (n int)".to_owned(),
        log_statements: true,
        settings: vec![("work_mem".to_owned(), "3MB".to_owned())],
        ..Options::default()
    };
    let server = PostgresServer::start(&options);
    server.superuser_psql("insert into kept values (1)");
    server.stop();
    server.restart();
    server.superuser_psql("insert into kept values (2)");
    server.kill();
    server.restart();
    assert_eq!(server.superuser_psql("select n from kept order by n"), "1\n2");
    assert_eq!(server.superuser_psql("show work_mem"), "3MB");
    let database = server.create_database();
    assert_eq!(server.psql(&database, "select current_database()"), database);
    server.wait_for_log("statement: insert into kept values (2)");

    let (port, directory) = (server.port(), server.directory.clone());
    drop(server);
    assert!(!directory.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn the_shared_server_proves_itself_over_tls_and_asks_for_passwords() {
    let Shared { server, authority } = PostgresServer::shared();
    server.superuser_psql("create role guest login password 'guest'");
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root.crt");
    fs::write(&root, authority.pem()).unwrap();
    let psql = |password: &str| {
        let target = format!("host=localhost port={} user=guest dbname=postgres", server.port());
        Command::new(binary("psql"))
            .args([
                "-X",
                "-A",
                "-t",
                "-c",
                "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
            ])
            .args(["-d", &format!("{target} sslmode=verify-full sslrootcert={}", root.display())])
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
    };
    let welcome = psql("guest");
    assert_eq!(welcome.stdout, b"t\n", "{}", String::from_utf8_lossy(&welcome.stderr));
    let refused = String::from_utf8(psql("wrong").stderr).unwrap();
    assert!(refused.contains("password authentication failed"), "{refused}");
}
