//! How far something is, on standard error: a line that changes, or a bar for each object.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a terminal's line changes.
const TICK: Duration = Duration::from_millis(200);
/// How often progress is told where there is no terminal.
const LINE: Duration = Duration::from_secs(10);
/// How wide a bar in a line is.
const WIDTH: u64 = 30;
/// An object's line on a terminal.
const BAR: &str = "{prefix} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes:9} {wide_msg}";

/// A line on a terminal that changes; elsewhere a line now and then.
pub(super) struct ProgressLine {
    shown: Instant,
    is_terminal: bool,
    is_drawn: bool,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { shown: Instant::now(), is_terminal: io::stderr().is_terminal(), is_drawn: false }
    }

    /// Shows one of these if it is time to: on a terminal what replaces the line, elsewhere a line
    /// of its own, if there is to be any.
    pub(super) fn show(
        &mut self,
        drawn: impl FnOnce() -> String,
        elsewhere: Option<impl FnOnce() -> String>,
    ) {
        let patience = if self.is_terminal { TICK } else { LINE };
        if self.shown.elapsed() < patience {
            return;
        }
        self.shown = Instant::now();
        if self.is_terminal {
            write(&drawn());
            self.is_drawn = true;
        } else if let Some(line) = elsewhere {
            write(&(line() + "\n"));
        }
    }

    /// How many bytes have been read; on a terminal alone.
    pub(super) fn read(&mut self, bytes: u64) {
        let drawn = || format!("\r{} read\u{1b}[K", super::output::size(bytes));
        self.show(drawn, None::<fn() -> String>);
    }

    /// Takes it away.
    pub(super) fn clear(&self) {
        if self.is_drawn {
            write("\r\u{1b}[K");
        }
    }
}

/// `[####....] words` in place of the line that a terminal shows.
pub(super) fn bar_line(done: u64, all: u64, words: &str) -> String {
    let filled = done * WIDTH / all.max(1);
    let filled = usize::try_from(filled.min(WIDTH)).unwrap_or_default();
    let bar = format!("{:.<30}", "#".repeat(filled));
    format!("\r[{bar}] {words}")
}

fn write(text: &str) {
    let mut terminal = io::stderr().lock();
    if terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush()).is_err() {
        tracing::debug!("the terminal is gone");
    }
}

/// Bars on a terminal, one below the other, by what they are of.
#[derive(Default)]
pub(super) struct Bars {
    all: MultiProgress,
    by_name: HashMap<String, ProgressBar>,
}

impl Bars {
    /// Writes a line above them.
    pub(super) fn headline(&self, text: &str) -> io::Result<()> {
        self.all.println(text)
    }

    /// Adds an empty one of `total` bytes.
    pub(super) fn add(&mut self, name: &str, prefix: String, total: u64) {
        let style = ProgressStyle::with_template(BAR);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##.");
        let bar = ProgressBar::new(total).with_style(style).with_prefix(prefix);
        self.by_name.insert(name.to_owned(), self.all.add(bar));
    }

    /// So many bytes of that are here.
    pub(super) fn advance(&self, name: &str, bytes: u64) {
        if let Some(bar) = self.by_name.get(name) {
            bar.set_position(bytes);
        }
    }

    /// All of that is here.
    pub(super) fn finish(&self, name: &str, bytes: u64, message: &'static str) {
        if let Some(bar) = self.by_name.get(name) {
            bar.set_position(bytes);
            bar.finish_with_message(message);
        }
    }

    /// Takes them away.
    pub(super) fn clear(&mut self) {
        self.by_name.clear();
        if self.all.clear().is_err() {
            tracing::debug!("the terminal is gone");
        }
    }

    /// Leaves those that are not full as they are.
    pub(super) fn end(&mut self) {
        for (_, bar) in self.by_name.drain() {
            bar.abandon();
        }
    }
}
