//! Real SSH servers and clients.
//!
//! ```ignore
//! let site = Site::new("");
//! assert_eq!(site.run("echo hello").stdout, b"hello\n");
//! ```
//!
//! The server is OpenSSH's own, run by the test's user for that user, on a port of its own. The
//! clients log in to the gateway with a certificate unless a test is about something else.

use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::daemon::{Daemon, wait_until};
use super::gateway::{Gateway, Setup, portcullis, told};

/// A running sshd. It ends when this is dropped, and when the test process does.
pub struct Sshd {
    port: u16,
    folder: TempDir,
    daemon: Daemon,
}

impl Sshd {
    /// One for every test of this process that needs nothing special.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Sshd> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts one on a free port. With `SHLVL` bash leaves out what it reads behind sshd alone, the
    /// user's own `.bashrc`: what stands there is slow here, broken there, and no test's.
    pub fn start() -> Self {
        let folder = TempDir::with_prefix("portcullis-sshd-").unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["host_key", "user_key"] {
            keygen(&["-t", "ed25519", "-N", "", "-f", path(name).to_str().unwrap()]);
        }
        fs::copy(path("user_key.pub"), path("authorized_keys")).unwrap();
        let port = free_port();
        let show = |name: &str| path(name).display().to_string();
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nUseDNS no\nPermitRootLogin yes\nMaxStartups 200\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n\
             AcceptEnv LANG LC_* GIT_PROTOCOL PORTCULLIS_* LD_PRELOAD BASH_ENV\n\
             SetEnv SHLVL=1\nSubsystem sftp internal-sftp\n",
            show("host_key"),
            show("authorized_keys"),
        );
        fs::write(path("sshd_config"), text).unwrap();
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let daemon = Daemon::of("/usr/sbin/sshd", &["-D", "-e", "-f", &show("sshd_config")]);
        daemon.wait_for_log("Server listening");
        Self { port, folder, daemon }
    }

    /// The file with its user's private key.
    pub fn user_key(&self) -> PathBuf {
        self.folder.path().join("user_key")
    }

    /// Its host key, as a line of a `.pub` file.
    pub fn host_key(&self) -> String {
        fs::read_to_string(self.folder.path().join("host_key.pub")).unwrap().trim().to_owned()
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.log().matches("Connection from").count()
    }

    /// How many of them stand.
    pub fn standing(&self) -> usize {
        self.children().len()
    }

    /// Ends all of them at once, without a word.
    pub fn cut_connections(&self) {
        for pid in self.children() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }

    /// Each connection has a process.
    fn children(&self) -> Vec<rustix::process::Pid> {
        let pid = self.daemon.pid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.map(|pid| rustix::process::Pid::from_raw(pid).unwrap()).collect()
    }

    /// It as a `[[target]]`, with more lines.
    pub fn target(&self, name: &str, lines: &str) -> String {
        format!(
            "[[target]]\nname = {name:?}\nprotocol = \"ssh\"\naddress = \"127.0.0.1:{}\"\n\
             host_key = {:?}\ncredential = {{ user = {:?}, private_key = {{ file = {:?} }} }}\n\
             {lines}\n",
            self.port,
            self.host_key(),
            user(),
            self.user_key(),
        )
    }

    /// OpenSSH's client, straight to it.
    pub fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(self.user_key())
            .args(["-p", &self.port.to_string(), &format!("{}@127.0.0.1", user())])
            .stdin(Stdio::null());
        ssh
    }
}

