//! Portcullis: a layer-7 gateway between AI agents and the systems they touch.
//!
//! # Reading order
//!
//! A connection's life goes down this list, and each step makes a value that the next one needs:
//!
//! | module | makes |
//! | --- | --- |
//! | [`listener`] | an accepted, bounded, deadlined connection |
//! | [`identity`] | an [`identity::Identity`] from a token: who calls |
//! | [`catalog`], [`access`] | an [`access::Grant`]: this caller may open this target, until then |
//! | [`admission`] | an [`admission::Admitted`]: the right and the place of one session, for every protocol |
//! | [`decode`] | a [`policy::Command`] and its effects from bytes; pure |
//! | [`policy`] | a [`policy::Decision`] from identity, target and command; pure |
//! | [`gate`] | a [`gate::Permitted`], the exact bytes that were decided and recorded; what people have to approve waits there ([`approval`]) |
//! | [`mask`] | a [`mask::Masked`] response; pure |
//! | [`recording`] | the stored events of the session |
//! | [`protocol`] | the sessions themselves, one folder a protocol |
//!
//! Around them: [`config`] checks what operators wrote, [`app`] wires everything, [`web`] serves
//! the API, [`notify`] tells people of what happens, [`database`] holds the index of what was
//! recorded and the state, [`metrics`] counts, [`telemetry`] sends spans, [`replay`] shows
//! recordings, [`archive`] keeps what proves them and deletes what is over, [`age`] wraps their
//! keys, [`clock`] says how long ago something was, [`percent`] writes text into addresses, [`cli`]
//! is the command line, [`quickstart`] sets up a gateway to try.
//!
//! # Invariants
//!
//! - No upstream connection without a [`access::Grant`] and an open recording.
//! - No byte of a command goes upstream but out of a [`gate::Permitted`], which exists only after
//!   the command was decided and its event was handed to the operating system.
//! - No byte of a response goes downstream but out of a [`gate::Released`], which exists only
//!   after the masked bytes were recorded.
//! - Policy, masks and decoders know no socket, no clock and no database.
//! - What a foreign side sends is bounded before it is stored, and no input panics.
//!
//! # Words
//!
//! A *command* has *effects*: actions on objects. A *decision* says allow, block or approve; one
//! that people have to approve makes the command *pending*. (A *hold* is a legal hold: it keeps
//! recordings.) A *plan* says what is to become of some bytes, and its *draft* has the events;
//! nothing has happened yet. The *request view* of a command is what may be stored of it. A
//! *dialect* is what is known of an API over HTTP. `docs/architecture.md` has all words.
//!
//! `tests/it/architecture.rs` holds the `use` lines to the table of allowed directions.

pub mod access;
pub mod admission;
pub mod age;
pub mod app;
pub mod approval;
pub mod archive;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod decode;
pub mod files;
pub mod gate;
pub mod identity;
pub mod listener;
pub mod mask;
pub mod metrics;
pub mod names;
pub mod notify;
pub mod percent;
pub mod policy;
pub mod protocol;
pub mod quickstart;
pub mod recording;
pub mod replay;
pub mod secret;
pub mod shutdown;
pub mod telemetry;
pub mod trust;
pub mod web;
