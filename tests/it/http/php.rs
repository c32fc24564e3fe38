//! What PHP makes of names of parameters, asked of PHP itself: whatever it takes for `_method` is known to
//! ask for another method.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use portcullis::decode::http::overrides::{self, Kind, Scanner};
use portcullis::decode::http::query;
use tempfile::TempDir;

use crate::support::daemon::wait_until;
use crate::support::random::{Random, amount};

const PIECES: &[&str] = &[
    "_", "method", "_method", ".", " ", "[", "]", "\0", "-", "me", "thod", "METHOD", "\t", "a",
    "%", "[]",
];

/// Half of them are near to what counts.
fn name(random: &mut Random) -> String {
    if random.below(2) == 0 {
        let mut one = |of: &[&'static str]| of[random.below(of.len())];
        let before = one(&["", "", " ", "\t", "[", "a"]);
        let first = one(&["_", ".", " ", "[", "-", "_"]);
        return [
            before,
            first,
            one(&["method", "METHOD", "me"]),
            one(&["", "", "\0", "\0a", "[]", "[a]", "a"]),
        ]
        .concat();
    }
    let pieces = 1 + random.below(5);
    (0..pieces).map(|_| PIECES[random.below(PIECES.len())]).collect()
}

/// A name as it stands in a form: some of its characters escaped, and those that must be.
fn escaped(name: &str, random: &mut Random) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b' ' if random.below(2) == 0 => text.push('+'),
            b'%' if random.below(2) == 0 => text.push('%'),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' | b'-' if random.below(4) > 0 => {
                text.push(char::from(byte));
            }
            byte => write!(text, "%{byte:02x}").unwrap(),
        }
    }
    text
}

/// PHP's server, which answers with the names that it read, one a line.
struct Server {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Server {
    /// None where PHP is not installed.
    fn start() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let script = folder.path().join("names.php");
        std::fs::write(
            &script,
            "<?php foreach ([$_GET, $_POST] as $of) foreach ($of as $name => $value) echo bin2hex($name), \"\\n\";",
        )
        .unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("php")
            .args(["-d", "display_errors=0", "-S", &format!("127.0.0.1:{port}")])
            .arg(&script)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        wait_until("PHP to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { child, port, _folder: folder })
    }

    /// Whether PHP reads `_method` in what it is sent.
    fn reads_method(&self, query: &str, content_type: &str, body: &[u8]) -> bool {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "POST /?{query} HTTP/1.0\r\nHost: x\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        let (_, names) = answer.split_once("\r\n\r\n").unwrap();
        names
            .lines()
            .any(|name| name.eq_ignore_ascii_case("5f6d6574686f64") || name == "5f4d4554484f44")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn scanned(kind: Kind, body: &[u8], random: &mut Random) -> bool {
    let mut scanner = Scanner::new(Some(kind));
    let cut = random.below(body.len());
    let (first, rest) = body.split_at(cut);
    scanner.finds(first, false) | scanner.finds(rest, true)
}

#[test]
fn what_php_takes_for_another_method_asks_for_it() {
    let Some(php) = Server::start() else {
        eprintln!("SKIPPED: PHP is not installed");
        return;
    };
    let mut random = Random::seeded();
    let mut read = [0; 3];
    for _ in 0..amount("PORTCULLIS_NAMES", 400) {
        let name = name(&mut random);
        let text = escaped(&name, &mut random);
        let pair = format!("a=1&{text}=DELETE&b");
        if let Ok(parsed) = query::parse(&pair)
            && php.reads_method(&pair, "text/plain", b"")
        {
            read[0] += 1;
            assert_eq!(overrides::of_query(&parsed), ["DELETE"], "{pair}");
        }
        let form = ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded,a"];
        let form = form[random.below(2)];
        if php.reads_method("", form, pair.as_bytes()) {
            read[1] += 1;
            assert_eq!(Kind::of(Some(form)), Some(Kind::Form));
            assert_eq!(overrides::of_form(pair.as_bytes()), ["DELETE"], "{pair}");
            assert!(scanned(Kind::Form, pair.as_bytes(), &mut random), "{pair}");
        }
        let end = ["\r\n", "\n"][random.below(2)];
        let parameter = match random.below(4) {
            0 => format!("name=\"{name}\""),
            1 => format!("name='{name}'; filename=x; name=\"a\""),
            2 => format!("{end} name=\"{name}\""),
            _ => format!("NAME={name}"),
        };
        let part = format!(
            "--b{end}A: b{end}content-DISPOSITION: form-data;{parameter}{end}{end}DELETE{end}--b--{end}"
        );
        if php.reads_method("", "multipart/form-data; boundary=b", part.as_bytes()) {
            read[2] += 1;
            assert_eq!(overrides::of_multipart(part.as_bytes()).unwrap(), ["DELETE"], "{part}");
            assert!(scanned(Kind::Multipart, part.as_bytes(), &mut random), "{part}");
        }
    }
    assert!(read.iter().all(|count| *count > 5), "too few names that count: {read:?}");
}
