//! `portcullis check`: what is wrong with a configuration, before it is used.

use std::fs::File;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{ConfigFile, output, policy};
use crate::config::{self, Config, Mistake, Mistakes, SecretRef, TargetKind};
use crate::identity::Verifier;

/// Explain every mistake of a configuration.
///
/// Each comes with file, line, column and a hint. Policy tests are run. With --online the gateway's surroundings are
/// tried as well: secrets, certificates, issuers.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis check --config config/portcullis.toml --online")]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    /// Also read every secret and ask every issuer for its keys.
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
    Problem { message: &'a str },
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
    let mut problems: Vec<String> =
        policy::tested(&config).iter().filter_map(policy::Tested::failure).collect();
    if options.online {
        problems.extend(unreachable(&config).await);
    }
    if options.json {
        let warnings = config.warnings.iter().map(Finding::Warning);
        let problems = problems.iter().map(|message| Finding::Problem { message });
        output::print_json(&warnings.chain(problems).collect::<Vec<_>>())?;
    } else {
        for warning in &config.warnings {
            output::print(&format!("warning: {warning}"))?;
        }
    }
    if !problems.is_empty() {
        bail!("{}: {}", path.display(), problems.join("\n"));
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

/// What the configuration names and this machine cannot get at.
async fn unreachable(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let authorities = config.issuers.iter().filter_map(|issuer| issuer.ca.as_ref());
    let files = config.tls.iter().flat_map(|tls| [&tls.certificate, &tls.private_key]);
    for path in files.chain(authorities) {
        if let Err(e) = File::open(path) {
            problems.push(format!("{} cannot be read: {e}", path.display()));
        }
    }
    for (owner, secret) in secrets(config) {
        if let Err(e) = secret.read().await {
            problems.push(format!("{owner}: {e}"));
        }
    }
    if let Err(e) = Verifier::start(&config.issuers).await {
        problems.push(e.to_string());
    }
    problems
}

/// Every secret with whose it is. `mask_key` is not among them: the first start makes it.
fn secrets(config: &Config) -> impl Iterator<Item = (String, &SecretRef)> {
    let of_issuers = config.issuers.iter().filter_map(|issuer| {
        Some((format!("issuer {}", issuer.name), issuer.client_secret.as_ref()?))
    });
    let of_targets = config.targets.values().filter_map(|target| {
        let secret = match &target.kind {
            TargetKind::Postgres(postgres) => &postgres.password,
            TargetKind::Http(http) => &http.credential.as_ref()?.value,
        };
        Some((format!("target {}", target.name), secret))
    });
    of_issuers.chain(of_targets)
}
