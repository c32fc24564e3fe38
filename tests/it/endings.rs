//! How sessions end: for every protocol and every cause, what recording, index, metric, log and client
//! say.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use portcullis::recording::{Kind, Reader};
use serde_json::Value;

use crate::support::client::Database;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Setup, portcullis, told};
use crate::support::http::{App, Caller, Told, curl};
use crate::support::ssh::{Site, Sshd};
use crate::support::talk::{Talk, query};

/// What ends the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Client,
    Kill,
    Revoked,
    AccessTaken,
    TokenEnds,
    MaxSession,
    Stop,
}

/// What is said of it everywhere.
struct Said {
    how: &'static str,
    fault: &'static str,
    /// The beginning of the words in recording, index and log.
    text: &'static str,
    /// Whether it is said who did it.
    by: bool,
    /// What the clients of Postgres and SSH read.
    told: Option<&'static str>,
    /// The status of an HTTP request that was running.
    status: Option<u16>,
}

impl Cause {
    fn setup(self, setup: Setup) -> Setup {
        let server = match self {
            Self::Stop => "drain_timeout = \"1s\"\n".to_owned(),
            _ => String::new(),
        };
        let access = match self {
            Self::MaxSession => "max_session = \"4s\"\n".to_owned(),
            _ => String::new(),
        };
        let token_seconds = (self == Self::TokenEnds).then_some(5);
        Setup { server, access, token_seconds, ..setup }
    }

    fn said(self) -> Said {
        let expired = Said {
            how: "expired",
            fault: "client",
            text: "its time was over",
            by: false,
            told: Some("the session's time is over"),
            status: Some(503),
        };
        let withdrawn = Said {
            how: "access",
            fault: "operator",
            text: "the access was withdrawn",
            by: false,
            told: Some("the access to this target was withdrawn"),
            status: Some(503),
        };
        match self {
            Self::Client => Said {
                how: "client",
                fault: "client",
                text: "the client left",
                by: false,
                told: None,
                status: None,
            },
            Self::Kill => Said {
                how: "killed",
                fault: "operator",
                text: "ended by os:",
                by: true,
                told: Some("ended by an administrator"),
                status: Some(503),
            },
            Self::Revoked => {
                Said { text: "the access was withdrawn by os:", by: true, ..withdrawn }
            }
            Self::AccessTaken => withdrawn,
            Self::TokenEnds | Self::MaxSession => expired,
            Self::Stop => Said {
                how: "shutdown",
                fault: "operator",
                text: "the gateway stopped",
                by: false,
                told: Some("the gateway is stopping"),
                status: Some(503),
            },
        }
    }
}

/// A session of each protocol in which something runs.
struct Running {
    postgres: Talk,
    ssh: Child,
    request: JoinHandle<Told>,
}

impl Running {
    fn start(site: &Site, app: &App) -> Self {
        let gateway = &site.gateway;
        let piped = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let mark = site.path("mark");
        site.key();
        let line = format!("echo x > {}; exec sleep 600", mark.display());
        let ssh = piped(site.ssh().arg(line));
        let token = || gateway.issuer().token("agent");
        let mut postgres = Talk::opened(gateway.address(), "agent", "orders", &token());
        postgres.send(&query("select pg_sleep(600)"));
        let caller = Caller { address: gateway.daemon().address_of("http"), token: token() };
        let request = std::thread::spawn(move || caller.get("/crew/hang"));
        wait_until("three sessions", || {
            mark.exists() && sessions(site).len() == 3 && app.paths().contains(&"/hang".to_owned())
        });
        Self { postgres, ssh, request }
    }
}

fn sessions(site: &Site) -> Vec<Value> {
    let config = site.gateway.configuration();
    let list = ["session", "list", "--json", "--config", config.to_str().unwrap()];
    serde_json::from_slice(&portcullis(&list).stdout).unwrap_or_default()
}

fn does(output: &Output) {
    assert!(output.status.success(), "{}", told(output));
}

