//! What an operator trips over.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::disk_full::SmallDisk;
use crate::support::certificates::{Authority, Issued};
use crate::support::client::{Database, transcript};
use crate::support::daemon::{PORTCULLIS, wait_until};
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::http::sessions;
use crate::support::postgres::PostgresServer;
use crate::support::ssh::{Site, Sshd, keygen};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One of the gateway's commands, with its configuration.
fn command(gateway: &Gateway, arguments: &[&str]) -> Output {
    let config = gateway.configuration();
    portcullis(&[arguments, &["--config", text(&config)]].concat())
}

fn select(gateway: &Gateway, statement: &str) -> (bool, String) {
    let mut psql = gateway.client("orders").psql();
    psql.args(["-Atc", statement]);
    transcript(psql)
}

#[test]
fn o04_silent_connections_make_way_on_every_listener() {
    let site = Site::set_up(
        &Sshd::shared().target("web-1", ""),
        Setup::for_targets([Database::fresh().target("orders")]),
    );
    let gateway = &site.gateway;
    site.key();
    for address in [gateway.address(), gateway.daemon().address_of("ssh"), gateway.web()] {
        let silent: Vec<_> = (0..2_200).map(|_| TcpStream::connect(address).unwrap()).collect();
        // Some of them would have to reach their deadline of 30 seconds first.
        let begun = Instant::now();
        assert_eq!(select(gateway, "select 'in'"), (true, "in\n".to_owned()));
        assert_eq!(site.stdout("echo in"), "in\n");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        drop(silent);
    }
    site.finish();
}

/// The certificate that a listener shows.
fn shown(address: SocketAddr, postgres: bool) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &address.to_string()]).stdin(Stdio::null());
    if postgres {
        openssl.args(["-starttls", "postgres"]);
    }
    let said = String::from_utf8_lossy(&openssl.output().unwrap().stdout).into_owned();
    let begin = said.find("-----BEGIN").unwrap_or_else(|| panic!("{address}: {said}"));
    let end = said.find("-----END CERTIFICATE").unwrap();
    said[begin..end].split_whitespace().collect()
}

#[test]
fn o01_renewed_files_are_served_after_a_reload_or_the_answer_says_so() {
    let authority = Authority::new();
    let issued = || authority.issue(&["localhost"]);
    let pem = |issued: &Issued| {
        let pem = issued.certificate.pem();
        let end = pem.find("-----END").unwrap();
        pem[..end].split_whitespace().collect::<String>()
    };
    let (first, second, third) = (issued(), issued(), issued());
    let before = pem(&first);
    let gateway = Gateway::start(&Setup {
        tls: Some(first),
        listen: "http = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"\nssh = \"127.0.0.1:0\"".to_owned(),
        ..Setup::for_targets([Database::fresh().target("orders")])
    });
    let folder = gateway.configuration().parent().unwrap().to_owned();
    let listeners = || {
        [
            shown(gateway.address(), true),
            shown(gateway.daemon().address_of("http"), false),
            shown(gateway.web(), false),
        ]
    };
    assert_eq!(listeners(), [&*before; 3]);
    // Files that do not fit are refused, and nothing changes.
    fs::write(folder.join("tls.crt"), second.certificate.pem()).unwrap();
    let refused = command(&gateway, &["reload"]);
    assert!(!refused.status.success(), "{}", told(&refused));
    assert!(told(&refused).contains("do not fit together"), "{}", told(&refused));
    assert_eq!(listeners(), [&*before; 3]);
    fs::write(folder.join("tls.key"), second.key.serialize_pem()).unwrap();
    let reloaded = command(&gateway, &["reload"]);
    assert!(told(&reloaded).contains("is in force"), "{}", told(&reloaded));
    assert!(!told(&reloaded).contains("restart"), "{}", told(&reloaded));
    assert_eq!(listeners(), [&*pem(&second); 3]);
    // By SIGHUP, under another name.
    fs::write(folder.join("other.crt"), third.certificate.pem()).unwrap();
    fs::write(folder.join("other.key"), third.key.serialize_pem()).unwrap();
    let reloaded = gateway.reload(|config| config.replace("/tls.", "/other."));
    assert!(!told(&reloaded).contains("restart"), "{}", told(&reloaded));
    assert_eq!(listeners(), [&*pem(&third); 3]);
    // What is not served anew is said to wait for a restart.
    let host_key = gateway.data_dir().join("ssh_host_ed25519");
    fs::remove_file(&host_key).unwrap();
    keygen(&["-t", "ed25519", "-N", "", "-f", text(&host_key)]);
    let reloaded = told(&command(&gateway, &["reload"]));
    assert!(reloaded.contains("[ssh] host_key") && reloaded.contains("restart"), "{reloaded}");
    assert!(!reloaded.contains("user_ca"), "{reloaded}");
}

