//! COPY of the client's data: what the server ignores meanwhile, and what it leaves behind.
//!
//! While the server reads COPY data it ignores Sync and Flush, and takes any other message for the
//! end of the session; once the COPY has failed, it ignores the data, and each Sync counts again.
//! When it fails is the server's to say: in the middle of the data, behind the last of them, before
//! the first. So the gateway forwards nothing that could be read in both ways:
//!
//! - behind a command that may be such a COPY, what is no COPY data waits until the server says
//!   whether it is one ([`Course::Wait`]);
//! - a Sync while the server reads data is kept back ([`Course::Keep`]). It is forwarded when the
//!   server says that the COPY had failed, and dropped when more data follow it. When more follow,
//!   and the COPY then fails, nobody can tell whether the Sync counted: the session ends;
//! - any other message first ends the COPY, by a `CopyFail` that the server ignores when the COPY is
//!   over already ([`Course::Fail`]).
//!
//! One such command is on its way at a time. Source: `CopyGetData` of `copyfromparse.c`;
//! `SocketBackend` and `PostgresMain` of `postgres.c`.

use super::super::messages::to_target::GIVEN_UP;
use super::{Replies, Unfit};
use crate::decode::postgres::backend::Report;
use crate::decode::postgres::frontend::Message;

/// What becomes of a message of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol::postgres) enum Course {
    /// It goes on.
    Forward,
    /// A Sync that the server ignores if it still reads COPY data: it is kept back.
    Keep,
    /// It waits for the server's answer to the command before it.
    Wait,
    /// The COPY is ended by a `CopyFail` first; then it waits.
    Fail,
}

/// What the client sent to the command that may take its COPY data.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// It is a Query, of which several statements may be such COPYs.
    several: bool,
    /// The server reads data.
    reads: bool,
    /// Data were forwarded to the COPY that it reads now or next.
    fed: bool,
    /// How often the end of data was forwarded that has not ended a COPY.
    ends: usize,
    /// Syncs that are kept back, the last data before them.
    syncs: usize,
    /// Data were on their way before the client could know that the server reads them.
    early: bool,
    /// A Sync was dropped of which a failure would not tell whether it counted.
    doubtful: bool,
    /// The gateway ended the COPY.
    failing: bool,
}

impl Replies {
    /// What becomes of a message that the client sends now.
    pub(in crate::protocol::postgres) fn course(&self, message: &Message<'_>) -> Course {
        use Message::{CopyData, CopyDone, CopyFail, Execute, Flush, FunctionCall, Query, Sync};
        let Some(feed) = &self.feed else { return Course::Forward };
        match message {
            CopyData | CopyDone | CopyFail | Flush | Message::Terminate => Course::Forward,
            _ if feed.failing => Course::Wait,
            // The one COPY that there may be has ended behind the data, well or not.
            _ if !feed.several && feed.ends > 0 => match message {
                Query { .. } | Execute { .. } | FunctionCall => Course::Wait,
                _ => Course::Forward,
            },
            _ if !feed.reads || feed.ends > 0 => Course::Wait,
            Sync => Course::Keep,
            _ => Course::Fail,
        }
    }

    /// A Sync is kept back.
    pub(in crate::protocol::postgres) fn keep_sync(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.syncs += 1;
        }
    }

    /// A `CopyFail` of the gateway's own is forwarded.
    pub(in crate::protocol::postgres) fn end_copy(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.failing = true;
            feed.ends += 1;
        }
    }

    /// Behind a message that waited, the client had sent more.
    pub(in crate::protocol::postgres) fn sent_early(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.early = true;
        }
    }

    /// Syncs that were kept back and turned out to count: they are to be forwarded before anything
    /// else.
    pub(in crate::protocol::postgres) fn take_owed_syncs(&mut self) -> usize {
        std::mem::take(&mut self.owed_syncs)
    }

    /// Whether there are such Syncs.
    pub(in crate::protocol::postgres) fn owes_syncs(&self) -> bool {
        self.owed_syncs > 0
    }

    /// A command is forwarded that may take COPY data.
    pub(super) fn feeds(&mut self, several: bool) {
        self.feed = Some(Feed { several, ..Feed::default() });
    }

    /// COPY data, or their end, are forwarded.
    pub(super) fn fed(&mut self, ends: bool) {
        let Some(feed) = &mut self.feed else { return };
        if std::mem::take(&mut feed.syncs) > 0 && (feed.fed || feed.early) {
            feed.doubtful = true;
        }
        feed.fed = true;
        feed.ends += usize::from(ends);
    }

    /// The server reads COPY data from now on.
    pub(super) fn copy_in_began(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.reads = true;
        }
    }

    /// Whether the client ended the data that the server reads.
    pub(super) fn has_ended_data(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.ends > 0)
    }

    /// The server took the data whole: what was kept back was ignored.
    pub(super) fn copy_in_done(&mut self) {
        if let Some(feed) = &mut self.feed {
            *feed = Feed {
                several: feed.several,
                ends: feed.ends.saturating_sub(1),
                ..Feed::default()
            };
        }
    }

    /// A command that may have taken COPY data failed.
    pub(super) fn feed_failed(&mut self, report: &Report) -> Result<(), Unfit> {
        let Some(feed) = &mut self.feed else { return Ok(()) };
        feed.reads = false;
        if feed.doubtful {
            return Err(Unfit::SyncAmongData);
        }
        if feed.failing && report.message.contains(GIVEN_UP) {
            return Err(Unfit::NoCopyData);
        }
        Ok(())
    }

    /// A command that may have taken COPY data ended.
    pub(super) fn feed_ended(&mut self) {
        if let Some(feed) = self.feed.take() {
            self.owed_syncs += feed.syncs;
        }
    }
}
