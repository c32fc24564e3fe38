//! What recordings prove, and to whom: seals and ledger, the two verifiers, retention and holds.

mod alterations;
mod archive;
mod cases;
mod command;
mod encryption;
mod faults;
mod index;
mod live;
mod prune;
mod retention;
pub mod set;
mod witness;
