//! The development issuer, as a process of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::daemon::{Daemon, PATIENCE};

/// Its clients: the one that tests use, one whose tokens are short, one without access.
const CONFIGURATION: &str = r#"
[[client]]
id = "agent"
secret = "agent-secret"
groups = ["agents"]

[[client]]
id = "hasty"
secret = "hasty-secret"
groups = ["agents"]
token_lifetime = "3s"

[[client]]
id = "stranger"
secret = "stranger-secret"
groups = ["strangers"]
"#;

/// A running issuer.
pub struct Issuer {
    daemon: Daemon,
    address: SocketAddr,
    _folder: TempDir,
}

impl Issuer {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let folder = TempDir::with_prefix("portcullis-issuer-").unwrap();
        let file = folder.path().join("issuer.toml");
        std::fs::write(&file, CONFIGURATION).unwrap();
        let file = file.to_str().unwrap();
        let daemon = Daemon::start(&["issuer", "--config", file, "--listen", "127.0.0.1:0"], &[]);
        Self { address: daemon.address(), daemon, _folder: folder }
    }

    /// Its URL, as `iss` in its tokens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token for one of its clients.
    pub fn token(&self, client: &str) -> String {
        let login = STANDARD.encode(format!("{client}:{client}-secret"));
        let body = "grant_type=client_credentials&audience=portcullis";
        let request = format!(
            "POST /token HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let json = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(json)
            .unwrap_or_else(|error| panic!("{error} in {answer}\n{}", self.daemon.log()));
        json["access_token"].as_str().unwrap_or_else(|| panic!("no token in {json}")).to_owned()
    }
}
