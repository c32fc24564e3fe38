//! `portcullis policy`: what the rules say, and why, without a gateway.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{ConfigFile, backtest, output};
use crate::app::hardening;
use crate::catalog::{Explained, FilterNamed, Outcome, Preview, Rules};
use crate::config::{self, Config};
use crate::mask::Viewer;
use crate::names::TargetName;
use crate::policy::{
    self, Caller, Command as Decided, Decision, EffectExplanation, RuleExplanation, TargetFacts,
    Verdict,
};

/// Try the rules: run their tests, explain what they say to a command.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis policy explain --target orders --group agents 'drop table t'"
)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    Test(Test),
    Explain(Explain),
    Backtest(backtest::Options),
    Harden(Harden),
}

/// Print the SQL of a least-privilege role for a Postgres target.
///
/// It is made from the rules, the masks and the target's catalog, which is read with the target's credential. Nothing
/// is changed: read the SQL, apply it, and let the target's credential be that role.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis policy harden orders > orders.sql && psql -f orders.sql orders"
)]
struct Harden {
    #[command(flatten)]
    config: ConfigFile,
    /// The target, or target/database.
    target: String,
    /// The role's name; made from the target's when left out.
    #[arg(long)]
    role: Option<String>,
    /// The longest that one of its statements may run.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    statement_timeout: u32,
    /// Print only the functions with which the server computes hash and tokenize, for the role that the target has.
    #[arg(long, conflicts_with_all = ["role", "statement_timeout"])]
    functions: bool,
}

/// Run the policy tests of a configuration, [[test]].
#[derive(Debug, Args)]
struct Test {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// Say which rules a command meets, which it almost meets, and why not.
///
/// Touches no target unless --online is given. The command is read as the target's protocol reads it.
#[derive(Debug, Args)]
struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// The target that it would be sent to.
    #[arg(long)]
    target: TargetName,
    /// The caller's name.
    #[arg(long, default_value = "")]
    user: String,
    /// A group of the caller's; may be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A claim of the caller's token, as text; one that is given several times is a list.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// Ask the target's catalog, with the target's credential, what goes to the server in the command's place.
    #[arg(long)]
    online: bool,
    /// Also show the rules that are far from matching.
    #[arg(long)]
    all: bool,
    /// Print the explanation as JSON.
    #[arg(long)]
    json: bool,
    /// The command: SQL for a Postgres target, a command line for an SSH host, a method and a path
    /// for an HTTP target, behind which a body of JSON may stand: 'POST /v1/refunds {"amount": 7}'.
    /// Of sftp operations there is no written form.
    command: String,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    match &options.command {
        Subject::Test(options) => test(options),
        Subject::Explain(options) => explain(options).await,
        Subject::Backtest(options) => backtest::run(options).await,
        Subject::Harden(options) => harden(options).await,
    }
}

async fn harden(options: &Harden) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let (target, database) = match options.target.split_once('/') {
        Some((target, database)) => (target, Some(database)),
        None => (&*options.target, None),
    };
    let (target, role) = (target.parse::<TargetName>()?, options.role.as_deref());
    if options.functions {
        return Ok(output::print(hardening::functions(&config, &target)?.trim_end())?);
    }
    let seconds = options.statement_timeout;
    let script = hardening::script(&config, &target, database, role, seconds).await?;
    Ok(output::print(script.trim_end())?)
}

/// How one policy test went.
#[derive(Debug, Serialize)]
pub(super) struct Tested<'a> {
    place: &'a str,
    target: &'a str,
    command: &'a str,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// Runs every policy test of a configuration.
pub(super) fn tested(config: &Config) -> Vec<Tested<'_>> {
    let targets: Vec<TargetFacts> = config.targets.values().map(|target| target.facts()).collect();
    config
        .tests
        .iter()
        .map(|named| {
            let test = &named.test;
            let masks = |target: &TargetFacts, caller: &Caller, command: &Decided| {
                config.target_masks(target, caller, command)
            };
            let read = |target: &TargetFacts, text: &str| match config.targets.get(&target.name) {
                Some(target) => target.read_command(text),
                None => Err(format!("there is no target {}", target.name)),
            };
            let done = test.run(&config.policy, &targets, masks, read);
            Tested {
                place: &named.place,
                target: &test.target,
                command: &test.command,
                passed: done.is_ok(),
                failure: done.as_ref().err().map(ToString::to_string),
                decision: done.ok(),
            }
        })
        .collect()
}

impl Tested<'_> {
    /// What went wrong, with its place; `None` when nothing did.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.as_ref().map(|failure| format!("{}: {}: {failure}", self.place, self.command))
    }
}

fn test(options: &Test) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let tested = tested(&config);
    let failures: Vec<String> = tested.iter().filter_map(Tested::failure).collect();
    if options.json {
        output::print_json(&tested)?;
    }
    if !failures.is_empty() {
        let (failed, all) = (failures.len(), tested.len());
        bail!("{failed} of {all} policy tests failed\n{}", failures.join("\n"));
    }
    if !options.json {
        output::print(&format!("policy tests passed: {}", tested.len()))?;
    }
    Ok(())
}

