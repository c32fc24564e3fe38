//! Showing a recording to a person: who did what, when, what was decided, and what came back.
//!
//! Everything in a recording is what a client or a target sent, so nothing of it reaches the
//! terminal but through `text.rs`, which shows what would act on a terminal or mislead a reader, or,
//! of terminals shown as they were, through `screen.rs`, which leaves only what draws. Pages get
//! one command at a time (`moment.rs`), other programs files ([`export`]). [`backtest`] decides what was
//! recorded anew.

pub mod backtest;
mod command_view;
pub mod export;
mod grid;
mod http;
mod postgres;
mod ssh;
mod terminal;
mod terminal_filter;
mod text;
mod values;

#[cfg(test)]
mod tests;

pub use command_view::{Moment, Piece, Said, Stream, Table, moment};
pub use terminal::{Options, Pace, ReplayError, play};
