//! `portcullis check`: what is wrong with a configuration, before it is used.

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{ConfigFile, output, policy};
use crate::app::{descriptors, online, permissions};
use crate::config::{self, Mistake, Mistakes};

/// Explain every mistake of a configuration.
///
/// Each comes with file, line, column and a hint. Policy tests are run. With --online the gateway's surroundings are
/// tried as well: files, secrets, issuers, targets, the database.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis check --config config/portcullis.toml --online")]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    /// Also read every file and secret, and ask every issuer, target and the database.
    #[arg(long)]
    online: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// One line of the JSON output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "severity")]
enum Finding<'a> {
    Mistake(&'a Mistake),
    Warning(&'a Mistake),
    /// A warning about something outside the file.
    #[serde(rename = "warning")]
    Doubt {
        message: &'a str,
    },
    Problem {
        message: &'a str,
    },
    Note {
        message: &'a str,
    },
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let path = &options.config.path;
    let config = match config::load(path) {
        Ok(config) => config,
        Err(Mistakes(mistakes)) => {
            if options.json {
                output::print_json(&mistakes.iter().map(Finding::Mistake).collect::<Vec<_>>())?;
            }
            return Err(Mistakes(mistakes).into());
        }
    };
    let failures: Vec<String> =
        policy::tested(&config).iter().filter_map(policy::Tested::failure).collect();
    let mut problems = Vec::new();
    let mut doubts = permissions::doubts(&config);
    doubts.extend(descriptors::doubts(&config));
    let mut notes = Vec::new();
    if options.online {
        problems.extend(online::problems(&config).await);
        doubts.extend(online::warnings(&config).await);
        notes = online::notes(&config).await;
    }
    if options.json {
        let warnings = config.warnings.iter().map(Finding::Warning);
        let doubts = doubts.iter().map(|message| Finding::Doubt { message });
        let problems = failures.iter().chain(&problems);
        let problems = problems.map(|message| Finding::Problem { message });
        let notes = notes.iter().map(|message| Finding::Note { message });
        output::print_json(
            &warnings.chain(doubts).chain(problems).chain(notes).collect::<Vec<_>>(),
        )?;
    } else {
        for warning in &config.warnings {
            output::print(&format!("warning: {warning}"))?;
        }
        for doubt in &doubts {
            output::print(&format!("warning: {doubt}"))?;
        }
        for note in &notes {
            output::print(note)?;
        }
    }
    // Tests come with their place.
    let problems = problems.iter().map(|problem| format!("{}: {problem}", path.display()));
    let problems: Vec<String> = failures.into_iter().chain(problems).collect();
    if !problems.is_empty() {
        bail!(problems.join("\n"));
    }
    if !options.json {
        output::print(&format!(
            "{} is right: issuers {}, targets {}, access rules {}, policy {}, policy tests {}",
            path.display(),
            config.issuers.len(),
            config.targets.len(),
            config.access.len(),
            config.policy.hash(),
            config.tests.len(),
        ))?;
    }
    Ok(())
}
