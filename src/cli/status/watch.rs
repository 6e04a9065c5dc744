//! `--watch`: the same screen again, each second, until somebody has seen enough.
//!
//! On a terminal it is drawn in place, and its last state stays when it ends. Elsewhere it is
//! printed when something has changed.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::super::api::Api;
use super::super::arguments::Given;
use super::super::output::{
    Report, is_closed_output, is_output_closed, screen_height, screen_width, wrapped,
};
use super::facts::Facts;
use super::told;
use crate::log::one_line;

/// How often it is looked.
const TICK: Duration = Duration::from_secs(1);

/// Shows it until standard output is closed, or the process is to end: the terminal has to be put
/// right before. It is to be dropped when somebody interrupts it.
pub(super) async fn watch(api: &Api, given: Given<'_>) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        watched = look_again(api, given) => watched,
        _ = terminated.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

async fn look_again(api: &Api, given: Given<'_>) -> anyhow::Result<()> {
    let is_drawn = io::stdout().is_terminal() && given.report() == Report::Text;
    let mut paper = if is_drawn { Paper::Terminal(Terminal::open()?) } else { Paper::Lines(None) };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let seen = Facts::ask(api).await;
        if is_output_closed() {
            return Ok(());
        }
        match paper.show(&seen, given) {
            Err(error) if is_closed_output(&error) => return Ok(()),
            shown => shown?,
        }
    }
}

/// Where it is shown.
enum Paper {
    Terminal(Terminal),
    /// What was printed last, to see whether something has changed.
    Lines(Option<String>),
}

impl Paper {
    fn show(&mut self, seen: &anyhow::Result<Facts>, given: Given<'_>) -> anyhow::Result<()> {
        match self {
            Self::Terminal(terminal) => terminal.draw(&lines(seen, given)),
            Self::Lines(last) => {
                let lines = lines(seen, given);
                let now = key(&lines, given.report());
                if last.as_ref() == Some(&now) {
                    return Ok(());
                }
                let mut output = io::stdout().lock();
                if last.is_some() && given.report() == Report::Text {
                    writeln!(output)?;
                }
                *last = Some(now);
                for line in lines {
                    writeln!(output, "{line}")?;
                }
                Ok(output.flush()?)
            }
        }
    }
}

/// By what it is told whether something has changed: not by the clock, which is in the first line
/// of a screen.
fn key(lines: &[String], report: Report) -> String {
    let of_clock = usize::from(report == Report::Text && lines.len() > 1);
    lines.iter().skip(of_clock).flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// A screen; or why there is none, since the next may come.
fn lines(seen: &anyhow::Result<Facts>, given: Given<'_>) -> Vec<String> {
    match (seen, given.report()) {
        (Ok(facts), _) => told(facts, given),
        (Err(error), Report::Json) => {
            vec![serde_json::json!({ "error": format!("{error:#}") }).to_string()]
        }
        (Err(error), Report::Text) => {
            let words = format!("{error:#}");
            wrapped(&one_line(&words), screen_width(given), "", "")
        }
    }
}

/// The other screen of a terminal (xterm's `?1049`), without a cursor.
struct Terminal {
    /// What is on it.
    last: Vec<String>,
}

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        write("\u{1b}[?1049h\u{1b}[?25l")?;
        Ok(Self { last: Vec::new() })
    }

    /// Draws over what is there, so that nothing flickers.
    fn draw(&mut self, lines: &[String]) -> anyhow::Result<()> {
        self.last = lines.to_vec();
        let height = screen_height().unwrap_or(usize::MAX);
        let mut text = String::from("\u{1b}[H");
        // A line end on the last line would scroll.
        for (at, line) in lines.iter().take(height).enumerate() {
            let end = if at + 1 < height { "\u{1b}[K\r\n" } else { "\u{1b}[K" };
            text.push_str(line);
            text.push_str(end);
        }
        text.push_str("\u{1b}[J");
        write(&text)
    }
}

/// However it ends, the terminal is as it was, with the last screen on it.
impl Drop for Terminal {
    fn drop(&mut self) {
        let last: String = self.last.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        // Where nobody sees it, nothing is to be put right.
        let _ = write(&format!("\u{1b}[?25h\u{1b}[?1049l{last}"));
    }
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_on_is_no_change() {
        let screen = |clock: &str| ["proxy.corp", clock].join(" ");
        let lines = |clock, verdict: &str| vec![screen(clock), verdict.to_owned()];
        let key = |clock, verdict| key(&lines(clock, verdict), Report::Text);
        assert_eq!(key("11:41", "All well."), key("11:42", "All well."));
        assert_ne!(key("11:41", "All well."), key("11:41", "ghcr.io can't be reached."));
        let error = ["no proxy answers".to_owned()];
        assert_ne!(super::key(&error, Report::Text), super::key(&[], Report::Text));
    }
}
