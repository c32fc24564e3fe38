//! HTTP services for gateways to stand before, and clients that ask for them.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use super::certificates::Issued;
use super::client::venv;
use super::daemon::{PATIENCE, wait_until};
use super::gateway::{Gateway, Setup};

/// A program of `tests/servers` in Python. It ends when this is dropped.
pub struct App {
    child: Child,
    stdin: Mutex<ChildStdin>,
    pub port: u16,
    told: Arc<Mutex<Vec<Value>>>,
}

impl App {
    /// The ASGI application, in the clear.
    pub fn start() -> Self {
        Self::run("asgi_app.py", &[])
    }

    /// The same over TLS, which prefers HTTP/2.
    pub fn over_tls(folder: &Path, issued: &Issued) -> Self {
        let [certificate, key] = ["app.crt", "app.key"].map(|name| folder.join(name));
        fs::write(&certificate, issued.certificate.pem()).unwrap();
        fs::write(&key, issued.key.serialize_pem()).unwrap();
        Self::run("asgi_app.py", &[certificate.to_str().unwrap(), key.to_str().unwrap()])
    }

    /// One of the programs, with arguments.
    pub fn run(program: &str, arguments: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
        let mut child = Command::new(venv().join("bin/python"))
            .args(["-B", folder.join(program).to_str().unwrap()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{e}; scripts/prepare installs what tests need"));
        let stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("its port").unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let telling = Arc::clone(&told);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                telling.lock().unwrap().push(serde_json::from_str(&line).unwrap_or_default());
            }
        });
        let port = first["port"].as_u64().unwrap().try_into().unwrap();
        Self { child, stdin: Mutex::new(stdin), port, told }
    }

    /// What the ASGI application has told up to now: its requests.
    pub fn told(&self) -> Vec<Value> {
        // What it told before it sees the mark comes before the mark's echo.
        let mark = uuid::Uuid::now_v7().to_string();
        writeln!(self.stdin.lock().unwrap(), "{mark}").unwrap();
        wait_until("the application's echo", || {
            self.told.lock().unwrap().iter().any(|told| told["mark"] == mark.as_str())
        });
        let told = self.told.lock().unwrap();
        told.iter().filter(|told| told["mark"].is_null()).cloned().collect()
    }

    /// The paths of the requests that it got.
    pub fn paths(&self) -> Vec<String> {
        let text = |told: &Value| told["path"].as_str().map(str::to_owned);
        self.told().iter().filter_map(text).collect()
    }

    /// It as a target of a gateway, with more lines.
    pub fn target(&self, name: &str, lines: &str) -> String {
        target(name, &format!("http://127.0.0.1:{}", self.port), lines)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A `[[target]]`.
pub fn target(name: &str, url: &str, lines: &str) -> String {
    format!("[[target]]\nname = {name:?}\nprotocol = \"http\"\nurl = {url:?}\n{lines}\n")
}

/// A gateway that listens for HTTP before these targets; more sections may follow them.
pub fn gateway(sections: &str) -> Gateway {
    Gateway::start(&setup(sections))
}

/// How such a gateway is set up.
pub fn setup(sections: &str) -> Setup {
    Setup { listen: format!("http = \"127.0.0.1:0\"\n{sections}"), ..Setup::default() }
}

/// An nginx of its own in the clear. It ends when this is dropped.
pub struct Nginx {
    child: Child,
    folder: TempDir,
    pub port: u16,
}

impl Nginx {
    /// Serves the files that [`Nginx::write`] makes, and says `path=…` of every other path.
    pub fn start() -> Self {
        // It cannot choose a port by itself; somebody else may take the one that was free.
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(nginx) = Self::start_on(free) {
                return nginx;
            }
        }
        panic!("nginx does not start; scripts/prepare installs what tests need");
    }

    fn start_on(port: u16) -> Option<Self> {
        let folder = TempDir::with_prefix("portcullis-nginx-").unwrap();
        fs::create_dir_all(folder.path().join("files")).unwrap();
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ log_format raw '$request'; access_log requests.log raw;\n\
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             client_max_body_size 0; keepalive_requests 1000000;\n\
             server {{ listen 127.0.0.1:{port}; root files;\n\
             location / {{ default_type text/plain; return 200 \"path=$request_uri\\n\"; }}\n\
             location /files/ {{ alias files/; }} }} }}\n"
        );
        fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        let prefix = format!("{}/", folder.path().display());
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nginx", "-p", &prefix, "-c", "nginx.conf"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Self { child, folder, port });
            }
            thread::yield_now();
        }
        let _gone = child.kill();
        let _gone = child.wait();
        None
    }

    /// Puts a file where `/files/NAME` serves it.
    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join("files").join(name), content).unwrap();
    }

    /// The request lines that it got.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("requests.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// It as a target of a gateway.
    pub fn target(&self, name: &str) -> String {
        target(name, &format!("http://127.0.0.1:{}", self.port), "")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// An upstream server that answers every connection with the same bytes once it has read a head.
pub struct Canned {
    pub port: u16,
}

impl Canned {
    /// Answers with these bytes, then closes.
    pub fn answering(bytes: &[u8]) -> Self {
        Self::with(|_| bytes.to_vec())
    }

    /// The same, with an answer that names its port.
    pub fn answering_with(answer: impl FnOnce(u16) -> String) -> Self {
        Self::with(|port| answer(port).into_bytes())
    }

    fn with(answer: impl FnOnce(u16) -> Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bytes = answer(port);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                read_head(&mut stream);
                if stream.write_all(&bytes).is_err() {
                    continue;
                }
                let _gone = stream.shutdown(Shutdown::Write);
                let _rest = stream.read_to_end(&mut Vec::new());
            }
        });
        Self { port }
    }

    pub fn target(&self, name: &str, lines: &str) -> String {
        target(name, &format!("http://127.0.0.1:{}", self.port), lines)
    }
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
}

