//! `portcullis policy backtest`: what another policy would have said to commands that ran.
//!
//! Decided anew is what was recorded: the effects, attributes and request view of each command.
//! Nothing is decoded again, and nothing is run. What the record does not hold (claims of callers,
//! texts and values where some were withheld) makes a command undecidable when a rule looks at it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::identities::Identities;
use super::{ConfigFile, output};
use crate::config::{self, Config};
use crate::names::SessionId;
use crate::policy::{
    Attributes, Caller, Command, CommandParts, Decision, Effect, SessionFacts, SessionPolicy,
    Verdict,
};
use crate::recording::{
    self, Event, Keyring, Kind, Opened, Reader, RecordedCommand, Sequence, Told,
};

/// Commands that only prepare of which a session's last are remembered: an Execute builds on a
/// Bind, which builds on a Parse.
const MOST_PREPARED: usize = 20_000;
/// Kinds of change that are listed, and characters of their examples.
const MOST_LISTED: usize = 50;
const EXAMPLE: usize = 120;

/// Decide recorded commands anew, by the rules of a configuration.
///
/// Says which of them would have ended otherwise, and by which rules. Reads recordings and nothing
/// else: those of the configuration's `data_dir`, or the files given. A command is undecidable where
/// a rule looks at what its recording does not hold: claims, or texts and values that were
/// withheld.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis policy backtest --config new.toml /var/lib/portcullis/recordings/*/*.rec"
)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    identities: Identities,
    /// Recordings, SESSION.rec.
    paths: Vec<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    sessions: u64,
    commands: u64,
    unchanged: u64,
    /// What the record does not hold, a rule looks at.
    undecidable: u64,
    /// The configuration has no such target.
    no_target: u64,
    /// Recordings that are damaged; what was read of them counts.
    damaged: Vec<PathBuf>,
    changed: Vec<Change>,
}

/// Commands that would end otherwise in the same way.
#[derive(Debug, Serialize)]
struct Change {
    from: Verdict,
    to: Verdict,
    /// The rules that say so; none when it is the target's default.
    rules: Vec<String>,
    count: u64,
    example: Example,
}

/// The first of them.
#[derive(Debug, Serialize)]
struct Example {
    session: SessionId,
    sequence: Sequence,
    text: String,
}

type Changes = BTreeMap<(Verdict, Verdict, Vec<String>), (u64, Example)>;

pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let paths = match options.paths.as_slice() {
        [] => recording::recordings(&config.server.data_dir)
            .with_context(|| format!("{} cannot be read", config.server.data_dir.display()))?
            .into_iter()
            .map(|(_, path, _)| path)
            .collect(),
        paths => paths.to_vec(),
    };
    let keyring = options.identities.keyring_or(&config).await?;
    let report = backtest(&config, &paths, &keyring)?;
    if options.json {
        return output::print_json(&report);
    }
    tell(&report)
}

fn backtest(config: &Config, paths: &[PathBuf], keyring: &Keyring) -> anyhow::Result<Report> {
    let terminal = io::stderr().is_terminal();
    let (mut report, mut changes) = (Report::default(), Changes::new());
    let mut told = None;
    for (done, path) in paths.iter().enumerate() {
        let share = done * 100 / paths.len();
        if terminal && told.replace(share) != Some(share) {
            let bar = "#".repeat(share / 4);
            // Progress that cannot be shown is not needed.
            let _gone =
                write!(io::stderr(), "\r[{bar:25}] {share} %, {} commands\x1b[K", report.commands);
        }
        let reader = Reader::open_with(path, keyring)
            .with_context(|| format!("{} is no recording that can be read", path.display()))?;
        let mut session = Session { config, report: &mut report, changes: &mut changes, at: None };
        for event in reader {
            match event {
                Ok(event) => session.take(&event),
                Err(_) => {
                    report.damaged.push(path.clone());
                    break;
                }
            }
        }
    }
    if terminal {
        let _gone = write!(io::stderr(), "\r\x1b[K");
    }
    let listed = changes.into_iter().map(|((from, to, rules), (count, example))| Change {
        from,
        to,
        rules,
        count,
        example,
    });
    report.changed = listed.collect();
    report.changed.sort_by_key(|changed| std::cmp::Reverse(changed.count));
    Ok(report)
}

/// One recording on its way through.
struct Session<'r> {
    config: &'r Config,
    report: &'r mut Report,
    changes: &'r mut Changes,
    at: Option<Known>,
}

/// What is known once a session has opened.
struct Known {
    id: SessionId,
    /// `None` when the configuration has no such target.
    policy: Option<SessionPolicy>,
    /// Statements that were prepared, which serve for long.
    parsed: BTreeMap<Sequence, Prepared>,
    /// What was bound, which is run soon.
    bound: BTreeMap<Sequence, Prepared>,
}

/// A command that others build on.
struct Prepared {
    recorded: RecordedCommand<'static>,
    of: Option<Sequence>,
}

