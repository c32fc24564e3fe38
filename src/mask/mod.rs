//! Masking of responses before anyone or anything sees them.
//!
//! [`Masks`] are what operators wrote; a [`MaskPlan`] is what they mean for one session, and what
//! the way downstream demands. [`Pattern`]s tell secrets in text, a [`Masker`] puts something else
//! in their place, in whole values or, with a [`Scanner`], in streams; [`whole_value`] masks a
//! value that a column or a field names.
//!
//! Pure: which column a value came from is for the protocol to find out.

mod columns;
mod numbers;
mod pattern;
mod plan;
mod scanner;
mod value;

pub use columns::{ColumnPattern, FieldPattern, NotAField};
pub use pattern::{Pattern, PatternMistake};
pub use plan::{Applied, Mask, MaskPlan, Masked, Masks, Texts};
pub use scanner::{Action, HashKey, Masker, Scanner};
pub use value::{REDACTED, whole_value};
