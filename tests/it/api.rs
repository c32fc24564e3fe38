//! The API over the admin socket and over TCP: what it shows of real traffic, and to whom.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::Value;

use crate::support::client::{Client, Database, transcript, venv};
use crate::support::daemon::{PATIENCE, PORTCULLIS, wait_until};
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::postgres::{Options, PostgresServer};

const WEB: &str = "web = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n[web]\nauditors = [\"security\"]\nadmins = [\"platform\"]";

/// What came back: status, content type, JSON (or null).
pub type Answer = (u16, String, Value);

/// Asks over a connection, with a token or without.
pub fn exchange(mut stream: impl Read + Write, path: &str, token: Option<&str>) -> Answer {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let authorization = authorization.unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, kind.unwrap_or_default().to_owned(), serde_json::from_str(body).unwrap_or_default())
}

/// Asks through the admin socket.
fn local(gateway: &Gateway, path: &str) -> Answer {
    let stream = UnixStream::connect(gateway.data_dir().join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, path, None)
}

/// Asks over TCP.
fn remote(gateway: &Gateway, path: &str, token: Option<&str>) -> Answer {
    let stream = TcpStream::connect(gateway.web()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, path, token)
}

fn found(gateway: &Gateway, path: &str) -> Vec<Value> {
    let (status, _, body) = local(gateway, path);
    assert_eq!(status, 200, "{path}: {body}");
    body["items"].as_array().unwrap().clone()
}

fn select(client: &Client, statement: &str) -> bool {
    let mut psql = client.psql();
    psql.args(["-c", statement]);
    transcript(psql).0
}

/// Waits until so many sessions are in the index, all closed.
fn wait_for_sessions(gateway: &Gateway, count: usize) {
    wait_until("the sessions in the index", || {
        let (status, _, body) = local(gateway, "/api/v1/sessions?limit=1000");
        let items = body["items"].as_array().cloned().unwrap_or_default();
        status == 200
            && items.iter().filter(|session| session["closed_at"].is_string()).count() >= count
    });
}

#[test]
fn what_clients_did_is_found_by_session_and_by_command() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let client = gateway.client("orders").with("PGAPPNAME", "portcullis:nightly/run-7");
    assert!(select(&client, "create table pears (n int)"));
    assert!(!select(&client, "select * from nowhere"));
    wait_for_sessions(&gateway, 2);

    let sessions = found(&gateway, "/api/v1/sessions?target=orders&run=run-7&workflow=nightly");
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[1]["username"], "agent");
    assert_eq!((&sessions[1]["commands"], &sessions[1]["failed"]), (&1.into(), &0.into()));
    assert_eq!(sessions[0]["failed"], 1);
    let commands = found(&gateway, "/api/v1/commands?text=pears");
    assert_eq!(commands.len(), 1, "{commands:?}");
    assert_eq!(commands[0]["text"], "create table pears (n int)");
    assert_eq!(commands[0]["session"], sessions[1]["id"]);
    let id = sessions[0]["id"].as_str().unwrap();
    let of_session = found(&gateway, &format!("/api/v1/sessions/{id}/commands"));
    assert_eq!(of_session[0]["error_code"], "42P01");
    let (status, _, session) = local(&gateway, &format!("/api/v1/sessions/{id}"));
    assert_eq!((status, &session), (200, &sessions[0]));

    // Two pages are the whole.
    let (_, _, first) = local(&gateway, "/api/v1/sessions?limit=1");
    let next = first["next"].as_str().unwrap();
    let second = found(&gateway, &format!("/api/v1/sessions?limit=1&cursor={next}"));
    assert_eq!([&first["items"][0], &second[0]], [&sessions[0], &sessions[1]]);

    // Who looked is known, by the name of the machine's user.
    let log = found(&gateway, "/api/v1/audit?text=session.show");
    assert_eq!(log[0]["object"], id);
    assert!(log[0]["username"].as_str().unwrap().starts_with("os:"), "{log:?}");
}

