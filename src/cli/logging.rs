//! Logs: to standard error, structured, at the level asked for.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct Options {
    /// What is logged: a level, or modules with levels as in `info,portcullis::identity=debug`.
    #[arg(
        long,
        value_name = "FILTER",
        env = "PORTCULLIS_LOG",
        default_value = "info",
        global = true
    )]
    log: String,
    /// How lines look [default: text on a terminal, json elsewhere].
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<Format>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Text,
}

/// The log filter cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("--log or PORTCULLIS_LOG: {0}; write a level such as info, or module=level")]
pub(super) struct BadFilter(#[from] tracing_subscriber::filter::ParseError);

/// Sends logs of the whole process to standard error.
pub(super) fn start(options: &Options) -> anyhow::Result<()> {
    let filter: EnvFilter = options.log.parse().map_err(BadFilter)?;
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(terminal);
    match options.log_format {
        Some(Format::Json) => lines.json().flatten_event(true).with_target(false).init(),
        None if !terminal => lines.json().flatten_event(true).with_target(false).init(),
        Some(Format::Text) | None => lines.init(),
    }
    Ok(())
}
