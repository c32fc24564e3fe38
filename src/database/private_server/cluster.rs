//! The files of the private server: its cluster, who may connect, its socket and its log.
//!
//! ```text
//! data_dir/postgres/data/        the cluster; belongs to the server's user
//! data_dir/postgres/new-…/       a cluster that is being made
//! data_dir/postgres/socket/      or a folder in /tmp, when that path is too long for a socket
//! data_dir/postgres/access.conf, names.conf     as pg_hba.conf and pg_ident.conf
//! data_dir/postgres/server.log, server.log.old
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::PrivateServerError;
use super::binaries::Binaries;
use super::user::Users;

/// Names that the server's user, its database and its socket's port are known by.
pub(super) const NAME: &str = "portcullis";
pub(super) const SUPERUSER: &str = "postgres";
pub(super) const PORT: u16 = 5432;
pub(super) const LOOPBACK: &str = "127.0.0.1";

/// `sun_path` takes 107 bytes on Linux and 103 on macOS.
const MAX_SOCKET_PATH: usize = 103;
/// A log of this size becomes the old one.
const MAX_LOG: u64 = 8 << 20;
/// How much of the log's end an error shows.
const LOG_SHOWN: u64 = 2 << 10;
/// `postmaster.pid` has eight short lines, `PG_VERSION` one.
const MAX_STATUS: u64 = 8 << 10;
/// Collation by bytes never changes with the system's libraries; letters beyond ASCII are known
/// where the system can tell them.
const CHARACTER_TYPES: [&str; 3] = ["C.UTF-8", "UTF-8", "C"];

/// Small and safe; parallel queries are off because containers give little shared memory.
const SETTINGS: [(&str, &str); 21] = [
    ("unix_socket_permissions", "0700"),
    ("cluster_name", NAME),
    ("max_connections", "50"),
    ("shared_buffers", "32MB"),
    ("work_mem", "8MB"),
    ("maintenance_work_mem", "64MB"),
    ("max_wal_size", "512MB"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("wal_compression", "on"),
    ("fsync", "on"),
    ("jit", "off"),
    ("random_page_cost", "1.1"),
    ("max_parallel_workers_per_gather", "0"),
    ("max_parallel_maintenance_workers", "0"),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("log_min_messages", "warning"),
    ("timezone", "UTC"),
];

/// Where everything stands.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    root: PathBuf,
    pub(super) data: PathBuf,
    pub(super) socket: PathBuf,
    /// The port on 127.0.0.1, when the server listens there too.
    pub(super) loopback: Option<u16>,
}

impl Cluster {
    /// Makes the directories around the cluster and opens the way to them. `loopback` lets in, over
    /// TCP, whoever knows a role's password.
    pub(super) fn prepare(
        data_dir: &Path,
        users: &Users,
        loopback: bool,
    ) -> Result<Self, PrivateServerError> {
        let failed = PrivateServerError::io("cannot use data_dir", data_dir);
        let data_dir = data_dir.canonicalize().map_err(failed)?;
        let root = data_dir.join("postgres");
        make_directory(&root)?;
        users.open_way(&data_dir, &root)?;
        for name in ["access.conf", "names.conf"] {
            let path = root.join(name);
            let failed = PrivateServerError::io("cannot write", &path);
            fs::write(&path, access(name, &users.gateway, loopback)).map_err(failed)?;
        }
        let mut socket = root.join("socket");
        if socket_file(&socket, u16::MAX).as_os_str().len() > MAX_SOCKET_PATH {
            let id = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
            let id = id.get(..16).unwrap_or_default();
            socket = PathBuf::from(format!("/tmp/{NAME}-{id}"));
        }
        make_private(&socket, users)?;
        Ok(Self { data: root.join("data"), root, socket, loopback: None })
    }

    /// The port that the server's socket is named for.
    pub(super) fn port(&self) -> u16 {
        self.loopback.unwrap_or(PORT)
    }

