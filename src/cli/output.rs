//! Standard output: in which form something is told, and to whom there is nobody any more.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::arguments::Given;
use crate::log::{Safe, one_line};

/// How a result is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Whoever closes our standard output (`entrepot ls | head -1`) has read what they wanted: that is
/// no failure, and nobody is there to be told more.
pub(super) fn unless_closed(told: anyhow::Result<()>) -> anyhow::Result<()> {
    match told {
        Err(error) if is_closed_output(&error) => Ok(()),
        told => told,
    }
}

/// Whether standard output was closed. What is said of other pipes, and of an archive that was not
/// taken whole, has a context.
pub(super) fn is_closed_output(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    error.chain().count() == 1 && cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// Where neither a terminal nor `COLUMNS` says how wide a line may be.
const USUAL_WIDTH: usize = 100;
/// Sentences that are wider are hard to read.
const WIDEST_SENTENCE: usize = 100;
/// And narrower than this there is no line.
const NARROWEST: usize = 20;

/// How wide what is on standard output may be: the terminal, else `COLUMNS`.
pub(super) fn screen_width(given: Given<'_>) -> usize {
    let terminal = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let terminal = terminal.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    let told = || given.variable("COLUMNS")?.parse().ok();
    terminal.or_else(told).unwrap_or(USUAL_WIDTH).max(NARROWEST)
}

/// How many lines the terminal has, if standard output is one.
pub(super) fn screen_height() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|rows| *rows > 0)
}

/// Whether whoever reads standard output has gone. Looks, and waits for nothing.
pub(super) fn is_output_closed() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let found = poll(&mut polled, Some(&at_once)).is_ok();
    found && polled.iter().any(|one| one.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// How words on a screen may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// What a line is about.
    Label,
    /// What comes first.
    Strong,
    /// What is well.
    Good,
    /// What should be looked at.
    Warning,
    /// What is wrong.
    Bad,
}

/// Whether words have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint {
    is_coloured: bool,
}

impl Paint {
    /// On a terminal that has colours, unless `NO_COLOR` is there (no-color.org).
    pub(super) fn of(given: Given<'_>) -> Self {
        let is_capable = given.variable("TERM") != Some("dumb");
        let is_wanted = given.variable("NO_COLOR").is_none();
        Self { is_coloured: io::stdout().is_terminal() && is_capable && is_wanted }
    }

    /// None.
    #[cfg(test)]
    pub(super) const NONE: Self = Self { is_coloured: false };
    /// All.
    #[cfg(test)]
    pub(super) const ALL: Self = Self { is_coloured: true };

    /// The text in this style (ECMA-48 §8.3.117). What others have said in it must be
    /// [one line](one_line) before.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Label => "2",
            Style::Strong => "1",
            Style::Good => "32",
            Style::Warning => "33",
            Style::Bad => "1;31",
        };
        if self.is_coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A sentence in lines of this width at most, but for words that are longer; the first line begins
/// with `first`, the others with `rest`.
pub(super) fn wrapped(sentence: &str, width: usize, first: &str, rest: &str) -> Vec<String> {
    let width = width.min(WIDEST_SENTENCE);
    let (mut lines, mut line) = (Vec::new(), first.to_owned());
    let mut is_empty = true;
    for word in sentence.split_whitespace() {
        let needed = line.chars().count() + word.chars().count() + usize::from(!is_empty);
        if needed > width && !is_empty {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

/// A text in so many characters at most, with an ellipsis where something is cut off.
pub(super) fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain((width > 0).then_some('…')).collect()
}

/// Standard output, for words and documents in which there may be others' words.
pub(super) fn stdout() -> Safe<io::StdoutLock<'static>> {
    Safe(io::stdout().lock())
}

/// Says on standard error what has gone wrong.
pub(super) fn complain(words: &str) {
    // Where nobody hears it, nobody can be told so either.
    let _ = writeln!(Safe(io::stderr().lock()), "entrepot: {words}");
}

/// As much of a digest as tells it from others, for listings.
pub(super) fn short(digest: &str) -> String {
    digest.split(':').next_back().unwrap_or_default().chars().take(12).collect()
}

/// `3.6MB`, as Docker writes it.
pub(super) fn size(bytes: u64) -> String {
    crate::log::bytes(bytes).replace(' ', "")
}

/// `5m`: how long ago that was, in the largest unit that fits.
pub(super) fn ago(at: SystemTime, now: SystemTime) -> String {
    let secs = now.duration_since(at).unwrap_or_default().as_secs();
    if secs == 0 { "now".to_owned() } else { lasting(secs) }
}

/// `5m`: so many seconds, in the largest unit that fits.
pub(super) fn lasting(secs: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let unit = UNITS.iter().find(|(unit, _)| secs >= *unit);
    unit.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", secs / unit))
}

/// The platforms of an image in brackets, behind its name; nothing where it is of none.
pub(super) fn platforms(platforms: &[String]) -> String {
    if platforms.is_empty() {
        String::new()
    } else {
        format!(" ({})", one_line(&platforms.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_wrap_between_words() {
        let lines = wrapped("one two three", 8, "- ", "  ");
        assert_eq!(lines, ["- one", "  two", "  three"]);
        assert_eq!(wrapped("one two", 80, "", ""), ["one two"]);
        assert_eq!(wrapped("incomprehensibilities", 5, "- ", "  "), ["- incomprehensibilities"]);
        assert_eq!(wrapped("", 5, "x", ""), ["x"]);
    }

    #[test]
    fn what_does_not_fit_is_cut_off_and_looks_so() {
        assert_eq!(fitted("alpine", 6), "alpine");
        assert_eq!(fitted("alpine", 5), "alpi…");
        assert_eq!(fitted("Zürich", 3), "Zü…");
        assert_eq!(fitted("alpine", 0), "");
    }

    #[test]
    fn styles_are_colours_where_there_are_any() {
        assert_eq!(Paint::NONE.paint(Style::Bad, "x"), "x");
        assert_eq!(Paint::ALL.paint(Style::Bad, "x"), "\u{1b}[1;31mx\u{1b}[0m");
    }
}