impl Session<'_> {
    fn take(&mut self, event: &Event) {
        match event.kind {
            Kind::Opened => {
                if let Ok(opened) = serde_json::from_slice::<Opened>(&event.payload) {
                    self.report.sessions += 1;
                    self.at = Some(self.known(&opened));
                }
            }
            Kind::Command => {
                if let Ok(recorded) = serde_json::from_slice(&event.payload) {
                    self.command(event, recorded);
                }
            }
            _ => {}
        }
    }

    fn known(&self, opened: &Opened) -> Known {
        let name = |told: &Option<Told>| told.as_ref().map(|told| told.name.clone());
        let proved = |told: &Option<Told>| name(&told.clone().filter(|told| told.proved));
        let caller = Caller {
            issuer: opened.identity.issuer.clone(),
            subject: opened.identity.subject.clone(),
            username: opened.identity.username.clone(),
            groups: opened.identity.groups.clone(),
            workflow: proved(&opened.workflow),
            run: proved(&opened.run),
            ..Caller::default()
        };
        let facts = SessionFacts {
            id: Some(opened.session),
            client: Some(opened.client.clone()),
            database: opened.database.clone(),
            workflow: name(&opened.workflow),
            run: name(&opened.run),
        };
        let target = self.config.targets.get(&opened.target);
        let policy =
            target.map(|target| self.config.policy.for_caller(&caller, &target.facts(), &facts));
        Known { id: opened.session, policy, parsed: BTreeMap::new(), bound: BTreeMap::new() }
    }

    fn command(&mut self, event: &Event, recorded: RecordedCommand<'static>) {
        let Some(known) = &mut self.at else { return };
        let before = recorded.decision.verdict();
        let prepares = matches!(&*recorded.command.form, "parse" | "bind");
        if !prepares || before != Verdict::Allow {
            self.report.commands += 1;
            match known.decide(&recorded, event.of) {
                Err(Undecided::NoTarget) => self.report.no_target += 1,
                Err(Undecided::NotRecorded) => self.report.undecidable += 1,
                Ok((after, _)) if after.verdict() == before => self.report.unchanged += 1,
                Ok((after, text)) => {
                    let rules = after.rules().iter().map(ToString::to_string).collect();
                    let example = || Example {
                        session: known.id,
                        sequence: event.sequence,
                        text: text.chars().take(EXAMPLE).collect(),
                    };
                    let key = (before, after.verdict(), rules);
                    self.changes.entry(key).or_insert_with(|| (0, example())).0 += 1;
                }
            }
        }
        if prepares {
            let kept = match &*recorded.command.form {
                "parse" => &mut known.parsed,
                _ => &mut known.bound,
            };
            if kept.len() >= MOST_PREPARED {
                kept.pop_first();
            }
            kept.insert(event.sequence, Prepared { recorded, of: event.of });
        }
    }
}

enum Undecided {
    NoTarget,
    NotRecorded,
}

impl Known {
    /// The decision, and the text that it is about.
    fn decide(
        &self,
        recorded: &RecordedCommand<'_>,
        mut of: Option<Sequence>,
    ) -> Result<(Decision, String), Undecided> {
        let policy = self.policy.as_ref().ok_or(Undecided::NoTarget)?;
        let command: &Command = &recorded.command;
        let (mut text, mut effects) = (command.text.as_str(), command.effects.as_slice());
        let mut attributes = Attributes::new();
        let mut withheld = recorded.exact.is_some();
        while let Some(sequence) = of {
            let base = self.bound.get(&sequence).or_else(|| self.parsed.get(&sequence));
            let base = base.ok_or(Undecided::NotRecorded)?;
            let below: &Command = &base.recorded.command;
            withheld |= base.recorded.exact.is_some();
            if text.is_empty() {
                text = &below.text;
            }
            if effects.is_empty() {
                effects = &below.effects;
            }
            for (name, value) in &below.attributes {
                attributes.entry(name.clone()).or_insert_with(|| value.clone());
            }
            of = base.of;
        }
        if policy.needs_more_than_recorded(withheld) {
            return Err(Undecided::NotRecorded);
        }
        attributes.extend(command.attributes.clone());
        let runs: [&[Effect]; 1] = [effects];
        let parts =
            CommandParts { form: &command.form, text, attributes: &attributes, effects: &runs };
        let decision = policy.decide_parts(&[parts]);
        let prepares = command.form == "parse";
        let decision = if prepares { decision.of_preparing() } else { decision };
        Ok((decision, text.to_owned()))
    }
}

fn tell(report: &Report) -> anyhow::Result<()> {
    let Report { sessions, commands, unchanged, undecidable, no_target, damaged, changed } = report;
    output::print(&format!(
        "{commands} commands of {sessions} sessions: {unchanged} as before, {} otherwise, \
         {undecidable} undecidable, {no_target} of targets that are not there",
        changed.iter().map(|change| change.count).sum::<u64>(),
    ))?;
    for path in damaged {
        output::print(&format!("damaged, read in part: {}", shown(path)))?;
    }
    for change in changed.iter().take(MOST_LISTED) {
        let by = match change.rules.as_slice() {
            [] => "the target's default".to_owned(),
            rules => rules.join(", "),
        };
        let Example { session, sequence, text } = &change.example;
        output::print(&format!(
            "{} -> {} by {by}: {}, first in {session} at {sequence}: {}",
            change.from,
            change.to,
            change.count,
            output::visible(text)
        ))?;
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    output::visible(&path.display().to_string())
}
