//! `portcullis policy backtest`: what another policy would have said to commands that ran.
//!
//! [`crate::replay::backtest`] does it; here is which recordings, and how it is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::identities::Identities;
use super::progress::Progress;
use super::{ConfigFile, output, policy};
use crate::app::previews::Catalogs;
use crate::archive::{self, Shelf};
use crate::catalog::Rules;
use crate::config::{self, Config};
use crate::names::TargetName;
use crate::policy::claims;
use crate::recording::{self, Keyring, ReadError};
use crate::replay::backtest::{
    Backtest, Catalogs as _, Example, MaskReport, Report, Statement, Target, Undecidable,
    Unreachable, databases,
};

/// Kinds of change that are listed.
const MOST_LISTED: usize = 50;

/// Decide recorded commands anew, by the rules of a configuration.
///
/// Says which of them would have ended otherwise, and by which rules. Reads recordings and nothing
/// else: those of the configuration's `data_dir` and its archive, or the files given. A command is
/// undecidable where a rule looks at what its recording does not hold: claims, or texts and values
/// that were withheld; each reason is printed with its first command. Masks and row filters are not tried, and what they refused counts as refused again; with
/// --online each target's catalog is asked what they would do with every recorded statement. Nothing is run.
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
    /// Ask each Postgres target's catalog once, with the target's credential, what masks and row filters would do.
    #[arg(long)]
    online: bool,
    /// With --online, a claim that every caller has, as text: recordings hold none. One that is given several times is a list.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = policy::claim, requires = "online")]
    claims: Vec<(String, String)>,
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
    /// Targets that could not be asked with --online; their statements are undecidable for masks.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<Vec<Unreachable>>,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let config = Arc::new(config::load(&options.config.path)?);
    let mut keyring = options.identities.keyring_or(&config).await?;
    let paths = match options.paths.as_slice() {
        [] => {
            let data_dir = &config.server.data_dir;
            let shelf = archive::open(&config, None)?;
            let found = match &shelf {
                Some(_) => recording::all_recordings(data_dir),
                None => recording::recordings(data_dir),
            };
            keyring = keyring.with_elsewhere(shelf.map(Shelf::elsewhere));
            let found = found.with_context(|| format!("{} cannot be read", data_dir.display()))?;
            found.into_iter().map(|(_, path, _)| path).collect()
        }
        paths => paths.to_vec(),
    };
    let mut catalogs = match options.online {
        true => {
            let wanted = databases(paths.iter().map(PathBuf::as_path), &keyring);
            let rules = Arc::new(Rules::new(Arc::clone(&config)));
            Some(Catalogs::read(rules, claims(options.claims.iter().cloned()), wanted).await)
        }
        false => None,
    };
    let told = backtest(&config, &paths, &keyring, catalogs.as_mut())?;
    if options.json {
        return output::print_json(&told);
    }
    tell(&told)
}

fn backtest(
    config: &Config,
    paths: &[PathBuf],
    keyring: &Keyring,
    mut catalogs: Option<&mut Catalogs>,
) -> anyhow::Result<Told> {
    let targets = |name: &TargetName| {
        let facts = config.targets.get(name)?.facts();
        let (masks, name) = (&config.masks, name.as_str());
        Some(Target { facts, masked: masks.guard(name, &[]), hides: masks.hide(name) })
    };
    let unreachable = catalogs.as_ref().map(|catalogs| catalogs.unreachable());
    let mut masks;
    let (mut backtest, mut damaged) = (Backtest::new(&config.policy, &targets), Vec::new());
    if let Some(catalogs) = catalogs.as_mut() {
        masks = |statement: &Statement<'_>| catalogs.masked(statement);
        backtest = backtest.with_masks(&mut masks);
    }
    let progress = Progress::of(paths.len() as u64);
    for (done, path) in (0..).zip(paths) {
        progress.done(done, || format!("{} commands", backtest.commands()));
        match backtest.read((path, keyring), |_, _| true) {
            Ok(_) => {}
            Err(ReadError::Damage(damage)) if damage.offset > 0 => damaged.push(path.clone()),
            Err(error) => {
                let what = format!("{} is no recording that can be read", path.display());
                return Err(anyhow::Error::from(error).context(what));
            }
        }
    }
    Ok(Told { report: backtest.finish(), damaged, unreachable })
}

fn tell(told: &Told) -> anyhow::Result<()> {
    let Told { report, damaged, unreachable } = told;
    let Report { sessions, commands, unchanged, undecidable, no_target, changed, masks, .. } =
        report;
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
        let (from, to, count) = (change.from, change.to, change.count);
        output::print(&format!("{from} -> {to} by {by}: {count}, {}", first(&change.example)))?;
    }
    tell_undecidable("undecidable", &report.undecidable_by_reason)?;
    for Unreachable { target, database, error } in unreachable.iter().flatten() {
        output::print(&format!(
            "target {target}, database {database}, cannot be asked, so that its statements are \
             undecidable for masks: {}",
            output::visible(error)
        ))?;
    }
    masks.as_ref().map_or(Ok(()), tell_masks)
}

fn tell_masks(masks: &MaskReport) -> anyhow::Result<()> {
    let MaskReport { same, undecidable, undecidable_by_reason, instead, refused } = masks;
    output::print(&format!(
        "masks and row filters: {same} sent as they are, {} answered otherwise, {} refused, \
         {undecidable} undecidable",
        instead.count,
        refused.iter().map(|kind| kind.count).sum::<u64>(),
    ))?;
    if let (Some(example), Some(sent)) = (&instead.example, &instead.sent) {
        output::print(&format!(
            "answered otherwise, masked or filtered before the server computes: {}, {}\n  sent as {}",
            instead.count,
            first(example),
            output::visible(sent)
        ))?;
    }
    for kind in refused.iter().take(MOST_LISTED) {
        let before = match kind.before {
            0 => String::new(),
            before => format!(", {before} of them as before"),
        };
        output::print(&format!(
            "refused by {}: {}{before}, {}\n  {}",
            kind.by.join(", "),
            kind.count,
            first(&kind.example),
            output::visible(&kind.reason)
        ))?;
    }
    tell_undecidable("undecidable for masks and row filters", undecidable_by_reason)
}

fn tell_undecidable(what: &str, reasons: &[Undecidable]) -> anyhow::Result<()> {
    for Undecidable { reason, count, example } in reasons.iter().take(MOST_LISTED) {
        let reason = output::visible(reason);
        output::print(&format!("{what}: {count}, {}\n  {reason}", first(example)))?;
    }
    Ok(())
}

fn first(example: &Example) -> String {
    let Example { session, sequence, text } = example;
    format!("first in {session} at {sequence}: {}", output::visible(text))
}

fn shown(path: &Path) -> String {
    output::visible(&path.display().to_string())
}