    /// The major version of the cluster; none when there is no cluster yet.
    pub(super) fn version(&self) -> Result<Option<u32>, PrivateServerError> {
        if !self.data.exists() {
            return Ok(None);
        }
        let path = self.data.join("PG_VERSION");
        match read_bounded(&path).map(|text| text.trim().parse().ok()) {
            Ok(Some(version)) => Ok(Some(version)),
            _ => Err(PrivateServerError::NotACluster { data: self.data.clone() }),
        }
    }

    /// Makes the cluster, whole or not at all. What an earlier attempt left goes.
    pub(super) async fn initialise(
        &self,
        binaries: &Binaries,
        users: &Users,
    ) -> Result<(), PrivateServerError> {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"new-") {
                // A half-made cluster that stays does no harm.
                let _left = fs::remove_dir_all(entry.path());
            }
        }
        let new = self.root.join(format!("new-{}", uuid::Uuid::now_v7().simple()));
        make_private(&new, users)?;
        let mut complaint = String::new();
        for character_type in CHARACTER_TYPES {
            let output = users
                .command(binaries.program("initdb"))
                .args(["--encoding=UTF8", "--locale=C", "--auth=reject", "--no-instructions"])
                .arg(format!("--lc-ctype={character_type}"))
                .arg(format!("--username={SUPERUSER}"))
                .arg("--pgdata")
                .arg(&new)
                .kill_on_drop(true)
                .output()
                .await
                .map_err(PrivateServerError::io("cannot run", binaries.program("initdb")))?;
            if output.status.success() {
                let failed = PrivateServerError::io("cannot make", &self.data);
                return fs::rename(&new, &self.data).map_err(failed);
            }
            complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        }
        let _left = fs::remove_dir_all(&new);
        Err(PrivateServerError::NotInitialised { complaint })
    }

    /// The server's arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut arguments = vec!["-D".to_owned(), path(&self.data), "-p".to_owned()];
        arguments.push(self.port().to_string());
        let listen = if self.loopback.is_some() { LOOPBACK } else { "" };
        let places = [
            ("listen_addresses", listen.to_owned()),
            ("unix_socket_directories", path(&self.socket)),
            ("hba_file", path(&self.root.join("access.conf"))),
            ("ident_file", path(&self.root.join("names.conf"))),
        ];
        let settings = SETTINGS.into_iter().map(|(name, value)| (name, value.to_owned()));
        for (name, value) in settings.chain(places) {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        arguments
    }

    /// The process that `postmaster.pid` names, if there is the file and it names one.
    pub(super) fn postmaster(&self) -> Option<Pid> {
        let text = read_bounded(&self.pid_file()).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)?)
    }

    /// The port that `postmaster.pid` names.
    pub(super) fn noted_port(&self) -> Option<u16> {
        read_bounded(&self.pid_file()).ok()?.lines().nth(3)?.trim().parse().ok()
    }

    /// Whether the server says of itself that it takes connections.
    pub(super) fn says_ready(&self) -> bool {
        let text = read_bounded(&self.pid_file()).unwrap_or_default();
        text.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    }

    /// Removes the lock files of a server that is not running, when the number of its process is
    /// another process's now: PostgreSQL would take that one for the server. A dead number it
    /// sees through by itself, and processes that a killed server left it finds by other means.
    pub(super) fn forget_reused(&self) {
        let reused = |pid| rustix::process::test_kill_process(pid).is_ok();
        if !self.postmaster().is_some_and(reused) {
            return;
        }
        let socket_lock = socket_file(&self.socket, self.port()).with_added_extension("lock");
        for path in [socket_lock, self.pid_file()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "cannot remove a stale lock file");
                }
                _ => {}
            }
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }

    fn log_file(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// Opens the log for a server to write to.
    pub(super) fn open_log(&self) -> Result<File, PrivateServerError> {
        let path = self.log_file();
        let mut options = OpenOptions::new();
        let opened = options.create(true).append(true).read(true).mode(0o600).open(&path);
        opened.map_err(PrivateServerError::io("cannot open", path))
    }

    /// Bounds the log: the server holds it open, so what it wrote is moved, not the file. Lines
    /// written at that moment are lost.
    pub(super) fn bound_log(&self) -> io::Result<()> {
        let path = self.log_file();
        if path.metadata()?.len() > MAX_LOG {
            fs::copy(&path, path.with_extension("log.old"))?;
            OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        }
        Ok(())
    }

    /// What the server said last.
    pub(super) fn log_end(&self) -> String {
        let read = || {
            let mut file = File::open(self.log_file())?;
            let end = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(end.saturating_sub(LOG_SHOWN)))?;
            let mut bytes = Vec::new();
            file.take(LOG_SHOWN).read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_default()
    }
}

