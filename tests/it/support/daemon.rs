//! The real binary, running one of its daemons.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{fs, io::BufRead, io::BufReader, sync::mpsc, thread};

use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take for anything on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis");

/// A running daemon. It is killed when this is dropped, and when the test process ends.
pub struct Daemon {
    child: Mutex<Child>,
    pid: Pid,
    log: Arc<Log>,
}

/// What the daemon wrote to its outputs.
#[derive(Default)]
struct Log {
    text: Mutex<(String, Ended)>,
    grown: Condvar,
}

type Ended = bool;

impl Daemon {
    /// Starts `portcullis` with these arguments.
    pub fn start(arguments: &[&str]) -> Self {
        Self::of(PORTCULLIS, arguments)
    }

    /// Starts another program, which stays in the foreground.
    pub fn of(program: &str, arguments: &[&str]) -> Self {
        // The kernel kills the daemon when the thread that started it ends; so that thread is the
        // one that reads the log until the daemon's own end.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer);
        let log = Arc::new(Log::default());
        let (started, child) = mpsc::sync_channel(1);
        let written = Arc::clone(&log);
        thread::spawn(move || {
            let child = command.spawn().expect("setpriv of util-linux");
            // It holds the writing end.
            drop(command);
            started.send(child).unwrap();
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let mut text = written.text.lock().unwrap();
                text.0.push_str(&line);
                text.0.push('\n');
                written.grown.notify_all();
            }
            written.text.lock().unwrap().1 = true;
            written.grown.notify_all();
        });
        let child = child.recv().unwrap();
        let pid = Pid::from_child(&child);
        Self { child: Mutex::new(child), pid, log }
    }

    /// The address that it logs (in JSON) that it listens on for Postgres; waits for it.
    pub fn address(&self) -> SocketAddr {
        self.address_of("postgres")
    }

    /// The same for another protocol.
    pub fn address_of(&self, protocol: &str) -> SocketAddr {
        let listening = format!("\"protocol\":\"{protocol}\",\"address\"");
        let text = self.wait_for_log(&listening);
        let line = text.lines().find(|line| line.contains(&listening)).unwrap();
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = event.get("fields").unwrap_or(&event);
        fields["address"].as_str().unwrap().parse().unwrap()
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        self.log.text.lock().unwrap().0.clone()
    }

    /// Waits until the log holds a text, and returns the log; panics when the daemon ends before.
    pub fn wait_for_log(&self, wanted: &str) -> String {
        let text = self.log.text.lock().unwrap();
        let waiting = |text: &mut (String, Ended)| !text.0.contains(wanted) && !text.1;
        let (text, _) = self.log.grown.wait_timeout_while(text, PATIENCE, waiting).unwrap();
        assert!(text.0.contains(wanted), "{wanted} is not in the log:\n{}", text.0);
        text.0.clone()
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// Memory that is resident now, in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that was resident at any time, in bytes.
    pub fn peak_resident(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(Path::new(&path)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Kills it as `kill -9` does, and waits for its end.
    pub fn kill9(&self) {
        kill_process(self.pid, Signal::KILL).unwrap();
        assert_eq!(self.wait_for_end().signal(), Some(9));
    }

    /// Asks it to stop (SIGTERM), and waits for its end.
    pub fn stop(&self) -> ExitStatus {
        kill_process(self.pid, Signal::TERM).unwrap();
        self.wait_for_end()
    }

    /// Stops it where it stands (SIGSTOP), as a machine that stalls does, until [`Self::go_on`].
    pub fn stall(&self) {
        kill_process(self.pid, Signal::STOP).unwrap();
        let status = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        wait_until("the process to stand still", || {
            fs::read_to_string(&status).unwrap().contains("State:\tT")
        });
    }

    /// Lets it run again.
    pub fn go_on(&self) {
        kill_process(self.pid, Signal::CONT).unwrap();
    }

    fn wait_for_end(&self) -> ExitStatus {
        let mut ended = None;
        wait_until("the daemon's end", || {
            ended = self.child.lock().unwrap().try_wait().unwrap();
            ended.is_some()
        });
        // The last lines of its log are read by then.
        drop(self.log.grown.wait_while(self.log.text.lock().unwrap(), |text| !text.1));
        ended.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        if thread::panicking() {
            eprintln!("── log of process {} ──\n{}", self.pid.as_raw_nonzero(), self.log.text());
        }
        // It may have ended already.
        let _gone = child.kill();
        child.wait().unwrap();
    }
}

impl Log {
    fn text(&self) -> String {
        self.text.lock().map(|text| text.0.clone()).unwrap_or_default()
    }
}

/// Waits for a condition; panics when it takes too long.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
