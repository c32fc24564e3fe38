//! Who may open which target, and until when.
//!
//! A [`Grant`] is the right of one identity to one target. Its fields are private and this module
//! alone makes one, so no session and no upstream connection exists without it. Rights stand in
//! the rules, or people grant them for a time; what only the database knows (grants, and what may
//! be used once) is refused while it cannot be asked.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::approval::{Asked, Desk};
use crate::catalog::Rules;
use crate::config::{AccessRule, AskedAccess, Target, TargetSelector};
use crate::database::{Timestamp, Withdrawn, WithdrawnKind};
use crate::identity::Identity;
use crate::names::{GrantId, SessionId, TargetName};

/// The right of an identity to open a session on a target.
#[derive(Debug, Clone)]
pub struct Grant {
    identity: Arc<Identity>,
    target: Arc<Target>,
    ends: Ends,
    /// What people granted, when the right does not stand.
    granted: Option<GrantId>,
}

/// When a session that a grant opened must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// When the right ends: with the proof of identity, unless the session may outlive it, and
    /// with the time that people granted.
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

    /// Whether the right still holds, under these rules and with what was withdrawn since.
    pub fn still_holds(&self, rules: &Rules, withdrawn: &Withdrawn) -> Result<(), NoAccess> {
        if let Some(by) = self.identity.withdrawn_by(withdrawn) {
            return Err(NoAccess::Withdrawn(by));
        }
        match (right(rules, &self.identity, &self.target.name)?.1, self.granted) {
            (Right::Standing { .. }, _) => Ok(()),
            (Right::Asked { .. }, None) => Err(NoAccess::Forbidden),
            (Right::Asked { .. }, Some(grant)) => {
                match withdrawn.by(WithdrawnKind::Grant, &grant.to_string()) {
                    Some(by) => Err(NoAccess::Withdrawn(by)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Why there is no grant, for log and recording; but for [`NoAccess::Asked`] the client is told
/// none of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAccess {
    /// The catalog has no target of that name.
    #[error("no such target")]
    UnknownTarget,
    /// No access rule names this identity and this target.
    #[error("no access rule names this identity and target")]
    Forbidden,
    /// The ticket is for another target.
    #[error("the ticket is for another target")]
    OtherTarget,
    /// Somebody withdrew what was presented, or what people granted.
    #[error("it was withdrawn by {0}")]
    Withdrawn(String),
    /// Somebody ended the session.
    #[error("{0} ended the session")]
    Killed(String),
    /// What was presented has opened the one session that it may open.
    #[error("what was presented opened a session before, and may open one only")]
    Used,
    /// What only the database knows cannot be asked for.
    #[error("state cannot be asked for: {0}")]
    Unknown(String),
    /// People have to grant it first; they are asked.
    #[error("access waits for approval: request {}", .0.id)]
    Asked(Asked),
}

/// Gives grants, with what the database knows.
#[derive(Debug, Clone)]
pub struct Access {
    desk: Arc<Desk>,
}

impl Access {
    /// Of one gateway.
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    /// The grant for this new session. What may be used once is used when this returns.
    ///
    /// # Errors
    /// When there is none. Where people could grant it they are asked.
    pub async fn admit(
        &self,
        rules: &Rules,
        identity: &Arc<Identity>,
        target: &TargetName,
        session: SessionId,
    ) -> Result<Grant, NoAccess> {
        if let Some(by) = identity.withdrawn_by(self.desk.withdrawn()) {
            return Err(NoAccess::Withdrawn(by));
        }
        let (target, right) = right(rules, identity, target)?;
        let (ends, once, granted) = match right {
            Right::Standing { ends, once } => (ends, once, None),
            Right::Asked { ends, once, whom } => {
                let (grant, until) = self.granted(identity, target, whom).await?;
                let until = ends.token.map_or(until, |token| token.min(until));
                (Ends { token: Some(until), ..ends }, once, Some(grant))
            }
        };
        if once || identity.bound().is_some_and(|bound| bound.single_use) {
            let expires = Timestamp::from(identity.expires());
            let used = self.desk.database().use_credential(identity.token_id(), session, expires);
            match used.await {
                Ok(true) => {}
                Ok(false) => return Err(NoAccess::Used),
                Err(error) => return Err(NoAccess::Unknown(error.to_string())),
            }
        }
        let (identity, target) = (Arc::clone(identity), Arc::clone(target));
        Ok(Grant { identity, target, ends, granted })
    }

    /// What people granted and until when; or they are asked now.
    async fn granted(
        &self,
        identity: &Identity,
        target: &Target,
        whom: &AskedAccess,
    ) -> Result<(GrantId, SystemTime), NoAccess> {
        let unknown = |error: crate::database::DatabaseError| NoAccess::Unknown(error.to_string());
        let (issuer, subject, name) = (identity.issuer(), identity.subject(), target.name.as_str());
        let live = self.desk.database().live_grant(issuer, subject, name).await.map_err(unknown)?;
        if let Some(grant) = live {
            return Ok((grant.id, grant.ends_at.to_system_time()));
        }
        let asked = self.desk.ask_for_access(identity, target, whom, None, None).await;
        Err(asked.map(|(asked, _)| NoAccess::Asked(asked)).unwrap_or_else(unknown))
    }
}

/// What the rules say of an identity and a target.
#[derive(Debug)]
pub enum Right<'r> {
    /// It may open sessions.
    Standing {
        /// When they end.
        ends: Ends,
        /// Whether what was presented opens one session and never another.
        once: bool,
    },
    /// It may, for some time, once people granted it.
    Asked {
        /// When they end.
        ends: Ends,
        /// Whether what was presented opens one session and never another.
        once: bool,
        /// Whom to ask.
        whom: &'r AskedAccess,
    },
}

/// The right that the access rules give. Of several rules that match, the most generous counts:
/// each states a right by itself. Of those that ask people, the first one's are asked.
pub fn right<'r>(
    rules: &'r Rules,
    identity: &Identity,
    target: &TargetName,
) -> Result<(&'r Arc<Target>, Right<'r>), NoAccess> {
    if identity.bound().is_some_and(|bound| bound.target != *target) {
        return Err(NoAccess::OtherTarget);
    }
    let target = rules.target(target).ok_or(NoAccess::UnknownTarget)?;
    let matching = || {
        let rules = rules.access().iter();
        rules.filter(|rule| names_identity(rule, identity) && names_target(&rule.targets, target))
    };
    let of = |rules: &mut dyn Iterator<Item = &'r AccessRule>| {
        rules.map(|rule| (ends(rule, identity), rule.single_session)).reduce(more_generous)
    };
    if let Some((ends, once)) = of(&mut matching().filter(|rule| rule.asked.is_none())) {
        return Ok((target, Right::Standing { ends, once }));
    }
    let whom = matching().find_map(|rule| rule.asked.as_ref());
    match (of(&mut matching()), whom) {
        (Some((ends, once)), Some(whom)) => Ok((target, Right::Asked { ends, once, whom })),
        _ => Err(NoAccess::Forbidden),
    }
}

fn ends(rule: &AccessRule, identity: &Identity) -> Ends {
    Ends { token: (!rule.outlive_token).then(|| identity.expires()), session: rule.max_session }
}

fn more_generous((a, a_once): (Ends, bool), (b, b_once): (Ends, bool)) -> (Ends, bool) {
    let session = a.session.zip(b.session).map(|(a, b)| a.max(b));
    (Ends { token: a.token.and(b.token), session }, a_once && b_once)
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