/// Protocol, way and words of each recording's end.
fn recorded(site: &Site) -> Vec<(String, String, String)> {
    let recordings = site.gateway.recordings().into_iter();
    let mut ends: Vec<_> = recordings
        .map(|path| {
            let events: Vec<_> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
            let of = |kind: Kind| {
                let event = events.iter().find(|event| event.kind == kind).unwrap();
                serde_json::from_slice::<Value>(&event.payload).unwrap()
            };
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let (opened, closed) = (of(Kind::Opened), of(Kind::Closed));
            (text(&opened["protocol"]), text(&closed["how"]), text(&closed["text"]))
        })
        .collect();
    ends.sort();
    ends
}

fn end_by(cause: Cause) {
    let app = App::start();
    let sections = format!("{}{}", Sshd::shared().target("web-1", ""), app.target("crew", ""));
    let mut site = Site::set_up(
        &sections,
        cause.setup(Setup {
            listen: "http = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"".to_owned(),
            ..Setup::for_targets([Database::fresh().target("orders")])
        }),
    );
    let config = site.gateway.configuration();
    let config = ["--config", config.to_str().unwrap()];
    let Running { postgres, mut ssh, request } = Running::start(&site, &app);
    let mut postgres = Some(postgres);
    match cause {
        Cause::Client => {
            postgres = None;
            ssh.kill().unwrap();
        }
        Cause::Kill => {
            for session in sessions(&site) {
                let id = session["id"].as_str().unwrap();
                does(&portcullis(&[&["session", "kill", id][..], &config].concat()));
            }
        }
        Cause::Revoked => {
            let who = ["user", "revoke", "--issuer", "dev", "agent"];
            does(&portcullis(&[&who[..], &config].concat()));
        }
        Cause::AccessTaken => {
            does(
                &site
                    .gateway
                    .reload(|text| text.replace("targets = [\"*\"]", "targets = [\"none\"]")),
            );
        }
        Cause::TokenEnds | Cause::MaxSession => {}
        Cause::Stop => assert!(site.gateway.stop().success()),
    }
    let Said { how, fault, text, by, told: words, status } = cause.said();
    let ssh = ssh.wait_with_output().unwrap();
    assert!(!ssh.status.success(), "{cause:?}");
    if let (Some(words), Some(mut postgres)) = (words, postgres) {
        let of_ssh = String::from_utf8_lossy(&ssh.stderr).into_owned();
        for (of, read) in [("postgres", postgres.until_end().join("\n")), ("ssh", of_ssh)] {
            assert!(read.contains(words), "{cause:?}: {of}: {read}");
        }
    }
    if let Some(status) = status {
        assert_eq!(request.join().unwrap().status, status, "{cause:?}");
    }
    let protocols: &[&str] = match cause {
        // Requests come and go, each with a token; their session goes on.
        Cause::Client | Cause::TokenEnds => &["postgres", "ssh"],
        _ => &["http", "postgres", "ssh"],
    };
    let log = || site.gateway.daemon().log();
    let ends = || log().lines().filter(|line| line.contains("session ended")).count();
    wait_until("the ends", || ends() == protocols.len());

    let log = log();
    if cause == Cause::Stop {
        // The index has the end of who was cut last when the next gateway has read it.
        site.gateway.restart();
    }

    for (protocol, of) in [("http", "crew"), ("postgres", "orders"), ("ssh", "web-1")] {
        if !protocols.contains(&protocol) {
            continue;
        }
        // Log.
        let line = log.lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "session ended" && line["target"] == of).then_some(line)
        });
        let line = line.unwrap();
        assert_eq!((&line["how"], &line["fault"]), (&how.into(), &fault.into()), "{line}");
        assert!(line["reason"].as_str().unwrap().starts_with(text), "{line}");
        assert_eq!(line["by"].is_string(), by, "{line}");
        // Index.
        let mut listed = Value::Null;
        wait_until("the index to have the end", || {
            let found = sessions(&site).into_iter().find(|session| session["target"] == of);
            listed = found.unwrap_or_default();
            listed["closed_at"].is_string()
        });
        assert_eq!(listed["ended"], how, "{listed}");
        assert!(listed["ended_text"].as_str().unwrap().starts_with(text), "{listed}");
        // Metric, which ends with the process.
        if cause != Cause::Stop {
            let daemon = site.gateway.daemon();
            let metrics = format!("http://{}/metrics", daemon.address_of("metrics"));
            let of = format!("protocol=\"{protocol}\",target=\"{of}\",how=\"{how}\"");
            let page = curl(&[&metrics]).text();
            let line = format!("portcullis_sessions_ended_total{{{of}}} 1\n");
            assert!(page.contains(&line), "{line} is not in\n{page}");
        }
    }
    site.finish();
    for (protocol, ended, words) in recorded(&site) {
        if protocols.contains(&&*protocol) {
            assert!(
                ended == how && words.starts_with(text),
                "{cause:?}: {protocol}: {ended} {words}"
            );
        }
    }
    site.gateway.verify_all();
}

