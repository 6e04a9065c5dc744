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

/// The line on all of them.
const TOTAL: &str = "{wide_msg}";

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

/// Bars on a terminal, one below the other, by whose they are and what they are of; and a line on
/// all of them.
#[derive(Default)]
pub(super) struct Bars {
    all: MultiProgress,
    by_name: HashMap<(String, String), ProgressBar>,
    total: Option<ProgressBar>,
}

impl Bars {
    /// Writes a line above them.
    pub(super) fn headline(&self, text: &str) -> io::Result<()> {
        self.all.println(text)
    }

    /// Adds an empty one of `total` bytes, above the line on all.
    pub(super) fn add(&mut self, whose: &str, name: &str, prefix: String, total: u64) {
        let bar = ProgressBar::new(total).with_style(style(BAR)).with_prefix(prefix);
        let bar = match &self.total {
            Some(line) => self.all.insert_before(line, bar),
            None => self.all.add(bar),
        };
        self.by_name.insert((whose.to_owned(), name.to_owned()), bar);
    }

    /// The line on all of them, at the end.
    pub(super) fn tell_total(&mut self, words: String) {
        let new = || self.all.add(ProgressBar::new_spinner().with_style(style(TOTAL)));
        self.total.get_or_insert_with(new).set_message(words);
    }

    /// So many bytes of that are here.
    pub(super) fn advance(&self, whose: &str, name: &str, bytes: u64) {
        if let Some(bar) = self.of(whose, name) {
            bar.set_position(bytes);
        }
    }

    /// All of that is here.
    pub(super) fn finish(&self, whose: &str, name: &str, bytes: u64, message: &'static str) {
        if let Some(bar) = self.of(whose, name) {
            bar.set_position(bytes);
            bar.finish_with_message(message);
        }
    }

    fn of(&self, whose: &str, name: &str) -> Option<&ProgressBar> {
        self.by_name.get(&(whose.to_owned(), name.to_owned()))
    }

    /// Takes those of one away: it needs none any more.
    pub(super) fn take_away(&mut self, whose: &str) {
        for (_, bar) in self.by_name.extract_if(|(of, _), _| of == whose) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    /// Lets something be written beside them.
    pub(super) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.all.suspend(write)
    }

    /// Takes them away.
    pub(super) fn clear(&mut self) {
        self.by_name.clear();
        self.total = None;
        if self.all.clear().is_err() {
            tracing::debug!("the terminal is gone");
        }
    }

    /// Leaves those that are not full as they are; the line on all has an end.
    pub(super) fn end(&mut self) {
        if let Some(line) = self.total.take() {
            line.finish_and_clear();
            self.all.remove(&line);
        }
        for (_, bar) in self.by_name.drain() {
            bar.abandon();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##.")
}