async fn explain(options: &Explain) -> anyhow::Result<()> {
    let config = Arc::new(config::load(&options.config.path)?);
    let target = config.targets.get(&options.target).with_context(|| {
        let known: Vec<&str> = config.targets.keys().map(TargetName::as_str).collect();
        format!("there is no target {}; there are {}", options.target, known.join(", "))
    })?;
    let caller = Caller {
        username: options.user.clone(),
        groups: options.groups.clone(),
        claims: policy::claims(options.claims.iter().cloned()),
        ..Caller::default()
    };
    let facts = target.facts();
    let command = target.read_command(&options.command).map_err(anyhow::Error::msg)?;
    let viewer =
        Viewer { username: &caller.username, groups: &caller.groups, claims: &caller.claims };
    let sent = match options.online {
        true => {
            Some(hardening::preview(&config, &options.target, &viewer, &options.command).await?)
        }
        false => None,
    };
    let rules = Rules::new(Arc::clone(&config));
    let explained = rules.explained(target, &caller, &command, sent);
    if options.json {
        return output::print_json(&explained);
    }
    let unread = target.misunderstood(&options.command);
    let mut words = in_words(&explained, &facts, options.all, unread.as_deref());
    for mask in &explained.masks {
        // Writing to a String does not fail.
        let _ = write!(words, "\n\n{}", mask.in_words());
    }
    for [filter, what] in explained.rows.iter().map(FilterNamed::in_words) {
        let _ = write!(words, "\n\n{filter}\n  {what}");
    }
    let verdict = explained.explanation.decision.verdict();
    if let Some(sent) = &explained.sent {
        words.push_str(&sent_in_words(sent, verdict));
    }
    Ok(output::print(&words)?)
}

pub(super) fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a claim is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn sent_in_words(sent: &Preview, verdict: Verdict) -> String {
    match sent {
        _ if verdict == Verdict::Block => "\n\nnot sent: blocked".to_owned(),
        Preview::Same => "\n\nsent as it is".to_owned(),
        Preview::Instead(text) => format!("\n\nsent as\n  {text}"),
        Preview::Refused { by, reason } => {
            format!("\n\nnot sent: {} ({reason})", by.join(", "))
        }
    }
}

/// What is said of a command; `unread` is why it is not understood.
fn in_words(told: &Explained, target: &TargetFacts, all: bool, unread: Option<&str>) -> String {
    let decision = &told.explanation.decision;
    let by = match decision.rules() {
        [] => format!("no rule; the default of {} is {}", target.name, target.default),
        rules => rules.join(", "),
    };
    let (verdict, because) = (decision.verdict(), told.because.as_deref().unwrap_or_default());
    let mut text = match told.outcome {
        Outcome::Refused => format!(
            "refused by {}: {because}\n  by the rules: {verdict} by {by}",
            told.refused_by.join(", ")
        ),
        Outcome::Undecided => {
            format!("by the rules: {verdict} by {by}\n  {because} (--online asks it)")
        }
        Outcome::Allow | Outcome::Approve | Outcome::Block => format!("{verdict} by {by}"),
    };
    if let Some(unread) = unread {
        let _ = write!(text, "\n  not understood: {unread}");
    }
    for (what, value) in [
        ("reason", decision.reason().unwrap_or_default().to_owned()),
        ("spared by", decision.exempted().join(", ")),
        (
            "only observed",
            decision.observed().iter().map(|seen| &*seen.rule).collect::<Vec<_>>().join(", "),
        ),
    ] {
        if !value.is_empty() {
            // Writing to a String does not fail.
            let _ = write!(text, "\n  {what}: {value}");
        }
    }
    for effect in &told.explanation.effects {
        text.push_str(&effect_in_words(effect, all));
    }
    text
}

fn effect_in_words(effect: &EffectExplanation, all: bool) -> String {
    let object = effect.object.as_ref().map(|object| format!(" on {object}")).unwrap_or_default();
    let mut text = format!("\n\n{}{object}: {}", effect.action, effect.verdict);
    if effect.opaque {
        text.push_str("\n  opaque: what it leads to cannot be checked");
    }
    let might = |rule: &RuleExplanation| effect.might_concern.contains(&rule.rule);
    let shown = |rule: &&RuleExplanation| all || rule.matches() || rule.almost() || might(rule);
    for rule in effect.rules.iter().filter(shown) {
        let acts = if rule.enforced { "" } else { ", only observed" };
        if might(rule) {
            let _ = write!(
                text,
                "\n  {} ({}) might concern it: so it is blocked",
                rule.rule, rule.verdict
            );
            continue;
        }
        let matches = if rule.matches() { "matches" } else { "does not match" };
        let _ = write!(text, "\n  {} ({}{acts}) {matches}", rule.rule, rule.verdict);
        if let (true, Some(failed)) = (rule.matches(), &rule.condition_failed) {
            let _ = write!(text, ": its condition fails ({failed}), which counts as holding");
        }
        for missed in &rule.missed {
            let _ = write!(text, "\n    {}: {}", missed.selector, missed.because);
        }
    }
    text
}
