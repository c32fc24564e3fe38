//! `portcullis completions`: tab completion for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};

/// Print a shell's tab completions.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis completions bash > /etc/bash_completion.d/portcullis"
)]
pub(super) struct Options {
    /// The shell to complete in.
    shell: Shell,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "portcullis", &mut script);
    Ok(output::print(String::from_utf8_lossy(&script).trim_end())?)
}