#[test]
fn hostile_questions_are_refused_with_a_reason_and_never_fail_the_gateway() {
    let gateway = Gateway::start(&Setup::for_targets([]));
    wait_for_sessions(&gateway, 0);
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=99999999999999999999",
        "limit=1&limit=2",
        "cursor=x",
        "cursor=Li4vLi4v",
        "from=yesterday",
        "to=2026-13-01T00:00:00Z",
        "verdict=maybe",
        "protocol=gopher",
        "user=a%00b",
        "contains=ab",
        "unknown=1",
        "user=%ff%fe",
    ] {
        for list in ["sessions", "commands", "audit"] {
            let (status, kind, body) = local(&gateway, &format!("/api/v1/{list}?{query}"));
            // Bytes that are no UTF-8 are read as U+FFFD, which no user has in the name.
            let expected = if query == "user=%ff%fe" { 200 } else { 400 };
            assert_eq!(status, expected, "{list}?{query}: {body}");
            if status == 400 {
                assert_eq!(kind, "application/problem+json");
                assert!(body["detail"].is_string(), "{list}?{query}: {body}");
            }
        }
    }
    let injection = "user=x%27%20or%201%3D1%3B--&text=%27%20%7C%20!(%20%26%20%3A*";
    assert_eq!(found(&gateway, &format!("/api/v1/sessions?{injection}")), [] as [Value; 0]);
    for path in ["/", "/api/v1/session", "/api/v1/sessions/", "/api/v1/sessions/%ff", "/..%2f"] {
        let (status, kind, _) = local(&gateway, path);
        assert_eq!((status, kind.as_str()), (404, "application/problem+json"), "{path}");
    }
}

#[test]
fn over_tcp_a_right_comes_from_a_group_and_nothing_shows_to_who_has_none() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    assert!(select(&gateway.client("orders"), "select 1"));
    wait_for_sessions(&gateway, 1);
    let id = found(&gateway, "/api/v1/sessions")[0]["id"].as_str().unwrap().to_owned();
    let none = "01890000-0000-7000-8000-000000000000";
    let paths = [
        "/api/v1/sessions".to_owned(),
        "/api/v1/commands".to_owned(),
        "/api/v1/audit".to_owned(),
        format!("/api/v1/sessions/{id}"),
        format!("/api/v1/sessions/{id}/commands"),
        format!("/api/v1/sessions/{none}"),
        format!("/api/v1/sessions/{none}/commands"),
    ];
    let issuer = gateway.issuer();
    let mut elsewhere = issuer.token_for("auditor", "elsewhere");
    let cases = [
        (Some(issuer.token("auditor")), 200),
        (Some(issuer.token("admin")), 200),
        (Some(issuer.token("agent")), 403),
        (Some(issuer.token("stranger")), 403),
        (Some(std::mem::take(&mut elsewhere)), 401),
        (Some("x".repeat(40_000)), 401),
        (None, 401),
    ];
    for (token, expected) in &cases {
        for path in &paths {
            let (status, kind, body) = remote(&gateway, path, token.as_deref());
            let missing = *expected == 200 && path.contains(none);
            assert_eq!(status, if missing { 404 } else { *expected }, "{path}: {body}");
            let problem = status != 200;
            assert_eq!(kind == "application/problem+json", problem, "{path}: {kind}");
        }
    }
    // What there is and what there is not are told alike.
    let stranger = issuer.token("stranger");
    let [there, not] = [&paths[3], &paths[5]].map(|path| remote(&gateway, path, Some(&stranger)));
    assert_eq!(there, not);
    for path in ["/healthz", "/readyz", "/api/openapi.json"] {
        assert_eq!(remote(&gateway, path, None).0, 200, "{path}");
    }
    let (status, ..) = remote(&gateway, "/api/v1/reload", Some(&issuer.token("admin")));
    assert_eq!(status, 404, "a reload is asked for on the machine only");
    let refusals = found(&gateway, "/api/v1/audit?user=stranger");
    assert!(!refusals.is_empty() && refusals.iter().all(|entry| entry["outcome"] == "refused"));
    let shown = found(&gateway, "/api/v1/audit?user=auditor&text=command.list");
    assert_eq!(shown.len(), 1, "{shown:?}");
}

