//! `portcullis quickstart`, as somebody who has never seen it uses it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::exchange;
use crate::pages::Browser;
use crate::support::daemon::{Daemon, PORTCULLIS, wait_until};
use crate::support::gateway::told;

/// A quickstart in a folder of its own. Servers that it leaves are killed when this is dropped.
pub struct Quickstart {
    daemon: Option<Daemon>,
    /// The server's user may pass it, as it may pass /var/lib.
    parent: TempDir,
}

impl Quickstart {
    pub fn start() -> Self {
        let parent = TempDir::with_prefix("portcullis-quickstart-").unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut quickstart = Self { daemon: None, parent };
        quickstart.restart();
        quickstart
    }

    fn restart(&mut self) {
        let folder = self.folder();
        let (folder, any) = (folder.to_str().unwrap(), "127.0.0.1:0");
        let listeners = ["--postgres", any, "--web", any, "--ssh", any, "--http", any];
        let arguments = [&["quickstart"], &listeners[..], &["--data-dir", folder]].concat();
        let daemon = Daemon::start(&arguments);
        daemon.wait_for_log("Ctrl-C stops everything");
        self.daemon = Some(daemon);
    }

    pub fn folder(&self) -> PathBuf {
        self.parent.path().join("a folder")
    }

    pub fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder().join("quickstart.json")).unwrap()).unwrap()
    }

    /// Runs the line that it printed, with these words behind it, in a shell.
    fn paste(&self, printed: &str, more: &[&str]) -> Output {
        let log = self.daemon.as_ref().unwrap().log();
        let line = log.lines().find(|line| line.contains(printed)).unwrap().trim();
        let script = format!("{line} \"$@\"");
        Command::new("sh").args(["-c", &script, "sh"]).args(more).output().unwrap()
    }

    /// What `portcullis approval` says in a shell that has the printed line.
    fn as_approver(&self, arguments: &[&str]) -> String {
        let log = self.daemon.as_ref().unwrap().log();
        let export = log.lines().find(|line| line.contains("export PORTCULLIS_SERVER")).unwrap();
        let script = format!("{}\n\"$0\" approval \"$@\"", export.trim());
        let output =
            Command::new("sh").args(["-c", &script, PORTCULLIS]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The id of a request that waits, once there is one.
    fn first_request(&self) -> String {
        let mut id = String::new();
        wait_until("a request", || {
            let listed = self.as_approver(&["list"]);
            id = listed.split('\t').next().unwrap().to_owned();
            listed.contains('\t')
        });
        id
    }

    fn psql(&self, statement: &str) -> Output {
        self.paste("PGPASSFILE=", &["-XAtc", statement])
    }

    fn rows(&self, statement: &str) -> String {
        let output = self.psql(statement);
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        drop(self.daemon.take());
        for pid in processes_in(self.parent.path()) {
            // It may have ended by itself.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every process that works in a folder.
fn processes_in(folder: &Path) -> Vec<Pid> {
    let works_there = |process: &fs::DirEntry| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|place| place.starts_with(folder))
    };
    let number =
        |process: fs::DirEntry| process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
    fs::read_dir("/proc").unwrap().flatten().filter(works_there).filter_map(number).collect()
}

#[test]
fn a_stranger_has_rows_and_a_proved_recording_from_pasted_lines() {
    let quickstart = Quickstart::start();
    assert_eq!(quickstart.rows("select count(*) from customers"), "2000");
    assert_eq!(quickstart.rows("select count(*) from orders"), "6000");
    let hidden = quickstart.rows("select email, card_number, ssn from customers");
    let is_masked = |row: &str| row.contains("***@") && row.ends_with("|[masked]|[masked]");
    assert!(hidden.lines().count() == 2000 && hidden.lines().all(is_masked), "{hidden}");
    let open = quickstart.rows("select count(*) from open_orders where customer like 'Ada %'");
    assert!(open.parse::<u32>().unwrap() > 0);
    assert_eq!(quickstart.rows("select spent(7) > 0, current_user"), "t|shop_agent");
    let refused = told(&quickstart.psql("alter table orders add more int"));
    assert!(refused.contains("must be owner"), "{refused}");
    let refused = "insert into customers (id, name, email) values (9999, 'x', 'y')";
    let refused = told(&quickstart.psql(refused));
    assert!(refused.contains("cannot insert into column \"email\" of view"), "{refused}");
    let refused = told(&quickstart.psql("drop table orders"));
    assert!(refused.contains("for a migration"), "{refused}");

    let replayed = quickstart.paste(" replay ", &[]);
    assert!(told(&replayed).contains("drop table orders"), "{}", told(&replayed));
    let days = fs::read_dir(quickstart.folder().join("data/recordings")).unwrap();
    let files = days.flat_map(|day| fs::read_dir(day.unwrap().path()).unwrap());
    let recordings: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|e| e == "rec"))
        .collect();
    assert_eq!(recordings.len(), 8, "{recordings:?}");
    for recording in recordings {
        let arguments = ["recording", "verify", recording.to_str().unwrap()];
        // The last session's end may be on its way to the file.
        wait_until("a sealed recording", || {
            Command::new(PORTCULLIS).args(arguments).output().unwrap().status.success()
        });
    }
}

