//! `portcullis recording`: what can be done with a recording's file.

mod prune;
mod rewrap;
mod verify;

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::fetched::Fetched;
use super::identities::Identities;
use super::migrate::{self, Opened};
use super::progress::Progress;
use super::{ConfigFile, gateway, output, progress};
use crate::archive::{self, Shelf};
use crate::config;
use crate::database::{self, Reindexed};
use crate::recording::{Keyring, Reader};
use crate::replay::ReplayError;
use crate::replay::export::{self, ExportError};
use crate::web::pages;

/// Prove what recordings are worth.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Verify),
    Export(Export),
    Reindex(Reindex),
    Prune(prune::Prune),
    RotateKey(verify::RotateKey),
    Rewrap(rewrap::Rewrap),
}

/// Make the index of this machine's recordings anew.
///
/// Replaces every row of this gateway's sessions by what its recordings say; those of other
/// gateways in the same database stay, and so does the audit log. Not while the gateway runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis recording reindex --config config/portcullis.toml")]
struct Reindex {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    identities: Identities,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Write a recording in another format.
///
/// html: one page that stands by itself, with what verifying the recording found. csv: the commands
/// as a table for spreadsheets, no cell of which is a formula. sql: the statements of a session of
/// Postgres, with what became of each. asciicast: a terminal of an SSH session, for asciinema's
/// players; what would act on a player's terminal, and not only draw, is left out. har: the
/// requests of a session of HTTP, with the first 4 MiB of each body. jsonl: every event as a line
/// of JSON.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis recording export SESSION.rec --format html > session.html"
)]
struct Export {
    /// A session's id, which the gateway is asked for, or a recording's file, SESSION.rec.
    #[arg(value_name = "ID | PATH")]
    what: String,
    #[command(flatten)]
    gateway: gateway::Options,
    /// The format.
    #[arg(long, value_enum)]
    format: Format,
    /// The channel whose terminal it is; the first that has one when left out.
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
    #[command(flatten)]
    identities: Identities,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Html,
    Csv,
    Sql,
    Asciicast,
    Har,
    Jsonl,
}

async fn export(options: &Export) -> anyhow::Result<()> {
    let keyring = options.identities.keyring().await?;
    let keyed = options.identities.given();
    let place = Fetched::or_file(&options.what, &options.gateway, keyed).await?;
    let path = place.path();
    let mut out = io::BufWriter::new(progress::counted(io::stdout()));
    let reader = || Reader::open_with(path, &keyring).map_err(ExportError::from);
    let done = match options.format {
        Format::Html => {
            pages::html(path, &keyring, &mut out).and_then(|damage| damage.map_or(Ok(()), Err))
        }
        Format::Csv => reader().and_then(|reader| export::csv(reader, &mut out)),
        Format::Sql => reader().and_then(|reader| export::sql(reader, &mut out)),
        Format::Har => reader().and_then(|reader| export::har(reader, &mut out)),
        Format::Jsonl => reader().and_then(|reader| Ok(export::json_lines(reader, &mut out)?)),
        Format::Asciicast => {
            reader().and_then(|reader| export::asciicast(reader, options.channel, &mut out))
        }
    };
    // What came before a damage is written before the damage is told.
    let flushed = out.flush();
    match done {
        Err(ExportError::Replay(ReplayError::Io(error))) => Err(error.into()),
        done => {
            done.with_context(|| format!("cannot export {}", options.what))?;
            Ok(flushed?)
        }
    }
}

pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    match &options.command {
        Command::Verify(options) => verify::verify(options).await,
        Command::RotateKey(options) => verify::rotate_key(options),
        Command::Export(options) => export(options).await,
        Command::Rewrap(options) => options.run().await,
        Command::Reindex(options) => reindex(options).await,
        Command::Prune(options) => options.run().await,
    }
}

async fn reindex(options: &Reindex) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let keyring = options.identities.keyring_or(&config).await?;
    let opened = migrate::open(&config).await?;
    let shelf = archive::open(&config, None)?;
    let keyring = keyring.with_elsewhere(shelf.map(Shelf::elsewhere));
    let done = reindexed(&opened, &config, &keyring).await;
    opened.close().await;
    let done = done?;
    if options.json {
        return output::print_json(&done);
    }
    let Reindexed { recordings, commands, removed, locked, damaged } = done;
    if locked > 0 {
        output::print(&format!(
            "warning: {locked} are encrypted and could not be opened whole (--identity)"
        ))?;
    }
    for (session, problem) in damaged {
        let problem = output::visible(&problem);
        output::print(&format!(
            "warning: {session} is indexed up to where it is damaged: {problem}"
        ))?;
    }
    let text = format!("{recordings} recordings with {commands} commands are indexed");
    let gone = format!("; {removed} sessions without a recording are gone");
    Ok(output::print(&(text + if removed > 0 { &gone } else { "" }))?)
}

async fn reindexed(
    opened: &Opened,
    config: &config::Config,
    keyring: &Keyring,
) -> anyhow::Result<Reindexed> {
    opened.database.migrate().await?;
    let mut line = None;
    let progress = |far: database::Progress| {
        let database::Progress { recordings, of_recordings, bytes, of_bytes } = far;
        let line = line.get_or_insert_with(|| Progress::of(of_bytes));
        line.done(bytes, || format!("{recordings} of {of_recordings} recordings"));
    };
    let index_text = config.database.index_text;
    let data_dir = &config.server.data_dir;
    Ok(opened.database.reindex(data_dir, index_text, keyring, progress).await?)
}