#[test]
fn o02_a_shorter_retention_waits_for_a_day_and_is_counted_before() {
    let setup = |retention: &str| Setup {
        policy: retention.to_owned(),
        database: Some(format!("url = {:?}", PostgresServer::fresh_index())),
        listen: "web = \"127.0.0.1:0\"".to_owned(),
        ..Setup::for_targets([Database::fresh().target("orders")])
    };
    let second = "[[retention]]\nkeep = \"1s\"\n";
    // Shortened from thirty days, and from for ever.
    for before in ["[[retention]]\nkeep = \"30d\"\n", ""] {
        let mut gateway = Gateway::start(&setup(before));
        for n in 0..3 {
            assert!(select(&gateway, &format!("select {n}")).0);
        }
        let closed = || {
            let ended = |session: &serde_json::Value| session["closed_at"].is_string();
            sessions(&gateway, 3).iter().all(ended)
        };
        wait_until("their ends", closed);
        wait_until("what is in force to be noted", || {
            gateway.data_dir().join("retention").exists()
        });
        let counted = |gateway: &Gateway| told(&command(gateway, &["check", "--online"]));
        assert!(!counted(&gateway).contains("are over by"), "{}", counted(&gateway));
        let file = gateway.configuration();
        let config = fs::read_to_string(&file).unwrap();
        let shorter = match before {
            "" => format!("{config}\n{second}"),
            _ => config.replace(before, second),
        };
        fs::write(&file, shorter).unwrap();
        wait_until("three to be over", || counted(&gateway).contains("3 recordings are over by"));
        assert!(gateway.stop().success());
        gateway.restart();
        gateway.daemon().wait_for_log("was shortened");
        let dry = || told(&command(&gateway, &["recording", "prune", "--dry-run", "--json"]));
        wait_until("the database", || dry().contains("\"due\": 3"));
        assert_eq!(gateway.recordings().len(), 3, "they are gone before the day is over");
        // A restart does not make it shorter, and who asks need not wait.
        assert!(gateway.stop().success());
        gateway.restart();
        let pruned = || told(&command(&gateway, &["recording", "prune", "--json"]));
        wait_until("them to go", || pruned().contains("\"deleted\": 3"));
        assert_eq!(gateway.recordings().len(), 0);
    }
}

#[test]
fn o09_what_filled_the_disk_is_sealed_and_moved_also_after_a_restart() {
    for restart in [false, true] {
        let Some(disk) = SmallDisk::mount() else { return };
        let archive = tempfile::tempdir().unwrap();
        let mut gateway = Gateway::start(&Setup {
            data_dir: Some(disk.path().join("data")),
            recording: format!("archive = \"file://{}\"", archive.path().display()),
            ..Setup::for_targets([Database::fresh().target("orders")])
        });
        assert!(select(&gateway, "select 'before'").0);
        // The recording itself fills what is left.
        let hashes = "select md5(g::text) || md5((-g)::text) from generate_series(1, 10000000) g";
        let mut psql = gateway.client("orders").psql();
        psql.args(["-c", &format!("copy ({hashes}) to stdout")]).stdout(Stdio::null());
        assert!(
            !psql.stderr(Stdio::null()).status().unwrap().success(),
            "it did not fill the disk"
        );
        if restart {
            gateway.daemon().kill9();
            gateway.restart();
        }
        // Nobody makes room: it is sealed, moves to the archive, and that makes it.
        wait_until("service to resume by itself", || select(&gateway, "select 'after'").0);
        wait_until("what filled the disk to be sealed", || gateway.journals().is_empty());
        assert!(gateway.stop().success());
        let checked = command(&gateway, &["recording", "verify", "--all"]);
        assert!(checked.status.success(), "{}", told(&checked));
    }
}

