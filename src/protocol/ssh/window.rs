//! How much a client may send, where one of its channels is stalled.
//!
//! russh has one number for a connection: the room up to which it fills a channel's window when
//! less than half of that is left, asked for anew each time it did so. In the usual case it is the
//! whole window. While a channel is stalled it is [`TRICKLE`]: a channel that has used up its
//! window then gets two bytes at a time, which is what keeps it asking. One that is not stalled is
//! given [`GRANT`] when it asks so; a stalled one may catch such a grant in its place, so what it
//! has waiting may grow as far as what others send at the time, up to the inbox's bound.

use super::algorithms::WINDOW;

/// Small enough to be nothing, and the least that russh still fills up to.
const TRICKLE: u32 = 2;
/// What a channel gets at once while another is stalled.
const GRANT: u32 = 128 << 10;

/// The next number, after a channel's window was filled up to `current`.
pub(super) fn next(this_is_stalled: bool, another_is_stalled: bool, current: u32) -> u32 {
    match (this_is_stalled, another_is_stalled) {
        (true, _) => TRICKLE,
        (false, false) => WINDOW,
        (false, true) if current > TRICKLE => TRICKLE,
        (false, true) => GRANT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_channel_trickles_and_others_go_on() {
        assert_eq!(next(false, false, WINDOW), WINDOW);
        assert_eq!(next(true, false, WINDOW), TRICKLE);
        assert_eq!(next(true, true, GRANT), TRICKLE);
        assert_eq!(next(false, true, TRICKLE), GRANT);
        assert_eq!(next(false, true, GRANT), TRICKLE);
        assert_eq!(next(false, false, TRICKLE), WINDOW);
    }
}
