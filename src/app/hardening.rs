//! The second wall of a target: `portcullis policy harden`.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::catalog::Preview;
use crate::config::{self, Config, PostgresTarget, Target, TargetKind};
use crate::mask::{HashKey, Viewer};
use crate::names::TargetName;
use crate::protocol::postgres::hardening::{self, Role};

/// The longest name that PostgreSQL takes (`NAMEDATALEN`, less its end), in bytes.
const MAX_IDENTIFIER: usize = 63;

/// The SQL of a least-privilege role for a target's database, the one of its own when none is
/// named. The role's name is made from the target's unless one is given; `statement_seconds` is
/// the longest that one of its statements may run.
pub async fn script(
    config: &Config,
    target: &TargetName,
    database: Option<&str>,
    role: Option<&str>,
    statement_seconds: u32,
) -> anyhow::Result<String> {
    let (target, postgres) = postgres_target(config, target)?;
    let database = database.unwrap_or(&postgres.database);
    if database != postgres.database && postgres.databases.iter().all(|known| known != database) {
        bail!("{} has no database {database}", target.name);
    }
    let name = match role {
        Some(role) => role.to_owned(),
        None => format!("portcullis_{}", target.name.as_str().replace('-', "_")),
    };
    if !is_plain(&name) {
        bail!("{name} is no name for a role: at most {MAX_IDENTIFIER} of a-z, 0-9 and _ (--role)");
    }
    let role = Role { name, statement_timeout: format!("{statement_seconds}s") };
    hardening::harden(&target.facts(), postgres, database, &config.policy, &config.masks, &role)
        .await
        .with_context(|| format!("target {}", target.name))
}

/// The SQL of the functions with which a target's server computes `hash` and `tokenize`, for the role
/// that the target has.
pub fn functions(config: &Config, target: &TargetName) -> anyhow::Result<String> {
    let (_, postgres) = postgres_target(config, target)?;
    Ok(hardening::functions(&postgres.user))
}

/// What goes to a target's server in the place of a caller's statement, as its catalog is now.
pub async fn preview(
    config: &Config,
    target: &TargetName,
    viewer: &Viewer<'_>,
    text: &str,
) -> anyhow::Result<Preview> {
    let (target, postgres) = postgres_target(config, target)?;
    let name = target.name.as_str();
    // Nothing is hashed by it.
    let plan = config.masks.for_session(name, viewer.groups, &HashKey::new([0; 32]));
    let plan = plan.with_rows(config.masks.rows_of(name, viewer));
    let unprovable = config.policy.settings().unprovable;
    hardening::preview(postgres, plan, unprovable, text)
        .await
        .with_context(|| format!("target {}", target.name))
}

fn postgres_target<'c>(
    config: &'c Config,
    target: &TargetName,
) -> anyhow::Result<(&'c Target, &'c PostgresTarget)> {
    let target = config.targets.get(target).with_context(|| {
        let known: Vec<&str> = config.targets.keys().map(TargetName::as_str).collect();
        format!("there is no target {target}; there are {}", known.join(", "))
    })?;
    match &target.kind {
        TargetKind::Postgres(postgres) => Ok((target, postgres)),
        _ => bail!("{} is no Postgres target: it has no roles", target.name),
    }
}

/// [`script`] from a configuration's file, for the database of the target's own.
pub async fn script_by_file(
    file: &Path,
    target: &str,
    role: &str,
    statement_seconds: u32,
) -> anyhow::Result<String> {
    let config = config::load(file)?;
    script(&config, &target.parse()?, None, Some(role), statement_seconds).await
}

/// Names that need no quotes anywhere, and are not the system's.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= MAX_IDENTIFIER
        && name.chars().all(plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && !name.starts_with("pg_")
        && name != "public"
}
