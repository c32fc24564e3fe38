//! `portcullis policy backtest`: what another policy would have said to commands that ran.
//!
//! [`crate::replay::backtest`] does it; here is which recordings, and how it is told.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::identities::Identities;
use super::{ConfigFile, output};
use crate::archive;
use crate::config::{self, Config};
use crate::names::TargetName;
use crate::recording::{self, Keyring, ReadError};
use crate::replay::backtest::{Backtest, Example, Report, Target};

/// Kinds of change that are listed.
const MOST_LISTED: usize = 50;

/// Decide recorded commands anew, by the rules of a configuration.
///
/// Says which of them would have ended otherwise, and by which rules. Reads recordings and nothing
/// else: those of the configuration's `data_dir` and its archive, or the files given. A command is
/// undecidable where a rule looks at what its recording does not hold: claims, or texts and values
/// that were withheld. Masks and row filters are not tried: what they refused counts as refused again.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis policy backtest --config new.toml /var/lib/portcullis/recordings/*/*.rec"
)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    identities: Identities,
    /// Recordings, SESSION.rec.
    paths: Vec<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    report: Report,
    /// Recordings that are damaged; what was read of them counts.
    damaged: Vec<PathBuf>,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let paths = match options.paths.as_slice() {
        [] => {
            let data_dir = &config.server.data_dir;
            let found = match archive::use_archive(&config, None)? {
                Some(_) => recording::all_recordings(data_dir),
                None => recording::recordings(data_dir),
            };
            let found = found.with_context(|| format!("{} cannot be read", data_dir.display()))?;
            found.into_iter().map(|(_, path, _)| path).collect()
        }
        paths => paths.to_vec(),
    };
    let keyring = options.identities.keyring_or(&config).await?;
    let told = backtest(&config, &paths, &keyring)?;
    if options.json {
        return output::print_json(&told);
    }
    tell(&told)
}

fn backtest(config: &Config, paths: &[PathBuf], keyring: &Keyring) -> anyhow::Result<Told> {
    let terminal = io::stderr().is_terminal();
    let targets = |name: &TargetName| {
        let facts = config.targets.get(name)?.facts();
        let (masks, name) = (&config.masks, name.as_str());
        Some(Target { facts, masked: masks.guard(name, &[]), hides: masks.hide(name) })
    };
    let (mut backtest, mut damaged) = (Backtest::new(&config.policy, &targets), Vec::new());
    let mut told = None;
    for (done, path) in paths.iter().enumerate() {
        let share = done * 100 / paths.len();
        if terminal && told.replace(share) != Some(share) {
            let (bar, commands) = ("#".repeat(share / 4), backtest.commands());
            // Progress that cannot be shown is not needed.
            let _gone = write!(io::stderr(), "\r[{bar:25}] {share} %, {commands} commands\x1b[K");
        }
        match backtest.read((path, keyring), |_, _| true) {
            Ok(_) => {}
            Err(ReadError::Damage(damage)) if damage.offset > 0 => damaged.push(path.clone()),
            Err(error) => {
                let what = format!("{} is no recording that can be read", path.display());
                return Err(anyhow::Error::from(error).context(what));
            }
        }
    }
    if terminal {
        let _gone = write!(io::stderr(), "\r\x1b[K");
    }
    Ok(Told { report: backtest.finish(), damaged })
}

fn tell(told: &Told) -> anyhow::Result<()> {
    let Told { report, damaged } = told;
    let Report { sessions, commands, unchanged, undecidable, no_target, changed } = report;
    output::print(&format!(
        "{commands} commands of {sessions} sessions: {unchanged} as before, {} otherwise, \
         {undecidable} undecidable, {no_target} of targets that are not there",
        changed.iter().map(|change| change.count).sum::<u64>(),
    ))?;
    for path in damaged {
        output::print(&format!("damaged, read in part: {}", shown(path)))?;
    }
    for change in changed.iter().take(MOST_LISTED) {
        let by = match change.rules.as_slice() {
            [] => "the target's default".to_owned(),
            rules => rules.join(", "),
        };
        let Example { session, sequence, text } = &change.example;
        output::print(&format!(
            "{} -> {} by {by}: {}, first in {session} at {sequence}: {}",
            change.from,
            change.to,
            change.count,
            output::visible(text)
        ))?;
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    output::visible(&path.display().to_string())
}
