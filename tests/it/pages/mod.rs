//! The pages for people: coming in by the issuer, what each may see and do, hostile recordings,
//! and all of it in a real browser.

mod browser;
mod drafts;
mod explained;
mod large;
mod login;
mod rights;
mod targets;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::support::daemon::PATIENCE;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;

/// What the gateway says of logins at the issuer.
const LOGIN: &str =
    "client_id = \"pages\"\nclient_secret = { command = [\"echo\", \"pages-secret\"] }";

/// A gateway whose pages people can log in to.
pub fn start(setup: Setup) -> Gateway {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let web = format!(
        "web = \"{address}\"\n{}\n[web]\npublic_url = \"{url}\"\nauditors = [\"security\"]\n\
         admins = [\"platform\"]\n",
        setup.listen
    );
    let gateway = Gateway::start(&Setup {
        listen: web,
        issuer: Some(Arc::new(Issuer::for_pages(&url))),
        issuer_lines: LOGIN.to_owned(),
        ..setup
    });
    gateway.daemon().wait_for_log("state is read");
    gateway
}

/// An answer as it came.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Where it sends the browser.
    pub fn location(&self) -> &str {
        self.header("location").unwrap_or_else(|| panic!("{} {}", self.status, self.body))
    }
}

/// As much of a browser as logins need: cookies by name, nothing followed by itself.
pub struct Browser {
    origin: String,
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    pub fn of(gateway: &Gateway) -> Self {
        Self::at(&format!("http://{}", gateway.web()))
    }

    /// One that knows the pages' address.
    pub fn at(origin: &str) -> Self {
        Self { origin: origin.to_owned(), cookies: BTreeMap::new() }
    }

    /// Somebody who is logged in.
    pub fn logged_in(gateway: &Gateway, user: &str) -> Self {
        let mut browser = Self::of(gateway);
        browser.log_in(user);
        browser
    }

    /// Logs somebody in.
    pub fn log_in(&mut self, user: &str) {
        let back = self.at_issuer(user, "/");
        let answer = self.get(&back);
        assert_eq!(answer.status, 303, "{}", answer.body);
    }

    /// Goes to the issuer, logs in there, and gives where that sends the browser.
    pub fn at_issuer(&mut self, user: &str, to: &str) -> String {
        let answer = self.get(&format!("/login?to={to}"));
        assert_eq!(answer.status, 303, "{}", answer.body);
        let address = answer.location().to_owned();
        let (place, query) = address.split_once('?').unwrap();
        assert!(query.contains("code_challenge_method=S256") && query.contains("&nonce="));
        let answer = self.send("POST", place, &[], &format!("{query}&user={user}"));
        assert_eq!(answer.status, 303, "{}", answer.body);
        answer.location().to_owned()
    }

    pub fn get(&mut self, address: &str) -> Answer {
        self.send("GET", address, &[], "")
    }

    /// Sends a form of a page that this login was shown.
    pub fn post(&mut self, path: &str, fields: &str) -> Answer {
        let proof = self.proof();
        self.send("POST", path, &[], &format!("{fields}&proof={proof}"))
    }

    /// What this login's forms carry.
    fn proof(&mut self) -> String {
        let page = self.get("/targets").body;
        let (_, rest) = page.split_once("name=\"proof\" value=\"").expect("a form");
        rest.split('"').next().unwrap().to_owned()
    }

    pub fn send(&mut self, method: &str, address: &str, headers: &[&str], body: &str) -> Answer {
        let address = match address.starts_with('/') {
            true => format!("{}{address}", self.origin),
            false => address.to_owned(),
        };
        let (host, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let own = address.starts_with(&self.origin);
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies = cookies.collect::<Vec<_>>().join("; ");
        let mut head =
            format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        if own && !cookies.is_empty() {
            head += &format!("Cookie: {cookies}\r\n");
        }
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if method == "POST" {
            head += "Content-Type: application/x-www-form-urlencoded\r\n";
        }
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let mut socket = TcpStream::connect(host).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = parsed(&String::from_utf8_lossy(&answer));
        if own {
            self.keep(&answer);
        }
        answer
    }

    fn keep(&mut self, answer: &Answer) {
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, about) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            assert!(about.contains("HttpOnly") && about.contains("SameSite=Lax"), "{cookie}");
            if about.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

fn parsed(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: body.to_owned() }
}
