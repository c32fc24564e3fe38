//! The tables and how they come to be: `migrations/`, in the binary.

use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, SqlSafeStr as _};

use super::{Database, DatabaseError};

/// Beside whatever else uses the database.
const TABLE: &str = "portcullis_migrations";
/// In order. What was released is never changed; a new file is added.
const MIGRATIONS: [(i64, &str, &str); 9] = [
    (1, "index", include_str!("../../migrations/0001_index.sql")),
    (2, "audit log", include_str!("../../migrations/0002_audit_log.sql")),
    (3, "state", include_str!("../../migrations/0003_state.sql")),
    (4, "masked", include_str!("../../migrations/0004_masked.sql")),
    (5, "ledger heads", include_str!("../../migrations/0005_ledger_heads.sql")),
    (6, "logins", include_str!("../../migrations/0006_logins.sql")),
    (8, "retention", include_str!("../../migrations/0008_retention.sql")),
    (10, "asked again", include_str!("../../migrations/0010_asked_again.sql")),
    (12, "persons", include_str!("../../migrations/0012_persons.sql")),
];
/// Substring search, where the extension can be had.
const TRIGRAMS: &str = "create index if not exists commands_text on commands \
    using gin (text gin_trgm_ops)";

/// The tables are not the ones that this version needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// There are none.
    #[error("the database has no tables of ours; run portcullis migrate")]
    Empty,
    /// Some migrations were not applied.
    #[error(
        "the database is at migration {at}, and this version needs {needed}: run portcullis migrate"
    )]
    Behind {
        /// The last that was applied.
        at: i64,
        /// The last that there is.
        needed: i64,
    },
    /// A later version was here.
    #[error(
        "the database is at migration {at}, which a later version of portcullis applied; this \
         version knows {known}: upgrade this gateway"
    )]
    Newer {
        /// The last that was applied.
        at: i64,
        /// The last that this version knows.
        known: i64,
    },
    /// A migration that was applied is not the one in this version.
    #[error(
        "migration {0} was applied in another wording than this version has; this database is of \
         another build: use an empty one and run portcullis recording reindex"
    )]
    Different(i64),
    /// A migration was begun and not finished.
    #[error(
        "migration {0} was begun and not finished; restore the database, or use an empty one and \
         run portcullis recording reindex"
    )]
    Half(i64),
    /// A table or column is missing although the migrations say that it is there.
    #[error(
        "the database lacks what this version needs ({0}): it is being set up just now, or somebody \
         changed its tables; restore it then, or use an empty one and run portcullis recording \
         reindex"
    )]
    Changed(String),
}

/// What [`Database::migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Migrated {
    /// The migrations that were applied now.
    pub applied: Vec<i64>,
    /// The last migration.
    pub version: i64,
    /// Why searching for parts of words is slow, where it is.
    pub warning: Option<String>,
}

impl Database {
    /// Whether the tables are the ones that this version needs.
    ///
    /// # Errors
    /// [`DatabaseError::Schema`] when they are not; others when that cannot be found out.
    pub async fn check_version(&self) -> Result<(), DatabaseError> {
        check(&mut *self.pool.acquire().await?).await
    }

    /// Applies what is missing. Several at once wait for each other; what is there is left alone.
    ///
    /// # Errors
    /// Also when a later version was here, or the tables were changed by hand.
    pub async fn migrate(&self) -> Result<Migrated, DatabaseError> {
        let mut connection = self.connect().await?;
        let before = applied(&mut connection).await?;
        let mut migrator = Migrator::with_migrations(known());
        migrator.dangerous_set_table_name(TABLE);
        migrator.run_direct(None, &mut connection, false).await.map_err(schema_error)?;
        let warning = substring_search(&mut connection).await?;
        let applied = known().iter().map(|m| m.version).filter(|v| !before.contains(v)).collect();
        Ok(Migrated { applied, version: newest(), warning })
    }
}

/// Each migration is a transaction of its own, so that half of them are seen while somebody applies
/// them; whoever does holds the lock until all are there.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    match compare(connection).await {
        Err(DatabaseError::Schema(SchemaError::Behind { .. })) => {
            connection.lock().await.map_err(schema_error)?;
            let compared = compare(connection).await;
            connection.unlock().await.map_err(schema_error)?;
            compared
        }
        compared => compared,
    }
}

async fn compare(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    if applied(connection).await?.is_empty() {
        return Err(SchemaError::Empty.into());
    }
    let rows: Vec<(i64, Vec<u8>, bool)> = sqlx::query_as(
        "select version, checksum, success from portcullis_migrations order by version",
    )
    .fetch_all(connection)
    .await?;
    let known = known();
    let at = rows.last().map_or(0, |(version, ..)| *version);
    if at > newest() {
        return Err(SchemaError::Newer { at, known: newest() }.into());
    }
    for (version, checksum, success) in &rows {
        if !success {
            return Err(SchemaError::Half(*version).into());
        }
        match known.iter().find(|migration| migration.version == *version) {
            Some(migration) if *migration.checksum == **checksum => {}
            _ => return Err(SchemaError::Different(*version).into()),
        }
    }
    if rows.len() < known.len() {
        return Err(SchemaError::Behind { at, needed: newest() }.into());
    }
    Ok(())
}

/// The versions that were applied; none when the table is not there.
async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, DatabaseError> {
    let there: bool = sqlx::query_scalar("select to_regclass('portcullis_migrations') is not null")
        .fetch_one(&mut *connection)
        .await?;
    if !there {
        return Ok(Vec::new());
    }
    let versions = sqlx::query_scalar("select version from portcullis_migrations");
    Ok(versions.fetch_all(connection).await?)
}

/// Makes the trigram index, again at every migration: the extension may have been installed since.
async fn substring_search(connection: &mut PgConnection) -> Result<Option<String>, DatabaseError> {
    const HINT: &str = "searching for a part of a word reads every command: the extension pg_trgm";
    let available: bool = sqlx::query_scalar(
        "select exists (select from pg_available_extensions where name = 'pg_trgm')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !available {
        return Ok(Some(format!(
            "{HINT} is not installed (Red Hat: postgresql-contrib); install it and run portcullis \
             migrate"
        )));
    }
    let made = connection.execute("create extension if not exists pg_trgm").await;
    match made.map_err(DatabaseError::from) {
        Ok(_) => connection.execute(TRIGRAMS).await?,
        Err(DatabaseError::Other(error)) => {
            return Ok(Some(format!(
                "{HINT} cannot be made ({error}); let its owner run: create extension pg_trgm"
            )));
        }
        Err(error) => return Err(error),
    };
    Ok(None)
}

fn known() -> Vec<Migration> {
    let migration = |(version, description, sql): (i64, &'static str, &'static str)| {
        let sql = sql.into_sql_str();
        Migration::new(version, description.into(), MigrationType::Simple, sql, false)
    };
    MIGRATIONS.map(migration).into()
}

fn newest() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default()
}

fn schema_error(error: MigrateError) -> DatabaseError {
    match error {
        MigrateError::Dirty(version) => SchemaError::Half(version).into(),
        MigrateError::VersionMismatch(version) => SchemaError::Different(version).into(),
        MigrateError::VersionMissing(at) => SchemaError::Newer { at, known: newest() }.into(),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => DatabaseError::Other(sqlx::Error::Migrate(Box::new(other))),
    }
}