/// What a client was told.
#[derive(Debug, Clone)]
pub struct Told {
    pub status: u16,
    /// The head as it came, status line first.
    pub head: String,
    pub body: Vec<u8>,
}

impl Told {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The values of a header, in lower case names.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// A caller of one gateway, with a token.
pub struct Caller {
    pub address: SocketAddr,
    pub token: String,
}

impl Caller {
    /// The one that may.
    pub fn of(gateway: &Gateway) -> Self {
        Self {
            address: gateway.daemon().address_of("http"),
            token: gateway.issuer().token("agent"),
        }
    }

    /// Where it asks.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// curl with the token, and what it wrote.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Told {
        let bearer = format!("Authorization: Bearer {}", self.token);
        curl(&[&["-H", &bearer, &self.url(path)], arguments].concat())
    }

    /// Asks for a path with GET.
    pub fn get(&self, path: &str) -> Told {
        self.curl(path, &[])
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, json: &str) -> Told {
        self.curl(path, &["-H", "Content-Type: application/json", "--data-binary", json])
    }

    /// Sends bytes as they are, `{auth}` replaced by the header with the token, and gives all that
    /// comes back until the gateway closes.
    pub fn raw(&self, request: &str) -> String {
        self.raw_bytes(self.with_token(request).as_bytes())
    }

    pub fn with_token(&self, request: &str) -> String {
        request.replace("{auth}", &format!("Authorization: Bearer {}\r\n", self.token))
    }

    /// The same without replacing.
    pub fn raw_bytes(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The gateway may close while this is still being sent.
        let _refused = stream.write_all(request);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One of the programs in `tests/clients`, told where and who by its environment.
    pub fn python(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(venv().join("bin/python"));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        command
            .args(["-B", folder.join(program).to_str().unwrap()])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GATEWAY", format!("http://{}", self.address))
            .env("TOKEN", &self.token)
            .stdin(Stdio::null());
        command
    }
}

/// Runs curl with these arguments to its end; panics when it says that something failed.
pub fn curl(arguments: &[&str]) -> Told {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--path-as-is", "--max-time", "60"]).args(arguments);
    let output = curl.stdin(Stdio::null()).output().expect("curl");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut rest = output.stdout.as_slice();
    loop {
        let at = rest.windows(4).position(|window| window == b"\r\n\r\n");
        let at = at.unwrap_or_else(|| panic!("{arguments:?}: {complaint}"));
        let head = String::from_utf8_lossy(&rest[..at]).into_owned();
        let status: u16 = head.split(' ').nth(1).unwrap().trim().parse().unwrap();
        rest = &rest[at + 4..];
        if status >= 200 {
            return Told { status, head, body: rest.to_vec() };
        }
    }
}

/// The statuses of the answers in what a connection said.
pub fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.split("HTTP/1.").skip(1);
    lines.filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
}

/// What `session list` says, once so many sessions are in the index.
pub fn sessions(gateway: &Gateway, count: usize) -> Vec<Value> {
    let config = gateway.configuration();
    let mut found = Vec::new();
    wait_until("the sessions in the index", || {
        let arguments = ["session", "list", "--json", "--config", config.to_str().unwrap()];
        let output = super::gateway::portcullis(&arguments);
        found = serde_json::from_slice(&output.stdout).unwrap_or_default();
        found.len() >= count
    });
    found
}

/// A folder for what a test writes.
pub fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::with_prefix("portcullis-http-").unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}
