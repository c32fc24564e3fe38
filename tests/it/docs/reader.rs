//! A reader who types what a page shows, line by line, in a shell.

use std::collections::VecDeque;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::root;
use crate::support::daemon::{Daemon, PORTCULLIS, wait_until};
use crate::support::gateway::told;

/// A line behind a `$`, what is typed into the program that it starts, and what the page says that
/// comes.
struct Step {
    line: String,
    typed: String,
    comes: Vec<String>,
}

/// Reads one page; what it shows must be taken in its order, and wholly.
pub(super) struct Reader {
    page: &'static str,
    steps: VecDeque<Step>,
    folder: PathBuf,
    replaced: Vec<(String, String)>,
    environment: Vec<(String, String)>,
}

impl Reader {
    /// At the beginning of a page, in a folder.
    pub(super) fn of(page: &'static str, folder: &Path) -> Self {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let reader = Self {
            page,
            steps: steps(&text),
            folder: folder.to_owned(),
            replaced: Vec::new(),
            environment: Vec::new(),
        };
        let binaries = Path::new(PORTCULLIS).parent().unwrap().to_str().unwrap();
        let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());
        reader.sets("PATH", &path).sets("HOME", folder.to_str().unwrap())
    }

    /// Puts something in the place of what the page has for an example.
    pub(super) fn puts(mut self, there: &str, instead: impl Into<String>) -> Self {
        self.replaced.push((there.to_owned(), instead.into()));
        self
    }

    /// Sets a variable of the shell.
    pub(super) fn sets(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What this needs is tried elsewhere.
    pub(super) fn leaves(mut self, begins: &str, _to: &str) -> Self {
        self.next(begins);
        self
    }

    /// Types the next line; it succeeds and says this.
    pub(super) fn says(mut self, begins: &str, wanted: &str) -> Self {
        let step = self.next(begins);
        let said = self.run(&step);
        assert!(said.status.success(), "{}: {}\n{}", self.page, step.line, told(&said));
        self.check(&step, &said, wanted);
        if let Some(name) = step.line.strip_prefix("export ").and_then(|set| set.split('=').next())
        {
            let value = String::from_utf8(said.stdout).unwrap();
            return self.sets(name, &value);
        }
        self
    }

    /// The same, for what takes a moment to be so.
    pub(super) fn comes_to_say(mut self, begins: &str, wanted: &str) -> Self {
        let step = self.next(begins);
        wait_until(&format!("{}: {}", self.page, step.line), || {
            let said = self.run(&step);
            said.status.success() && told(&said).contains(wanted)
        });
        self
    }

    /// Types the next line; it fails and says this.
    pub(super) fn gets_refused(mut self, begins: &str, wanted: &str) -> Self {
        let step = self.next(begins);
        let said = self.run(&step);
        assert!(!said.status.success(), "{}: {}\n{}", self.page, step.line, told(&said));
        self.check(&step, &said, wanted);
        self
    }

    /// Types the next line, which goes on running.
    pub(super) fn starts(mut self, begins: &str, wanted: &str) -> (Self, Daemon) {
        let step = self.next(begins);
        let script = format!("cd '{}' && exec env {}", self.folder.display(), step.line);
        let set: Vec<_> = self.environment.iter().map(|(name, v)| format!("{name}={v}")).collect();
        let set = set.iter().map(String::as_str);
        let arguments: Vec<_> = set.chain(["sh", "-c", &script]).collect();
        let daemon = Daemon::of("env", &arguments);
        daemon.wait_for_log(wanted);
        (self, daemon)
    }

    /// Nothing on the page was left.
    pub(super) fn goes_through(self) {
        let left: Vec<_> = self.steps.into_iter().map(|step| step.line).collect();
        assert!(left.is_empty(), "{}: not tried:\n{}", self.page, left.join("\n"));
    }

    fn next(&mut self, begins: &str) -> Step {
        let mut step = self.steps.pop_front().unwrap_or_else(|| panic!("{} ends", self.page));
        assert!(step.line.starts_with(begins), "{}: not {begins}: {}", self.page, step.line);
        for (there, instead) in &self.replaced {
            step.line = step.line.replace(there, instead);
        }
        step
    }

    fn run(&self, step: &Step) -> Output {
        let set = step.line.strip_prefix("export ").and_then(|set| set.split('=').next());
        let script = match set {
            Some(name) => format!("{}\nprintf %s \"${name}\"", step.line),
            None => step.line.clone(),
        };
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that reads nothing may have ended.
        let _read = shell.stdin.take().unwrap().write_all(step.typed.as_bytes());
        shell.wait_with_output().unwrap()
    }

    fn check(&self, step: &Step, said: &Output, wanted: &str) {
        let said = told(said);
        for wanted in step.comes.iter().map(String::as_str).chain([wanted]) {
            assert!(said.contains(wanted), "{}: {}\n{said}\nnot: {wanted}", self.page, step.line);
        }
    }
}

/// The lines behind `$` in a page's blocks for a console. What follows one is typed, when it stands
/// behind a prompt; else it comes, unless it differs each time (`…`, a request's number, a figure).
fn steps(text: &str) -> VecDeque<Step> {
    let mut steps: VecDeque<Step> = VecDeque::new();
    for block in text.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        let before = steps.len();
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                let line = command.split("  #").next().unwrap().trim().to_owned();
                steps.push_back(Step { line, typed: String::new(), comes: Vec::new() });
            } else if let (true, Some(step)) = (steps.len() > before, steps.back_mut()) {
                match line.split_once("=> ") {
                    Some((_, typed)) => step.typed.extend([typed, "\n"]),
                    None if line.contains('…')
                        || line.starts_with(|c: char| c.is_ascii_digit()) => {}
                    None => step.comes.push(line.to_owned()),
                }
            }
        }
    }
    steps
}
