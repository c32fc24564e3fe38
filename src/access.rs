//! Who may open which target, and until when.
//!
//! A [`Grant`] is the right of one identity to one target. Its fields are private and this module
//! alone makes one, so no session and no upstream connection exists without it. Rights stand in
//! the rules, or people grant them for a time; what only the database knows (grants, and what may
//! be used once) is refused while it cannot be asked.
//!
//! What may open one session only is spent last, when everything else is found to be right, and a
//! grant that is dropped before its session opened ([`Grant::opens`]) gives it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::approval::{Asked, Desk};
use crate::catalog::Rules;
use crate::clock::{Moment, Now};
use crate::config::{AccessRule, AskedAccess, Target, TargetSelector};
use crate::database::{Known, Timestamp, WithdrawnKind};
use crate::identity::Identity;
use crate::names::{GrantId, Protocol, SessionId, TargetName};

/// The right of an identity to open a session on a target.
#[derive(Debug)]
pub struct Grant {
    identity: Arc<Identity>,
    target: Arc<Target>,
    ends: Ends,
    /// What people granted and until when, when the right does not stand.
    granted: Option<(GrantId, SystemTime)>,
    /// What was spent on it, when what was presented opens one session only.
    spent: Option<Spent>,
}

/// A credential that may open one session only, spent on one that has not opened yet.
#[derive(Debug)]
struct Spent {
    desk: Arc<Desk>,
    credential: String,
    session: SessionId,
    /// The session opened, or it was given back.
    settled: AtomicBool,
}

impl Drop for Spent {
    fn drop(&mut self) {
        if !*self.settled.get_mut() {
            self.desk.give_back(std::mem::take(&mut self.credential), self.session);
        }
    }
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
    /// How long the time of a session that opened then is over, if it is.
    pub fn overdue(self, opened: Moment, now: Now) -> Option<Duration> {
        let token = self.token.and_then(|at| now.wall.duration_since(at).ok());
        let session = self.session.and_then(|length| now.moment.since(opened).checked_sub(length));
        token.into_iter().chain(session).max()
    }

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

    /// Notes that the session is open: what could be spent once on it stays spent.
    pub fn opens(&self) {
        if let Some(spent) = &self.spent {
            spent.settled.store(true, Ordering::Release);
        }
    }

    /// Whether something is given back when the session does not open.
    pub fn is_provisional(&self) -> bool {
        self.spent.as_ref().is_some_and(|spent| !spent.settled.load(Ordering::Acquire))
    }

    /// Gives back what was spent on a session that does not open, before its client is told so.
    /// What is not given back here is when the grant is dropped.
    pub async fn give_back(&self) {
        let Some(spent) = self.spent.as_ref().filter(|_| self.is_provisional()) else { return };
        let database = spent.desk.database();
        match database.give_back_credential(&spent.credential, spent.session).await {
            Ok(()) => spent.settled.store(true, Ordering::Release),
            Err(error) => tracing::warn!(%error, "a credential is given back later"),
        }
    }

    /// The same right for a session that serves requests, of which each brings a proof of its own:
    /// the end of the first one's is not the session's. What people granted ends it all the same.
    #[must_use]
    pub fn of_many_proofs(self) -> Self {
        let token = self.granted.map(|(_, until)| until);
        Self { ends: Ends { token, ..self.ends }, ..self }
    }

    /// Whether the right still holds, under these rules and with what was withdrawn since.
    pub fn still_holds(&self, rules: &Rules, withdrawn: Known<'_>) -> Result<(), NoAccess> {
        if let Some(by) = self.identity.withdrawn_by(withdrawn) {
            return Err(NoAccess::Withdrawn(by));
        }
        match (right(rules, &self.identity, &self.target.name)?.1, self.granted) {
            (Right::Standing { .. }, _) => Ok(()),
            (Right::Asked { .. }, None) => Err(NoAccess::Forbidden),
            (Right::Asked { .. }, Some((grant, _))) => {
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
    /// The target speaks another protocol.
    #[error("the target speaks {0}")]
    OtherProtocol(Protocol),
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
    /// The time of what was presented, or of the session, is over.
    #[error("its time is over")]
    Over,
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

    /// The grant for this new session. What may be used once is used when this returns, and given
    /// back unless the session opens. So a place for the session is taken before.
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
        if let Some(by) = identity.withdrawn_by(self.desk.withdrawn().current().await) {
            return Err(NoAccess::Withdrawn(by));
        }
        let (target, right) = right(rules, identity, target)?;
        let (ends, once, granted) = match right {
            Right::Standing { ends, once } => (ends, once, None),
            Right::Asked { ends, once, whom } => {
                let (grant, until) = self.granted(identity, target, whom).await?;
                let end = ends.token.map_or(until, |token| token.min(until));
                (Ends { token: Some(end), ..ends }, once, Some((grant, until)))
            }
        };
        let mut spent = None;
        if once || identity.bound().is_some_and(|bound| bound.single_use) {
            let expires = Timestamp::from(identity.expires());
            let used = self.desk.database().use_credential(identity.token_id(), session, expires);
            match used.await {
                Ok(true) => {
                    spent = Some(Spent {
                        desk: Arc::clone(&self.desk),
                        credential: identity.token_id().to_owned(),
                        session,
                        settled: AtomicBool::new(false),
                    });
                }
                Ok(false) => return Err(NoAccess::Used),
                Err(error) => return Err(NoAccess::Unknown(error.to_string())),
            }
        }
        let (identity, target) = (Arc::clone(identity), Arc::clone(target));
        Ok(Grant { identity, target, ends, granted, spent })
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
