//! `portcullis token`: a token for a machine; and tokens that are refused because a session that
//! they opened was ended.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::{ConfigFile, gateway, output};
use crate::config::{self, Config, Issuer, SecretRef};
use crate::database::WithdrawnToken;
use crate::identity::relying_party::RelyingParty;
use crate::percent::encoded;

/// Get a token for a machine from an issuer of the configuration, and print it.
///
/// Uses the client that `[[issuer]]` names, or another one. Keep the token out of command lines:
/// other users of the machine see them.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  PGPASSWORD=$(portcullis token --client-id crew-7 --client-secret-file \
                  secret) psql -h gateway orders"
)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    /// The issuer's name; may be left out when there is one.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The client, instead of the issuer's `client_id`.
    #[arg(long, value_name = "ID", requires = "client_secret_file")]
    client_id: Option<String>,
    /// The file that holds the client's secret.
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// What the token is for, instead of the first of the issuer's `audiences`.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// The scopes to ask for, apart by spaces: some issuers give no token without.
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Lift(Lift),
}

/// List tokens that are refused because a session that they opened was ended, the latest first.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    gateway: gateway::Options,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print them as JSON: an array of tokens.
    #[arg(long)]
    json: bool,
}

/// Let a token count again that is refused because a session that it opened was ended.
#[derive(Debug, Args)]
struct Lift {
    #[command(flatten)]
    gateway: gateway::Options,
    /// The token's id, from `token list` or `session kill`.
    id: String,
    /// Print the gateway's answer as JSON.
    #[arg(long)]
    json: bool,
}

const PATH: &str = "/api/v1/withdrawn-tokens";

impl List {
    async fn run(&self) -> anyhow::Result<()> {
        let tokens: Vec<WithdrawnToken> = self.gateway.pages(PATH, &[], self.limit).await?;
        let columns = ["TOKEN", "USER", "SESSION", "WITHDRAWN (UTC)", "BY", "UNTIL (UTC)"];
        output::print_list(self.json, &tokens, &columns, |token| {
            vec![
                token.id.clone(),
                token.username.clone().unwrap_or_default(),
                token.session.to_string(),
                output::seconds(token.withdrawn_at),
                token.withdrawn_by.clone(),
                output::seconds(token.until),
            ]
        })
    }
}

impl Lift {
    async fn run(&self) -> anyhow::Result<()> {
        let path = format!("{PATH}/{}", encoded(&self.id));
        let lifted: Value = self.gateway.send(Method::DELETE, &path, None).await?;
        output::print_done(self.json, &lifted, &format!("token {} counts again", self.id))
    }
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    match &options.command {
        Some(Command::List(list)) => return list.run().await,
        Some(Command::Lift(lift)) => return lift.run().await,
        None => {}
    }
    let config = config::load(&options.config.path)?;
    let issuer = issuer(&config, options.issuer.as_deref())?;
    let file = options.client_secret_file.map(SecretRef::File);
    let secret = file.as_ref().or(issuer.client_secret.as_ref());
    let id = options.client_id.as_ref().or(issuer.client_id.as_ref());
    let (Some(id), Some(secret)) = (id, secret) else {
        bail!(
            "[[issuer]] {} has no client_id and client_secret; add them, or give --client-id and \
             --client-secret-file",
            issuer.name
        );
    };
    let audience = options.audience.as_ref().or(issuer.audiences.first()).map(String::as_str);
    let client = (id.as_str(), Some(secret.clone()));
    let party = RelyingParty::new(&issuer.url, client, audience, issuer.ca.as_deref());
    let party = party.map_err(anyhow::Error::msg)?;
    let granted = party.client_credentials(options.scope.as_deref()).await?;
    Ok(output::print(granted.access_token.expose())?)
}

/// An issuer by its name, or the only one.
pub(super) fn issuer<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a Issuer> {
    match (name, config.issuers.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => bail!("there are several issuers: name one with --issuer"),
        (Some(name), issuers) => issuers
            .iter()
            .find(|issuer| issuer.name == name)
            .with_context(|| format!("there is no [[issuer]] with the name {name:?}")),
    }
}
