//! A session's recording as the gateway gives it, with the key that was wrapped for others later.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::bail;
use tempfile::TempDir;

use super::gateway;
use crate::names::SessionId;
use crate::recording;

/// Where a recording is to be read.
#[derive(Debug)]
pub(super) enum Place {
    Fetched(Fetched),
    File(PathBuf),
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Fetched(fetched) => fetched.path(),
            Self::File(path) => path,
        }
    }
}

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

    /// A session's recording, which the gateway is asked for, or the file of that name.
    pub(super) async fn or_file(
        what: &str,
        gateway: &gateway::Options,
        keyed: bool,
    ) -> anyhow::Result<Place> {
        match what.parse() {
            Ok(session) => Ok(Place::Fetched(Self::of(gateway, session, keyed).await?)),
            Err(_) if !what.ends_with(".rec") && !Path::new(what).exists() => {
                bail!("{what} is neither a session's id nor a file")
            }
            Err(_) => Ok(Place::File(what.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
