//! Tests from outside: the real binary, real servers, real clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    missing_docs,
    reason = "a test says what it expects by failing"
)]

mod api;
mod api_rights;
mod approval;
mod architecture;
mod attacks;
mod backtest;
mod clients;
mod commands;
mod config;
mod corpora;
mod database;
mod deploy;
mod disk_full;
mod docs;
mod endings;
mod evidence;
mod exports;
mod fixtures;
mod gateway;
mod hardened_rows;
mod hostile;
mod http;
mod identity;
mod kills;
mod masking;
mod memory;
mod pages;
mod pg_cases;
mod policy;
mod quickstart;
mod recording;
mod regress;
mod row_filters;
mod rules;
mod rust_client;
mod schema;
mod session;
mod sql_effects;
mod ssh;
mod support;
mod telemetry;
mod upstream;
mod wire_replay;
