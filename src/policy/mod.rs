//! What a command may do: a pure function of identity, target and command.
//!
//! Policy knows no protocol and does no I/O. Rules are not read yet: every command is allowed, by
//! the target's default, and the decision says so. The types are what every protocol builds on.

mod command;
mod decision;
mod object;

pub use command::{Attributes, Command, Effect};
pub use decision::{Decision, Verdict};
pub use object::{BadObject, Object, Pattern};

use crate::identity::Identity;
use crate::names::TargetName;

/// The rules in force, compiled once per load.
#[derive(Debug)]
pub struct Policy {
    hash: String,
}

impl Policy {
    /// A policy without rules, known by the hash of the configuration it came from.
    pub fn new(hash: String) -> Self {
        Self { hash }
    }

    /// The hash that every command's event names the policy by: 32 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Decides one command of one caller on one target.
    pub fn decide(&self, _caller: &Identity, _target: &TargetName, _command: &Command) -> Decision {
        Decision::allowed_by_default()
    }
}