#[test]
fn a_database_that_goes_and_comes_back_fails_no_session_and_misses_none() {
    let database = Database::fresh();
    let index = PostgresServer::start(&Options::default());
    let url = index.url(&index.create_database());
    let gateway = Gateway::start(&Setup {
        database: Some(format!("url = {url:?}")),
        ..Setup::for_targets([database.target("orders")])
    });
    let client = gateway.client("orders");
    assert!(select(&client, "select 'before'"));
    wait_for_sessions(&gateway, 1);
    index.kill();
    for n in 0..10 {
        assert!(select(&client, &format!("select 'without index {n}'")), "a session failed");
    }
    wait_until("readiness to tell", || local(&gateway, "/readyz").2["index"] == "unreachable");
    let (status, kind, body) = local(&gateway, "/api/v1/sessions");
    assert_eq!((status, kind.as_str()), (503, "application/problem+json"), "{body}");
    assert_eq!(local(&gateway, "/readyz").0, 200, "sessions are served without the index");
    index.restart();
    wait_for_sessions(&gateway, 11);
    assert_eq!(found(&gateway, "/api/v1/commands?contains=without%20index").len(), 10);
    wait_until("readiness to tell", || local(&gateway, "/readyz").2["index"] == "current");
}

#[test]
fn without_a_database_in_the_configuration_the_gateway_runs_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let database = Database::fresh();
    let folder = tempfile::TempDir::new().unwrap();
    // A server of another user has to pass, when the tests run as root.
    let passable = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(folder.path(), passable).unwrap();
    let mut gateway = Gateway::start(&Setup {
        database: Some(String::new()),
        data_dir: Some(folder.path().join("data")),
        ..Setup::for_targets([database.target("orders")])
    });
    // It does not wait for its server.
    assert!(select(&gateway.client("orders"), "select 'first'"));
    wait_for_sessions(&gateway, 1);
    gateway.daemon().kill9();
    gateway.restart();
    assert!(select(&gateway.client("orders"), "select 'second'"));
    wait_for_sessions(&gateway, 2);
    let postmaster = folder.path().join("data/postgres/data/postmaster.pid");
    assert!(postmaster.exists());
    assert!(gateway.stop().success());
    assert!(!postmaster.exists(), "its server runs on");
}

/// What is asked before the private server answers waits for it: nothing is shown that is not in the
/// audit log.
#[test]
fn what_is_asked_of_a_new_gateway_waits_for_its_database_or_is_told_when_to_come_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let database = Database::fresh();
    let folder = tempfile::TempDir::new().unwrap();
    let passable = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(folder.path(), passable).unwrap();
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        database: Some(String::new()),
        data_dir: Some(folder.path().join("data")),
        ..Setup::for_targets([database.target("orders")])
    });
    let token = gateway.issuer().token("agent");
    // On a busy machine a server takes longer to be made than a request waits.
    wait_until("the targets", || {
        let (status, _, body) = remote(&gateway, "/api/v1/targets", Some(&token));
        assert!(status == 200 || body["title"] == "the gateway is starting", "{body}");
        status == 200
    });

    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        database: Some("url = \"postgres://nobody@127.0.0.1:1/none\"".to_owned()),
        ..Setup::for_targets([database.target("orders")])
    });
    for (path, says) in [
        ("/api/v1/targets", "its database does not answer yet: try again in a few seconds"),
        ("/targets", "its database does not answer yet"),
    ] {
        let mut stream = TcpStream::connect(gateway.web()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        for words in ["HTTP/1.1 503 ", "retry-after: 2\r\n", "the gateway is starting", says] {
            assert!(answer.contains(words), "{words} in {answer}");
        }
    }
    for path in ["/healthz", "/readyz"] {
        let begun = Instant::now();
        assert_eq!(remote(&gateway, path, None).0, 200, "{path}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{path} waits");
    }
}

