//! What keeps evidence safe beyond the files of one gateway.

mod anchor;

pub use anchor::keep_head;
