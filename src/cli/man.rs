//! `portcullis man`: manual pages.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;

/// What the foot of each page says.
const SOURCE: &str = concat!("portcullis ", env!("CARGO_PKG_VERSION"));

/// Write the manual pages, one for each command.
///
/// In a folder where man looks for them, `man portcullis` and `man portcullis-session-list` show them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis man /usr/local/share/man/man1")]
pub(super) struct Options {
    /// The folder to write them into; it is made if missing, and pages that it has are written over.
    folder: PathBuf,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let folder = &options.folder;
    let mut command = Cli::command().disable_help_subcommand(true);
    // Before that subcommands have names without those above them.
    command.build();
    fs::create_dir_all(folder)
        .and_then(|()| write_pages(&command, folder))
        .with_context(|| format!("cannot write manual pages into {}", folder.display()))
}

fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands() {
        write_pages(subcommand, folder)?;
    }
    Man::new(command.clone()).source(SOURCE).generate_to(folder)?;
    Ok(())
}