#[test]
fn o10_files_that_others_planted_or_may_change_are_refused_or_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = |path: &Path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        recording: format!("archive = \"file://{}\"", folder.path().display()),
        ..Setup::for_targets([database.target("orders")])
    });
    assert!(select(&gateway, "select 1").0);
    wait_until("the recording to move", || gateway.recordings().is_empty());
    assert!(gateway.stop().success());
    // A pipe in an archive, as a ledger, as a journal and as a key wrapped anew.
    let moved = moved(folder.path()).pop().unwrap();
    let kept = fs::read(&moved).unwrap();
    fs::remove_file(&moved).unwrap();
    fifo(&moved);
    let within = |arguments: &[&str]| {
        let config = gateway.configuration();
        let mut command = Command::new("timeout");
        command.args(["20", PORTCULLIS]).args(arguments).args(["--config", text(&config)]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_ne!(output.status.code(), Some(124), "{arguments:?} hangs");
        output
    };
    let said = within(&["recording", "verify", "--all"]);
    assert!(told(&said).contains("not a regular file"), "{}", told(&said));
    fs::remove_file(&moved).unwrap();
    fs::write(&moved, kept).unwrap();
    assert!(within(&["recording", "verify", "--all"]).status.success());
    let pipe = folder.path().join("pipe");
    fifo(&pipe);
    assert!(
        !within(&["recording", "verify", text(&moved), "--ledger", text(&pipe)]).status.success()
    );
    // A pipe as include, as secret, as certificate and as public key.
    let file = gateway.configuration();
    let config = fs::read_to_string(&file).unwrap();
    let with = |line: &str| format!("{line}\n{config}");
    for changed in [
        with(&format!("include = [{:?}]", pipe)),
        config.replace("orders.password", "pipe"),
        format!("{config}\n[tls]\ncertificate = {pipe:?}\nprivate_key = {pipe:?}\n"),
    ] {
        let _gone = fs::remove_file(file.with_file_name("pipe"));
        fifo(&file.with_file_name("pipe"));
        fs::write(&file, changed).unwrap();
        let said = within(&["check", "--online"]);
        assert!(!said.status.success() && told(&said).contains("regular file"), "{}", told(&said));
    }
    assert!(
        !within(&["recording", "verify", text(&moved), "--public-key", text(&pipe)])
            .status
            .success()
    );
    fs::write(&file, &config).unwrap();
    // Modes and owners.
    let chmod = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let key = gateway.data_dir().join("seal_ed25519");
    chmod(&key, 0o644);
    chmod(&file, 0o666);
    let said = told(&within(&["check"]));
    assert!(said.contains("signing_key") && said.contains("everybody may read it"), "{said}");
    assert!(said.contains("the configuration") && said.contains("others may write it"), "{said}");
    assert!(said.contains("credential of target orders"), "{said}");
    chmod(&key, 0o600);
    chmod(&file, 0o600);
    chmod(&file.with_file_name("orders.password"), 0o600);
    let said = told(&within(&["check"]));
    assert!(!said.contains("everybody") && !said.contains("others may"), "{said}");
    chmod(gateway.data_dir(), 0o777);
    let said = within(&["serve"]);
    assert_eq!(said.status.code(), Some(1), "{}", told(&said));
    assert!(told(&said).contains("everybody may write there"), "{}", told(&said));
    chmod(gateway.data_dir(), 0o700);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&key, Some(12345), None).unwrap();
        let said = told(&within(&["check"]));
        assert!(said.contains("belongs to another user (uid 12345)"), "{said}");
    }
}

fn moved(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(moved(&path));
        } else if path.extension().is_some_and(|ending| ending == "rec") {
            found.push(path);
        }
    }
    found
}

#[test]
fn o11_a_credentials_command_sees_and_says_little() {
    let database = Database::fresh();
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let script = format!("env > {}; echo 'canary-on-stderr' >&2; exit 3", seen.display());
    let secret = |more: &str| format!("{{ command = [\"sh\", \"-c\", {script:?}]{more} }}");
    let gateway = Gateway::start(&Setup {
        environment: [("GATEWAYS_SECRET", "canary-of-the-gateway"), ("VAULT_ADDR", "http://vault")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Setup::for_targets([database.target("orders")])
    });
    let with = |secret: &str| {
        let reloaded = gateway.reload(|config| {
            let from = config.find("password = {").unwrap() + "password = ".len();
            let to = from + config[from..].find("} }").unwrap() + 1;
            format!("{}{secret}{}", &config[..from], &config[to..])
        });
        assert!(reloaded.status.success(), "{}", told(&reloaded));
        let (ok, said) = select(&gateway, "select 1");
        assert!(!ok && !said.contains("canary"), "{said}");
        fs::read_to_string(&seen).unwrap()
    };
    let environment = with(&secret(""));
    assert!(environment.contains("PATH="), "{environment}");
    assert!(
        !environment.contains("canary") && !environment.contains("VAULT_ADDR"),
        "{environment}"
    );
    let environment = with(&secret(", pass_env = [\"VAULT_ADDR\", \"NOT_SET\"]"));
    assert!(environment.contains("VAULT_ADDR=http://vault"), "{environment}");
    assert!(!environment.contains("canary"), "{environment}");
    let log = gateway.daemon().wait_for_log("exit status: 3");
    assert!(!gateway.daemon().log().contains("canary-on-stderr"), "{log}");
    let checked = told(&command(&gateway, &["check", "--online"]));
    assert!(!checked.contains("canary-on-stderr"), "{checked}");
}

#[test]
fn o07_the_c_library_that_a_binary_needs_is_said_and_an_older_one_can_be_had() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(root.join("docs/deployment.md")).unwrap();
    let needed = Command::new("objdump").args(["-T", PORTCULLIS]).output();
    let Ok(needed) = needed else {
        return eprintln!("LEFT OUT: what a binary needs is read with objdump of binutils");
    };
    let symbols = String::from_utf8_lossy(&needed.stdout).into_owned();
    let versions = symbols
        .split("GLIBC_2.")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
    let newest = versions.max().expect("a version of glibc");
    // Where it is built on another system it needs another.
    if fs::read_to_string("/etc/debian_version").is_ok_and(|of| of.starts_with("12.")) {
        assert!(docs.contains(&format!("needs glibc 2.{newest}")), "it needs 2.{newest}");
    }
    let script = root.join("scripts/release");
    assert!(
        docs.contains("`scripts/release`")
            && script.metadata().unwrap().permissions().mode() & 0o100 != 0
    );
}
