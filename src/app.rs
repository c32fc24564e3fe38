//! The only wiring: build, bind every socket, spawn, drain. To come.

use std::path::PathBuf;

/// Runs the gateway of a configuration until it is told to stop.
///
/// Fails with [`crate::config::Mistakes`] when the configuration is wrong.
pub async fn serve(_config_path: PathBuf) -> anyhow::Result<()> {
    todo!()
}
