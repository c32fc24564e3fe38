//! Who may open which target, and until when.
//!
//! A [`Grant`] is the standing right of one identity to one target. Its fields are private and
//! [`grant`] alone makes one, so no session and no upstream connection exists without it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::Rules;
use crate::config::{AccessRule, Target, TargetSelector};
use crate::identity::Identity;
use crate::names::TargetName;

/// The right of an identity to open a session on a target.
#[derive(Debug, Clone)]
pub struct Grant {
    identity: Arc<Identity>,
    target: Arc<Target>,
    ends: Ends,
}

/// When a session that a grant opened must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// When the proof of identity ends; `None` when the session may outlive it.
    pub token: Option<SystemTime>,
    /// How long a session may last at most.
    pub session: Option<Duration>,
}

impl Ends {
    /// Waits until the time of a session that opened then is over; the wall clock counts for the
    /// proof of identity. Cancel safe.
    pub async fn over(self, opened: Instant) {
        loop {
            let token =
                self.token.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
            let session = self.session.map(|length| length.saturating_sub(opened.elapsed()));
            let Some(left) = token.into_iter().chain(session).min() else {
                return std::future::pending().await;
            };
            if left.is_zero() {
                return;
            }
            // Looked at again every minute: the wall clock may be set.
            tokio::time::sleep(left.min(Duration::from_secs(60))).await;
        }
    }
}

impl Grant {
    /// Who.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Until when.
    pub fn ends(&self) -> Ends {
        self.ends
    }
}

/// Why there is no grant, for log and recording; the client is told neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAccess {
    /// The catalog has no target of that name.
    #[error("no such target")]
    UnknownTarget,
    /// No access rule names this identity and this target.
    #[error("no access rule names this identity and target")]
    Forbidden,
}

/// The grant that the access rules give. Of several rules that match, the most generous counts:
/// each states a right by itself.
pub fn grant(
    rules: &Rules,
    identity: &Arc<Identity>,
    target: &TargetName,
) -> Result<Grant, NoAccess> {
    let target = rules.target(target).ok_or(NoAccess::UnknownTarget)?;
    let ends = rules
        .access()
        .iter()
        .filter(|rule| names_identity(rule, identity) && names_target(&rule.targets, target))
        .map(|rule| Ends {
            token: (!rule.outlive_token).then(|| identity.expires()),
            session: rule.max_session,
        })
        .reduce(more_generous)
        .ok_or(NoAccess::Forbidden)?;
    Ok(Grant { identity: Arc::clone(identity), target: Arc::clone(target), ends })
}

fn more_generous(a: Ends, b: Ends) -> Ends {
    Ends { token: a.token.and(b.token), session: a.session.zip(b.session).map(|(a, b)| a.max(b)) }
}

/// Whether every selector of the rule that is given holds; one without any names nobody.
fn names_identity(rule: &AccessRule, identity: &Identity) -> bool {
    if rule.groups.is_empty() && rule.users.is_empty() && rule.claims.is_empty() {
        return false;
    }
    let group = |wanted: &String| wanted == "*" || identity.groups().contains(wanted);
    let user = |user: &crate::config::UserKey| {
        user.issuer == identity.issuer() && user.subject == identity.subject()
    };
    (rule.groups.is_empty() || rule.groups.iter().any(group))
        && (rule.users.is_empty() || rule.users.iter().any(user))
        && rule.claims.iter().all(|(name, value)| identity.claims().get(name) == Some(value))
}

fn names_target(selector: &TargetSelector, target: &Target) -> bool {
    match selector {
        TargetSelector::Names(globs) => {
            globs.iter().any(|glob| glob.is_match(target.name.as_str()))
        }
        TargetSelector::Labels(labels) => {
            !labels.is_empty()
                && labels.iter().all(|(key, value)| target.labels.get(key) == Some(value))
        }
    }
}
