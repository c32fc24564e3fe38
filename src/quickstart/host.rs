//! The demonstration host: OpenSSH's own server, on loopback, for the user who runs the quickstart.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::HOST;
use super::folder::Folder;
use crate::identity::ssh_key;
use crate::secret::Secret;

/// Where packages put it.
const SERVERS: &[&str] =
    &["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/opt/homebrew/sbin/sshd", "/usr/bin/sshd"];
/// Runs the server until its own standard input ends, however the quickstart does.
const KEEPER: &str = r#"trap '' INT TERM HUP
"$@" </dev/null & server=$!
read -r _
kill "$server"
wait "$server""#;
/// How long the server may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// The running server.
#[derive(Debug)]
pub(super) struct Host {
    /// Its port on 127.0.0.1.
    pub(super) port: u16,
    /// Whom it lets in.
    pub(super) user: String,
    /// Its public key.
    pub(super) key: String,
    /// The file with the key that the gateway logs in with.
    pub(super) credential: PathBuf,
    keeper: Child,
}

impl Host {
    /// Starts the server; none where OpenSSH's is not installed.
    pub(super) async fn start(folder: &Folder) -> anyhow::Result<Option<Self>> {
        let Some(server) = SERVERS.iter().map(Path::new).find(|path| path.exists()) else {
            return Ok(None);
        };
        let home = folder.subfolder(HOST)?;
        let user = user().await?;
        let credential = home.join("gateway_key");
        let host_key = ssh_key::read_or_make(&home.join("host_key"), HOST)?;
        let user_key = ssh_key::read_or_make(&credential, "gateway")?;
        let name = |name: &str| format!("{HOST}/{name}");
        let allowed = format!("{}\n", user_key.public_key().to_openssh()?);
        folder.write(&name("authorized_keys"), &Secret::new(allowed))?;
        let port = free_port().await?;
        folder.write(&name("sshd_config"), &Secret::new(configuration(&home, port)))?;
        if rustix::process::geteuid().is_root() {
            // The server's own package makes it when its service starts.
            std::fs::create_dir_all("/run/sshd").context("/run/sshd")?;
        }
        let log = std::fs::File::create(home.join("sshd.log"))?;
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(server)
            .args(["-D", "-e", "-f"])
            .arg(home.join("sshd_config"))
            .current_dir(&home)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("sshd cannot be started")?;
        let mut public = host_key.public_key().clone();
        public.set_comment("");
        let key = public.to_openssh()?.trim().to_owned();
        let host = Self { port, user, key, credential, keeper };
        let answers = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                sleep(POLL).await;
            }
        };
        if timeout(PATIENCE, answers).await.is_err() {
            let log = home.join("sshd.log");
            host.stop().await;
            bail!("sshd does not start; {} says why", log.display());
        }
        Ok(Some(host))
    }

    /// Ends the server.
    pub(super) async fn stop(mut self) {
        drop(self.keeper.stdin.take());
        // It ends by itself when this process does.
        let _ended = timeout(PATIENCE, self.keeper.wait()).await;
    }
}

fn configuration(home: &Path, port: u16) -> String {
    // In names of files sshd has a meaning for `%`.
    let file = |name: &str| home.join(name).display().to_string().replace('%', "%%");
    let (host_key, keys) = (file("host_key").replace("%%", "%"), file("authorized_keys"));
    format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey \"{host_key}\"\nAuthorizedKeysFile \"{keys}\"\n\
         PidFile none\nStrictModes no\nUsePAM no\nUseDNS no\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n\
         AcceptEnv LANG LC_* GIT_PROTOCOL\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
    )
}

/// The name of who runs this.
async fn user() -> anyhow::Result<String> {
    let output = Command::new("id").arg("-un").output().await.context("id -un")?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if name.is_empty() {
        bail!("the user who runs this has no name");
    }
    Ok(name)
}

async fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?.port())
}