/// Who runs the tests: sshd lets in nobody else when it is not root's.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs ssh-keygen.
pub fn keygen(arguments: &[&str]) {
    let output = Command::new("ssh-keygen").arg("-q").args(arguments).output();
    let output = output.expect("ssh-keygen; scripts/prepare installs what tests need");
    assert!(output.status.success(), "{}", told(&output));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A gateway before an sshd, as the target `web-1`, and a certificate of the agent's.
pub struct Site {
    pub gateway: Gateway,
    pub folder: TempDir,
}

impl Site {
    /// With these lines of configuration, sections of their own, behind the target.
    pub fn new(sections: &str) -> Self {
        Self::with(Sshd::shared(), "", sections)
    }

    /// With these lines in the target too.
    pub fn with(sshd: &Sshd, target: &str, sections: &str) -> Self {
        Self::set_up(
            &[sshd.target("web-1", target), sections.to_owned()].concat(),
            Setup::default(),
        )
    }

    /// With these sections, and whatever else is set up.
    pub fn set_up(sections: &str, setup: Setup) -> Self {
        let listen = format!("ssh = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"\n{}", setup.listen);
        Self::around(Gateway::start(&Setup { listen: format!("{listen}\n{sections}"), ..setup }))
    }

    /// A client of a gateway that listens for SSH, and has its API on.
    pub fn around(gateway: Gateway) -> Self {
        // A certificate is noted in the audit log before it is given.
        gateway.daemon().wait_for_log("database migrated");
        let folder = TempDir::with_prefix("portcullis-ssh-client-").unwrap();
        let site = Self { gateway, folder };
        site.write_known_hosts();
        let askpass = "#!/bin/sh\ncat \"$PORTCULLIS_TEST_TOKEN\"\n";
        site.write("askpass", askpass);
        fs::set_permissions(site.path("askpass"), fs::Permissions::from_mode(0o700)).unwrap();
        site.write("token", &site.gateway.issuer().token("agent"));
        site
    }

    /// Notes where the gateway is now.
    pub fn write_known_hosts(&self) {
        let key = self.gateway.data_dir().join("ssh_host_ed25519.pub");
        let key = fs::read_to_string(key).unwrap();
        self.write("known_hosts", &format!("[127.0.0.1]:{} {key}", self.port()));
    }

    /// A file in the client's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Where the gateway takes SSH clients.
    pub fn port(&self) -> u16 {
        self.gateway.daemon().address_of("ssh").port()
    }

    /// The certificate's key file; the certificate is made when it is first asked for.
    pub fn key(&self) -> PathBuf {
        let key = self.path("agent");
        if !key.exists() {
            let made = self.ssh_cert(&self.path("token"), &key);
            assert!(made.status.success(), "{}", told(&made));
        }
        key
    }

    /// Runs `portcullis ssh-cert`.
    pub fn ssh_cert(&self, token: &Path, key: &Path) -> Output {
        let server = format!("http://{}", self.gateway.web());
        let (token, key) = (token.to_str().unwrap(), key.to_str().unwrap());
        portcullis(&["ssh-cert", "--server", &server, "--token-file", token, "--out", key])
    }

    /// The options with which OpenSSH's programs find the gateway and trust nothing else.
    pub fn options(&self) -> Vec<String> {
        let known_hosts = format!("UserKnownHostsFile={}", self.path("known_hosts").display());
        let options = [
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "LogLevel=ERROR",
            "-o",
            &known_hosts,
        ];
        options.map(str::to_owned).into()
    }

    /// The same with the certificate.
    pub fn proved(&self) -> Vec<String> {
        let mut options = self.options();
        options.extend(["-i".to_owned(), self.key().display().to_string()]);
        options
    }

    /// One of OpenSSH's or another program with a clean environment.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// ssh to the target, with the certificate.
    pub fn ssh(&self) -> Command {
        self.ssh_to("web-1")
    }

    /// ssh to a target, with the certificate.
    pub fn ssh_to(&self, target: &str) -> Command {
        let mut ssh = self.program("ssh");
        ssh.args(self.proved()).args(["-p", &self.port().to_string()]);
        ssh.arg(format!("{target}@127.0.0.1"));
        ssh
    }

    /// ssh to a target, with the password that stands in a file.
    pub fn ssh_with_password(&self, target: &str, token: &Path) -> Command {
        let mut ssh = self.program("ssh");
        ssh.args(self.options())
            .args(["-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1"])
            .args(["-p", &self.port().to_string(), &format!("{target}@127.0.0.1")])
            .env("SSH_ASKPASS", self.path("askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("PORTCULLIS_TEST_TOKEN", token);
        ssh
    }

    /// Runs a command on the target.
    pub fn run(&self, line: &str) -> Output {
        self.ssh().arg(line).output().unwrap()
    }

    /// Runs a command on the target that must succeed; what it printed.
    pub fn stdout(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The gateway stops in good order, and every recording is whole.
    pub fn finish(&self) {
        assert!(self.gateway.stop().success(), "{}", self.gateway.daemon().log());
        self.gateway.verify_all();
    }

    /// What all recordings hold, as text, once it holds what is wanted.
    pub fn recorded(&self, wanted: &str) -> String {
        let mut found = String::new();
        wait_until(&format!("{wanted} in the recordings"), || {
            found = String::from_utf8_lossy(&self.gateway.all_contents()).into_owned();
            found.contains(wanted)
        });
        found
    }
}

/// Runs a program with this on its standard input.
pub fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It may not want all of it.
        let _closed = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// A program that somebody sits before: reads what it says as it comes, and types.
pub struct Conversation {
    child: Child,
    stdin: Option<ChildStdin>,
    seen: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Conversation {
    pub fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let read = |mut from: Box<dyn Read + Send>| {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = from.read(&mut buffer) {
                    seen.lock().unwrap().extend_from_slice(&buffer[..read]);
                }
            })
        };
        let readers = vec![
            read(Box::new(child.stdout.take().unwrap())),
            read(Box::new(child.stderr.take().unwrap())),
        ];
        Self { stdin: child.stdin.take(), child, seen, readers }
    }

    /// All that was said so far.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} to be said"), || self.seen().contains(text));
    }

    pub fn types(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Whoever sat there is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Types nothing more, and waits for the end. Its exit code and all that was said.
    pub fn end(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        (status.code(), self.seen())
    }
}
