//! What a target sends on one channel. Output that waits already is one message: recording and
//! giving it costs once what many small ones cost many times.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use russh::{ChannelMsg, ChannelReadHalf};

/// When this much is joined it is enough: a block of a recording.
const ENOUGH: usize = 256 << 10;
/// The message that makes it enough adds so much at most.
const LAST: usize = 64 << 10;

/// The target's messages, in order.
pub(super) struct Outbox {
    from: ChannelReadHalf,
    /// What came behind output that was joined.
    next: Option<ChannelMsg>,
}

impl Outbox {
    pub(super) fn new(from: ChannelReadHalf) -> Self {
        Self { from, next: None }
    }

    /// The next message; none when the connection is over. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<ChannelMsg> {
        let message = match self.next.take() {
            Some(message) => message,
            None => self.from.wait().await?,
        };
        Some(match message {
            ChannelMsg::Data { data } => ChannelMsg::Data { data: self.more(None, data) },
            ChannelMsg::ExtendedData { data, ext } => {
                ChannelMsg::ExtendedData { data: self.more(Some(ext), data), ext }
            }
            other => other,
        })
    }

    /// Adds what of the same stream has come behind it.
    fn more(&mut self, stream: Option<u32>, first: Bytes) -> Bytes {
        let Some(second) = self.same(stream) else { return first };
        let mut joined = BytesMut::with_capacity(ENOUGH + LAST);
        joined.extend_from_slice(&first);
        joined.extend_from_slice(&second);
        while joined.len() < ENOUGH
            && let Some(more) = self.same(stream)
        {
            joined.extend_from_slice(&more);
        }
        joined.freeze()
    }

    /// The next message when it has come and is output of this stream.
    fn same(&mut self, stream: Option<u32>) -> Option<Bytes> {
        if self.next.is_none() {
            self.next = self.from.wait().now_or_never().flatten();
        }
        match (self.next.take()?, stream) {
            (ChannelMsg::Data { data }, None) => Some(data),
            (ChannelMsg::ExtendedData { data, ext }, Some(code)) if ext == code => Some(data),
            (other, _) => {
                self.next = Some(other);
                None
            }
        }
    }
}
