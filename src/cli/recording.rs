//! `portcullis recording`: what can be done with a recording's file.

mod prune;
mod verify;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::identities::Identities;
use super::migrate::{self, Opened};
use super::{ConfigFile, output};
use crate::age::Recipient;
use crate::config;
use crate::database::{Progress, Reindexed};
use crate::recording::{self, Keyring, Reader};
use crate::replay;

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
    Rewrap(Rewrap),
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

/// Let other recipients open encrypted recordings too.
///
/// Opens the key of each recording with an identity, wraps it for the recipients, and puts it
/// beside the recording (SESSION.age), in the place of what an earlier run put there. The recording
/// stays as it is, byte for byte, and with it what its first recipients can open.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis recording rewrap --identity old.txt --recipient age1… --config config/portcullis.toml"
)]
struct Rewrap {
    /// Recordings, SESSION.rec; all in the configuration's `data_dir` when left out.
    paths: Vec<PathBuf>,
    /// Who shall be able to open them, `age1…`; may be given more than once.
    #[arg(long, value_name = "RECIPIENT", required = true)]
    recipient: Vec<Recipient>,
    #[command(flatten)]
    identities: Identities,
    #[command(flatten)]
    config: ConfigFile,
}

async fn rewrap(options: &Rewrap) -> anyhow::Result<()> {
    let keyring = options.identities.keyring().await?;
    let paths = match options.paths.as_slice() {
        [] => {
            let data_dir = config::data_dir(&options.config.path)?;
            let found = recording::recordings(&data_dir)
                .with_context(|| format!("{} cannot be read", data_dir.display()))?;
            found.into_iter().map(|(_, path, _)| path).collect()
        }
        paths => paths.to_vec(),
    };
    let (mut done, mut plain, mut failed) = (0_u64, 0_u64, 0_u64);
    for path in paths {
        match recording::rewrap(&path, &keyring, &options.recipient) {
            Ok(true) => done += 1,
            Ok(false) => plain += 1,
            // One that cannot be opened does not keep the others from it.
            Err(error) => {
                failed += 1;
                let shown = path.display().to_string();
                output::print(&format!("{}: {error}", output::visible(&shown)))?;
            }
        }
    }
    output::print(&format!("{done} wrapped anew, {plain} not encrypted"))?;
    anyhow::ensure!(failed == 0, "{failed} recordings could not be wrapped anew");
    Ok(())
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
    #[command(flatten)]
    identities: Identities,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Asciicast,
}

async fn export(options: &Export) -> anyhow::Result<()> {
    let path = options.path.display();
    let failed = || format!("cannot export {path}");
    let keyring = options.identities.keyring().await?;
    let reader = Reader::open_with(&options.path, &keyring).with_context(failed)?;
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
        Command::Verify(options) => verify::verify(options).await,
        Command::RotateKey(options) => verify::rotate_key(options),
        Command::Export(options) => export(options).await,
        Command::Rewrap(options) => rewrap(options).await,
        Command::Reindex(options) => reindex(options).await,
        Command::Prune(options) => options.run().await,
    }
}

async fn reindex(options: &Reindex) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let keyring = options.identities.keyring_or(&config).await?;
    let opened = migrate::open(&config).await?;
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
        let problem = problem.escape_debug();
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
    let data_dir = &config.server.data_dir;
    let done = opened.database.reindex(data_dir, index_text, keyring, progress).await;
    if terminal {
        let _gone = write!(io::stderr(), "\r\x1b[K");
    }
    Ok(done?)
}
