//! Reads texts for all sessions, off their locks, and large ones off their threads.
//!
//! Common statements take microseconds, and those seen before less. A text at the bounds of the
//! grammar, or one that nests deeply, takes up to a second; one thread reads such texts for everybody,
//! one after the other, so that hostile ones hold up each other and no session else.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::decode::sql::{Analyzer, LexerSettings, Reading, Unparsed, is_deep};

/// Bytes that readings of all sessions may take.
const REMEMBERED: usize = 64 << 20;
/// Texts longer than this, in bytes, are read by the thread for large ones: shorter ones take some
/// tens of milliseconds at most.
pub(super) const LARGE: usize = 16 << 10;
/// Large texts that may wait; each session has one at most.
const MOST_WAITING: usize = 1_024;

type Job = (String, LexerSettings, oneshot::Sender<Arc<Reading>>);

/// Reads texts.
#[derive(Debug)]
pub(super) struct Reader {
    analyzer: Arc<Analyzer>,
    large: SyncSender<Job>,
}

impl Reader {
    /// Starts the thread for large texts. It ends when the reader is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let analyzer = Arc::new(Analyzer::new(REMEMBERED));
        let (large, jobs) = sync_channel(MOST_WAITING);
        let reading = Arc::clone(&analyzer);
        std::thread::Builder::new()
            .name("large-sql".to_owned())
            .spawn(move || work(&reading, &jobs))?;
        Ok(Self { analyzer, large })
    }

    /// Reads a text. Cancel safe.
    pub(super) async fn read(&self, sql: &str, settings: LexerSettings) -> Arc<Reading> {
        if sql.len() <= LARGE {
            if let Some(known) = self.analyzer.known(sql, settings) {
                return known;
            }
            if !is_deep(sql, settings) {
                return self.analyzer.read(sql, settings);
            }
        }
        let (answer, answered) = oneshot::channel();
        let too_busy = || Reading::new(sql, settings, Err(Unparsed::TooComplex));
        if self.large.try_send((sql.to_owned(), settings, answer)).is_err() {
            return Arc::new(too_busy());
        }
        answered.await.unwrap_or_else(|_| Arc::new(too_busy()))
    }

    /// Reads a text at once that is not large.
    pub(super) fn analyzer(&self) -> &Analyzer {
        &self.analyzer
    }
}

fn work(analyzer: &Analyzer, jobs: &Receiver<Job>) {
    for (sql, settings, answer) in jobs {
        // A session that has ended does not wait any more.
        if !answer.is_closed() {
            let _gone = answer.send(analyzer.read(&sql, settings));
        }
    }
}
