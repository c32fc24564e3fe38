//! `portcullis issuer`: the development issuer alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::identity::dev_issuer::{self, BUILT_IN, Settings};

/// Run the development issuer: an OpenID provider for trying things out, never for production.
#[derive(Debug, clap::Args)]
pub struct Args {
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

/// Serves until SIGINT or SIGTERM. Prints the issuer's URL to standard output once it does.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if !args.listen.ip().is_loopback() && !args.allow_remote {
        anyhow::bail!(
            "{} is not loopback: whoever reaches the development issuer can be anybody; \
             --allow-remote if that is meant",
            args.listen
        );
    }
    let settings = settings(&args)?;
    if args.listen.ip().is_unspecified() && settings.url.is_none() {
        anyhow::bail!("{} is no address to reach: give --url as clients see it", args.listen);
    }
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
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

fn settings(args: &Args) -> anyhow::Result<Settings> {
    let (text, name) = match &args.config {
        None => (BUILT_IN.to_owned(), "the built-in settings".to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            (std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?, name)
        }
    };
    let mut settings = Settings::parse(&text).with_context(|| name.clone())?;
    if args.url.is_some() {
        settings.url.clone_from(&args.url);
    }
    if args.key_file.is_some() {
        settings.key_file.clone_from(&args.key_file);
    }
    settings.checked().with_context(|| name)
}
