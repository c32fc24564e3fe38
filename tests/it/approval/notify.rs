//! Telling people elsewhere.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{WEB, ask, client_with, psql, setup, wait_for_state};
use crate::support::client::Database;
use crate::support::daemon::{PATIENCE, wait_until};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::curl;

/// What a receiver got: headers in lower case, and the body.
struct Got {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(other, _)| other == name).unwrap().1
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A receiver that gives these answers, the last one for ever; 0 is none at all.
fn receiver(answers: &'static [u16]) -> (SocketAddr, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, got) = sync_channel(100);
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut answers = answers.iter();
        let mut answer = *answers.next().unwrap();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut headers = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                if let Some((name, value)) = line.split_once(": ") {
                    headers.push((name.to_lowercase(), value.trim().to_owned()));
                }
            }
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() || sender.send(Got { headers, body }).is_err()
            {
                return;
            }
            if answer == 0 {
                kept.push(stream);
            } else {
                let said = format!(
                    "HTTP/1.1 {answer} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                let _gone = stream.write_all(said.as_bytes());
            }
            answer = answers.next().copied().unwrap_or(answer);
        }
    });
    (address, got)
}

const RULES: &str = r#"
[[rule]]
name = "no-drops"
actions = ["sql.drop"]
verdict = "block"
reason = "Not <here>."

[[rule]]
name = "writes-need-a-human"
actions = ["sql.delete"]
verdict = "approve"
approvers = ["dba"]
timeout = "1s"
"#;

fn gateway(database: &Database, receivers: &[(&str, &str, SocketAddr, &str)]) -> Gateway {
    gateway_of(setup(database), receivers)
}

fn gateway_of(setup: Setup, receivers: &[(&str, &str, SocketAddr, &str)]) -> Gateway {
    let folder = tempfile::TempDir::new().unwrap().keep();
    std::fs::write(folder.join("secret"), "whsec\n").unwrap();
    let mut policy = RULES.to_owned();
    for (name, kind, address, events) in receivers {
        let url = folder.join(name);
        std::fs::write(&url, format!("http://{address}/a-secret-path")).unwrap();
        policy += &format!(
            "[[notify]]\nname = {name:?}\nkind = {kind:?}\nurl = {{ file = {url:?} }}\n\
             events = {events}\n"
        );
        if *kind == "webhook" {
            policy += &format!("secret = {{ file = {:?} }}\n", folder.join("secret"));
        }
    }
    let gateway = Gateway::start(&Setup { policy, ..setup });
    wait_for_state(&gateway);
    std::fs::remove_file(folder.join("secret")).ok();
    std::fs::write(folder.join("secret"), "whsec").unwrap();
    gateway
}

#[test]
fn webhooks_are_signed_and_tried_again_and_slack_gets_words() {
    let database = Database::fresh();
    let (webhook, got) = receiver(&[503, 200]);
    let (slack, words) = receiver(&[200]);
    let gateway = gateway(
        &database,
        &[
            ("audit", "webhook", webhook, r#"["block", "approval"]"#),
            ("oncall", "slack", slack, r#"["approval", "block", "session-start", "session-end"]"#),
        ],
    );
    let token = gateway.issuer().token("agent");
    let client = client_with(&gateway, "orders", &token);
    assert!(!psql(&client, "drop table nowhere").0);
    let first = got.recv_timeout(PATIENCE).unwrap();
    let again = got.recv_timeout(PATIENCE).unwrap();
    let told = first.json();
    assert_eq!(told["event"], "block");
    assert_eq!((&told["username"], &told["target"]), (&"agent".into(), &"orders".into()));
    assert_eq!(
        (&told["rules"][0], &told["text"]),
        (&"no-drops".into(), &"drop table nowhere".into())
    );
    assert_eq!(told["id"], again.json()["id"], "the same message is known by its id");
    for message in [&first, &again] {
        let timestamp = message.header("portcullis-timestamp");
        let signed = [timestamp.as_bytes(), b".", &message.body].concat();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"whsec");
        let mac = aws_lc_rs::hmac::sign(&key, &signed);
        let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(message.header("portcullis-signature"), format!("v1={hex}"));
        assert_eq!(message.header("portcullis-id"), told["id"].as_str().unwrap());
    }
    assert!(!psql(&client, "delete from nowhere").0);
    assert_eq!(got.recv_timeout(PATIENCE).unwrap().json()["event"], "approval");

    let mut said = Vec::new();
    while said.len() < 6 {
        said.push(
            words.recv_timeout(PATIENCE).unwrap().json()["text"].as_str().unwrap().to_owned(),
        );
    }
    let all = said.join("\n");
    assert!(
        all.contains("`agent` on `orders` waits for approval (rule `writes-need-a-human`)"),
        "{all}"
    );
    assert!(all.contains("was blocked") && all.contains("Not &lt;here&gt;."), "{all}");
    assert!(all.contains("opened a session") && all.contains("ended a session"), "{all}");
    assert!(!all.contains(&token) && !gateway.daemon().log().contains("a-secret-path"));
}

#[test]
fn a_receiver_that_does_not_answer_delays_nothing_and_one_that_refuses_is_shown() {
    let database = Database::fresh();
    let (silent, _got) = receiver(&[0]);
    let (refusing, _refused) = receiver(&[410]);
    let gateway = gateway(
        &database,
        &[
            ("silent", "webhook", silent, r#"["session-start", "block"]"#),
            ("refusing", "webhook", refusing, r#"["block"]"#),
        ],
    );
    let client = gateway.client("orders");
    for _ in 0..12 {
        let began = Instant::now();
        assert!(psql(&client, "select 1").0);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    assert!(!psql(&client, "drop table nowhere").0);
    wait_until("the undelivered message", || {
        let (_, page) = ask(&gateway, "auditor", "GET", "/notifications", "");
        let letters = page["items"].as_array().unwrap().clone();
        letters.iter().any(|letter| {
            letter["name"] == "refusing"
                && letter["event"] == "block"
                && letter["why"].as_str().unwrap().contains("410")
        })
    });
}

/// What cannot be recorded has not happened: nobody is told of the block, nor is it counted.
#[test]
fn a_block_that_cannot_be_recorded_is_told_to_nobody() {
    let database = Database::fresh();
    let (webhook, got) = receiver(&[200]);
    let recording = "max_session = \"64 KiB\"\n".to_owned();
    let gateway = gateway_of(
        Setup {
            recording,
            listen: format!("metrics = \"127.0.0.1:0\"\n{WEB}"),
            ..setup(&database)
        },
        &[("audit", "webhook", webhook, r#"["block", "recording"]"#)],
    );
    let client = gateway.client("orders");
    let long = format!("drop table nowhere{}", ", nowhere".repeat(10_000));
    let (succeeded, said) = psql(&client, &long);
    assert!(!succeeded && said.contains("record"), "{said}");
    assert_eq!(got.recv_timeout(PATIENCE).unwrap().json()["event"], "recording");
    let metrics = format!("http://{}/metrics", gateway.daemon().address_of("metrics"));
    let blocked = |count: u32| {
        let of = "protocol=\"postgres\",target=\"orders\",verdict=\"block\"";
        let line = format!("portcullis_commands_total{{{of}}} {count}\n");
        let page = curl(&[&metrics]).text();
        assert!(page.contains(&line), "{line} is not in\n{page}");
    };
    blocked(0);
    // One that is recorded is told and counted, and nothing came before it.
    assert!(!psql(&client, "drop table nowhere").0);
    assert_eq!(got.recv_timeout(PATIENCE).unwrap().json()["event"], "block");
    blocked(1);
}
