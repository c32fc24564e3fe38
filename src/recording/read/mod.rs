//! Reading recordings: whole, along as they are written, decrypted, verified.

pub(in crate::recording) mod blocks;
pub(in crate::recording) mod keyring;
pub(in crate::recording) mod reader;
pub(in crate::recording) mod source;
pub(in crate::recording) mod tail_reader;
pub(in crate::recording) mod verify;
