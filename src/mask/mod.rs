//! Masking of responses before anyone or anything sees them.
//!
//! [`Masks`] are what operators wrote; a [`MaskPlan`] is what they mean for one session, and what
//! the way downstream demands. [`Pattern`]s tell secrets in text, a [`Masker`] puts something else
//! in their place, in whole values or, with a [`Scanner`], in streams; [`whole_value`] masks a
//! value that a column or a field names. [`Documents`], [`Events`] and [`Form`] are JSON, server-sent
//! events and forms, masked as they pass; [`Output`] is what programs write.
//!
//! Pure: which column a value came from is for the protocol to find out.

mod columns;
mod counts;
mod events;
mod form;
mod growing;
mod json;
mod numbers;
mod output;
mod pattern;
mod plan;
mod scanner;
mod value;

pub use columns::{ColumnPattern, FieldPattern, NotAField};
pub use counts::{Counts, PATTERNS, count};
pub use events::Events;
pub use form::Form;
pub use json::{Documents, NotMasked, document};
pub use output::Output;
pub use pattern::{Pattern, PatternMistake};
pub use plan::{Applied, Mask, MaskPlan, Masked, Masks, Texts};
pub use scanner::{Action, HashKey, Masker, Scanner};
pub use value::{REDACTED, whole_value};
