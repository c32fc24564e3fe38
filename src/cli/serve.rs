//! `portcullis serve`: the gateway itself.

use clap::Args;

use super::ConfigFile;
use crate::app;

/// Run the gateway until it is told to stop.
///
/// SIGTERM and SIGINT let sessions end within `drain_timeout`; SIGHUP reads the configuration
/// again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis serve --config config/portcullis.toml")]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    app::serve(options.config.path).await
}
