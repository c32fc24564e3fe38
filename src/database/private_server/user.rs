//! As whom the private server runs: PostgreSQL refuses to run as root.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tokio::process::Command;

use super::PrivateServerError;

/// The user that packages of PostgreSQL make.
const PACKAGED: &str = "postgres";

/// The gateway's user, and the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Users {
    /// The gateway's name, which the server lets in.
    pub(super) gateway: String,
    /// The other user that the server runs as; none when the gateway is not root.
    pub(super) server: Option<ServerUser>,
}

/// An unprivileged user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Users {
    /// Who we are, and who the server will be.
    pub(super) async fn find() -> Result<Self, PrivateServerError> {
        let gateway = id(&["-un"]).await.ok_or(PrivateServerError::NamelessUser)?;
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { gateway, server: None });
        }
        let number = async |flag| id(&[flag, PACKAGED]).await?.parse().ok();
        match (number("-u").await, number("-g").await) {
            (Some(uid), Some(gid)) => {
                let name = PACKAGED.to_owned();
                Ok(Self { gateway, server: Some(ServerUser { name, uid, gid }) })
            }
            _ => Err(PrivateServerError::NoServerUser),
        }
    }

    /// A command that runs as the server's user, with nothing of our environment but the path.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        if let Some(user) = &self.server {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// The server's user's number.
    pub(super) fn server_uid(&self) -> u32 {
        match &self.server {
            Some(user) => user.uid,
            None => rustix::process::geteuid().as_raw(),
        }
    }

    /// Gives a directory that we just made to the server's user.
    pub(super) fn give(&self, directory: &Path) -> std::io::Result<()> {
        match &self.server {
            Some(user) => std::os::unix::fs::chown(directory, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }

    /// Opens the way to `directory` for the server's user: on `data_dir` itself the right to pass
    /// (not to list) is added; what is above it belongs to the operator.
    pub(super) fn open_way(
        &self,
        data_dir: &Path,
        directory: &Path,
    ) -> Result<(), PrivateServerError> {
        let Some(user) = &self.server else { return Ok(()) };
        for step in directory.ancestors() {
            let failed = PrivateServerError::io("cannot look at", step);
            let metadata = step.metadata().map_err(failed)?;
            if may_pass(user, &metadata) {
                continue;
            }
            if !step.starts_with(data_dir) {
                let (name, blocked) = (user.name.clone(), step.to_owned());
                return Err(PrivateServerError::NoWay { user: name, blocked });
            }
            let mode = std::fs::Permissions::from_mode(metadata.mode() & 0o7777 | 0o001);
            let failed = PrivateServerError::io("cannot change the mode of", step);
            std::fs::set_permissions(step, mode).map_err(failed)?;
        }
        Ok(())
    }
}

fn may_pass(user: &ServerUser, directory: &std::fs::Metadata) -> bool {
    let bit = if directory.uid() == user.uid {
        0o100
    } else if directory.gid() == user.gid {
        0o010
    } else {
        0o001
    };
    directory.mode() & bit != 0
}

async fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