#[test]
fn programs_find_everything_in_a_file_that_only_its_owner_reads() {
    let mut quickstart = Quickstart::start();
    let file = quickstart.folder().join("quickstart.json");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let state = quickstart.state();
    let daemon = quickstart.daemon.as_ref().unwrap();
    assert_eq!(state["pid"], daemon.pid().as_raw_nonzero().get());
    assert_eq!(state["postgres"]["target"], "shop");
    let psql = |url: &str| Command::new("psql").args(["-XAtc", "select 1", url]).output().unwrap();
    let url = state["postgres"]["url"].as_str().unwrap();
    assert!(psql(url).status.success(), "{}", told(&psql(url)));
    let token = |user: &str| state["tokens"][user].as_str().unwrap().to_owned();
    for other in ["approver", "auditor", "admin"] {
        let refused = psql(&url.replace(&token("agent"), &token(other)));
        assert!(!refused.status.success(), "{other} is let in");
    }
    let web = state["web"].as_str().unwrap().strip_prefix("http://").unwrap();
    let sessions = |user: &str| {
        exchange(TcpStream::connect(web).unwrap(), "/api/v1/sessions", Some(&token(user)))
    };
    assert_ne!(sessions("agent").0, 200, "an agent reads what others did");
    wait_until("the session in the index", || {
        let (status, _, body) = sessions("auditor");
        status == 200 && body["items"][0]["target"] == "shop"
    });
    assert_eq!(sessions("admin").0, 200);
    let mut browser = Browser::at(&format!("http://{web}"));
    browser.log_in("auditor");
    let page = browser.get("/sessions");
    assert!(page.status == 200 && page.body.contains("shop"), "{}", page.body);
    assert!(daemon.log().contains(&format!("http://{web}/approvals")));

    let config = state["config"].as_str().unwrap();
    let checked =
        Command::new(PORTCULLIS).args(["check", "--online", "--config", config]).output().unwrap();
    assert!(checked.status.success(), "{}", told(&checked));
    // How many files may be open is the machine's.
    let said = told(&checked);
    let warned = said.lines().find(|l| l.contains("warning") && !l.contains("may open"));
    assert_eq!(warned, None, "{said}");
    for user in ["agent", "approver", "auditor", "admin"] {
        assert!(!daemon.log().contains(&token(user)), "the token of {user} is in the log");
    }

    let second = Command::new(PORTCULLIS)
        .args(["quickstart", "--data-dir"])
        .arg(quickstart.folder())
        .output()
        .unwrap();
    assert!(told(&second).contains("runs on"), "{}", told(&second));
    assert!(file.exists(), "the second quickstart took the file of the first");
    assert!(quickstart.daemon.take().unwrap().stop().success());
    assert!(!file.exists());
}

