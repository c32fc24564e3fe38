//! `portcullis token`: a token for a machine.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::http::Client;
use super::oauth::Endpoints;
use super::{ConfigFile, output};
use crate::config::{self, Config, Issuer, SecretRef};

/// Get a token for a machine from an issuer of the configuration, and print it.
///
/// Uses the client that `[[issuer]]` names, or another one. Keep the token out of command lines:
/// other users of the machine see them.
#[derive(Debug, Args)]
#[command(
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
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
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
    let secret = secret.read().await.context("the client's secret")?;
    let audience = options.audience.as_ref().or(issuer.audiences.first());
    let audience = audience.map(String::as_str).unwrap_or_default();
    let client = Client::new()?;
    let endpoints = Endpoints::of(&client, &issuer.url).await?;
    let scope = options.scope.as_deref();
    let granted = endpoints.client_credentials(&client, (id, &secret), audience, scope).await?;
    Ok(output::print(granted.token.expose())?)
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
