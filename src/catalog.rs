//! What is in force: the targets, looked up by name, and the policy, which a reload replaces as
//! one; and the desk, where people's decisions come in while the gateway runs.

mod explained;
mod protection;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::approval::Desk;
use crate::config::{self, AccessRule, Config, Mistakes, Target, Tickets};
use crate::database::RequestLimits;
use crate::mask::Masks;
use crate::names::TargetName;
use crate::policy::Policy;
use crate::telemetry::Tracer;
pub use explained::{Explained, FilterNamed, MaskNamed, Outcome, Preview};
pub use protection::{Held, HeldModes, MaskShown, Mode, Protection, RowsShown};

/// What a reload replaces: targets, access rules and policy, always of one configuration.
#[derive(Debug)]
pub struct Rules {
    config: Arc<Config>,
}

impl Rules {
    /// The rules of a checked configuration.
    pub fn new(config: Arc<Config>) -> Self {
        Self { config }
    }

    /// The target of that name.
    pub fn target(&self, name: &TargetName) -> Option<&Arc<Target>> {
        self.config.targets.get(name)
    }

    /// The names of all targets.
    pub fn names(&self) -> impl Iterator<Item = &TargetName> {
        self.config.targets.keys()
    }

    /// The access rules in the order they are written.
    pub fn access(&self) -> &[AccessRule] {
        &self.config.access
    }

    /// `[tickets]`
    pub fn tickets(&self) -> &Tickets {
        &self.config.tickets
    }

    /// `[approvals]`: how many commands may wait for people.
    pub fn approvals(&self) -> RequestLimits {
        let config::Approvals { per_identity, per_session, per_target, per_minute } =
            self.config.approvals;
        RequestLimits { per_identity, per_session, per_target, per_minute }
    }

    /// All targets, by their names.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.config.targets.values()
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.config.policy
    }

    /// The policy with a draft of rules laid over it, for trying it out.
    ///
    /// # Errors
    /// Whatever is wrong with the draft.
    pub fn draft(&self, text: &str) -> Result<Policy, Mistakes> {
        config::draft(text, &self.config.targets, &self.config.policy)
    }

    /// How long sessions of a target by callers of these groups are kept; for ever when nothing
    /// is said.
    pub fn keep(&self, target: &str, groups: &BTreeSet<String>) -> Option<Duration> {
        config::keep(&self.config.retention, &self.config.targets, target, groups)
    }

    /// What tells apart whether the rules about keeping are others.
    pub fn retention(&self) -> String {
        let labels: Vec<_> =
            self.config.targets.values().map(|target| (&target.name, &target.labels)).collect();
        let rules = format!("{:?} {labels:?}", self.config.retention);
        blake3::hash(rules.as_bytes()).to_hex().to_string()
    }

    /// Whether anything says how long recordings are kept.
    pub fn keeps(&self) -> bool {
        !self.config.retention.is_empty()
    }

    /// Whether texts of commands are in the index.
    pub fn indexes_text(&self) -> bool {
        self.config.database.index_text
    }

    /// The masks.
    pub fn masks(&self) -> &Masks {
        &self.config.masks
    }
}

/// The rules in force now; readers never wait.
#[derive(Debug)]
pub struct Catalog {
    current: ArcSwap<Rules>,
    desk: Arc<Desk>,
    tracer: Tracer,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Catalog {
    /// Starts with one configuration.
    pub fn new(config: Arc<Config>, desk: Arc<Desk>) -> Self {
        let changed = desk.news().clone();
        let current = ArcSwap::from_pointee(Rules::new(config));
        Self { current, desk, tracer: Tracer::default(), changed }
    }

    /// The same, with which sessions have spans.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// What makes the spans of sessions.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Where people's decisions come in.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// The rules as of now.
    pub fn current(&self) -> Arc<Rules> {
        self.current.load_full()
    }

    /// Puts another configuration in force, from the next command on.
    pub fn replace(&self, config: Arc<Config>) {
        self.current.store(Arc::new(Rules::new(config)));
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// Tells of each replacement and of what is withdrawn, so that sessions can look whether their
    /// access still holds. The first is told at once: something may have changed before.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        let mut changes = self.changed.subscribe();
        changes.mark_changed();
        changes
    }
}
