//! Whatever happens to the gateway or its disk, no request reached the target that is not recorded,
//! and no byte of a body.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use portcullis::decode::http::head::Head;
use portcullis::recording::{Direction, Kind, Reader};

use crate::disk_full::SmallDisk;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{Caller, Nginx, folder, setup};
use crate::support::random::{self, Random, amount};
use crate::support::sink::Sink;

/// Bytes of the body of each request that a recording holds, by method and path.
fn recorded(recording: &Path) -> BTreeMap<String, usize> {
    let mut up = BTreeMap::<u64, Vec<u8>>::new();
    for event in Reader::open(recording).unwrap() {
        let event = event.unwrap();
        if event.kind == Kind::Data && event.direction == Direction::Up {
            up.entry(event.of.unwrap()).or_default().extend_from_slice(&event.payload);
        }
    }
    let body = |bytes: &Vec<u8>| {
        let head = Head::parse(bytes).unwrap();
        let (method, path) = head.request().unwrap();
        (format!("{method} {path}").to_lowercase(), bytes.len() - head.length)
    };
    up.values().map(body).collect()
}

fn all_recorded(gateway: &Gateway) -> BTreeMap<String, usize> {
    gateway.recordings().iter().flat_map(|recording| recorded(recording)).collect()
}

#[track_caller]
fn holds_all(recorded: &BTreeMap<String, usize>, received: &BTreeMap<String, usize>) {
    for (request, length) in received {
        let known = recorded.get(request);
        let fine = known.is_some_and(|known| known >= length);
        assert!(fine, "{request} with {length} bytes reached the target, recorded: {known:?}");
    }
}

/// Clients that ask until their connections end: many small requests over HTTP/1.1 and HTTP/2,
/// documents, uploads.
fn load(caller: &Caller, round: usize, upload: &str) -> Vec<Child> {
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let ways: [&[&str]; 5] = [
        &[],
        &["--http2-prior-knowledge", "-Z", "--parallel-max", "8"],
        &["--json", r#"{"amount": 5}"#],
        &["-H", "Content-Type: text/plain", "-T", upload],
        &["--http2-prior-knowledge", "-H", "Content-Type: text/plain", "-T", upload],
    ];
    let client = |(number, way): (usize, &&[&str])| {
        let url = caller.url(&format!("/sink/{round}-{number}-[1-100000]"));
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-H", &bearer]).args(*way).arg(url);
        curl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    ways.iter().enumerate().map(client).collect()
}

fn killed_under_load(recording: &str) {
    let sink = Sink::start();
    let setup = Setup { recording: recording.to_owned(), ..setup(&sink.target("sink")) };
    let mut gateway = Gateway::start(&setup);
    let (_keep, folder) = folder();
    let upload = folder.join("upload");
    fs::write(&upload, random::bytes(3 << 20)).unwrap();
    let mut random = Random::seeded();
    let (mut total, mut seen) = (0, Vec::new());
    let rounds = amount("PORTCULLIS_KILL_ROUNDS", 12);
    for round in 0..rounds {
        let mut clients = load(&Caller::of(&gateway), round, upload.to_str().unwrap());
        let enough = random.below(200) + 20;
        wait_until("requests at the target", || sink.count() > enough);
        // So that the kill falls anywhere in a request's life.
        thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        gateway.daemon().kill9();
        for client in &mut clients {
            let _failed = client.kill();
            let _failed = client.wait();
        }
        let received = sink.take();
        gateway.restart();
        let new: Vec<_> =
            gateway.recordings().into_iter().filter(|path| !seen.contains(path)).collect();
        holds_all(&new.iter().flat_map(|path| recorded(path)).collect(), &received);
        seen.extend(new);
        total += received.len();
    }
    println!("{total} requests in {rounds} rounds");
    assert!(total > rounds * 20, "there was hardly any load: {total}");
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn whenever_the_gateway_is_killed_every_byte_that_the_target_received_is_recorded() {
    killed_under_load("");
}

#[test]
fn the_same_holds_when_recordings_wait_for_the_disk() {
    killed_under_load("durability = \"disk\"");
}

#[test]
fn on_a_full_disk_no_request_runs_unrecorded_and_service_resumes_with_space() {
    let Some(disk) = SmallDisk::mount() else { return };
    let sink = Sink::start();
    let data_dir = Some(disk.path().join("data"));
    let gateway = Gateway::start(&Setup { data_dir, ..setup(&sink.target("sink")) });
    let caller = Caller::of(&gateway);
    assert_eq!(caller.get("/sink/before").status, 200);
    let ballast = disk.fill();
    // What is left of a page may still take a request, but not all of these.
    let padding = "x".repeat(4096);
    let mut told = Vec::new();
    for number in 0..60 {
        let body = ["-H", "Content-Type: text/plain", "--data-binary", &padding];
        told.push(caller.curl(&format!("/sink/full-{number}"), &body));
    }
    let last = told.last().unwrap();
    assert_eq!(last.status, 503, "sixty requests ran on a full disk: {last:?}");
    assert!(last.text().contains("record"), "the client is told why: {last:?}");
    // A body that is under way when the disk is full goes no further than its recording.
    let (_keep, folder) = folder();
    let upload = folder.join("upload");
    fs::write(&upload, random::bytes(4 << 20)).unwrap();
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let sent = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer, "-T"])
        .args([upload.to_str().unwrap(), &caller.url("/sink/upload")])
        .output()
        .unwrap();
    assert_ne!(String::from_utf8_lossy(&sent.stdout), "200", "an upload ran on a full disk");
    assert!(gateway.daemon().is_alive());

    fs::remove_file(ballast).unwrap();
    wait_until("service to resume", || caller.get("/sink/after").status == 200);
    assert!(gateway.stop().success());
    gateway.verify_all();
    let received = sink.take();
    let refused = told.iter().filter(|told| told.status == 503).count();
    assert!(received.len() <= told.len() - refused + 3, "a refused request ran: {received:?}");
    holds_all(&all_recorded(&gateway), &received);
}

#[test]
fn an_answer_that_fills_the_disk_ends_its_session_alone() {
    let Some(disk) = SmallDisk::mount() else { return };
    let nginx = Nginx::start();
    nginx.write("large", &random::bytes(32 << 20));
    let data_dir = Some(disk.path().join("data"));
    let gateway = Gateway::start(&Setup { data_dir, ..setup(&nginx.target("files")) });
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![b'x'; 2 << 20]).unwrap();
    let caller = Caller::of(&gateway);
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let got = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{size_download}", "-H", &bearer])
        .arg(caller.url("/files/files/large"))
        .output()
        .unwrap();
    let length: usize = String::from_utf8_lossy(&got.stdout).parse().unwrap();
    assert!(!got.status.success() && length < 32 << 20, "it did not fill the disk: {length}");
    assert!(gateway.daemon().is_alive());
    gateway.daemon().wait_for_log("session ended");
    let ended = gateway.daemon().log();
    assert!(ended.contains("\"how\":\"recording\""), "{ended}");

    fs::remove_file(ballast).unwrap();
    wait_until("service to resume", || caller.get("/files/x").status == 200);
    assert!(gateway.stop().success());
    gateway.verify_all();
}
