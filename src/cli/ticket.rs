//! `portcullis ticket`: short-lived permits for clients.

use clap::{Args, Subcommand};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::gateway::{self, Listing};
use super::output::{self, duration};
use crate::database::Ticket;
use crate::names::{TargetName, TicketId};

const COLUMNS: &[&str] = &["TICKET", "USER", "TARGET", "MADE (UTC)", "UNTIL (UTC)", "STATE"];

/// Make, list and revoke tickets.
///
/// A ticket is a short password for one target, accepted wherever a token is: it is you, with your
/// groups as they are now, until its time is over.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    /// List tickets, the latest first: yours, or all for auditors and admins.
    List(Listing),
    Revoke(Revoke),
}

/// Make a ticket for yourself and print it, this once.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  PGPASSWORD=$(portcullis ticket create orders --for 1h --server \
                        https://portcullis.example.com) psql -h gateway orders"
)]
struct Create {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The target that it is for.
    target: TargetName,
    /// For how long, as 30m or 2h; the longest that the gateway allows when left out.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lifetime: Option<u64>,
    /// It opens one session and never another.
    #[arg(long)]
    single_use: bool,
    /// Print it with all that it is as JSON; `secret` is what clients present.
    #[arg(long)]
    json: bool,
}

/// Revoke a ticket; the sessions that it opened end.
#[derive(Debug, Args)]
struct Revoke {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The ticket's id, as `ticket list` shows it.
    id: TicketId,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Deserialize)]
struct Made {
    secret: String,
    #[serde(flatten)]
    ticket: Ticket,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        Command::Create(create) => create.run().await,
        Command::List(list) => list.print("/api/v1/tickets", COLUMNS, row).await,
        Command::Revoke(revoke) => revoke.run().await,
    }
}

impl Create {
    async fn run(&self) -> anyhow::Result<()> {
        let wanted = json!({
            "target": self.target,
            "lifetime_seconds": self.lifetime,
            "single_use": self.single_use,
        });
        let made: Made = self.gateway.send(Method::POST, "/api/v1/tickets", Some(&wanted)).await?;
        output::print_done(self.json, &made, &made.secret)
    }
}

impl Revoke {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/tickets/{}", self.id);
        let revoked: Ticket = self.gateway.send(Method::DELETE, &path, None).await?;
        output::print_done(self.json, &revoked, &format!("ticket {} is revoked", self.id))
    }
}

fn row(ticket: &Ticket) -> Vec<String> {
    let state = match (ticket.revoked_at, ticket.used_at) {
        (Some(_), _) => "revoked",
        (None, Some(_)) => "used",
        (None, None) if ticket.single_use => "once",
        (None, None) => "",
    };
    vec![
        ticket.id.to_string(),
        ticket.username.clone(),
        ticket.target.clone(),
        output::seconds(ticket.created_at),
        output::seconds(ticket.expires_at),
        state.to_owned(),
    ]
}
