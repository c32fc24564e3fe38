//! What the fuzz targets do with bytes: one module a target, each with a `run`.
//!
//! They are apart from the targets so that `cargo test` can run them, too, on what stands in `corpus`:
//! `tests/it/corpora.rs` includes this file.

pub mod http;
pub mod ledger;
pub mod masked_bodies;
pub mod patterns;
mod pieces;
pub mod postgres_backend;
pub mod postgres_copy;
pub mod postgres_frontend;
pub mod postgres_startup;
pub mod postgres_typed;
pub mod recording;
pub mod rewrite;
pub mod row_filter;
pub mod rule;
pub mod sftp;
pub mod sql;
pub mod ssh_exec;
pub mod token;

/// Runs a target on bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which its folder in `corpus` has, too.
pub const ALL: &[(&str, Target)] = &[
    ("http", http::run),
    ("ledger", ledger::run),
    ("masked_bodies", masked_bodies::run),
    ("patterns", patterns::run),
    ("postgres_backend", postgres_backend::run),
    ("postgres_copy", postgres_copy::run),
    ("postgres_frontend", postgres_frontend::run),
    ("postgres_startup", postgres_startup::run),
    ("postgres_typed", postgres_typed::run),
    ("recording", recording::run),
    ("rewrite", rewrite::run),
    ("row_filter", row_filter::run),
    ("rule", rule::run),
    ("sftp", sftp::run),
    ("sql", sql::run),
    ("ssh_exec", ssh_exec::run),
    ("token", token::run),
];
