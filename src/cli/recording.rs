//! `portcullis recording`: what can be done with a recording's file.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::migrate::{self, Opened};
use super::{ConfigFile, output};
use crate::config;
use crate::database::{Progress, Reindexed};
use crate::recording::{self, Reader, Report, State};
use crate::replay;

/// Prove what recordings are worth.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
    Export(Export),
    Reindex(Reindex),
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
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Prove that a recording is what was written.
///
/// Holds every byte against the chain of hashes, and the seal against the ledger of the directory
/// that the recording stands in. Fails for a recording that is not sealed.
#[derive(Debug, Args)]
struct Verify {
    /// The recording's file, SESSION.rec.
    path: PathBuf,
    /// Another ledger to hold it against.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Accept a recording that is not sealed yet.
    #[arg(long)]
    allow_open: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Write a recording in another format.
///
/// asciicast: a terminal of an SSH session, for asciinema's players; what would act on a player's
/// terminal, and not only draw, is left out.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis recording export SESSION.rec --format asciicast > session.cast"
)]
struct Export {
    /// The recording's file, SESSION.rec.
    path: PathBuf,
    /// The format.
    #[arg(long, value_enum)]
    format: Format,
    /// The channel whose terminal it is; the first that has one when left out.
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Asciicast,
}

fn export(options: &Export) -> anyhow::Result<()> {
    let path = options.path.display();
    let failed = || format!("cannot export {path}");
    let reader = Reader::open(&options.path).with_context(failed)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match options.format {
        Format::Asciicast => {
            replay::asciicast(reader, options.channel, &mut out).with_context(failed)?;
        }
    }
    Ok(out.flush()?)
}

pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    match &options.command {
        Command::Verify(options) => prove(options),
        Command::Export(options) => export(options),
        Command::Reindex(options) => reindex(options).await,
    }
}

async fn reindex(options: &Reindex) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let opened = migrate::open(&config).await?;
    let done = reindexed(&opened, &config).await;
    opened.close().await;
    let done = done?;
    if options.json {
        return output::print_json(&done);
    }
    let Reindexed { recordings, commands, removed, damaged } = done;
    for (session, problem) in damaged {
        let problem = problem.escape_debug();
        output::print(&format!(
            "warning: {session} is indexed up to where it is damaged: {problem}"
        ))?;
    }
    let text = format!("{recordings} recordings with {commands} commands are indexed");
    let gone = format!("; {removed} sessions without a recording are gone");
    Ok(output::print(&(text + if removed > 0 { &gone } else { "" }))?)
}

async fn reindexed(opened: &Opened, config: &config::Config) -> anyhow::Result<Reindexed> {
    opened.database.migrate().await?;
    let terminal = io::stderr().is_terminal();
    let mut told = None;
    let progress = |far: Progress| {
        let share = far.bytes.saturating_mul(100).checked_div(far.of_bytes).unwrap_or(100);
        if terminal && told.replace(share) != Some(share) {
            let Progress { recordings, of_recordings, .. } = far;
            // Progress that cannot be shown is not needed.
            let _gone = write!(io::stderr(), "\r{share} % ({recordings} of {of_recordings})\x1b[K");
        }
    };
    let index_text = config.database.index_text;
    let done = opened.database.reindex(&config.server.data_dir, index_text, progress).await;
    if terminal {
        let _gone = write!(io::stderr(), "\r\x1b[K");
    }
    Ok(done?)
}

fn prove(options: &Verify) -> anyhow::Result<()> {
    let path = options.path.display();
    let report = recording::verify(&options.path, options.ledger.as_deref())
        .with_context(|| format!("cannot verify {path}"))?;
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        tell(&mut out, &report)?;
    }
    match (&report.wrong, report.state) {
        (Some(wrong), _) => {
            bail!("{path} is not what was written: {}", wrong.to_string().escape_debug())
        }
        (None, State::Open) if !options.allow_open => {
            bail!("{path} is open, not sealed (--allow-open accepts that)")
        }
        _ => Ok(()),
    }
}

fn tell(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let Report { blocks, events, file_bytes, raw_bytes, missing_events, .. } = report;
    let amount = format!(
        "{events} events in {blocks} blocks, {file_bytes} bytes ({raw_bytes} before compression)"
    );
    match report.state {
        State::Whole => {
            let how = report.how.as_deref().unwrap_or_default().escape_debug();
            writeln!(out, "whole: {amount}; ended by: {how}")?;
            writeln!(out, "proved: this recording is what was written, from first event to seal")?;
            if report.ledger {
                writeln!(out, "proved: the ledger has the same seal")?;
            } else {
                writeln!(out, "not proved: that the ledger knows it; there was none")?;
            }
            writeln!(out, "not proved: who wrote it (seals are not signed yet)")?;
            writeln!(out, "not proved: that no other recording is missing")?;
        }
        State::Open => {
            writeln!(out, "open, not sealed: {amount}")?;
            writeln!(out, "proved: what is in blocks is what was written")?;
            writeln!(out, "not proved: that nothing was cut from its end")?;
        }
        State::Wrong => writeln!(out, "wrong; before that: {amount}")?,
    }
    if report.interrupted {
        writeln!(out, "note: its gateway died; it was sealed as it was found")?;
    }
    if *missing_events > 0 {
        writeln!(out, "note: {missing_events} events are missing where the recording says so")?;
    }
    Ok(())
}
