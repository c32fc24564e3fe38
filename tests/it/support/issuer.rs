//! The development issuer, as a process of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::daemon::{Daemon, PATIENCE};

/// Its clients: one that the gateway of a test lets in, one that it does not.
const CLIENTS: &str = r#"
audiences = ["portcullis", "elsewhere"]
device_interval_seconds = 0

[[client]]
id = "portcullis"
grants = ["device_code"]

[[user]]
name = "audrey"
groups = ["security"]

[[client]]
id = "agent"
secret = "agent-secret"
grants = ["client_credentials"]
groups = ["agents"]

[[client]]
id = "auditor"
secret = "auditor-secret"
grants = ["client_credentials"]
groups = ["security"]

[[client]]
id = "admin"
secret = "admin-secret"
grants = ["client_credentials"]
groups = ["platform"]

[[client]]
id = "anna"
secret = "anna-secret"
grants = ["client_credentials"]
groups = ["dba"]

[[client]]
id = "bert"
secret = "bert-secret"
grants = ["client_credentials"]
groups = ["dba", "agents"]

[[client]]
id = "stranger"
secret = "stranger-secret"
grants = ["client_credentials"]
groups = ["strangers"]
"#;

/// A running issuer.
pub struct Issuer {
    daemon: Daemon,
    address: SocketAddr,
    _folder: TempDir,
}

impl Issuer {
    /// Starts one on a free port, whose tokens live for so many seconds.
    pub fn start(token_seconds: u64) -> Self {
        Self::start_with(token_seconds, "")
    }

    /// The same for a gateway whose pages are at this address: four people can log in by a click,
    /// one for each part there is to play.
    pub fn for_pages(url: &str) -> Self {
        let people = format!(
            "[[client]]\nid = \"pages\"\nsecret = \"pages-secret\"\n\
             grants = [\"authorization_code\"]\nredirect_uris = [\"{url}/login/callback\", \
             \"{url}/login/callback/dev\", \"{url}/login/callback/hostile\"]\n\
             post_logout_redirect_uris = [\"{url}/\"]\n\
             [[user]]\nname = \"sam\"\ngroups = [\"agents\"]\n\
             [[user]]\nname = \"dora\"\ngroups = [\"dba\"]\n\
             [[user]]\nname = \"ada\"\ngroups = [\"platform\"]\n"
        );
        Self::start_with(3600, &people)
    }

    /// The same with more clients: lines of its settings.
    pub fn start_with(token_seconds: u64, more: &str) -> Self {
        let folder = TempDir::with_prefix("portcullis-issuer-").unwrap();
        let file = folder.path().join("issuer.toml");
        let text = format!("token_seconds = {token_seconds}\n{CLIENTS}{more}");
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let daemon = Daemon::start(&["issuer", "--config", file, "--listen", "127.0.0.1:0"]);
        let log = daemon.wait_for_log("\nhttp://");
        let url = log.lines().find_map(|line| line.strip_prefix("http://")).unwrap();
        Self { address: url.parse().unwrap(), daemon, _folder: folder }
    }

    /// Its URL, as `iss` in its tokens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token for one of its clients.
    pub fn token(&self, client: &str) -> String {
        self.token_for(client, "portcullis")
    }

    /// Approves a device code as one of its users.
    pub fn approve(&self, user_code: &str, user: &str) {
        let form = format!("user_code={user_code}&decision=approve&user={user}");
        let answer = self.post("/device", "", &form);
        assert!(answer.contains("approved"), "{answer}");
    }

    /// Denies a device code.
    pub fn deny(&self, user_code: &str) {
        let answer = self.post("/device", "", &format!("user_code={user_code}&decision=deny"));
        assert!(answer.contains("denied"), "{answer}");
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A token for one of its clients and an audience.
    pub fn token_for(&self, client: &str, audience: &str) -> String {
        let login = STANDARD.encode(format!("{client}:{client}-secret"));
        let body = format!("grant_type=client_credentials&audience={audience}");
        let answer = self.post("/token", &format!("Authorization: Basic {login}\r\n"), &body);
        let json = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(json)
            .unwrap_or_else(|error| panic!("{error} in {answer}\n{}", self.daemon.log()));
        json["access_token"].as_str().unwrap_or_else(|| panic!("no token in {json}")).to_owned()
    }
}