/// Every path of the document is there, every answer has exactly the fields that it says, and
/// every way to filter is taken.
#[test]
fn the_description_says_what_the_api_does() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    assert!(select(&gateway.client("orders"), "select 1"));
    wait_for_sessions(&gateway, 1);
    let id = found(&gateway, "/api/v1/sessions")[0]["id"].as_str().unwrap().to_owned();
    let (_, _, document) = local(&gateway, "/api/openapi.json");
    let components = &document["components"];
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let resolved = |reference: &Value| {
        let name = reference["$ref"].as_str().unwrap();
        components.pointer(name.strip_prefix("#/components").unwrap()).unwrap().clone()
    };
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 7);
    for (path, operations) in paths {
        let Some(operation) = operations.get("get") else { continue };
        // Of these there is none here; their own tests ask for them.
        if path.starts_with("/api/v1/approvals/{")
            || path.starts_with("/api/v1/access-requests/{")
            || path.ends_with("/recording/key")
        {
            continue;
        }
        let mut at = path.replace("{id}", &id);
        for parameter in operation["parameters"].as_array().into_iter().flatten().map(resolved) {
            let name = parameter["name"].as_str().unwrap();
            let value = match name {
                "limit" => "5",
                "from" => "2020-01-01T00:00:00Z",
                "to" => "2120-01-01T00:00:00Z",
                "protocol" => "postgres",
                "format" => "csv",
                _ => continue,
            };
            at += if at.contains('?') { "&" } else { "?" };
            at += &format!("{name}={value}");
        }
        let (status, kind, body) = local(&gateway, &at);
        assert_eq!(status, 200, "{at}: {body}");
        let content = &operation["responses"]["200"]["content"];
        assert!(names(content).iter().any(|name| *name == kind.split(';').next().unwrap()), "{at}");
        let schema = &content["application/json"]["schema"];
        if schema["$ref"].is_null() {
            continue;
        }
        let schema = resolved(schema);
        let fits = |schema: &Value, value: &Value| {
            let (known, there) = (names(&schema["properties"]), names(value));
            assert!(
                there.iter().all(|name| known.contains(name)),
                "{at}: {there:?}, not {known:?}"
            );
            let needed = schema["required"].as_array();
            for name in needed.map_or(known.iter().map(String::as_str).collect(), |needed| {
                needed.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>()
            }) {
                assert!(there.iter().any(|other| other == name), "{at}: {name} is missing");
            }
        };
        fits(&schema, &body);
        if let Some(item) = body["items"].get(0) {
            fits(&resolved(&schema["properties"]["items"]["items"]), item);
        }
    }
}

