//! Texts that nest deeply are taken apart on a thread of their own, which has the stack for it.
//!
//! The parser bounds what a tree may be: 10,000 levels of messages and 2 MiB of its own stack, as
//! PostgreSQL has it (`libpg_query`, `PG_QUERY_PROTOBUF_MAX_DEPTH` and `set_max_stack_depth`). What
//! decodes the tree, walks it and frees it recurses as deep, with larger frames. [`Nesting`] tells
//! from the tokens, before anything is parsed, how deep a tree may be at most; a text that may be
//! deeper than [`NEAR`] leaves the thread that asks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use parking_lot::Mutex;

use super::lexer::Kind;

/// Up to this nesting a text is taken apart where it is asked for. A token brings three levels of the
/// tree at most, and a level takes about 1.6 KB of stack (measured: 16 MiB for 10,000), ten times that
/// without optimisation; a thread of the runtime has 2 MiB.
const NEAR: usize = if cfg!(debug_assertions) { 24 } else { 60 };

/// The stack for 10,000 levels, many times over; pages that are never touched cost nothing.
const STACK: usize = 256 << 20;

/// Texts that may wait for the thread; who comes then waits to hand its own over.
const MOST_WAITING: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// Does something on the thread with the large stack, and waits for it; `None` when there is no such
/// thread, or it panicked.
pub(super) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    static THREAD: OnceLock<Option<SyncSender<Job>>> = OnceLock::new();
    let jobs = THREAD.get_or_init(start).as_ref()?;
    let (answer, answered) = sync_channel(1);
    let job = move || {
        let done = catch_unwind(AssertUnwindSafe(work));
        let _gone = answer.send(done.ok());
    };
    jobs.send(Box::new(job)).ok()?;
    answered.recv().ok()?
}

fn start() -> Option<SyncSender<Job>> {
    let (jobs, waiting) = sync_channel::<Job>(MOST_WAITING);
    let thread = std::thread::Builder::new().name("deep-sql".to_owned()).stack_size(STACK);
    let started = thread.spawn(move || waiting.into_iter().for_each(|job| job()));
    started.ok().map(|_| jobs)
}

/// Does something that borrows, on a thread of its own with the large stack, one at a time; `None` when
/// there is no such thread, or it panicked. Starting the thread takes some 50 µs.
pub(super) fn run_scoped<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep-sql".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// An upper bound of how deep a text's tree is, in tokens: those that enclose a token, and those of
/// its own list item so far.
///
/// Items of a list stand beside each other, so a comma or semicolon begins anew; but for what chains
/// over them without a bracket: set operations and the bodies of functions.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    /// Where each open bracket stands.
    open: Vec<Level>,
    level: Level,
    deepest: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Level {
    /// Tokens that enclose the bracket.
    base: usize,
    /// Tokens since the last comma.
    item: usize,
    /// Words that chain over commas.
    chained: usize,
}

impl Level {
    fn depth(self) -> usize {
        self.base + self.item + self.chained
    }
}

impl Nesting {
    pub(super) fn see(&mut self, kind: Kind, text: &str) {
        match kind {
            Kind::Comment => return,
            Kind::Byte(b'(' | b'[') => {
                self.level.item += 1;
                self.open.push(self.level);
                self.level = Level { base: self.level.depth(), ..Level::default() };
            }
            Kind::Byte(b')' | b']') => {
                if let Some(outer) = self.open.pop() {
                    self.level = outer;
                }
            }
            Kind::Byte(b',' | b';') => self.level.item = 0,
            Kind::Word if chains(text) > 0 => self.level.chained += chains(text),
            _ => self.level.item += 1,
        }
        self.deepest = self.deepest.max(self.level.depth());
    }

    /// Whether the tree may be too deep for any thread.
    pub(super) fn is_deep(&self) -> bool {
        self.deepest > NEAR
    }
}

/// For how many tokens a word counts that chains over commas.
fn chains(word: &str) -> usize {
    let is = |chain: &str| word.eq_ignore_ascii_case(chain);
    match word.len() {
        5 if is("union") => 1,
        6 if is("except") => 1,
        9 if is("intersect") => 1,
        // What stands before it begins anew with each semicolon within.
        6 if is("atomic") => 8,
        _ => 0,
    }
}
