//! A gateway of its own for each test that wants one.
//!
//! ```ignore
//! let database = Database::fresh();
//! let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
//! psql(&gateway.client("orders"), "select 1");
//! assert!(gateway.stop().success());
//! gateway.verify_all();
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use portcullis::recording::{Against, Claim, verify_all};
use tempfile::TempDir;

use super::certificates::Issued;
use super::client::Client;
use super::daemon::{Daemon, PORTCULLIS};
use super::issuer::Issuer;
use super::postgres::PostgresServer;

/// How a gateway is set up.
#[derive(Default)]
pub struct Setup {
    /// What it stands before.
    pub targets: Vec<Target>,
    /// What it shows to clients that ask for TLS.
    pub tls: Option<Issued>,
    /// Lines of `[server]`.
    pub server: String,
    /// Lines of `[recording]`.
    pub recording: String,
    /// Lines of the one `[[access]]`.
    pub access: String,
    /// More lines of `[listen]`, and sections after it.
    pub listen: String,
    /// `[policy]`, `[[rule]]`s and what belongs to them.
    pub policy: String,
    /// Lines of `[database]`; a database in a server that tests share when left out. With `Some`
    /// of nothing there is no such section.
    pub database: Option<String>,
    /// How long its issuer's tokens live; an hour when left out.
    pub token_seconds: Option<u64>,
    /// Where its data stand, when not in the gateway's own folder.
    pub data_dir: Option<PathBuf>,
    /// The issuer that it trusts, when not one of its own.
    pub issuer: Option<Arc<Issuer>>,
    /// More lines of `[[issuer]]`.
    pub issuer_lines: String,
    /// What its environment has beside that of the tests.
    pub environment: Vec<(String, String)>,
    /// How many descriptors it may have, when not as many as the tests.
    pub descriptors: Option<u64>,
}

impl Setup {
    /// Nothing special.
    pub fn for_targets(targets: impl IntoIterator<Item = Target>) -> Self {
        Self { targets: targets.into_iter().collect(), ..Self::default() }
    }
}

/// One PostgreSQL target.
pub struct Target {
    /// Its name in the catalog.
    pub name: String,
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The database.
    pub database: String,
    /// Whom the gateway logs in as.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// More lines of its `[[target]]`; `tls = "disable"` when empty.
    pub lines: String,
}

/// A running gateway with an issuer of its own. Both end when this is dropped.
pub struct Gateway {
    daemon: Daemon,
    address: SocketAddr,
    issuer: Arc<Issuer>,
    folder: TempDir,
    data_dir: PathBuf,
    environment: Vec<(String, String)>,
    descriptors: Option<u64>,
}

impl Gateway {
    /// Writes the configuration and starts it; returns when it listens.
    pub fn start(setup: &Setup) -> Self {
        let issuer = setup
            .issuer
            .clone()
            .unwrap_or_else(|| Arc::new(Issuer::start(setup.token_seconds.unwrap_or(3600))));
        let folder = TempDir::with_prefix("portcullis-gateway-").unwrap();
        let data_dir = setup.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
        write_configuration(folder.path(), &data_dir, &issuer, setup);
        let environment = setup.environment.clone();
        let descriptors = setup.descriptors;
        let daemon = serve(folder.path(), &environment, descriptors);
        let address = daemon.address();
        Self { address, daemon, issuer, folder, data_dir, environment, descriptors }
    }

    /// Starts it again with the same configuration, on another port.
    pub fn restart(&mut self) {
        self.daemon = serve(self.folder.path(), &self.environment, self.descriptors);
        self.address = self.daemon.address();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its API is, when it was set up with `web`.
    pub fn web(&self) -> SocketAddr {
        self.daemon.address_of("web")
    }

    /// Where its data stand.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process and its log.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The issuer that it trusts.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// How a client that may do so reaches a target, without TLS.
    pub fn client(&self, target: &str) -> Client {
        Client::new(self.address.port(), target, "agent", &self.issuer.token("agent"))
    }

    /// The configuration file it was started with.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("portcullis.toml")
    }

    /// The URL of the database that its state is in.
    pub fn state_url(&self) -> String {
        let text = fs::read_to_string(self.configuration()).unwrap();
        let (_, rest) = text.split_once("[database]\nurl = \"").expect("a database");
        rest.split('"').next().unwrap().to_owned()
    }

    /// Has it read its configuration again, changed by `change`; what the command said.
    pub fn reload(&self, change: impl FnOnce(String) -> String) -> Output {
        let file = self.configuration();
        let changed = change(fs::read_to_string(&file).unwrap());
        fs::write(&file, changed).unwrap();
        portcullis(&["reload", "--config", file.to_str().unwrap()])
    }

    /// Stops it and waits for its end.
    pub fn stop(&self) -> ExitStatus {
        self.daemon.stop()
    }

