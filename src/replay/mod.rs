//! Showing a recording to a person: who did what, when, what was decided, and what came back.
//!
//! Everything in a recording is what a client or a target sent, so nothing of it reaches the
//! terminal but through `text.rs`, which shows what would act on a terminal or mislead a reader.

mod grid;
mod postgres;
mod terminal;
mod text;
mod values;

#[cfg(test)]
mod tests;

pub use terminal::{Options, Pace, ReplayError, play};
