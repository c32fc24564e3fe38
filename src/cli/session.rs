//! `portcullis session`: looking at what the gateway recorded.

use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;

use super::gateway::{self, Page};
use super::output::{self, visible};
use crate::database::{Command as Row, Session};
use crate::names::SessionId;

/// How much of a command one line shows, in characters.
const SHOWN: usize = 120;
/// How many commands a watch asks for at a time.
const WATCHED: usize = 200;
/// How often a watch looks.
const WATCH_POLL: Duration = Duration::from_secs(1);

/// Look at sessions.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(Box<List>),
    Show(Show),
    Watch(Watch),
    Kill(Kill),
}

/// List sessions, the latest first; all filters that are given must hold.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  portcullis session list --target orders --verdict block --from \
                  2026-11-20T00:00:00Z\n  portcullis session list --text 'drop table' --json"
)]
struct List {
    #[command(flatten)]
    gateway: gateway::Options,
    /// Of this user.
    #[arg(long)]
    user: Option<String>,
    /// Of somebody in this group.
    #[arg(long)]
    group: Option<String>,
    /// On this target.
    #[arg(long)]
    target: Option<String>,
    /// postgres, ssh or http.
    #[arg(long)]
    protocol: Option<String>,
    /// Of this workflow.
    #[arg(long)]
    workflow: Option<String>,
    /// Of this run.
    #[arg(long)]
    run: Option<String>,
    /// With a command that got this verdict: allow, block or approve.
    #[arg(long)]
    verdict: Option<String>,
    /// Opened at this time or later, as 2026-11-20T10:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Opened before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// With a command that has these words, as in a web search.
    #[arg(long, value_name = "WORDS")]
    text: Option<String>,
    /// With a command that has this part, of three characters or more.
    #[arg(long, value_name = "PART")]
    contains: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print them as JSON: an array of sessions.
    #[arg(long)]
    json: bool,
}

/// Show one session and its commands.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis session show 019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b")]
struct Show {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The session's id.
    id: SessionId,
    /// How many commands at most.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Print them as JSON: an object of `session` and `commands`.
    #[arg(long)]
    json: bool,
}

/// Follow a session's commands until it ends.
///
/// Commands show about half a second after they happened, once the index has them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis session watch 019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b")]
struct Watch {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The session's id.
    id: SessionId,
    /// Print each command as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// End a session, on whichever gateway it is.
///
/// What opened it (a token or a ticket) is refused from then on, until it expires.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis session kill 019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b")]
struct Kill {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The session's id.
    id: SessionId,
    /// End this session only: what opened it goes on to count.
    #[arg(long)]
    only_session: bool,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the gateway's answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        Command::List(list) => list.run().await,
        Command::Show(show) => show.run().await,
        Command::Watch(watch) => watch.run().await,
        Command::Kill(kill) => kill.run().await,
    }
}

impl Kill {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/sessions/{}/kill", self.id);
        let how = serde_json::json!({ "only_session": self.only_session, "reason": self.reason });
        let killed: serde_json::Value = self.gateway.send(Method::POST, &path, Some(&how)).await?;
        if self.json {
            return output::print_json(&killed);
        }
        output::print(&format!("session {} has ended", self.id))?;
        if let Some(token) = killed.get("withdrawn_token").filter(|token| token.is_object()) {
            let text = |key| token.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
            let (until, id) = (visible(text("until")), visible(text("id")));
            output::print(&format!(
                "what opened it is refused at every gateway until {until}; to undo that:\n\
                 portcullis token lift {id}{}",
                self.gateway.flag()
            ))?;
        }
        Ok(())
    }
}

impl Watch {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/sessions/{}", self.id);
        let commands = format!("{path}/commands");
        let mut cursor: Option<String> = None;
        let mut shown = 0_usize;
        loop {
            // Asked before its commands, so that none comes behind the end.
            let session: Session = self.gateway.get(&path).await?;
            loop {
                let page: Page<Row> =
                    self.gateway.page(&commands, &[], WATCHED, cursor.as_deref()).await?;
                // The last page grows: what was shown of it is passed over.
                for command in page.items.iter().skip(shown) {
                    match self.json {
                        true => output::print(&serde_json::to_string(command)?)?,
                        false => output::print_rows(&[], vec![line(command)])?,
                    }
                }
                shown = page.items.len();
                let Some(next) = page.next else { break };
                (cursor, shown) = (Some(next), 0);
            }
            if let Some(closed_at) = session.closed_at {
                let how = session.ended_text.or(session.ended).unwrap_or_default();
                if !self.json {
                    output::print(&format!("{closed_at} ended: {}", visible(&how)))?;
                }
                return Ok(());
            }
            tokio::time::sleep(WATCH_POLL).await;
        }
    }
}

