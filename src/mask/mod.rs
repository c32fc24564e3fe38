//! Masking of responses before anyone or anything sees them.
//!
//! [`Masks`] are what operators wrote; a [`MaskPlan`] is what they mean for one session, and what
//! the way downstream demands. [`Pattern`]s tell secrets in text, a [`Masker`] puts something else
//! in their place, in whole values or, with a [`Scanner`], in streams; [`whole_value`] masks a
//! value that a column or a field names. [`Documents`], [`Events`] and [`Form`] are JSON, server-sent
//! events and forms, masked as they pass, and [`PlainText`] is text in no grammar that is read; [`Output`]
//! is what programs write.
//!
//! [`RowFilter`]s say which rows there are for a caller.
//!
//! Pure: which column a value came from is for the protocol to find out.

mod action;
mod columns;
mod contacts;
mod counts;
mod deltas;
mod events;
mod form;
mod growing;
mod json;
mod numbers;
mod output;
mod pattern;
mod plain_text;
mod plan;
mod rows;
mod scanner;
mod token;
mod value;

pub use action::{Action, Step, TimeUnit};
pub use columns::{ColumnPattern, FieldPattern, NotAField};
pub use counts::{Counts, PATTERNS, count};
pub use events::Events;
pub use form::Form;
pub use json::{Documents, NotMasked, document, patterns_in_json};
pub use output::Output;
pub use pattern::{Pattern, PatternMistake};
pub use plain_text::{PlainText, plain_text};
pub use plan::{Applied, Enforce, Mask, MaskPlan, Masked, Masks, Texts};
pub use rows::{AppliedRows, CLOSED, LONGEST_VALUE, RowFilter, Viewer};
pub use scanner::{HashKey, Masker, Scanner};
pub use value::{REDACTED, whole_value};
