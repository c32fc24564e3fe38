//! `portcullis access`: asking for access that people grant, and deciding who gets it.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::json;

use super::approval::{Decide, List as ListRequests, Show, Shown};
use super::gateway::{self, Listing};
use super::output::{self, duration};
use crate::database::{AccessGrant, VoteVerdict};
use crate::names::{GrantId, TargetName};

pub(super) const REQUESTS: &str = "/api/v1/access-requests";
const COLUMNS: &[&str] = &["GRANT", "USER", "TARGET", "FROM (UTC)", "UNTIL (UTC)", "STATE"];

/// Ask for access to a target, decide who gets it, and take it back.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Request(Request),
    /// List access that was granted, the latest first: yours, or all for auditors and admins.
    List(Listing),
    Requests(ListRequests),
    /// Show one request: who asks, for what, who may decide, who did.
    Show(Show),
    /// Grant an access that is asked for.
    Approve(Decide),
    /// Refuse an access that is asked for.
    Deny(Decide),
    Revoke(Revoke),
}

/// Ask for access to a target that people grant.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis access request orders --for 30m --reason 'refund \
                        4711' --server https://portcullis.example.com")]
struct Request {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The target.
    target: TargetName,
    /// For how long, as 30m or 2h; what the rule gives when left out, and at most that.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lifetime: Option<u64>,
    /// What for; who decides sees it.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the request as JSON.
    #[arg(long)]
    json: bool,
}

/// Take granted access back; the sessions that it opened end.
#[derive(Debug, Args)]
struct Revoke {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The grant's id, as `access list` shows it.
    id: GrantId,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        Command::Request(request) => request.run().await,
        Command::List(list) => list.print("/api/v1/grants", COLUMNS, row).await,
        Command::Requests(list) => list.run(REQUESTS).await,
        Command::Show(show) => show.run(REQUESTS).await,
        Command::Approve(decide) => decide.run(REQUESTS, VoteVerdict::Approve).await,
        Command::Deny(decide) => decide.run(REQUESTS, VoteVerdict::Deny).await,
        Command::Revoke(revoke) => revoke.run().await,
    }
}

impl Request {
    async fn run(&self) -> anyhow::Result<()> {
        let wanted = json!({
            "target": self.target,
            "duration_seconds": self.lifetime,
            "reason": self.reason,
        });
        let asked: Shown = self.gateway.send(Method::POST, REQUESTS, Some(&wanted)).await?;
        output::print_done(self.json, &asked, &asked.asked())
    }
}

impl Revoke {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/grants/{}", self.id);
        let revoked: AccessGrant = self.gateway.send(Method::DELETE, &path, None).await?;
        output::print_done(self.json, &revoked, &format!("grant {} is revoked", self.id))
    }
}

fn row(grant: &AccessGrant) -> Vec<String> {
    let state = if grant.revoked_at.is_some() { "revoked" } else { "" };
    vec![
        grant.id.to_string(),
        grant.username.clone(),
        grant.target.clone(),
        output::seconds(grant.starts_at),
        output::seconds(grant.ends_at),
        state.to_owned(),
    ]
}
