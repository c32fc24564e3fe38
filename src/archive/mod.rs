//! What becomes of recordings after their sessions: what proves them kept elsewhere, what must
//! stay held, and what is over deleted.

mod anchor;
mod clock;
mod holds;
mod retention;

pub use anchor::keep_head;
pub use holds::keep_holds;
pub use retention::{By, PruneError, Pruned, Retention};
