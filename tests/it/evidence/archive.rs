//! Sealed recordings in a bucket: they get there whole whatever fails, are read there, and go from
//! there. The bucket is one of moto's, behind a proxy that fails as it is told to.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::set;
use crate::support::client::{Client, Database, transcript, venv};
use crate::support::daemon::{PORTCULLIS, wait_until};
use crate::support::faults::{ERROR, FORBIDDEN, FULL, Fault, Proxy};
use crate::support::gateway::{Gateway, Setup, told};
use crate::support::http::{App, curl};
use crate::support::postgres::PostgresServer;
use crate::support::random::Random;
use crate::wire_replay::Replay as Serving;

/// A gateway whose recordings go to a bucket.
struct World {
    gateway: Gateway,
    proxy: Proxy,
    bucket: App,
    environment: Vec<(String, String)>,
}

impl World {
    fn new(recording: &str, policy: &str) -> Self {
        let bucket = App::run("s3.py", &[]);
        let proxy = Proxy::to(bucket.port);
        let environment: Vec<_> = [
            ("AWS_ENDPOINT_URL", format!("http://{}", proxy.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "canary-of-the-bucket".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let gateway = Gateway::start(&Setup {
            recording: format!("archive = \"s3://recordings/prod\"\n{recording}"),
            listen:
                "web = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n[web]\nadmins = [\"platform\"]"
                    .to_owned(),
            policy: policy.to_owned(),
            database: Some(format!("url = {:?}", PostgresServer::fresh_index())),
            environment: environment.clone(),
            ..Setup::for_targets([Database::fresh().target("orders")])
        });
        let world = Self { gateway, proxy, bucket, environment };
        wait_until("the database's tables", || world.ready()["state"] == "current");
        world
    }

    fn command(&self, arguments: &[&str]) -> Output {
        Command::new(PORTCULLIS)
            .args(arguments)
            .args(["--config", self.gateway.configuration().to_str().unwrap()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn select(&self, statement: &str) -> bool {
        run(&self.gateway.client("orders"), statement)
    }

    /// The names in the bucket, past the proxy.
    fn keys(&self) -> Vec<String> {
        let listed = curl(&[&format!(
            "http://127.0.0.1:{}/recordings?list-type=2&prefix=prod/",
            self.bucket.port
        )]);
        let text = listed.text();
        let keys = text.split("<Key>").skip(1);
        keys.map(|key| key.split("</Key>").next().unwrap().to_owned()).collect()
    }

    /// The sessions whose recordings are there.
    fn ids(&self) -> Vec<String> {
        let keys = self.keys().into_iter();
        keys.map(|key| Path::new(&key).file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    fn ready(&self) -> Value {
        curl(&[&format!("http://{}/readyz", self.gateway.web())]).json()
    }

    /// Waits until nothing is left here, and so many recordings are there.
    fn moved(&self, count: usize) {
        wait_until("recordings to move", || {
            self.gateway.recordings().is_empty() && self.keys().len() == count
        });
    }
}

fn run(client: &Client, statement: &str) -> bool {
    let mut psql = client.psql();
    psql.args(["-c", statement]).stdout(Stdio::null());
    transcript(psql).0
}

/// Of 11 MB when compressed: two parts of an upload.
const LARGE: &str = "select md5(n::text) || md5((n + 1)::text) from generate_series(1, 600000) n";

#[test]
fn sealed_recordings_move_to_the_bucket_are_read_there_and_deleted_there() {
    let world = World::new("", "[[retention]]\nkeep = \"30d\"\n");
    let gateway = &world.gateway;
    assert!(world.select("select 'small and archived'"));
    assert!(world.select(LARGE));
    world.moved(2);
    let ids = world.ids();
    wait_until("the index", || {
        let sessions = world.json(&["session", "list"]);
        sessions.as_array().unwrap().iter().filter(|s| s["closed_at"].is_string()).count() == 2
    });

    // Bytes by range, events, a replay and a proof come straight from there.
    let token = format!("Authorization: Bearer {}", gateway.issuer().token("admin"));
    let url = |of: &str| format!("http://{}/api/v1/sessions/{}/{of}", gateway.web(), ids[1]);
    let whole = curl(&["-H", &token, &url("recording")]);
    assert!(whole.status == 200 && whole.body.len() > 9 << 20, "{}", whole.body.len());
    let part = curl(&["-H", &token, "-r", "9000000-9000099", &url("recording")]);
    assert_eq!((part.status, &part.body[..]), (206, &whole.body[9_000_000..9_000_100]));
    let events = curl(&["-H", &token, &url("events?first=0&limit=3")]);
    assert_eq!(events.json()["items"][0]["kind"], "opened");
    assert!(world.done(&["replay", &ids[0]]).contains("small and archived"));
    assert!(world.done(&["recording", "verify", &ids[1]]).contains("the ledger has the same seal"));

    // The secret of the bucket is nowhere.
    assert!(!gateway.daemon().log().contains("canary-of-the-bucket"));

    assert!(gateway.stop().success());
    let audit = world.json(&["recording", "verify", "--all"]);
    assert_eq!(audit["proved"], serde_json::json!(["whole", "complete"]), "{audit}");
    assert_eq!(audit["whole"], 2);
    let indexed = world.json(&["recording", "reindex"]);
    assert_eq!((&indexed["recordings"], &indexed["removed"]), (&2.into(), &0.into()));

    // What is not there is missed; what is over goes from there, too.
    let mut world = world;
    world.gateway.restart();
    let text = std::fs::read_to_string(world.gateway.configuration()).unwrap();
    std::fs::write(world.gateway.configuration(), text.replace("\"30d\"", "\"1s\"")).unwrap();
    world.done(&["reload"]);
    wait_until("both to go", || {
        world.command(&["recording", "prune"]);
        world.keys().is_empty()
    });
    assert!(world.gateway.stop().success());
    let audit = world.json(&["recording", "verify", "--all"]);
    assert_eq!((&audit["deleted"], &audit["deleted_missing"]), (&2.into(), &0.into()), "{audit}");
}

#[test]
fn while_the_store_fails_recordings_wait_here_and_nothing_is_lost() {
    let world = World::new("", "");
    let mut count = 0;
    for fault in
        [Fault::Refuse, ERROR, FULL, FORBIDDEN, Fault::Cut(1500), Fault::Corrupt, Fault::Slow(200)]
    {
        world.proxy.fail(fault);
        for n in 0..3 {
            let values = "some more than seven hundred bytes in the recording ".repeat(20);
            assert!(world.select(&format!("select {n}, md5('{n}'), '{values}'")), "{fault:?}");
        }
        count += 3;
        if let Fault::Slow(_) = fault {
            // It gets there all the same.
            world.moved(count);
            continue;
        }
        wait_until("the archive to be told as unreachable", || {
            world.ready()["archive"]["state"] == "unreachable"
        });
        assert_eq!(world.gateway.recordings().len(), 3, "{fault:?}");
        assert_eq!(world.ready()["archive"]["recordings"], 3);
        world.proxy.fail(Fault::None);
        world.moved(count);
        wait_until("readiness", || world.ready()["archive"]["state"] == "current");
    }
    let metrics = format!("http://{}/metrics", world.gateway.daemon().address_of("metrics"));
    assert!(curl(&[&metrics]).text().contains("\nportcullis_archive_up 1"));
    assert!(world.gateway.stop().success());
    let audit = world.json(&["recording", "verify", "--all"]);
    assert_eq!((&audit["whole"], &audit["proved"][1]), (&count.into(), &"complete".into()));

    // Away, it proves nothing, and says so.
    world.proxy.fail(Fault::Refuse);
    let away = world.command(&["recording", "verify", "--all"]);
    assert_eq!(away.status.code(), Some(1), "{}", told(&away));
    let online = world.command(&["check", "--online"]);
    assert!(told(&online).contains("[recording] archive"), "{}", told(&online));
}

#[test]
fn a_store_that_stays_away_ends_in_refusals_and_not_in_losses() {
    let world = World::new("max_local = \"64 KiB\"", "");
    world.proxy.fail(Fault::Refuse);
    let mut held = 0;
    while world.select(&format!("select {held}")) {
        held += 1;
        assert!(held < 100, "max_local does not hold");
    }
    assert!(held > 0);
    wait_until("readiness to tell", || {
        world.ready()["archive"]["local_percent"].as_u64().is_some_and(|full| full > 80)
    });
    world.gateway.daemon().wait_for_log("the recordings near max_local");
    world.proxy.fail(Fault::None);
    wait_until("room", || world.gateway.recordings().is_empty());
    assert!(world.select("select 'as before'"));
}

/// One recording that cannot be read does not keep the others here.
#[test]
fn one_bad_recording_blocks_no_other() {
    let world = World::new("", "");
    world.proxy.fail(Fault::Refuse);
    for n in 0..3 {
        assert!(world.select(&format!("select {n}")));
    }
    wait_until("the journals to go", || world.gateway.journals().is_empty());
    let bad = world.gateway.recordings().remove(0);
    let aside = bad.with_extension("aside");
    std::fs::rename(&bad, &aside).unwrap();
    // No file can be read through a link that leads to itself.
    std::os::unix::fs::symlink(&bad, &bad).unwrap();
    world.proxy.fail(Fault::None);
    wait_until("the others to move", || world.keys().len() == 2);
    assert!(world.select("select 'later'"));
    wait_until("a later one to move", || world.keys().len() == 3);
    std::fs::rename(&aside, &bad).unwrap();
    world.moved(4);
}

/// A new recipient reads what was archived before, in every way; and nothing of it stays behind
/// when its time is over.
#[test]
fn an_archived_recording_is_wrapped_anew_read_by_the_new_recipient_and_leaves_nothing() {
    let world = World::new(
        &format!("recipients = [{:?}]", set::RECIPIENT),
        "[[retention]]\nkeep = \"30d\"\n",
    );
    let gateway = &world.gateway;
    assert!(world.select("select 'sealed and archived'"));
    world.moved(1);
    let id = world.ids().remove(0);
    let identity = |name: &str, secret: &str| {
        let file = gateway.configuration().with_file_name(name);
        std::fs::write(&file, secret).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (old, new) = (identity("old", set::IDENTITY), identity("new", set::OTHER_IDENTITY));
    let (replay, export) = (["replay", &id], ["recording", "export", &id, "--format", "jsonl"]);
    let with = |arguments: &[&str]| world.command(&[arguments, &["--identity", &new]].concat());
    for arguments in [&replay[..], &export] {
        let refused = with(arguments);
        assert!(told(&refused).contains("none of the identities given"), "{}", told(&refused));
    }

    let rewrap = ["recording", "rewrap", "--identity", &old, "--recipient", set::OTHER_RECIPIENT];
    assert!(world.done(&rewrap).contains("1 wrapped anew"));
    let wrapped = || {
        let files = gateway.stored_files().into_iter();
        files.filter(|path| path.to_string_lossy().ends_with(".age")).count()
    };
    assert_eq!((wrapped(), gateway.recordings().len()), (1, 0));
    for arguments in [&replay[..], &export] {
        let read = with(arguments);
        assert!(read.status.success(), "{}", told(&read));
    }
    assert!(told(&with(&replay)).contains("sealed and archived"));
    let decided = with(&["policy", "backtest"]);
    assert!(told(&decided).contains("1 commands of 1 sessions"), "{}", told(&decided));
    let configuration = gateway.configuration();
    let config = ["--config", configuration.to_str().unwrap(), "--identity", &new];
    let serving = Serving::of(&[&replay[..], &config].concat());
    let mut psql = serving.client().psql();
    let answered = psql.args(["-c", "select 'sealed and archived'"]).output().unwrap();
    assert!(told(&answered).contains("sealed and archived"), "{}", told(&answered));
    drop(serving);

    let text = std::fs::read_to_string(gateway.configuration()).unwrap();
    std::fs::write(gateway.configuration(), text.replace("\"30d\"", "\"1s\"")).unwrap();
    world.done(&["reload"]);
    wait_until("it to go", || {
        world.command(&["recording", "prune"]);
        world.keys().is_empty()
    });
    wait_until("its wrapped key to go", || wrapped() == 0);
    assert!(gateway.stop().success());
    let audit = world.json(&["recording", "verify", "--all"]);
    assert_eq!((&audit["deleted"], &audit["deleted_missing"]), (&1.into(), &0.into()), "{audit}");
}

/// Killed under failures, round after round: `PORTCULLIS_ARCHIVE_KILLS` says how many.
#[test]
fn whenever_the_gateway_is_killed_no_recording_is_lost_on_its_way() {
    let rounds = std::env::var("PORTCULLIS_ARCHIVE_KILLS").map_or(4, |text| text.parse().unwrap());
    let mut world = World::new("", "");
    let mut random = Random::seeded();
    let faults = [
        Fault::None,
        Fault::None,
        Fault::Refuse,
        ERROR,
        Fault::Cut(3000),
        Fault::Slow(5),
        Fault::Corrupt,
    ];
    let mut done = 0;
    for round in 0..rounds {
        for n in 0..3 {
            world.proxy.fail(faults[random.below(faults.len())]);
            let large = round % 10 == 0 && n == 0;
            let statement = if large { LARGE.to_owned() } else { format!("select {round}, {n}") };
            assert!(world.select(&statement));
            done += 1;
        }
        // At another moment of the uploads each time, if there is still one to come.
        let further = world.proxy.bytes() + random.below(8_000);
        wait_until("the uploads to get there", || {
            world.proxy.bytes() >= further || world.gateway.recordings().is_empty()
        });
        world.gateway.daemon().kill9();
        world.gateway.restart();
    }
    world.proxy.fail(Fault::None);
    world.moved(done);
    assert!(world.gateway.stop().success());
    let audit = world.json(&["recording", "verify", "--all"]);
    assert_eq!(audit["whole"], done, "{audit}");
    assert_eq!(audit["proved"], serde_json::json!(["whole", "complete"]), "{audit}");
    println!("{rounds} kills, {done} recordings, none lost");
}

#[test]
fn a_folder_is_an_archive_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("archive");
    let gateway = Gateway::start(&Setup {
        recording: format!("archive = \"file://{}\"", place.display()),
        ..Setup::for_targets([Database::fresh().target("orders")])
    });
    assert!(run(&gateway.client("orders"), "select 'in a folder'"));
    wait_until("the recording to move", || gateway.recordings().is_empty());
    assert!(gateway.stop().success());
    // The second verifier, too, proves what is there, against the ledger here.
    let second = |more: &[&str]| {
        Command::new(venv().join("bin/python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/verify_recordings.py"))
            .arg(gateway.data_dir())
            .args(more)
            .output()
            .unwrap()
    };
    let whole = second(&["--archive", place.to_str().unwrap()]);
    assert!(whole.status.success(), "{}", told(&whole));
    let said: Value = serde_json::from_slice(&whole.stdout).unwrap();
    assert_eq!((&said["recordings"], &said["proved"][1]), (&1.into(), &"complete".into()));
    assert_eq!(second(&[]).status.code(), Some(1), "without the archive it is missing");
}
