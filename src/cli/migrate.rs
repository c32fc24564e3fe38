//! `portcullis migrate`, and the database for the commands that open it themselves.

use anyhow::Context as _;
use clap::Args;

use super::{ConfigFile, output};
use crate::config::{self, Config};
use crate::database::{Database, PrivateServer};
use crate::recording::Locked;

/// Bring the database's tables to this version.
///
/// An empty database gets them all. Needed after an upgrade when `[database] url` is set: a
/// gateway changes the tables of its private server alone. Not while the gateway runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis migrate --config config/portcullis.toml")]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let opened = open(&config).await?;
    let migrated = opened.database.migrate().await;
    opened.close().await;
    let migrated = migrated?;
    if options.json {
        return output::print_json(&migrated);
    }
    let text = match migrated.applied.len() {
        0 => format!("the database was at migration {} already", migrated.version),
        applied => format!("{applied} migrations applied; now at {}", migrated.version),
    };
    output::print(&text)?;
    if let Some(warning) = &migrated.warning {
        output::print(&format!("warning: {warning}"))?;
    }
    Ok(())
}

/// The database, while no gateway uses this `data_dir`.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) database: Database,
    server: Option<PrivateServer>,
    _lock: Locked,
}

/// Opens the configuration's database; the private server is started for it.
pub(super) async fn open(config: &Config) -> anyhow::Result<Opened> {
    let data_dir = &config.server.data_dir;
    let lock = Locked::take(data_dir).context("this needs the gateway to be stopped")?;
    let (database, server) = match &config.database.url {
        Some(url) => (Database::from_url(url).context("[database] url")?, None),
        None => {
            let server = PrivateServer::start(data_dir).await?;
            (Database::new(server.connect_options()), Some(server))
        }
    };
    Ok(Opened { database, server, _lock: lock })
}

impl Opened {
    /// Closes the database, and stops the server that was started for it.
    pub(super) async fn close(self) {
        self.database.close().await;
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}
