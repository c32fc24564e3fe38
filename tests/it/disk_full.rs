//! What happens when the disk of the recordings is full. Needs root, to mount a small filesystem;
//! says so and does nothing otherwise.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::kills::numbers;
use crate::support::client::{Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, told};
use crate::support::postgres::PostgresServer;
use crate::support::random::Random;
use crate::support::ssh::{Site, Sshd};

/// A filesystem of a few megabytes in memory.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    pub fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "portcullis-test"]).arg(folder.path());
        let (mounted, said) = transcript(mount);
        if !mounted {
            eprintln!("LEFT OUT: a full disk needs a small one, and mount says: {said}");
            return None;
        }
        Some(Self { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills what is left, and returns the file that takes it.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status().unwrap();
        assert!(unmounted.success());
    }
}

#[test]
fn on_a_full_disk_sessions_end_nothing_runs_unrecorded_and_service_resumes_with_space() {
    let Some(disk) = SmallDisk::mount() else { return };
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        data_dir: Some(disk.path().join("data")),
        ..Setup::for_targets([database.target("orders")])
    });
    let client = gateway.client("orders");
    let server = &PostgresServer::shared().server;
    let run = |statements: &[&str]| {
        let mut psql = client.psql();
        psql.args(statements.iter().flat_map(|statement| ["-c", statement]));
        transcript(psql)
    };
    assert_eq!(run(&["select 'before'"]), (true, "before\n".to_owned()));

    // A session that is open while the disk runs full. What is left of a page may still take a
    // statement, but not all of these.
    let mut psql = client.psql();
    psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut open = psql.spawn().unwrap();
    let mut stdin = open.stdin.take().unwrap();
    writeln!(stdin, "select 'disk_full_open';").unwrap();
    server.wait_for_log("disk_full_open");
    let ballast = disk.fill();
    for number in 0..100 {
        let padding = "x".repeat(4096);
        // psql ends when its session does.
        let _gone = writeln!(stdin, "select {}, '{padding}';", 790_000_000_000_000_u64 + number);
    }
    drop(stdin);
    let output = open.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "a hundred statements ran on a full disk");
    assert!(complaint.contains("record"), "the client is told why: {complaint}");

    // No new one opens, and the gateway lives on.
    let (succeeded, said) = run(&["select 'disk_full_' || repeat('forbidden', 2)"]);
    assert!(!succeeded && said.contains("record"), "{said}");
    assert!(gateway.daemon().is_alive());
    assert!(!server.log_text().contains("forbidden"), "a statement ran unrecorded");

    fs::remove_file(ballast).unwrap();
    wait_until("service to resume", || run(&["select 'after'"]) == (true, "after\n".to_owned()));
    assert!(gateway.stop().success());
    gateway.verify_all();
    let ours = |number: &u64| *number >= 790_000_000_000_000;
    let received: BTreeSet<_> =
        numbers(server.log_text().as_bytes()).into_iter().filter(ours).collect();
    let recorded = numbers(&gateway.all_contents());
    assert!(received.is_subset(&recorded), "{received:?} ran, recorded are {recorded:?}");
}

#[test]
fn a_result_that_fills_the_disk_ends_its_session_alone() {
    let Some(disk) = SmallDisk::mount() else { return };
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        data_dir: Some(disk.path().join("data")),
        ..Setup::for_targets([database.target("orders")])
    });
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![b'x'; 2 << 20]).unwrap();
    let mut psql = gateway.client("orders").psql();
    // Hashes hardly compress.
    let filling = "select md5(g::text) || md5((-g)::text) from generate_series(1, 10000000) g";
    psql.args(["-c", &format!("copy ({filling}) to stdout")]).stdout(Stdio::null());
    let output = psql.stderr(Stdio::piped()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it did not fill the disk");
    assert!(complaint.contains("record"), "the client is told why: {complaint}");
    assert!(gateway.daemon().is_alive());

    fs::remove_file(ballast).unwrap();
    let client = gateway.client("orders");
    wait_until("service to resume", || {
        let mut psql = client.psql();
        psql.args(["-c", "select 'after'"]);
        transcript(psql) == (true, "after\n".to_owned())
    });
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn on_a_full_disk_no_command_over_ssh_runs_unrecorded() {
    let Some(disk) = SmallDisk::mount() else { return };
    let sshd = Sshd::start();
    let data_dir = Some(disk.path().join("data"));
    let site = Site::set_up(&sshd.target("web-1", ""), Setup { data_dir, ..Setup::default() });
    assert_eq!(site.stdout("echo before"), "before\n");
    let marks = site.path("marks").display().to_string();
    let ran = || numbers(&fs::read(&marks).unwrap_or_default());

    // A shell that is open while the disk runs full.
    let mut ssh = site.ssh();
    ssh.arg("sh").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut open = ssh.spawn().unwrap();
    let mut stdin = open.stdin.take().unwrap();
    let first = 790_000_000_000_000_u64;
    writeln!(stdin, "echo {first} >> {marks}").unwrap();
    wait_until("the shell to run", || ran().contains(&first));
    let ballast = disk.fill();
    let mut random = Random::seeded();
    for number in 1..400 {
        // What a recording would take is more than what is free again in its journal.
        let padding: String = (0..256).map(|_| format!("{:016x}", random.next())).collect();
        // ssh ends when its session does.
        let _gone = writeln!(stdin, "echo {} >> {marks} # {padding}", first + number);
    }
    drop(stdin);
    let output = open.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "all lines ran on a full disk");
    assert!(complaint.contains("record"), "the client is told why: {complaint}");

    // No new one opens, and the gateway lives on.
    let refused = site.run(&format!("echo 791000000000000 >> {marks}"));
    assert!(!refused.status.success() && told(&refused).contains("record"), "{}", told(&refused));
    assert!(site.gateway.daemon().is_alive());

    fs::remove_file(ballast).unwrap();
    wait_until("service to resume", || site.run("echo after").stdout == b"after\n");
    site.finish();
    let recorded = numbers(&site.gateway.all_contents());
    assert!(ran().is_subset(&recorded), "{:?} ran, recorded are {recorded:?}", ran());
    assert!(!ran().contains(&791_000_000_000_000), "a command ran unrecorded");
}
