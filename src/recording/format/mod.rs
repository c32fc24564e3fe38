//! What a store is made of: events, blocks and their chain, the journal, seals, and where files stand.

pub(in crate::recording) mod append_file;
pub(in crate::recording) mod cipher;
pub(in crate::recording) mod clock;
pub(in crate::recording) mod documents;
pub(in crate::recording) mod encode;
pub(in crate::recording) mod event;
pub(in crate::recording) mod header;
pub(in crate::recording) mod journal;
pub(in crate::recording) mod layout;
pub(in crate::recording) mod signing;
