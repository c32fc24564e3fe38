//! `portcullis login`: a person's token, for commands with `--server`.
//!
//! Tokens are kept by the server that they are for, in `portcullis/logins.json` under
//! `$XDG_CONFIG_HOME` (default `~/.config`), which only its owner may read; a token is sent to no
//! other server. `PORTCULLIS_TOKEN` goes before it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::token::issuer;
use super::{ConfigFile, output};
use crate::config;
use crate::identity::relying_party::RelyingParty;
use crate::secret::Secret;

/// Log in as a person, in a browser, for commands with --server.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis login --server https://portcullis.example.com \
                  --issuer-url https://login.example.com --client-id portcullis")]
pub(super) struct Options {
    /// The gateway's API.
    #[arg(long, value_name = "URL", env = "PORTCULLIS_SERVER")]
    server: String,
    /// The issuer, where there is no configuration to name it.
    #[arg(long, value_name = "URL", requires = "client_id")]
    issuer_url: Option<String>,
    /// The client for logins at that issuer.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// What the token is for.
    #[arg(long, value_name = "NAME", default_value = "portcullis")]
    audience: String,
    /// The scopes to ask for, apart by spaces.
    #[arg(long, value_name = "SCOPES", default_value = "openid")]
    scope: String,
    /// The issuer's name in the configuration; may be left out when there is one.
    #[arg(long, value_name = "NAME", conflicts_with = "issuer_url")]
    issuer: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
}

/// A token and until when it is good, in seconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Login {
    token: String,
    expires: Option<u64>,
}

type Logins = BTreeMap<String, Login>;

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let (url, client_id, ca) = match (&options.issuer_url, &options.client_id) {
        (Some(url), Some(client_id)) => (url.clone(), client_id.clone(), None),
        _ => {
            let config = config::load(&options.config.path)?;
            let issuer = issuer(&config, options.issuer.as_deref())?;
            let client_id = options.client_id.as_ref().or(issuer.client_id.as_ref());
            let client_id = client_id.context("[[issuer]] has no client_id; give --client-id")?;
            (issuer.url.clone(), client_id.clone(), issuer.ca.clone())
        }
    };
    // A person at a machine of their own has no secret of the client.
    let client = (client_id.as_str(), None);
    let party = RelyingParty::new(&url, client, Some(&options.audience), ca.as_deref());
    let device = party.map_err(anyhow::Error::msg)?.device(&options.scope).await?;
    writeln!(io::stderr(), "open {} and enter the code {}", device.address, device.user_code)?;
    let granted = device.granted().await?;
    let login = Login {
        token: granted.access_token.expose().to_owned(),
        expires: granted.expires_in.map(|life| now().saturating_add(life.as_secs())),
    };
    let file = file()?;
    let mut logins = read(&file)?;
    logins.insert(key(&options.server), login);
    // Tokens whose time is over are no longer of use to anybody.
    logins.retain(|_, login| login.expires.is_none_or(|expires| expires > now()));
    write(&file, &logins).with_context(|| format!("cannot keep it in {}", file.display()))?;
    Ok(output::print("logged in")?)
}

/// The variable with a token for every server.
const TOKEN: &str = "PORTCULLIS_TOKEN";

/// The token for a server.
pub(super) fn token_for(server: &str) -> anyhow::Result<Secret> {
    if let Some(token) = from_environment() {
        return Ok(token);
    }
    match read(&file()?)?.remove(&key(server)) {
        Some(login) if login.expires.is_none_or(|expires| expires > now()) => {
            Ok(Secret::new(login.token))
        }
        Some(_) => bail!("the login at {server} is over: run `portcullis login` again"),
        None => bail!("there is no login at {server}: run `portcullis login --server {server}`"),
    }
}

/// Where tokens for servers come from now, in words.
pub(super) fn source() -> String {
    match from_environment() {
        Some(_) => format!("${TOKEN}"),
        None => "`portcullis login`".to_owned(),
    }
}

fn from_environment() -> Option<Secret> {
    std::env::var(TOKEN).ok().filter(|token| !token.is_empty()).map(Secret::new)
}

fn key(server: &str) -> String {
    server.trim_end_matches('/').to_ascii_lowercase()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn file() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".config"));
    let folder = set("XDG_CONFIG_HOME").or_else(home);
    let folder = folder.context("neither XDG_CONFIG_HOME nor HOME is set")?;
    Ok(folder.join("portcullis/logins.json"))
}

fn read(file: &Path) -> anyhow::Result<Logins> {
    let unreadable = || format!("cannot use {}; remove it, and log in again", file.display());
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Logins::new()),
        Err(error) => Err(error).with_context(unreadable),
        Ok(json) => serde_json::from_slice(&json).with_context(unreadable),
    }
}

/// Replaces the file as a whole.
fn write(file: &Path, logins: &Logins) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    written.write_all(&serde_json::to_vec_pretty(logins)?)?;
    written.sync_all()?;
    Ok(fs::rename(&new, file)?)
}
