//! A second wall: what a target itself can refuse, whatever passes the gateway.
//!
//! [`harden`] prints the SQL of a role that may do no more than rules and masks leave to anybody:
//! rights column by column, views of the masked tables first on its search path, nothing that it
//! owns. [`powers`] tells what the role of today could do beyond that.
//!
//! Honest limits: rules with conditions, texts or groups close nothing here, for a role is one for
//! all callers. What `PUBLIC` may do this role may, too: it is told, not taken away. Functions run
//! as ever; rules of tables that give rows cost the right to write there.

mod catalog;
mod powers;
mod rights;
mod script;

use crate::config::{PostgresTarget, SecretError};
use crate::mask::{HashKey, Masks};
use crate::policy::{Pattern, Policy, TargetFacts};

use super::masking::{Exposed, exist};
use super::upstream::{Connector, ProtocolVersion, Questions, UpstreamError};
use catalog::Catalog;
use rights::Rights;

pub use super::masking::preview::{CatalogRead, Mode, Previews, modes, preview, unnamed_views};
pub use powers::powers;
pub use script::functions;
pub(super) use script::{LEFT, MARK};

/// Why a target gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// The target's password.
    #[error("the credential cannot be read: {0}")]
    Credential(#[from] SecretError),
    /// The target.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// The role that is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name, at most 63 bytes; the schema with its views is called the same.
    pub name: String,
    /// The longest that one of its statements may run, in PostgreSQL's words: `60s`.
    pub statement_timeout: String,
}

/// The SQL of a least-privilege role for one database of a target, made from the rules and from
/// the masks of callers in no group. The target's catalog is read over a connection of its own
/// with the target's credential; nothing is changed there.
pub async fn harden(
    facts: &TargetFacts,
    target: &PostgresTarget,
    database: &str,
    policy: &Policy,
    masks: &Masks,
    role: &Role,
) -> Result<String, HardenError> {
    let mut questions = ask(target, database).await?;
    let catalog = Catalog::read(&mut questions, &role.name).await?;
    // Nothing is hashed by it: the masks are only asked what they are about.
    let masks = masks.for_session(facts.name.as_str(), &[], &HashKey::new([0; 32]));
    let exposed = Exposed::read(&mut questions, &masks).await?;
    let rights =
        Rights::new(&catalog, facts, policy, |table, number| exposed.action(table, number));
    Ok(script::write(facts, database, &masks, role, &catalog, &rights))
}

/// Whether some database of a target has an object that a pattern of a rule or a mask names, pattern
/// by pattern; `true` for kinds of objects that are not looked for.
pub async fn have(
    target: &PostgresTarget,
    patterns: &[&Pattern],
) -> Result<Vec<bool>, HardenError> {
    let mut found = vec![false; patterns.len()];
    for database in std::iter::once(&target.database).chain(&target.databases) {
        let mut questions = ask(target, database).await?;
        let here = exist(&mut questions, patterns).await?;
        for (found, here) in found.iter_mut().zip(here) {
            *found |= here;
        }
    }
    Ok(found)
}

/// A connection for questions, with the target's credential.
pub(super) async fn ask(target: &PostgresTarget, database: &str) -> Result<Questions, HardenError> {
    let password = target.password.read().await?;
    let connector = Connector::new(target)?;
    let version = ProtocolVersion::V3_0;
    let upstream = connector.connect(database, version, &[], &password).await?;
    Ok(Questions::from(upstream))
}