#[test]
fn a_client_leaves() {
    end_by(Cause::Client);
}

#[test]
fn somebody_ends_it() {
    end_by(Cause::Kill);
}

#[test]
fn its_user_is_revoked() {
    end_by(Cause::Revoked);
}

#[test]
fn a_reload_takes_the_access_away() {
    end_by(Cause::AccessTaken);
}

#[test]
fn the_token_ends() {
    end_by(Cause::TokenEnds);
}

#[test]
fn it_has_lasted_as_long_as_it_may() {
    end_by(Cause::MaxSession);
}

#[test]
fn the_gateway_stops() {
    end_by(Cause::Stop);
}

/// A place is taken before the right is looked for, so a full gateway uses nothing up.
#[test]
fn a_full_gateway_turns_away_alike_and_uses_nothing_up() {
    let app = App::start();
    let sections = format!(
        "{}{}{}",
        Sshd::shared().target("web-1", ""),
        app.target("crew", ""),
        crate::approval::elsewhere::groups()
    );
    let site = Site::set_up(
        &sections,
        Setup {
            server: "max_sessions = 1\n".to_owned(),
            listen: "http = \"127.0.0.1:0\"".to_owned(),
            ..Setup::for_targets([Database::fresh().target("orders")])
        },
    );
    let gateway = &site.gateway;
    crate::approval::wait_for_state(gateway);
    let ticket = |target: &str| {
        let body = format!("{{\"target\": \"{target}\", \"single_use\": true}}");
        crate::approval::ticket(gateway, &body).1
    };
    let (of_ssh, of_http) = (ticket("web-1"), ticket("crew"));
    fs::write(site.path("ticket"), &of_ssh).unwrap();
    let ssh = || {
        let mut ssh = site.ssh_with_password("web-1", Path::new(&site.path("ticket")));
        let output = ssh.arg("true").output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let http = || {
        let address = gateway.daemon().address_of("http");
        Caller { address, token: of_http.clone() }.get("/crew/x").status
    };
    let open = crate::approval::OpenSession::open(&gateway.client("orders"));
    for _ in 0..2 {
        let (ok, said) = ssh();
        assert!(!ok && said.contains("no room for another session"), "{said}");
        assert_eq!(http(), 503);
    }
    for protocol in ["ssh", "http"] {
        let refused = |line: &&str| {
            line.contains("no room for another session")
                && line.contains(&format!("\"protocol\":\"{protocol}\""))
        };
        // The log comes behind the answer.
        wait_until(&format!("two lines of {protocol}"), || {
            gateway.daemon().log().lines().filter(refused).count() == 2
        });
    }
    drop(open);
    wait_until("the ticket to open its session", || ssh().0);
    wait_until("the other one, too", || http() == 200);
    site.finish();
}