    /// All recordings, oldest first: their names sort by time.
    pub fn recordings(&self) -> Vec<PathBuf> {
        self.stored_by_ending("rec")
    }

    /// Journals that are not yet part of a recording.
    pub fn journals(&self) -> Vec<PathBuf> {
        self.stored_by_ending("journal")
    }

    /// Every file in its data directory.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        assert!(self.data_dir.is_dir(), "there is no data directory");
        let mut found = Vec::new();
        files(&self.data_dir, &mut found);
        found.sort();
        found
    }

    fn stored_by_ending(&self, ending: &str) -> Vec<PathBuf> {
        let ends = |path: &PathBuf| path.extension().is_some_and(|other| other == ending);
        self.stored_files().into_iter().filter(ends).collect()
    }

    /// What a recording holds, as `zstd -dc` writes it.
    pub fn contents(&self, recording: &Path) -> Vec<u8> {
        let output = Command::new("zstd").arg("-dcq").arg(recording).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {complaint}", recording.display());
        output.stdout
    }

    /// What all recordings hold.
    pub fn all_contents(&self) -> Vec<u8> {
        self.recordings().iter().flat_map(|path| self.contents(path)).collect()
    }

    /// Verifies the recordings, the last by the command; for a gateway that has stopped.
    pub fn verify_all(&self) {
        let audit = verify_all(&self.data_dir, &Against::default()).unwrap();
        assert!(audit.proved.contains(&Claim::Complete), "{audit:?}");
        let recordings = self.recordings();
        let last = recordings.last().expect("a recording").to_str().unwrap();
        let output = portcullis(&["recording", "verify", last]);
        assert!(output.status.success(), "{last}: {}", told(&output));
        assert_eq!(self.journals(), [] as [PathBuf; 0], "journals are left");
    }
}

/// Runs one of the binary's commands to its end.
pub fn portcullis(arguments: &[&str]) -> Output {
    Command::new(PORTCULLIS).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// All that a command wrote.
pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn serve(folder: &Path, environment: &[(String, String)], descriptors: Option<u64>) -> Daemon {
    let configuration = folder.join("portcullis.toml");
    let mut arguments: Vec<_> =
        environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let serve = ["serve", "--config", configuration.to_str().unwrap(), "--log-format", "json"];
    arguments.extend([PORTCULLIS].iter().chain(&serve).map(|text| (*text).to_owned()));
    let arguments = arguments.iter().map(String::as_str);
    match descriptors.map(|most| format!("--nofile={most}:{most}")) {
        None => Daemon::of("env", &arguments.collect::<Vec<_>>()),
        Some(limit) => {
            let limited = [&*limit, "env"].into_iter().chain(arguments);
            Daemon::of("prlimit", &limited.collect::<Vec<_>>())
        }
    }
}

fn write_configuration(folder: &Path, data_dir: &Path, issuer: &Issuer, setup: &Setup) {
    let database = match setup.database.as_deref() {
        None => format!("[database]\nurl = {:?}\n", PostgresServer::fresh_index()),
        Some("") => String::new(),
        Some(lines) => format!("[database]\n{lines}\n"),
    };
    let mut text = format!(
        "[server]\ndata_dir = {data_dir:?}\n{}\n\
         [listen]\npostgres = \"127.0.0.1:0\"\n{}\n{database}\
         [[issuer]]\nname = \"dev\"\nurl = {:?}\naudiences = [\"portcullis\"]\n{}\n\
         [recording]\n{}\n\
         [[access]]\ngroups = [\"agents\"]\ntargets = [\"*\"]\n{}\n",
        setup.server,
        setup.listen,
        issuer.url(),
        setup.issuer_lines,
        setup.recording,
        setup.access,
    );
    if let Some(issued) = &setup.tls {
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        fs::write(&certificate, issued.certificate.pem()).unwrap();
        fs::write(&key, issued.key.serialize_pem()).unwrap();
        text += &format!("[tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    }
    for target in &setup.targets {
        let secret = folder.join(format!("{}.password", target.name));
        fs::write(&secret, &target.password).unwrap();
        let lines = if target.lines.is_empty() { "tls = \"disable\"" } else { &target.lines };
        text += &format!(
            "[[target]]\nname = {:?}\nprotocol = \"postgres\"\naddress = \"127.0.0.1:{}\"\n\
             database = {:?}\ncredential = {{ user = {:?}, password = {{ file = {secret:?} }} }}\n\
             {lines}\n",
            target.name, target.port, target.database, target.user,
        );
    }
    text += &setup.policy;
    fs::write(folder.join("portcullis.toml"), text).unwrap();
}

/// All files below a folder. A running gateway, and the server that it makes, take some away meanwhile.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}
