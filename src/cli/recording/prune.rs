//! `portcullis recording prune`: retention, now.

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::super::progress::Progress;
use super::super::{gateway, output};
use crate::archive::Pruned;

/// Delete the recordings whose time is over, as the gateway does by itself every ten minutes.
///
/// `[[retention]]` says how long they are kept; what a hold covers stays. A signed tombstone in
/// the ledger tells of each that goes. Of the gateway that is asked alone.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis recording prune --dry-run --config config/portcullis.toml"
)]
pub(super) struct Prune {
    #[command(flatten)]
    gateway: gateway::Options,
    /// Only say how many there are.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let wanted = json!({ "dry_run": self.dry_run });
        let mut all = Pruned::default();
        let progress = Progress::without_end();
        loop {
            progress.done(all.deleted, || format!("{} recordings are deleted", all.deleted));
            let some: Pruned =
                self.gateway.send(Method::POST, "/api/v1/prune", Some(&wanted)).await?;
            all.deleted += some.deleted;
            all.bytes += some.bytes;
            all.held += some.held;
            all.due = some.due;
            if self.dry_run || !some.more {
                break;
            }
        }
        drop(progress);
        if self.json {
            return output::print_json(&all);
        }
        let Pruned { deleted, bytes, held, due, .. } = all;
        Ok(output::print(&if self.dry_run {
            format!("{due} recordings are due; {held} more would be, and are held")
        } else {
            format!("{deleted} recordings with {bytes} bytes are deleted; {held} are held")
        })?)
    }
}
