//! `portcullis hold`: what must stay, whatever its age.

use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::gateway;
use super::output;
use crate::database::{Hold, HoldFilter, OneSession, Timestamp};
use crate::names::{HoldId, SessionId};

const PATH: &str = "/api/v1/holds";

/// Keep recordings from being deleted.
///
/// A hold keeps every session that it covers, those of today and those to come, until it is
/// lifted, on every gateway of the database; it also stands as a file beside each recording. For
/// admins.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Set(Box<Set>),
    Lift(Lift),
    List(List),
}

/// Hold sessions: one by its id, or all that match everything that is given.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  portcullis hold set --session SESSION --reason 'case 4711'\n  \
                  portcullis hold set --user crew-7 --target orders --from 2026-11-01T00:00:00Z --reason 'case 4711'"
)]
struct Set {
    #[command(flatten)]
    gateway: gateway::Options,
    /// Why; the audit log keeps it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// This session.
    #[arg(long, value_name = "ID", conflicts_with = "filter")]
    session: Option<SessionId>,
    #[command(flatten)]
    filter: Filter,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(id = "filter", multiple = true)]
struct Filter {
    /// Sessions of this user.
    #[arg(long)]
    user: Option<String>,
    /// Sessions of this run.
    #[arg(long)]
    run: Option<String>,
    /// Sessions of this workflow.
    #[arg(long)]
    workflow: Option<String>,
    /// Sessions of callers in this group.
    #[arg(long)]
    group: Option<String>,
    /// Sessions on this target.
    #[arg(long)]
    target: Option<String>,
    /// Sessions that speak this.
    #[arg(long, value_name = "postgres|ssh|http")]
    protocol: Option<String>,
    /// Sessions with a command of this verdict.
    #[arg(long, value_name = "allow|block|approve")]
    verdict: Option<String>,
    /// Sessions that opened then or later.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Sessions that opened before.
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Sessions with these words in a command.
    #[arg(long, value_name = "WORDS")]
    text: Option<String>,
}

/// Lift a hold: what nothing else holds is deleted when its time is over.
#[derive(Debug, Args)]
struct Lift {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The hold's id, as `hold list` shows it.
    id: HoldId,
    /// Why; the audit log keeps it.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// List holds, the latest first.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    gateway: gateway::Options,
    /// Those that were lifted, too.
    #[arg(long)]
    all: bool,
    /// Print them as JSON: an array of holds.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Deserialize)]
struct Holds {
    items: Vec<Hold>,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        Command::Set(set) => set.run().await,
        Command::Lift(lift) => lift.run().await,
        Command::List(list) => list.run().await,
    }
}

impl Set {
    async fn run(&self) -> anyhow::Result<()> {
        let filter = self.filter.given();
        if self.session.is_none() && filter.is_empty() {
            bail!("say what to hold: --session, or --user, --run, --target and what else it has");
        }
        let wanted = json!({ "reason": self.reason, "session": self.session, "filter": filter });
        let hold: Hold = self.gateway.send(Method::POST, PATH, Some(&wanted)).await?;
        match self.json {
            true => output::print_json(&hold),
            false => Ok(output::print(&format!("hold {} is set", hold.id))?),
        }
    }
}

impl Filter {
    fn given(&self) -> Map<String, Value> {
        let time = |time: &Option<Timestamp>| time.map(|time| time.to_string());
        [
            ("user", self.user.clone()),
            ("run", self.run.clone()),
            ("workflow", self.workflow.clone()),
            ("group", self.group.clone()),
            ("target", self.target.clone()),
            ("protocol", self.protocol.clone()),
            ("verdict", self.verdict.clone()),
            ("from", time(&self.from)),
            ("to", time(&self.to)),
            ("text", self.text.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?))))
        .collect()
    }
}

impl Lift {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("{PATH}/{}", self.id);
        let why = json!({ "reason": self.reason });
        let hold: Hold = self.gateway.send(Method::DELETE, &path, Some(&why)).await?;
        match self.json {
            true => output::print_json(&hold),
            false => Ok(output::print(&format!("hold {} is lifted", hold.id))?),
        }
    }
}

impl List {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("{PATH}?all={}", self.all);
        let holds: Holds = self.gateway.get(&path).await?;
        if self.json {
            return output::print_json(&holds.items);
        }
        let rows = holds.items.iter().map(|hold| {
            vec![
                hold.id.to_string(),
                covers(&hold.filter),
                hold.reason.clone(),
                output::seconds(hold.set_at),
                hold.set_by.clone(),
                hold.lifted_at.map(output::seconds).unwrap_or_default(),
            ]
        });
        let columns = ["HOLD", "COVERS", "REASON", "SET (UTC)", "BY", "LIFTED (UTC)"];
        Ok(output::print_rows(&columns, rows.collect())?)
    }
}

fn covers(filter: &HoldFilter) -> String {
    if let HoldFilter::Session(OneSession { session }) = filter {
        return format!("session={session}");
    }
    let Ok(Value::Object(filter)) = serde_json::to_value(filter) else { return String::new() };
    let pairs = filter.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}
