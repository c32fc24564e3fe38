//! What becomes of recordings after their sessions: what proves them kept elsewhere, sealed ones
//! moved away, what must stay held, and what is over deleted.

mod client;
mod clock;
mod grace;
mod holds;
mod ledger_head;
mod mover;
mod remote;
mod retention;
mod store;
mod witness;

pub use holds::keep_holds;
pub use ledger_head::keep_head;
pub use mover::Mover;
pub use remote::{Shelf, open};
pub use retention::{Archived, By, PruneError, Pruned, Retention};
pub use store::{Archive, ArchiveError};
pub use witness::{Kept, Testimony, WitnessError, keep_witness, testimonies};
