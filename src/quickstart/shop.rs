//! The demonstration target: a PostgreSQL server with a shop's customers and orders.

use std::path::Path;

use anyhow::Context as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::SHOP;
use super::configuration::{SHOP_PASSWORD, SHOP_ROLE};
use super::folder::Folder;
use crate::app::hardening;
use crate::database::PrivateServer;

/// Tables, rows and rights, for a database that has none.
const SCHEMA: &str = include_str!("shop.sql");

/// The longest that a statement of the gateway's role may run.
const STATEMENT_SECONDS: u32 = 60;

/// The running server, filled.
#[derive(Debug)]
pub(super) struct Shop {
    pub(super) server: PrivateServer,
    /// Its port on 127.0.0.1, for the gateway's role.
    pub(super) port: u16,
}

impl Shop {
    /// Starts the server and makes in it what is not there yet.
    pub(super) async fn start(folder: &Folder) -> anyhow::Result<Self> {
        let server = PrivateServer::start_on_loopback(&folder.subfolder(SHOP)?).await?;
        let port = server.loopback_port().context("the shop's server has no port")?;
        let shop = Self { server, port };
        match shop.fill(folder).await {
            Ok(()) => Ok(shop),
            Err(error) => {
                shop.server.stop().await;
                Err(error.context("the shop's database cannot be made"))
            }
        }
    }

    /// How its superuser connects to it.
    pub(super) fn owner(&self) -> PgConnectOptions {
        self.server.superuser_options().database(SHOP)
    }

    async fn fill(&self, folder: &Folder) -> anyhow::Result<()> {
        let options = self.server.superuser_options();
        let mut connection = options.connect().await?;
        set_role(&mut connection, folder).await?;
        let database = "select 1 from pg_database where datname = $1";
        if !is_there(&mut connection, database, SHOP).await? {
            connection.execute(AssertSqlSafe(format!("create database {SHOP}"))).await?;
        }
        connection.close().await?;

        let mut connection = options.database(SHOP).connect().await?;
        let table = "select 1 from pg_tables where schemaname = 'public' and tablename = $1";
        if !is_there(&mut connection, table, "customers").await? {
            // As one message it is one transaction: all of it or nothing.
            connection.execute(SCHEMA).await?;
        }
        Ok(connection.close().await?)
    }
}

/// Gives the gateway's role what the configuration's rules and masks leave to anybody, and no more:
/// what `portcullis policy harden` prints. The configuration may have changed since the last start.
pub(super) async fn harden(configuration: &Path, owner: &PgConnectOptions) -> anyhow::Result<()> {
    let script =
        hardening::script_by_file(configuration, SHOP, SHOP_ROLE, STATEMENT_SECONDS).await?;
    let mut connection = owner.connect().await?;
    connection
        .execute(AssertSqlSafe(script))
        .await
        .context("the shop's role cannot be hardened")?;
    Ok(connection.close().await?)
}

/// Makes the gateway's role, and gives it the password that the gateway reads. The server gets
/// what proves the password and not the password, so no log of its can show it.
async fn set_role(connection: &mut PgConnection, folder: &Folder) -> anyhow::Result<()> {
    let password = folder.secret(SHOP_PASSWORD)?;
    let verifier = postgres_protocol::password::scram_sha_256(password.expose().as_bytes());
    let role = "select 1 from pg_roles where rolname = $1";
    let make = if is_there(connection, role, SHOP_ROLE).await? { "alter" } else { "create" };
    let statement = format!("{make} role {SHOP_ROLE} login password '{verifier}'");
    connection.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

async fn is_there(
    connection: &mut PgConnection,
    query: &'static str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    Ok(sqlx::query(query).bind(name).fetch_optional(connection).await?.is_some())
}
