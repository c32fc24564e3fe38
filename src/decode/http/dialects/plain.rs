//! An HTTP service of which nothing more is known.

use super::Dialect;

/// `kind = "plain"`
pub(super) const NAME: &str = "plain";

/// What is known of it.
#[derive(Debug)]
pub(super) struct Plain;

impl Dialect for Plain {
    fn name(&self) -> &'static str {
        NAME
    }
}