#[test]
fn it_goes_on_after_a_kill_and_a_stop_leaves_nothing_running() {
    let mut quickstart = Quickstart::start();
    let paid = "select count(*) from orders where status = 'paid'";
    thread::scope(|scope| {
        let waiting = scope.spawn(|| quickstart.rows("update orders set status = 'paid'"));
        let id = quickstart.first_request();
        let approved = quickstart.as_approver(&["approve", &id, "--comment", "all of them"]);
        assert!(approved.contains("approved"), "{approved}");
        waiting.join().unwrap();
    });
    let before = quickstart.state();
    let servers = processes_in(&quickstart.folder());
    assert!(!servers.is_empty());
    quickstart.daemon.as_ref().unwrap().kill9();

    quickstart.restart();
    assert_eq!(quickstart.rows(paid), "6000");
    assert_ne!(quickstart.state()["tokens"], before["tokens"]);
    assert!(quickstart.daemon.take().unwrap().stop().success());
    // Programs that were making the index's database end a moment behind it.
    wait_until("the end of every process", || processes_in(&quickstart.folder()).is_empty());

    quickstart.restart();
    assert_eq!(quickstart.rows(paid), "6000");
    assert!(quickstart.daemon.take().unwrap().stop().success());
    // Programs that were making the index's database end a moment behind it.
    wait_until("the end of every process", || processes_in(&quickstart.folder()).is_empty());
}

#[test]
fn beyond_loopback_it_does_not_listen() {
    let folder = TempDir::new().unwrap();
    let refused = Command::new(PORTCULLIS)
        .args(["quickstart", "--postgres", "0.0.0.0:6432", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(told(&refused).contains("is not loopback"), "{}", told(&refused));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_stranger_is_on_the_host_from_pasted_lines() {
    let quickstart = Quickstart::start();
    let made = quickstart.paste("ssh-cert --server", &[]);
    assert!(made.status.success(), "{}", told(&made));
    let output = quickstart.paste("ssh -i ", &["echo on the host"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "on the host\n", "{}", told(&output));
    let ssh = &quickstart.state()["ssh"];
    assert_eq!((&ssh["user"], &ssh["host"]), (&"host".into(), &"127.0.0.1".into()));
    assert!(fs::read_to_string(ssh["known_hosts"].as_str().unwrap()).unwrap().contains("ed25519"));
}

#[test]
fn the_crew_answers_curl_by_the_printed_lines_and_its_run_stands_together() {
    let quickstart = Quickstart::start();
    let inputs = quickstart.paste("/crew/inputs", &[]);
    assert!(told(&inputs).contains("customer"), "{}", told(&inputs));
    let kickoff = quickstart.paste("/crew/kickoff", &[]);
    let answer: Value = serde_json::from_slice(&kickoff.stdout).unwrap();
    let run = answer["kickoff_id"].as_str().unwrap().to_owned();
    let state = quickstart.state();
    let url = state["http"]["url"].as_str().unwrap().to_owned();
    assert!(url.ends_with("/crew"), "{url}");
    let header = quickstart.folder().join("agent.header");
    assert_eq!(header.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let header = format!("@{}", header.display());
    let status = Command::new("curl")
        .args(["-sS", "-H", &header, &format!("{url}/status/{run}")])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&status.stdout).unwrap();
    let customer = &answer["customer"];
    assert!(customer["name"].as_str().unwrap().contains(' '), "{answer}");
    for hidden in ["email", "card_number", "ssn"] {
        assert_eq!(customer[hidden], "[masked]", "{answer}");
    }
    let said = answer["result"].as_str().unwrap();
    assert!(said.contains("[email]") && said.contains("[credit-card]"), "{said}");
    // Whoever asks the crew itself without its token is turned away.
    let log = quickstart.daemon.as_ref().unwrap().log();
    let lines = log.lines().filter(|line| line.contains("/crew/"));
    assert!(lines.clone().count() == 2 && !log.contains("eyJ"), "a token on a command line");
    let config = quickstart.folder().join("portcullis.toml");
    let list = ["session", "list", "--json", "--config", config.to_str().unwrap()];
    wait_until("the run in the index", || {
        let output = Command::new(PORTCULLIS).args(list).output().unwrap();
        let sessions: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let sessions = sessions.as_array().cloned().unwrap_or_default();
        sessions.iter().any(|session| {
            session["workflow"] == "crew" && session["run"] == *run && session["commands"] == 2
        })
    });
}
