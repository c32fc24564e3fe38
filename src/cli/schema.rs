//! `portcullis schema`: the JSON Schema of the configuration.

use clap::Args;

use super::output;
use crate::config;

/// Print the JSON Schema of the configuration, for editors.
///
/// An editor that knows it completes keys, shows what they are, and marks wrong ones while they are written. Whether
/// a configuration is right says `portcullis check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis schema > portcullis.schema.json")]
pub(super) struct Options {}

pub(super) fn run(_: &Options) -> anyhow::Result<()> {
    output::print_json(&config::schema())
}
