//! `portcullis approval`: deciding commands that wait.

use std::collections::HashSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::gateway;
use super::output::{self, visible};
use crate::database::{Request, RequestState, VoteVerdict};
use crate::names::RequestId;

/// How often a watch looks.
const WATCH_POLL: Duration = Duration::from_secs(1);
/// Requests that a watch looks at.
const WATCHED: usize = 200;
/// How much of a command a list shows, in characters.
const SHOWN: usize = 100;

/// See and decide commands that wait for people.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    /// Let a command run that waits.
    Approve(Decide),
    /// Refuse a command that waits.
    Deny(Decide),
}

/// List requests, the latest first: those that you made or may decide; all for auditors.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis approval list --watch --server \
                        https://portcullis.example.com")]
pub(super) struct List {
    #[command(flatten)]
    gateway: gateway::Options,
    /// In this state: pending, approved, denied, expired, consumed.
    #[arg(long, default_value = "pending")]
    state: String,
    /// In any state.
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// Go on, and print each new request as it comes.
    #[arg(long)]
    watch: bool,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print them as JSON: an array of requests; with --watch one a line.
    #[arg(long)]
    json: bool,
}

/// Show one request: the whole command, who asks, who may decide, who did.
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The request's id.
    id: RequestId,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Say yes or no to a request.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis approval approve 019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b \
                        --comment 'checked with finance'"
)]
pub(super) struct Decide {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The request's id.
    id: RequestId,
    /// Why; who asked sees it.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// The hash of the exact bytes, as `show` prints it: the word counts for no others.
    #[arg(long, value_name = "HASH")]
    exact: Option<String>,
    /// Print the request as JSON.
    #[arg(long)]
    json: bool,
}

/// A request as the API gives it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    request: Request,
    visible_text: Option<String>,
    yours_to_decide: bool,
    link: String,
}

impl Shown {
    /// What was asked for, in a line.
    pub(super) fn asked(&self) -> String {
        let state = self.request.state.as_str();
        format!("request {} is {state}; people decide it at: {}", self.request.id, self.link)
    }
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    const PATH: &str = "/api/v1/approvals";
    match options.command {
        Command::List(list) => list.run(PATH).await,
        Command::Show(show) => show.run(PATH).await,
        Command::Approve(decide) => decide.run(PATH, VoteVerdict::Approve).await,
        Command::Deny(decide) => decide.run(PATH, VoteVerdict::Deny).await,
    }
}

impl List {
    pub(super) async fn run(&self, path: &str) -> anyhow::Result<()> {
        let state = ("state", self.state.as_str());
        let query: &[_] = if self.all { &[] } else { &[state] };
        if self.watch {
            return self.watch(path, query).await;
        }
        let requests: Vec<Shown> = self.gateway.pages(path, query, self.limit).await?;
        let mut columns = vec!["REQUEST", "STATE", "ASKED (UTC)", "USER", "TARGET", "WHAT"];
        let is_access = path == super::access::REQUESTS;
        columns.extend(is_access.then_some("REASON"));
        output::print_list(self.json, &requests, &columns, |shown| {
            let reason = is_access.then(|| in_short(shown.request.comment.as_deref()));
            line(shown).into_iter().chain(reason).collect()
        })
    }

    async fn watch(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut seen = HashSet::new();
        loop {
            let mut requests: Vec<Shown> = self.gateway.pages(path, query, WATCHED).await?;
            requests.reverse();
            // What is no longer listed does not come back.
            seen.retain(|id| requests.iter().any(|shown| shown.request.id == *id));
            for shown in requests {
                if !seen.insert(shown.request.id) {
                    continue;
                }
                match self.json {
                    true => output::print(&serde_json::to_string(&shown)?)?,
                    false => output::print(&told(&shown))?,
                }
            }
            tokio::time::sleep(WATCH_POLL).await;
        }
    }
}

impl Show {
    pub(super) async fn run(&self, path: &str) -> anyhow::Result<()> {
        let shown: Shown = self.gateway.get(&format!("{path}/{}", self.id)).await?;
        output::print_done(self.json, &shown, &told(&shown))
    }
}