/// Only the gateway's user gets in, over the socket, as the names that the gateway uses; over
/// loopback, roles that have a password, which those names have not.
fn access(file: &str, gateway: &str, loopback: bool) -> String {
    if file == "access.conf" {
        let host = format!("host all all {LOOPBACK}/32 scram-sha-256\n");
        let host = if loopback { host.as_str() } else { "" };
        return format!("local all all peer map=gateway\n{host}");
    }
    let quoted = gateway.replace('"', "\"\"");
    [SUPERUSER, NAME].map(|role| format!("gateway \"{quoted}\" {role}\n")).concat()
}

fn socket_file(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

fn make_directory(path: &Path) -> Result<(), PrivateServerError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(PrivateServerError::io("cannot make", path)),
    }
}

/// A directory that only the server's user enters. One that somebody else made is refused.
fn make_private(path: &Path, users: &Users) -> Result<(), PrivateServerError> {
    let made = fs::DirBuilder::new().mode(0o700).create(path).and_then(|()| users.give(path));
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(PrivateServerError::io("cannot make", path)),
    }
    let metadata = path.symlink_metadata().map_err(PrivateServerError::io("cannot use", path))?;
    let private =
        metadata.is_dir() && metadata.uid() == users.server_uid() && metadata.mode() & 0o077 == 0;
    if private { Ok(()) } else { Err(PrivateServerError::NotPrivate { path: path.to_owned() }) }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_STATUS).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users { gateway: "op\"s".to_owned(), server: None }
    }

    #[test]
    fn a_path_too_long_for_a_socket_gets_a_short_one() {
        let folder = tempfile::tempdir().unwrap();
        let near = Cluster::prepare(folder.path(), &users(), false).unwrap();
        assert!(near.socket.starts_with(folder.path().canonicalize().unwrap()));
        let far = folder.path().join("x".repeat(100));
        fs::create_dir(&far).unwrap();
        let far = Cluster::prepare(&far, &users(), false).unwrap();
        assert!(socket_file(&far.socket, PORT).as_os_str().len() <= MAX_SOCKET_PATH);
        fs::remove_dir(&far.socket).unwrap();
    }

    #[test]
    fn a_socket_directory_that_others_may_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let socket = Cluster::prepare(folder.path(), &users(), false).unwrap().socket;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = Cluster::prepare(folder.path(), &users(), false);
        assert!(matches!(refused, Err(PrivateServerError::NotPrivate { .. })));
    }

    #[test]
    fn a_user_name_cannot_add_a_line_of_its_own_meaning() {
        assert_eq!(
            access("names.conf", "op\"s", true),
            "gateway \"op\"\"s\" postgres\ngateway \"op\"\"s\" portcullis\n"
        );
    }

    #[test]
    fn the_log_is_bounded_and_its_end_is_told() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::prepare(folder.path(), &users(), false).unwrap();
        let mut log = cluster.open_log().unwrap();
        log.set_len(MAX_LOG).unwrap();
        log.write_all(b"FATAL: no").unwrap();
        assert!(cluster.log_end().ends_with("FATAL: no"));
        cluster.bound_log().unwrap();
        log.write_all(b"more").unwrap();
        assert_eq!(cluster.log_end(), "more");
    }
}
