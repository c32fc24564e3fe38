//! The targets, looked up by name, and the policy in force: what a reload replaces as one.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{AccessRule, Config, Target};
use crate::names::TargetName;
use crate::policy::Policy;

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

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.config.policy
    }
}

/// The rules in force now; readers never wait.
#[derive(Debug)]
pub struct Catalog {
    current: ArcSwap<Rules>,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Catalog {
    /// Starts with one configuration.
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            current: ArcSwap::from_pointee(Rules::new(config)),
            changed: tokio::sync::watch::Sender::new(0),
        }
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

    /// Tells of each replacement, so that sessions can look whether their access still holds.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
