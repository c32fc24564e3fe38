//! How far a long command is: one line on standard error, where that is a terminal. It is gone when
//! the command ends.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line moves whose end nobody knows.
const TICK: Duration = Duration::from_millis(200);

/// The line; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of so much work.
    pub(super) fn of(all: u64) -> Self {
        Self::styled(Some(all), "[{bar:25.#}] {percent} %, {msg}")
    }

    /// Of work of which nobody knows how much it is.
    pub(super) fn without_end() -> Self {
        let line = Self::styled(None, "{spinner} {msg}, {elapsed}");
        if !line.0.is_hidden() {
            line.0.enable_steady_tick(TICK);
        }
        line
    }

    fn styled(all: Option<u64>, template: &str) -> Self {
        let line = ProgressBar::with_draw_target(all, ProgressDrawTarget::stderr());
        // A template that nobody can read shows the library's own line.
        let style = ProgressStyle::with_template(template);
        Self(line.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// So much is done; in words with it.
    pub(super) fn done<T: Into<Cow<'static, str>>>(&self, amount: u64, words: impl FnOnce() -> T) {
        if !self.0.is_hidden() {
            self.0.set_message(words());
            self.0.set_position(amount);
        }
    }
}

/// Counts what is written to standard output, unless the terminal shows it.
pub(super) fn counted(out: impl Write + 'static) -> Box<dyn Write> {
    if io::stdout().is_terminal() {
        return Box::new(out);
    }
    let template = "{spinner} {binary_bytes} written, {elapsed}";
    Box::new(Progress::styled(None, template).0.wrap_write(out))
}
