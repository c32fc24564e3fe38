//! The second wall of a target: `portcullis policy harden`.

use anyhow::{Context as _, bail};

use crate::config::{Config, TargetKind};
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
    let target = config.targets.get(target).with_context(|| {
        let known: Vec<&str> = config.targets.keys().map(TargetName::as_str).collect();
        format!("there is no target {target}; there are {}", known.join(", "))
    })?;
    let TargetKind::Postgres(postgres) = &target.kind else {
        bail!("{} is no Postgres target: it has no roles", target.name);
    };
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
