//! What recordings cost on the disk and in processor time, plain and encrypted, and what the same
//! events cost as gzip'd JSON lines and asciicast: `cargo bench --bench cost [-- ROW…]`, of the rows
//! that are named (`pgbench`, `requests`, `result`, `terminal`, `small`, `processor`), or of all.
//!
//! Events have the shape that the gateway gives them; the interactive session is typed at a
//! person's pace, as blocks are made by the clock ($MINUTES, 2 when not given).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may stop")]

mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis::age::Recipient;
use portcullis::config::{self, Durability, OnRecordingFailure, SecretRef};
use portcullis::names::{Protocol, SessionId};
use portcullis::recording::{
    Closed, Direction, Kind, Opened, Outcome, Reader, RecordedIdentity, Recording, Store,
    recording_path,
};
use rows::rows;
use serde_json::{Value, json};

const RECIPIENT: &str = "age1gfr9v9fwjlj3729l5yq54lmgw7vvznw8584esrfvldf0pd7pcptqlhukv7";
const IDENTITY: &str = "AGE-SECRET-KEY-16LF9S4EWD2SDR9V8SUG5WU0L940WADGWS3QLZR8XXMNKWAL3FWHQQ2WL4R";
const GIBIBYTE: usize = 1 << 30;
const SMALL_SESSIONS: usize = 10_000;

/// One way to store, with a framer as the gateway has one.
struct Way {
    name: &'static str,
    folder: tempfile::TempDir,
    store: Store,
    _runtime: tokio::runtime::Runtime,
}

impl Way {
    fn new(name: &'static str, recipients: Vec<Recipient>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = config::Recording {
            durability: Durability::Process,
            max_session: u64::MAX,
            max_local: u64::MAX,
            signing_key: folder.path().join("seal_ed25519"),
            mask_key: SecretRef::Env("UNUSED".to_owned()),
            recipients,
            identity: None,
        };
        let store = Store::open(folder.path(), &settings, &[0; 32]).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(store.clone().run(tokio_util::sync::CancellationToken::new()));
        Self { name, folder, store, _runtime: runtime }
    }

    fn open(&self, protocol: Protocol) -> Recording {
        let opened = opened(protocol);
        self.store.create(&opened, OnRecordingFailure::Refuse).unwrap()
    }

    fn path(&self, recording: &Recording) -> PathBuf {
        recording_path(self.folder.path(), &recording.session())
    }

    fn ledger(&self) -> u64 {
        self.folder.path().join("ledger").metadata().unwrap().len()
    }
}

fn main() {
    let rows: Vec<_> = std::env::args().skip(1).filter(|row| !row.starts_with("--")).collect();
    let wanted = |row: &str| rows.is_empty() || rows.iter().any(|wanted| wanted == row);
    let ways =
        [Way::new("plain", Vec::new()), Way::new("encrypted", vec![RECIPIENT.parse().unwrap()])];
    println!("| sessions | bytes seen | plain | encrypted | JSON lines, gzip | asciicast, gzip |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    if wanted("pgbench") {
        cost(&ways, "pgbench -S, 20,000 transactions", Protocol::Postgres, pgbench);
    }
    if wanted("requests") {
        cost(&ways, "a JSON API, 2,000 requests", Protocol::Http, requests);
    }
    if wanted("result") {
        cost(&ways, "a result of 1 GiB", Protocol::Postgres, |each| bulk(each, GIBIBYTE));
    }
    if wanted("small") {
        small(&ways);
    }
    if wanted("terminal") {
        let minutes = std::env::var("MINUTES").map_or(2, |text| text.parse().unwrap());
        let what = format!("a terminal, {minutes} minutes of typing");
        cost(&ways, &what, Protocol::Ssh, |each| terminal(each, minutes));
    }
    println!();
    if wanted("processor") {
        ways.iter().for_each(processor);
    }
}

/// Events that a session adds, the same for every way.
type Each<'a> = &'a mut dyn FnMut(&[(Kind, Direction, Body)]);

#[derive(Clone)]
enum Body {
    Data(Vec<u8>),
    Json(Value),
}