impl List {
    async fn run(&self) -> anyhow::Result<()> {
        let filters = [
            ("user", &self.user),
            ("group", &self.group),
            ("target", &self.target),
            ("protocol", &self.protocol),
            ("workflow", &self.workflow),
            ("run", &self.run),
            ("verdict", &self.verdict),
            ("from", &self.from),
            ("to", &self.to),
            ("text", &self.text),
            ("contains", &self.contains),
        ];
        let query: Vec<_> =
            filters.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
        let sessions: Vec<Session> =
            self.gateway.pages("/api/v1/sessions", &query, self.limit).await?;
        if self.json {
            return output::print_json(&sessions);
        }
        let rows = sessions.iter().map(|session| {
            let seconds = |at: &crate::database::Timestamp| short(&at.to_string(), 19);
            vec![
                session.id.to_string(),
                seconds(&session.opened_at),
                session.username.clone(),
                session.target.to_string(),
                session.commands.to_string(),
                session.blocked.to_string(),
                session.ended.clone().unwrap_or_else(|| "open".to_owned()),
            ]
        });
        let columns = ["SESSION", "OPENED (UTC)", "USER", "TARGET", "COMMANDS", "BLOCKED", "ENDED"];
        Ok(output::print_rows(&columns, rows.collect())?)
    }
}

impl Show {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/sessions/{}", self.id);
        let session: Session = self.gateway.get(&path).await?;
        let commands: Vec<Row> =
            self.gateway.pages(&format!("{path}/commands"), &[], self.limit).await?;
        if self.json {
            let both = serde_json::json!({ "session": session, "commands": commands });
            return output::print_json(&both);
        }
        output::print(&told(&session))?;
        let rows = commands.iter().map(line);
        Ok(output::print_rows(&["AT (UTC)", "VERDICT", "END", "TOOK", "COMMAND"], rows.collect())?)
    }
}

/// A command as one line of a table.
fn line(command: &Row) -> Vec<String> {
    let end = match (&command.error_code, &command.status) {
        (Some(code), _) => format!("error {code}"),
        (None, Some(status)) => status.clone(),
        (None, None) => String::new(),
    };
    vec![
        short(&command.at.to_string(), 23),
        command.verdict.to_string(),
        end,
        command
            .duration_us
            .map(|us| format!("{}.{:03} ms", us / 1000, us % 1000))
            .unwrap_or_default(),
        short(command.text.as_deref().unwrap_or(&command.form), SHOWN),
    ]
}

fn told(session: &Session) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let closed = session.closed_at.map_or_else(|| "open".to_owned(), |at| at.to_string());
    let Session { commands, blocked, approved, failed, rows, bytes_up, bytes_down, .. } = session;
    let lines = [
        ("session", session.id.to_string()),
        ("user", format!("{} ({} at {})", session.username, session.subject, session.issuer)),
        ("groups", session.groups.join(", ")),
        ("target", format!("{} ({})", session.target, or_none(&session.database))),
        ("client", session.client.clone()),
        ("workflow, run", format!("{}, {}", or_none(&session.workflow), or_none(&session.run))),
        ("opened", session.opened_at.to_string()),
        ("closed", format!("{closed} {}", session.ended_text.as_deref().unwrap_or_default())),
        (
            "commands",
            format!("{commands}, {blocked} blocked, {approved} approved, {failed} failed"),
        ),
        ("rows", rows.to_string()),
        ("bytes", format!("{bytes_up} up, {bytes_down} down")),
    ];
    let lines = lines.map(|(name, text)| format!("{name:<14} {}", visible(&text)));
    lines.join("\n") + "\n"
}

/// The first characters of a text, on one line.
fn short(text: &str, characters: usize) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        Some((end, _)) if characters == SHOWN => {
            format!("{}…", line.get(..end).unwrap_or_default())
        }
        Some((end, _)) => line.get(..end).unwrap_or_default().to_owned(),
        None => line,
    }
}
