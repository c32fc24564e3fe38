//! `portcullis recording rewrap`: lets others read.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::super::identities::Identities;
use super::super::{ConfigFile, output};
use crate::age::Recipient;
use crate::archive::{self, Shelf};
use crate::{config, recording};

/// Let other recipients open encrypted recordings too.
///
/// Opens the key of each recording with an identity, wraps it for the recipients, and puts it
/// beside the recording (SESSION.age), in the place of what an earlier run put there. The recording
/// stays as it is, byte for byte, and with it what its first recipients can open.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis recording rewrap --identity old.txt --recipient age1… --config config/portcullis.toml"
)]
pub(super) struct Rewrap {
    /// Recordings, SESSION.rec; all of the configuration's `data_dir` when left out, those that were
    /// archived included.
    paths: Vec<PathBuf>,
    /// Who shall be able to open them, `age1…`; may be given more than once.
    #[arg(long, value_name = "RECIPIENT", required = true)]
    recipient: Vec<Recipient>,
    #[command(flatten)]
    identities: Identities,
    #[command(flatten)]
    config: ConfigFile,
}

impl Rewrap {
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let mut keyring = self.identities.keyring().await?;
        let paths = match self.paths.as_slice() {
            [] => {
                let config = config::load(&self.config.path)?;
                let shelf = archive::open(&config, None)?;
                keyring = keyring.with_elsewhere(shelf.map(Shelf::elsewhere));
                let data_dir = config.server.data_dir;
                let found = recording::all_recordings(&data_dir)
                    .with_context(|| format!("{} cannot be read", data_dir.display()))?;
                found.into_iter().map(|(_, path, _)| path).collect()
            }
            paths => paths.to_vec(),
        };
        let (mut done, mut plain, mut failed) = (0_u64, 0_u64, 0_u64);
        for path in paths {
            match recording::rewrap(&path, &keyring, &self.recipient) {
                Ok(true) => done += 1,
                Ok(false) => plain += 1,
                // One that cannot be opened does not keep the others from it.
                Err(error) => {
                    failed += 1;
                    let shown = path.display().to_string();
                    output::print(&format!("{}: {error}", output::visible(&shown)))?;
                }
            }
        }
        output::print(&format!("{done} wrapped anew, {plain} not encrypted"))?;
        anyhow::ensure!(failed == 0, "{failed} recordings could not be wrapped anew");
        Ok(())
    }
}
