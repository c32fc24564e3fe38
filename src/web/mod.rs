//! What the gateway serves over HTTP for people and programs: for now, to its own machine alone.

pub mod admin;