fn command(gateway: &Gateway, arguments: &[&str]) -> String {
    let configuration = gateway.configuration();
    let config = ["--config", configuration.to_str().unwrap()];
    let output = portcullis(&[arguments, &config].concat());
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn commands_list_show_and_replay_what_was_recorded() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    assert!(select(&gateway.client("orders"), "select 'a\u{1b}[31mb' as one"));
    assert!(select(&gateway.client("orders"), "select 'two'"));
    wait_for_sessions(&gateway, 2);
    let list = command(&gateway, &["session", "list", "--json", "--contains", "as one"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    let id = list[0]["id"].as_str().unwrap();
    let lines = command(&gateway, &["session", "list"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains(&format!("{id}\t")) && !lines.contains("SESSION"), "{lines}");
    let shown = command(&gateway, &["session", "show", id]);
    assert!(shown.contains("select 'a\\u{1b}[31mb' as one") && !shown.contains('\u{1b}'));
    let shown: Value =
        serde_json::from_str(&command(&gateway, &["session", "show", id, "--json"])).unwrap();
    assert_eq!(
        (&shown["session"]["id"], &shown["commands"][0]["status"]),
        (&id.into(), &"SELECT 1".into())
    );
    assert!(command(&gateway, &["replay", id]).contains("as one"));

    // From elsewhere, with a token for that server alone.
    let url = format!("http://{}", gateway.web());
    let away = |token: Option<&str>| {
        let mut list = Command::new(PORTCULLIS);
        list.args(["session", "list", "--json", "--server", &url]);
        list.env("XDG_CONFIG_HOME", gateway.data_dir()).env_remove("PORTCULLIS_TOKEN");
        list.envs(token.map(|token| ("PORTCULLIS_TOKEN", token)));
        list.output().unwrap()
    };
    let list: Value =
        serde_json::from_slice(&away(Some(&gateway.issuer().token("auditor"))).stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let refused = away(Some(&gateway.issuer().token("agent")));
    assert!(!refused.status.success() && told(&refused).contains("right"), "{}", told(&refused));
    let words = told(&refused);
    assert!(
        words.contains(&format!("asked at {url}, with the token of $PORTCULLIS_TOKEN")),
        "{words}"
    );
    assert!(told(&away(None)).contains("portcullis login --server"));
    // A configuration that is typed goes before the variable, and nothing in it is not set.
    let configuration = gateway.configuration();
    for (server, config) in [("http://127.0.0.1:9", "--config"), ("", "--config")] {
        let mut list = Command::new(PORTCULLIS);
        list.args(["session", "list"]).arg(config).arg(&configuration);
        let done = list.env("PORTCULLIS_SERVER", server).output().unwrap();
        assert!(done.status.success() && told(&done).contains(id), "{}", told(&done));
    }
    let mut list = Command::new(PORTCULLIS);
    list.args(["session", "list"]).env("PORTCULLIS_CONFIG", &configuration);
    let done = list.env("PORTCULLIS_SERVER", "http://127.0.0.1:9").output().unwrap();
    assert!(!done.status.success(), "{}", told(&done));
    let unknown = "019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b";
    let config = configuration.to_str().unwrap();
    let missing = told(&portcullis(&["session", "show", unknown, "--config", config]));
    assert!(missing.contains(&format!("no such thing: sessions/{unknown}")), "{missing}");
    let wrong = portcullis(&[
        "session",
        "list",
        "--limit=0",
        "--config",
        gateway.configuration().to_str().unwrap(),
    ]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(told(&wrong).contains("limit: 1 to 1000"), "{}", told(&wrong));
}

#[test]
fn a_reindex_needs_the_gateway_stopped_and_gives_the_same_rows() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    for n in 0..3 {
        assert!(select(&gateway.client("orders"), &format!("select {n}; select 'x'")));
    }
    wait_for_sessions(&gateway, 3);
    let before = command(&gateway, &["session", "list", "--json"]);
    let configuration = gateway.configuration();
    for what in [&["recording", "reindex"][..], &["migrate"]] {
        let config = ["--config", configuration.to_str().unwrap()];
        let refused = portcullis(&[what, &config].concat());
        assert_eq!(refused.status.code(), Some(1));
        assert!(told(&refused).contains("gateway to be stopped"), "{}", told(&refused));
    }
    let mut gateway = gateway;
    assert!(gateway.stop().success());
    assert!(command(&gateway, &["migrate"]).contains("already"));
    let done = command(&gateway, &["recording", "reindex", "--json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!((&done["removed"], &done["damaged"]), (&0.into(), &serde_json::json!([])));
    assert!(done["recordings"].as_u64().unwrap() >= 3, "{done}");
    gateway.restart();
    assert_eq!(command(&gateway, &["session", "list", "--json"]), before);
}

#[test]
fn a_machine_gets_its_token_by_command() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let secret = gateway.data_dir().join("secret");
    std::fs::write(&secret, "agent-secret\n").unwrap();
    let secret = secret.to_str().unwrap();
    let asked = ["token", "--client-id", "agent", "--client-secret-file", secret];
    let token = command(&gateway, &[&asked[..], &["--scope", "read write"]].concat());
    let client = Client::new(gateway.address().port(), "orders", "agent", token.trim());
    assert!(select(&client, "select 1"));
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["scope"], "read write");
}

#[test]
fn a_person_logs_in_once_and_the_token_is_kept_from_others() {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt as _;
    let gateway = Gateway::start(&Setup { listen: WEB.to_owned(), ..Setup::for_targets([]) });
    let url = format!("http://{}", gateway.web());
    let home = tempfile::TempDir::new().unwrap();
    let away = |arguments: &[&str]| {
        let mut command = Command::new(PORTCULLIS);
        command.args(arguments).args(["--server", &url]).env("XDG_CONFIG_HOME", home.path());
        command.env_remove("PORTCULLIS_TOKEN");
        command
    };
    let issuer = gateway.issuer().url();
    let mut login = away(&["login", "--issuer-url", &issuer, "--client-id", "portcullis"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(login.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let code = line.rsplit(' ').next().unwrap();
    gateway.issuer().approve(code, "audrey");
    assert!(login.wait().unwrap().success());
    let kept = home.path().join("portcullis/logins.json");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    // The database may not have its tables yet.
    wait_for_sessions(&gateway, 0);
    let list = away(&["session", "list", "--json"]).output().unwrap();
    assert_eq!(told(&list).trim(), "[]");
    let audit = found(&gateway, "/api/v1/audit?user=audrey");
    assert_eq!(audit.len(), 1, "{audit:?}");
}

#[test]
fn figures_say_what_sessions_did() {
    let database = Database::fresh();
    let mut down = database.target("down");
    down.port = 1;
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        ..Setup::for_targets([database.target("orders"), down])
    });
    assert!(select(&gateway.client("orders"), "select repeat('x', 10000)"));
    assert!(!select(&gateway.client("down"), "select 1"));
    assert!(!select(&gateway.client("nowhere"), "select 1"));
    let address = gateway.daemon().address_of("metrics");
    let page = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    };
    let orders = "protocol=\"postgres\",target=\"orders\"";
    wait_until("the session's end", || {
        page().contains(&format!("portcullis_sessions_open{{{orders}}} 0"))
    });
    wait_until("the index", || page().contains("portcullis_index_up 1"));
    let page = page();
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{page}")).parse::<f64>().unwrap()
    };
    assert_eq!(value(&format!("portcullis_sessions_opened_total{{{orders}}}")), 1.0);
    assert_eq!(value(&format!("portcullis_sessions_ended_total{{{orders},how=\"client\"}}")), 1.0);
    assert_eq!(value(&format!("portcullis_commands_total{{{orders},verdict=\"allow\"}}")), 1.0);
    assert!(value(&format!("portcullis_bytes_total{{{orders},direction=\"down\"}}")) > 10_000.0);
    let down = "protocol=\"postgres\",target=\"down\"";
    assert_eq!(value(&format!("portcullis_upstream_connect_errors_total{{{down}}}")), 1.0);
    assert_eq!(value("portcullis_access_denied_total{protocol=\"postgres\"}"), 1.0);
    assert_eq!(value("portcullis_recording_failures_total"), 0.0);
    let latency = "portcullis_added_latency_seconds";
    let count = value(&format!("{latency}_count{{{orders}}}"));
    assert!(count > 0.0);
    assert_eq!(value(&format!("{latency}_bucket{{{orders},le=\"+Inf\"}}")), count);
}

#[test]
fn what_is_asked_at_random_is_answered_as_documented() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    assert!(select(&gateway.client("orders"), "select 1"));
    wait_until("the command in the index", || {
        let (status, _, body) = local(&gateway, "/api/v1/commands");
        status == 200 && !body["items"].as_array().unwrap().is_empty()
    });
    let examples = std::env::var("PORTCULLIS_API_EXAMPLES").unwrap_or("20".to_owned());
    let base = format!("http://{}", gateway.web());
    let output = Command::new(venv().join("bin/st"))
        .args(["run", &format!("{base}/api/openapi.json"), "--url", &base])
        .args(["--header", &format!("Authorization: Bearer {}", gateway.issuer().token("auditor"))])
        .args(["--max-examples", &examples, "--seed", "1", "--no-color"])
        .args(["--generation-database", "none"])
        // That a cursor is one of ours is nothing that a description can say.
        .args(["--exclude-checks", "positive_data_acceptance"])
        // It leaves files where it runs.
        .current_dir(gateway.data_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn a_recording_is_read_by_range_and_its_events_by_sequence_and_both_are_audited() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    assert!(select(&gateway.client("orders"), "select 'once and no more'"));
    wait_for_sessions(&gateway, 1);
    let id = found(&gateway, "/api/v1/sessions")[0]["id"].as_str().unwrap().to_owned();
    let base = format!("/api/v1/sessions/{id}");
    let stored = std::fs::read(&gateway.recordings()[0]).unwrap();

    let auditor = gateway.issuer().token("auditor");
    let get = |range: &str| {
        let mut stream = TcpStream::connect(gateway.web()).unwrap();
        let request = format!(
            "GET {base}/recording HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
             Authorization: Bearer {auditor}\r\n{range}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        (head, answer[end + 4..].to_vec())
    };
    let (head, whole) = get("");
    assert!(head.starts_with("HTTP/1.1 200") && whole == stored, "{head}");
    let (head, part) = get("Range: bytes=10-19\r\n");
    assert!(head.starts_with("HTTP/1.1 206") && part == stored[10..20], "{head}");
    assert!(head.contains(&format!("content-range: bytes 10-19/{}", stored.len())), "{head}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let (head, part) = get(&format!("Range: bytes=-5\r\nIf-Range: {tag}\r\n"));
    assert!(head.starts_with("HTTP/1.1 206") && part == stored[stored.len() - 5..], "{head}");
    let (head, whole) = get("Range: bytes=-5\r\nIf-Range: \"another\"\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && whole == stored, "{head}");
    let (head, _) = get("Range: bytes=99999999-\r\n");
    assert!(head.starts_with("HTTP/1.1 416"), "{head}");

    // Page by page, the events are those of `replay --json`.
    let mut items = Vec::new();
    let mut next = Some(0);
    while let Some(first) = next {
        let (status, _, page) = local(&gateway, &format!("{base}/events?first={first}&limit=2"));
        assert_eq!(status, 200, "{page}");
        items.extend(page["items"].as_array().unwrap().clone());
        next = page["next"].as_u64();
    }
    let replayed = command(&gateway, &["replay", &id, "--json"]);
    let replayed: Vec<Value> =
        replayed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(items == replayed && items.len() > 4, "{items:?}");
    for (path, status) in [
        (format!("{base}/events?limit=0"), 400),
        (format!("{base}/events?first=-1"), 400),
        (format!("{base}/events?first=9223372036854775808"), 400),
        (format!("{base}/events?first=999"), 200),
        ("/api/v1/sessions/019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b/events".to_owned(), 404),
        ("/api/v1/sessions/..%2F..%2Fledger/recording".to_owned(), 404),
    ] {
        assert_eq!(local(&gateway, &path).0, status, "{path}");
    }
    let read = |action: &str| {
        found(&gateway, "/api/v1/audit?limit=1000")
            .iter()
            .filter(|row| row["action"] == action)
            .count()
    };
    assert_eq!(read("recording.read"), 5, "four over the network, one by replay");
    assert!(read("recording.events") >= 3);
    // Who may not read learns nothing of what there is.
    let stranger = gateway.issuer().token("stranger");
    let asked = |path: &str| remote(&gateway, path, Some(&stranger));
    assert_eq!(asked(&format!("{base}/events")), asked("/api/v1/sessions/nothing/events"));
}
