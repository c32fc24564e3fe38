//! `portcullis policy`: what the rules say, and why, without a gateway.

use std::fmt::Write;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{ConfigFile, backtest, output};
use crate::app::hardening::{self, Preview};
use crate::config::{self, Config};
use crate::decode;
use crate::mask::{Applied, AppliedRows, Viewer};
use crate::names::TargetName;
use crate::policy::{
    Caller, Command as Decided, Decision, EffectExplanation, Explanation, Pattern, RuleExplanation,
    SessionFacts, TargetFacts, Verdict,
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
            let done = test.run(&config.policy, &targets, masks, decode);
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
    let config = config::load(&options.config.path)?;
    let target = config.targets.get(&options.target).with_context(|| {
        let known: Vec<&str> = config.targets.keys().map(TargetName::as_str).collect();
        format!("there is no target {}; there are {}", options.target, known.join(", "))
    })?;
    let caller = Caller {
        username: options.user.clone(),
        groups: options.groups.clone(),
        claims: claims(&options.claims),
        ..Caller::default()
    };
    let facts = target.facts();
    let command = decode(&facts, &options.command).map_err(anyhow::Error::msg)?;
    let (name, session) = (facts.name.as_str(), SessionFacts::default());
    let masked = config.masks.guard(name, &caller.groups);
    let explanation = config.policy.explain(&caller, &facts, &session, masked, &command);
    let masks = config.masks.of(name, &caller.groups).iter().map(Masked::of).collect();
    let viewer =
        Viewer { username: &caller.username, groups: &caller.groups, claims: &caller.claims };
    let filters = config.masks.rows_of(name, &viewer);
    let rows = filters.iter().map(FilteredRows::of).collect();
    let sent = match options.online {
        true => {
            Some(hardening::preview(&config, &options.target, &viewer, &options.command).await?)
        }
        false => None,
    };
    let told = Told { explanation, masks, rows, sent };
    if options.json {
        return output::print_json(&told);
    }
    let masks: String = told.masks.iter().map(Masked::in_words).collect();
    let rows: String = told.rows.iter().map(FilteredRows::in_words).collect();
    let reads = |named: &Pattern| {
        let objects = command.effects.iter().filter_map(|effect| effect.object.as_ref());
        objects.filter(|object| object.kind() == "table").any(|object| object.could_match(named))
    };
    let lacking =
        told.rows.iter().zip(&filters).filter(|(_, applied)| reads(&applied.filter.named));
    let lacking: Vec<&str> =
        lacking.filter_map(|(rows, _)| rows.lacking.is_some().then_some(&*rows.rows)).collect();
    let unread = decode::misunderstood(facts.protocol, &options.command);
    let refused: Vec<&str> = match &told.sent {
        Some(Preview::Refused { by, .. }) => by.iter().map(|by| &**by).collect(),
        _ => Vec::new(),
    };
    let by_hiding = (lacking.as_slice(), refused.as_slice());
    let words = in_words(&told.explanation, &facts, options.all, (unread.as_deref(), by_hiding));
    let verdict = told.explanation.decision.verdict();
    let sent = told.sent.as_ref().map(|sent| sent_in_words(sent, verdict)).unwrap_or_default();
    Ok(output::print(&format!("{words}{masks}{rows}{sent}"))?)
}

pub(super) fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a claim is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Claims as a token would have them: one that is given several times is a list.
pub(super) fn claims(given: &[(String, String)]) -> Map<String, Value> {
    let mut claims = Map::new();
    for (name, value) in given {
        let value = Value::String(value.clone());
        match claims.get_mut(name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                claims.insert(name.clone(), value);
            }
        }
    }
    claims
}

/// What is said of a command, and what is masked on its target.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    explanation: Explanation,
    masks: Vec<Masked>,
    rows: Vec<FilteredRows>,
    /// What goes to the server, where the catalog was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Preview>,
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

/// A row filter of the target.
#[derive(Debug, Serialize)]
struct FilteredRows {
    rows: String,
    table: String,
    #[serde(rename = "where")]
    condition: String,
    /// The condition with the caller's values, as it goes to the server; none where one is missing.
    sent: Option<String>,
    /// What of the caller's its condition needs and is not there, where it is for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacking: Option<String>,
    /// Whether it is for the caller.
    acts: bool,
}

impl FilteredRows {
    fn of(applied: &AppliedRows) -> Self {
        let AppliedRows { filter, acts, bound } = applied;
        Self {
            rows: filter.name.to_string(),
            table: filter.table.to_string(),
            condition: filter.text.to_string(),
            sent: bound.as_ref().ok().filter(|_| *acts).map(|bound| bound.written("t")),
            lacking: applied.lacking(),
            acts: *acts,
        }
    }

    fn in_words(&self) -> String {
        let Self { rows, table, condition, sent, lacking, acts } = self;
        let what = match (acts, sent) {
            (false, _) => "not for this caller".to_owned(),
            (true, Some(sent)) => format!("sent as {sent}"),
            (true, None) => format!(
                "statements on the table are refused: the caller lacks {}, or it is no value that can stand there",
                lacking.as_deref().unwrap_or("a claim")
            ),
        };
        format!("\n\nrows {rows}: of {table} only where {condition}\n  {what}")
    }
}

/// A mask of the target.
#[derive(Debug, Serialize)]
struct Masked {
    mask: String,
    columns: Vec<String>,
    fields: Vec<String>,
    patterns: Vec<String>,
    /// Whether the caller sees the values; what is stored of them is masked all the same.
    lifted: bool,
}

impl Masked {
    fn of(applied: &Applied) -> Self {
        let mask = &applied.mask;
        Self {
            mask: mask.name.to_string(),
            columns: mask.columns.iter().map(|column| column.as_str().to_owned()).collect(),
            fields: mask.fields.iter().map(|field| field.as_str().to_owned()).collect(),
            patterns: mask.patterns.iter().map(|pattern| pattern.name().to_owned()).collect(),
            lifted: applied.lifted,
        }
    }

    fn in_words(&self) -> String {
        let what = [&self.columns, &self.fields, &self.patterns];
        let what: Vec<&str> = what.into_iter().flatten().map(String::as_str).collect();
        let who = if self.lifted { " from storage alone: the caller sees it" } else { "" };
        format!("\n\nmask {}: hides {}{who}", self.mask, what.join(", "))
    }
}

/// Reads a command as the target's protocol does.
fn decode(target: &TargetFacts, text: &str) -> Result<Decided, String> {
    decode::command(target.protocol, text)
}

/// What is said of a command; `unread` is why it is not understood, `lacking` the row filters on
/// tables of its for which the caller lacks a value, `refused` the masks and row filters for which it
/// does not go to the server.
fn in_words(
    told: &Explanation,
    target: &TargetFacts,
    all: bool,
    (unread, (lacking, refused)): (Option<&str>, (&[&str], &[&str])),
) -> String {
    let decision = &told.decision;
    let by = match decision.rules() {
        [] => format!("no rule; the default of {} is {}", target.name, target.default),
        rules => rules.join(", "),
    };
    let verdict = decision.verdict();
    let mut text = match (lacking, refused) {
        _ if verdict == Verdict::Block => format!("{verdict} by {by}"),
        ([_, ..], _) => format!(
            "refused by the row filter {}, for which the caller lacks a value\n  by the rules: {verdict} by {by}",
            lacking.join(", "),
        ),
        ([], [_, ..]) => {
            format!("refused by {}\n  by the rules: {verdict} by {by}", refused.join(", "))
        }
        ([], []) => format!("{verdict} by {by}"),
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
    for effect in &told.effects {
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
