//! An issuer that does what its operator wants, not what OpenID Connect says.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::identity::mint::Key;

/// A running one; its thread ends with the test process.
pub struct Scripted {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it answers.
struct Script {
    url: String,
    token: String,
    keys: Vec<Value>,
}

impl Scripted {
    /// Its token endpoint answers with this, head and body.
    pub fn start(token: &str) -> Self {
        Self::publishing(token, &[])
    }

    /// The same, with keys that its tokens may be signed with.
    pub fn publishing(token: &str, keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let keys = keys.iter().map(|key| key.jwk()).collect();
        let script = Script { url: url.clone(), token: token.to_owned(), keys };
        let kept = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &script, &kept);
            }
        });
        Self { url, asked }
    }

    /// It as an `[[issuer]]` at which people log in.
    pub fn section(&self, name: &str) -> String {
        format!(
            "[[issuer]]\nname = {name:?}\nurl = {:?}\naudiences = [\"portcullis\"]\n\
             client_id = \"pages\"\ngroups_claim = \"groups\"\n",
            self.url
        )
    }

    /// What it was sent at a path.
    pub fn asked(&self, path: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|request| request.contains(&format!(" {path} "))).cloned().collect()
    }
}

fn answer(mut stream: TcpStream, script: &Script, asked: &Mutex<Vec<String>>) {
    let Script { url, token, keys } = script;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !whole(&request) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend(&buffer[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(request);
    let document = match path.as_str() {
        "/keys" => json!({ "keys": keys }),
        _ => json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/keys"),
            "code_challenge_methods_supported": ["plain"],
        }),
    }
    .to_string();
    let length = document.len();
    let answer = match path.as_str() {
        "/token" => token.clone(),
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{document}"),
    };
    let _gone = stream.write_all(answer.as_bytes());
}

/// Whether a request is there to its end.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
