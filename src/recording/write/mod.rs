//! Writing recordings: drafts and batches to the journal, to blocks, to the disk, and sealed.

pub(in crate::recording) mod appender;
pub(in crate::recording) mod batch;
pub(in crate::recording) mod block_writer;
pub(in crate::recording) mod deletion;
pub(in crate::recording) mod draft;
pub(in crate::recording) mod group_commit;
pub(in crate::recording) mod journal_file;
pub(in crate::recording) mod refused;
pub(in crate::recording) mod repair;
pub(in crate::recording) mod reserve;
pub(in crate::recording) mod store;
pub(in crate::recording) mod write_buffer;