impl Decide {
    pub(super) async fn run(&self, path: &str, verdict: VoteVerdict) -> anyhow::Result<()> {
        let word = match verdict {
            VoteVerdict::Approve => "approve",
            VoteVerdict::Deny => "deny",
        };
        let path = format!("{path}/{}/{word}", self.id);
        let said = json!({ "comment": self.comment, "exact": self.exact });
        let shown: Shown = self.gateway.send(Method::POST, &path, Some(&said)).await?;
        let state = shown.request.state;
        let told = match state {
            RequestState::Pending => "your word counts; more people are needed".to_owned(),
            _ => format!("request {} is {}", self.id, state.as_str()),
        };
        output::print_done(self.json, &shown, &told)
    }
}

fn line(shown: &Shown) -> Vec<String> {
    let request = &shown.request;
    let access_for = request.seconds.map(|seconds| format!("access for {seconds} s"));
    let what = shown.visible_text.as_ref().or(access_for.as_ref());
    vec![
        request.id.to_string(),
        request.state.as_str().to_owned(),
        output::seconds(request.created_at),
        request.username.clone(),
        request.target.clone(),
        in_short(what.map(String::as_str)),
    ]
}

/// A text in one line, shortened.
fn in_short(text: Option<&str>) -> String {
    let text = text.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The whole of a request, for people. Everything foreign is made visible.
fn told(shown: &Shown) -> String {
    let request = &shown.request;
    let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let mut lines = vec![
        ("request", request.id.to_string()),
        (
            "state",
            match &request.note {
                Some(note) => format!("{} ({note})", request.state.as_str()),
                None => request.state.as_str().to_owned(),
            },
        ),
        ("user", format!("{} ({} at {})", request.username, request.subject, request.issuer)),
        ("target", format!("{} ({})", request.target, request.protocol)),
        ("asked", format!("{}, until {}", request.created_at, request.expires_at)),
    ];
    if let Some(session) = request.session {
        lines.push(("session", session.to_string()));
    }
    if request.workflow.is_some() || request.run.is_some() {
        let (workflow, run) =
            (or_none(request.workflow.as_deref()), or_none(request.run.as_deref()));
        lines.push(("workflow, run", format!("{workflow}, {run}")));
    }
    if let Some(seconds) = request.seconds {
        lines.push(("access for", format!("{seconds} s")));
    }
    for need in &request.needs {
        let people = format!("{} of {}", need.approvals, need.approvers.join(", "));
        lines.push(("needs", format!("{people} (rule {})", need.rule)));
    }
    let texts = [("reason", &request.reason), ("comment", &request.comment)];
    lines.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    for caution in &request.cautions {
        lines.push(("caution", caution.clone()));
    }
    for vote in &request.votes {
        let comment = vote.comment.as_deref().unwrap_or_default();
        let word = match vote.verdict {
            VoteVerdict::Approve => "approved by",
            VoteVerdict::Deny => "denied by",
        };
        lines.push((word, format!("{} at {} {comment}", vote.username, vote.at)));
    }
    if shown.link.contains("://") {
        lines.push(("link", shown.link.clone()));
    }
    let mut text: String =
        lines.iter().map(|(name, text)| format!("{name:<14} {}\n", visible(text))).collect();
    if let Some(command) = &request.command {
        for (name, value) in &command.attributes {
            text += &format!("{:<14} {}\n", visible(name), visible(&value.to_string()));
        }
        for effect in &command.effects {
            let object = effect.object.as_ref().map(|object| format!(" {object}"));
            let object = visible(&object.unwrap_or_default());
            text += &format!("{:<14} {}{object}\n", "does", visible(&effect.action));
        }
    }
    if let Some(exact) = &request.exact {
        text += &format!("{:<14} {exact}\n", "exact bytes");
    }
    if let Some(command) = &shown.visible_text {
        // Its lines stay lines; all else was made visible by the gateway, and is here again.
        let body: Vec<_> = command.lines().map(|line| format!("    {}", visible(line))).collect();
        text += &format!("\n{}\n", body.join("\n"));
    }
    text
}
