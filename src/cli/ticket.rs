//! `portcullis ticket`: short-lived permits for clients.

use clap::{Args, Subcommand};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::gateway;
use super::output::{self, duration};
use crate::database::Ticket;
use crate::names::{TargetName, TicketId};

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
    List(List),
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

/// List tickets, the latest first: yours, or all for auditors and admins.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    gateway: gateway::Options,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print them as JSON: an array of tickets.
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
        Command::List(list) => list.run().await,
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
        match self.json {
            true => output::print_json(&made),
            false => Ok(output::print(&made.secret)?),
        }
    }
}

impl List {
    async fn run(&self) -> anyhow::Result<()> {
        let tickets: Vec<Ticket> = self.gateway.pages("/api/v1/tickets", "", self.limit).await?;
        if self.json {
            return output::print_json(&tickets);
        }
        let rows = tickets.iter().map(|ticket| {
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
        });
        let columns = ["TICKET", "USER", "TARGET", "MADE (UTC)", "UNTIL (UTC)", "STATE"];
        Ok(output::print_rows(&columns, rows.collect())?)
    }
}

impl Revoke {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/tickets/{}", self.id);
        let revoked: Ticket = self.gateway.send(Method::DELETE, &path, None).await?;
        match self.json {
            true => output::print_json(&revoked),
            false => Ok(output::print(&format!("ticket {} is revoked", self.id))?),
        }
    }
}
