//! Bytes of the protocols, understood: pure functions that sessions, policy tools, replay and
//! tests share. No I/O, and no state beyond what a caller hands in.

pub mod http;
pub mod postgres;
pub mod sql;
