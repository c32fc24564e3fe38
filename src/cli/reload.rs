//! `portcullis reload`: have the running gateway read its configuration again.

use anyhow::{Context, bail};
use clap::Args;
use hyper::StatusCode;

use super::{ConfigFile, gateway, output};
use crate::config::{self, Mistakes};
use crate::web::admin::{RELOAD, Refused, Reloaded};

/// Have the running gateway read its configuration again.
///
/// Targets, access and policy take effect from the next command on. With a mistake in the file
/// the old configuration stays in force.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis reload --config config/portcullis.toml")]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the gateway's answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let data_dir = config::data_dir(&options.config.path)?;
    let (status, body) = gateway::post(&data_dir, RELOAD).await?;
    if options.json {
        output::print(String::from_utf8_lossy(&body).trim_end())?;
    }
    match status {
        StatusCode::OK if options.json => Ok(()),
        StatusCode::OK => {
            let reloaded = serde_json::from_slice(&body).context("the gateway's answer")?;
            Ok(output::print(&told(&reloaded))?)
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            let refused: Refused = serde_json::from_slice(&body).context("the gateway's answer")?;
            bail!("{}\n{}", refused.title, Mistakes(refused.mistakes))
        }
        _ => bail!("the gateway answered {status}"),
    }
}

fn told(reloaded: &Reloaded) -> String {
    let mut text = "the configuration is in force".to_owned();
    if !reloaded.needs_restart.is_empty() {
        let sections = reloaded.needs_restart.join(", ");
        text.push_str(&format!(", but {sections} changed and need a restart"));
    }
    for warning in &reloaded.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text
}
