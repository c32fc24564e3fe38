//! `--identity`: what opens encrypted recordings.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::config::{Config, SecretRef};
use crate::recording::Keyring;

/// Private keys of recipients.
#[derive(Debug, Args)]
pub(super) struct Identities {
    /// A file of identities, as age-keygen writes it, that open encrypted recordings; may be given
    /// more than once.
    #[arg(long, value_name = "FILE")]
    identity: Vec<PathBuf>,
}

impl Identities {
    /// Whether any is given.
    pub(super) fn given(&self) -> bool {
        !self.identity.is_empty()
    }

    /// What they open.
    pub(super) async fn keyring(&self) -> anyhow::Result<Keyring> {
        let mut identities = Vec::new();
        for file in &self.identity {
            let secret = SecretRef::File(file.clone());
            identities.extend(secret.identities().await.context("--identity")?);
        }
        Ok(Keyring::of(identities))
    }

    /// The same, or what the configuration's identities open when none is given.
    pub(super) async fn keyring_or(&self, config: &Config) -> anyhow::Result<Keyring> {
        match &config.recording.identity {
            Some(secret) if self.identity.is_empty() => {
                Ok(Keyring::of(secret.identities().await.context("[recording] identity")?))
            }
            _ => self.keyring().await,
        }
    }
}
