//! An HTTP service of which nothing more is known.

use super::Dialect;

/// `kind = "plain"`
#[derive(Debug)]
pub(super) struct Plain;

impl Dialect for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }
}
