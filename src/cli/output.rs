//! Standard output: in which form something is told, and to whom there is nobody any more.

use std::io::{self, ErrorKind, Write as _};

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

/// The platforms of an image in brackets, behind its name; nothing where it is of none.
pub(super) fn platforms(platforms: &[String]) -> String {
    if platforms.is_empty() {
        String::new()
    } else {
        format!(" ({})", one_line(&platforms.join(", ")))
    }
}