/// Records one session in all ways at once, and prints a line of the table.
fn cost(ways: &[Way], what: &str, protocol: Protocol, session: impl FnOnce(Each<'_>)) {
    let recordings: Vec<_> = ways.iter().map(|way| way.open(protocol)).collect();
    let before: Vec<_> = ways.iter().map(Way::ledger).collect();
    let mut seen = 0;
    session(&mut |events| {
        for (_, _, body) in events {
            seen += match body {
                Body::Data(bytes) => bytes.len(),
                // What a command's text took on the wire.
                Body::Json(json) => json["command"]["text"].as_str().map_or(0, str::len),
            };
        }
        recordings.iter().for_each(|recording| append(recording, events));
    });
    let mut stored = Vec::new();
    for ((way, recording), before) in ways.iter().zip(&recordings).zip(before) {
        close(recording);
        let file = way.path(recording).metadata().unwrap().len();
        stored.push(file + way.ledger() - before);
    }
    let plain = ways[0].path(&recordings[0]);
    line(what, seen as u64, &stored, Some(lines(&plain)), cast(&plain, protocol));
}

fn line(what: &str, seen: u64, stored: &[u64], lines: Option<u64>, cast: Option<u64>) {
    #[allow(clippy::cast_precision_loss, reason = "two digits are printed")]
    let share = |bytes: u64| format!("{:.3}", bytes as f64 / seen as f64);
    let share_of = |bytes: Option<u64>| bytes.map_or_else(String::new, share);
    println!(
        "| {what} | {seen} | {} | {} | {} | {} |",
        share(stored[0]),
        share(stored[1]),
        share_of(lines),
        share_of(cast),
    );
}

fn append(recording: &Recording, events: &[(Kind, Direction, Body)]) {
    recording
        .append(|batch| {
            for (kind, direction, body) in events {
                match body {
                    Body::Data(bytes) => batch.data(*direction, Some(1), bytes),
                    Body::Json(json) => batch.json(*kind, *direction, None, json),
                };
            }
        })
        .unwrap();
}

fn command(form: &str, text: &str, object: &str) -> (Kind, Direction, Body) {
    let command = json!({
        "command": {
            "form": form, "text": text, "attributes": { "statements": 1 },
            "effects": [{ "action": "sql.select", "object": object, "attributes": {} }],
        },
        "decision": { "verdict": "allow", "rules": [] },
    });
    (Kind::Command, Direction::Up, Body::Json(command))
}

fn outcome(status: &str) -> (Kind, Direction, Body) {
    let outcome = Outcome {
        status: Some(status.to_owned()),
        rows: Some(1),
        duration_us: 240,
        ..Outcome::default()
    };
    (Kind::Outcome, Direction::Down, Body::Json(serde_json::to_value(outcome).unwrap()))
}

/// What `pgbench -S` has recorded in simple mode.
fn pgbench(each: Each<'_>) {
    for n in 0..20_000u32 {
        let aid = random(n) % 100_000;
        let text = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {aid};");
        each(&[command("query", &text, "table:public.pgbench_accounts")]);
        let mut answer =
            b"T\0\0\0!\0\x01abalance\0\0\0\x40\x03\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"
                .to_vec();
        let balance = (random(aid) % 100_000).to_string();
        answer.extend_from_slice(b"D\0\0\0\x0f\0\x01\0\0\0\x05");
        answer.extend_from_slice(balance.as_bytes());
        answer.extend_from_slice(b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
        each(&[(Kind::Data, Direction::Down, Body::Data(answer)), outcome("SELECT 1")]);
    }
}

fn requests(each: Each<'_>) {
    for n in 0..2_000u32 {
        let path = format!("/v1/customers/{}/orders?limit=20", random(n) % 5_000);
        each(&[command("request", &format!("GET {path}"), "path:/v1/customers/*/orders")]);
        let orders: Vec<_> = (0..12u32)
            .map(|m| {
                let id = random(n * 100 + m);
                json!({
                    "id": format!("ord_{id:08x}"), "status": "shipped", "total": id % 90_000,
                    "currency": "EUR", "created_at": format!("2026-11-{:02}T10:{:02}:00Z", id % 28 + 1, id % 60),
                    "lines": [{ "sku": format!("SKU-{}", id % 700), "quantity": id % 9 + 1 }],
                })
            })
            .collect();
        let body = serde_json::to_vec(&json!({ "orders": orders, "next": n })).unwrap();
        each(&[(Kind::Data, Direction::Down, Body::Data(body)), outcome("200")]);
    }
}

fn bulk(each: Each<'_>, bytes: usize) {
    each(&[command("query", "SELECT * FROM customers", "table:public.customers")]);
    let rows = rows(4 << 20);
    let mut left = bytes;
    while left > 0 {
        for chunk in rows.chunks(64 << 10) {
            each(&[(Kind::Data, Direction::Down, Body::Data(chunk.to_vec()))]);
            left = left.saturating_sub(chunk.len());
        }
    }
    each(&[outcome("SELECT")]);
}

/// Commands typed at five keys a second into a shell, with what they really print here.
fn terminal(each: Each<'_>, minutes: u64) {
    const TYPED: [&str; 6] = [
        "ls -la /usr/bin | head -40",
        "ps aux | head -20",
        "df -h",
        "git log --stat | head -60",
        "grep -rn TODO /etc 2>/dev/null | head",
        "cat /etc/services | head -80",
    ];
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    for typed in TYPED.iter().cycle() {
        for key in typed.bytes().chain([b'\r']) {
            std::thread::sleep(Duration::from_millis(200));
            each(&[(Kind::Data, Direction::Up, Body::Data(vec![192, 0, 0, 0, 0, 0, 0, 0, 1]))]);
            each(&[(Kind::Data, Direction::Down, Body::Data(channel_data(&[key])))]);
            if Instant::now() > end {
                return;
            }
        }
        let output = Command::new("sh").args(["-c", typed]).output().unwrap().stdout;
        for part in output.chunks(8 << 10) {
            each(&[(Kind::Data, Direction::Down, Body::Data(channel_data(part)))]);
        }
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// `SSH_MSG_CHANNEL_DATA` of channel 0.
fn channel_data(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[94, 0, 0, 0, 0][..], &length, bytes].concat()
}

/// Sessions of 2 KB that passed: a few commands and their rows.
fn small(ways: &[Way]) {
    let rows = rows(1 << 20);
    let (mut seen, mut stored) = (0_u64, Vec::new());
    let mut all = Gzip::new();
    for way in ways {
        let ledger = way.ledger();
        seen = 0;
        let mut bytes = 0;
        for n in 0..SMALL_SESSIONS {
            let recording = way.open(Protocol::Postgres);
            for part in 0..4 {
                let text = format!("SELECT * FROM customers WHERE id = {}", n * 4 + part);
                append(&recording, &[command("query", &text, "table:public.customers")]);
                let at = (n * 4 + part) * 460 % (rows.len() - 460);
                let answer = rows[at..at + 460].to_vec();
                seen += (text.len() + answer.len()) as u64;
                let answer = (Kind::Data, Direction::Down, Body::Data(answer));
                append(&recording, &[answer, outcome("SELECT 4")]);
            }
            close(&recording);
            let path = way.path(&recording);
            bytes += path.metadata().unwrap().len();
            if way.name == "plain" {
                json_lines(&path, &mut all);
            }
        }
        stored.push(bytes + way.ledger() - ledger);
    }
    line("10,000 sessions of 2 KB", seen, &stored, Some(all.finish()), None);
}

/// Processor time for each MB that passed, writing and reading.
fn processor(way: &Way) {
    let rows = rows(4 << 20);
    let recording = way.open(Protocol::Postgres);
    let before = processor_time();
    for n in 0..GIBIBYTE / (64 << 10) {
        let at = n * (64 << 10) % rows.len();
        let chunk = &rows[at..(at + (64 << 10)).min(rows.len())];
        recording.append(|batch| batch.data(Direction::Down, Some(1), chunk)).unwrap();
    }
    close(&recording);
    let written = processor_time() - before;
    let path = way.path(&recording);
    let keyring =
        portcullis::recording::Keyring::of(portcullis::age::Identity::read_all(IDENTITY).unwrap());
    let before = processor_time();
    assert!(Reader::open_with(&path, &keyring).unwrap().all(|event| event.is_ok()));
    let read = processor_time() - before;
    let each = |time: Duration| time.as_micros() / (GIBIBYTE as u128 >> 20);
    fs::remove_file(path).unwrap();
    let before = processor_time();
    let recording = way.open(Protocol::Postgres);
    for n in 0..100_000u32 {
        let event = [command("query", &format!("SELECT {n}"), "table:public.t")];
        append(&recording, &event);
    }
    close(&recording);
    let small = processor_time() - before;
    println!(
        "{}: {} µs of processor a MiB written in bulk, {} µs read; {} ns an append of a command",
        way.name,
        each(written),
        each(read),
        small.as_nanos() / 100_000
    );
}

/// What this process used, user and system, in hundredths of a second.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// The events as `portcullis replay --json` prints them, gzip'd.
fn lines(path: &Path) -> u64 {
    let mut out = Gzip::new();
    json_lines(path, &mut out);
    out.finish()
}

fn json_lines(path: &Path, out: &mut Gzip) {
    for event in Reader::open(path).unwrap() {
        out.line(&event.unwrap().to_json());
    }
}

/// The terminal as asciinema stores it, gzip'd.
fn cast(path: &Path, protocol: Protocol) -> Option<u64> {
    if protocol != Protocol::Ssh {
        return None;
    }
    let mut out = Gzip::new();
    out.line(&json!({ "version": 2, "width": 80, "height": 24 }));
    for event in Reader::open(path).unwrap().map(Result::unwrap) {
        if event.direction == Direction::Down && event.payload.first() == Some(&94) {
            let text = String::from_utf8_lossy(&event.payload[9..]).into_owned();
            #[allow(clippy::cast_precision_loss, reason = "microseconds of an hour")]
            let at = event.monotonic_us as f64 / 1e6;
            out.line(&json!([at, "o", text]));
        }
    }
    Some(out.finish())
}

/// Lines of JSON on their way through gzip.
struct Gzip {
    out: tempfile::NamedTempFile,
    child: Child,
    input: BufWriter<ChildStdin>,
}

impl Gzip {
    fn new() -> Self {
        let out = tempfile::NamedTempFile::new().unwrap();
        let file = out.reopen().unwrap();
        let child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(file).spawn();
        let mut child = child.unwrap();
        let input = BufWriter::new(child.stdin.take().unwrap());
        Self { out, child, input }
    }

    fn line(&mut self, line: &Value) {
        serde_json::to_writer(&mut self.input, line).unwrap();
        self.input.write_all(b"\n").unwrap();
    }

    /// How many bytes it came to.
    fn finish(mut self) -> u64 {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
        self.out.as_file().metadata().unwrap().len()
    }
}

fn close(recording: &Recording) {
    recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();
}

fn opened(protocol: Protocol) -> Opened {
    Opened {
        session: SessionId::generate(),
        protocol,
        target: "orders".parse().unwrap(),
        database: Some("orders".to_owned()),
        client: "10.1.2.3:50412".to_owned(),
        identity: RecordedIdentity {
            issuer: "https://login.example.com/realms/agents".to_owned(),
            subject: "8f3c2b6e-0c5d-4a3e-9b6a-2f1d7c9e0a11".to_owned(),
            username: "crew-7".to_owned(),
            groups: vec!["support-agents".to_owned()],
        },
        workflow: None,
        run: None,
        client_parameters: BTreeMap::from([("application_name".to_owned(), "psql".to_owned())]),
        policy: "5d".repeat(32),
        gateway_version: "0.1.0".to_owned(),
    }
}

fn random(seed: u32) -> u32 {
    let hash = blake3::hash(&seed.to_le_bytes());
    u32::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())
}
