//! `portcullis issuer`: the development issuer alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::identity::dev_issuer::{self, BUILT_IN, Settings};

/// Run the development issuer: an OpenID provider for trying things out, never for production.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Users, clients and lifetimes; without it there is a small built-in set.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where to listen. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// The issuer identifier, when clients reach it by another address than it listens on.
    #[arg(long)]
    url: Option<String>,
    /// Keep the signing key in this file, so that tokens stay valid over a restart.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Listen beyond loopback, where anybody who can connect can be anybody.
    #[arg(long)]
    allow_remote: bool,
}

/// What was asked for, on the command line or in the settings, cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadOptions(String);

/// Serves until SIGINT or SIGTERM. Prints the issuer's URL to standard output once it does.
pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let settings = settings(&options)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let issuer = dev_issuer::start(listener, settings).context("cannot use the signing key")?;
    eprintln!(
        "DEVELOPMENT ISSUER at {}: not for production. Its secrets are no secrets, and whoever \
         reaches it can be anybody.",
        issuer.url()
    );
    println!("{}", issuer.url());
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    issuer.stop().await;
    Ok(())
}

fn settings(options: &Options) -> Result<Settings, BadOptions> {
    let (text, name) = match &options.config {
        None => (BUILT_IN.to_owned(), "the built-in settings".to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let read = std::fs::read_to_string(path);
            (read.map_err(|error| BadOptions(format!("cannot read {name}: {error}")))?, name)
        }
    };
    let bad = |error| BadOptions(format!("{name}: {error}"));
    let mut settings = Settings::parse(&text).map_err(bad)?;
    if options.url.is_some() {
        settings.url.clone_from(&options.url);
    }
    if options.key_file.is_some() {
        settings.key_file.clone_from(&options.key_file);
    }
    let (listen, ip) = (options.listen, options.listen.ip());
    if !ip.is_loopback() && !options.allow_remote {
        return Err(BadOptions(format!(
            "{listen} is not loopback: whoever reaches the development issuer can be anybody; \
             --allow-remote if that is meant"
        )));
    }
    if ip.is_unspecified() && settings.url.is_none() {
        let problem = format!("{listen} is no address to reach: give --url as clients see it");
        return Err(BadOptions(problem));
    }
    settings.checked().map_err(bad)
}
