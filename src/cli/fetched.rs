//! A session's recording as the gateway gives it, with the key that was wrapped for others later.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::gateway;
use crate::names::SessionId;
use crate::recording;

/// A copy of a recording, which goes with this.
#[derive(Debug)]
pub(super) struct Fetched {
    path: PathBuf,
    _folder: TempDir,
}

impl Fetched {
    /// Asks the gateway, which notes that it was looked at; with `keyed` for the key, too.
    pub(super) async fn of(
        gateway: &gateway::Options,
        session: SessionId,
        keyed: bool,
    ) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("portcullis-")?;
        let path = folder.path().join(format!("{session}.rec"));
        let place = format!("/api/v1/sessions/{session}/recording");
        gateway.download(&place, &File::create(&path)?).await?;
        if keyed && let Some(key) = gateway.find(&format!("{place}/key")).await? {
            std::fs::write(recording::wrapped_anew(&path), key)?;
        }
        Ok(Self { path, _folder: folder })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
