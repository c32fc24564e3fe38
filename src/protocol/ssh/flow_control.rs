//! How much a client may send, where one of its channels is stalled.
//!
//! russh has one number for a connection: what it fills a channel's window up to when less than
//! half of that is left. It asks for the number anew each time it did so. In the usual case it is
//! the whole window. While a channel is stalled it is [`TRICKLE`]: a channel that has used up its
//! window then gets two bytes at a time, which is what keeps it asking, and each answer of the one
//! comes behind an answer of the other. So when one that is not stalled asks in vain, the next
//! number that a stalled one asks for is [`GRANT`], and the one that is not stalled comes next and
//! takes it. Where another stalled channel comes in between, that takes it: what such a channel has
//! waiting may grow as far as what others send at the time, up to the inbox's bound.

use super::algorithms::WINDOW;

/// Small enough to be nothing, and the least that russh still fills up to.
const TRICKLE: u32 = 2;
/// What a channel gets at once while another is stalled.
const GRANT: u32 = 256 << 10;

/// The numbers of one connection.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// A channel that is not stalled got no more than a trickle.
    starving: bool,
}

impl Windows {
    /// The next number, after a channel's window was filled up to `current`.
    pub(super) fn next(&mut self, this: bool, another: bool, current: u32) -> u32 {
        match (this, another) {
            // Nothing is stalled.
            (false, false) => {
                self.starving = false;
                WINDOW
            }
            (false, true) => {
                self.starving = current <= TRICKLE;
                TRICKLE
            }
            (true, _) if self.starving && current <= TRICKLE => GRANT,
            (true, _) => TRICKLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_channel_trickles_and_others_get_what_they_ask_for() {
        let mut windows = Windows::default();
        assert_eq!(windows.next(false, false, WINDOW), WINDOW);
        assert_eq!(windows.next(true, false, WINDOW), TRICKLE);
        assert_eq!(windows.next(true, false, TRICKLE), TRICKLE);
        // The other asks in vain, and the next number is for it.
        assert_eq!(windows.next(false, true, TRICKLE), TRICKLE);
        assert_eq!(windows.next(true, false, TRICKLE), GRANT);
        assert_eq!(windows.next(false, true, GRANT), TRICKLE);
        assert_eq!(windows.next(true, false, TRICKLE), TRICKLE);
        // It reads again.
        assert_eq!(windows.next(false, false, TRICKLE), WINDOW);
    }
}
