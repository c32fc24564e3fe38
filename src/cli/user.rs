//! `portcullis user`: who may nothing any more.

use clap::{Args, Subcommand};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::gateway;
use super::output::{self, duration};
use crate::database::RevokedUser;

const PATH: &str = "/api/v1/revoked-users";

/// Revoke people and agents, and let them in again.
///
/// Whatever a revoked user presents is refused, here and on every gateway of the database, and what
/// they have open ends within two seconds. Their issuer knows nothing of it.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Revoke(Revoke),
    Restore(Restore),
    List(List),
}

/// Refuse a user and end their sessions.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis user revoke crew-7 --issuer corp --for 12h \
                        --server https://portcullis.example.com")]
struct Revoke {
    #[command(flatten)]
    gateway: gateway::Options,
    #[command(flatten)]
    user: User,
    /// For how long, as 30m or 12h; until they are let in again when left out.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasts: Option<u64>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Let a revoked user in again.
#[derive(Debug, Args)]
struct Restore {
    #[command(flatten)]
    gateway: gateway::Options,
    #[command(flatten)]
    user: User,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// List who is revoked, the latest first.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    gateway: gateway::Options,
    /// Print them as JSON: an array of users.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct User {
    /// What the issuer calls them: the `subject` of their sessions.
    subject: String,
    /// The issuer, by its name in the configuration or its URL.
    #[arg(long)]
    issuer: String,
}

#[derive(Serialize, Deserialize)]
struct Revoked {
    items: Vec<RevokedUser>,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        Command::Revoke(revoke) => revoke.run().await,
        Command::Restore(restore) => restore.run().await,
        Command::List(list) => list.run().await,
    }
}

impl Revoke {
    async fn run(&self) -> anyhow::Result<()> {
        let wanted = json!({
            "issuer": self.user.issuer,
            "subject": self.user.subject,
            "duration_seconds": self.lasts,
        });
        let revoked: RevokedUser = self.gateway.send(Method::POST, PATH, Some(&wanted)).await?;
        output::print_done(self.json, &revoked, &format!("{} is revoked", self.user.subject))
    }
}

impl Restore {
    async fn run(&self) -> anyhow::Result<()> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("issuer", &self.user.issuer)
            .append_pair("subject", &self.user.subject)
            .finish();
        let path = format!("{PATH}?{query}");
        let restored: Value = self.gateway.send(Method::DELETE, &path, None).await?;
        output::print_done(self.json, &restored, &format!("{} is let in again", self.user.subject))
    }
}

impl List {
    async fn run(&self) -> anyhow::Result<()> {
        let revoked: Revoked = self.gateway.get(PATH).await?;
        let columns = ["ISSUER", "SUBJECT", "REVOKED (UTC)", "BY", "UNTIL (UTC)"];
        output::print_list(self.json, &revoked.items, &columns, |user| {
            vec![
                user.issuer.clone(),
                user.subject.clone(),
                output::seconds(user.revoked_at),
                user.revoked_by.clone(),
                output::seconds(user.until),
            ]
        })
    }
}
