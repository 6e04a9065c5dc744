//! What a person watches: one line a request, and the events beside it.
//!
//! Text for people, JSON for machines, one event a line whatever a client sends. Credentials,
//! tokens and queries are never given to this module: it only sees what was parsed.

mod line;
mod text;

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use line::{Outcome, RequestId, RequestLine, Subject};
pub use text::bytes;

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged where `RUST_LOG` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// One line a request, and what happens beside them.
    #[default]
    Info,
    /// The decisions as well, with their reasons.
    Debug,
}

/// How, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `log`.
    pub format: Format,
    /// The default of `RUST_LOG`.
    pub level: Level,
}

/// Starts logging to standard output. `RUST_LOG` selects what is logged (default: the level).
///
/// Call once; a second call has no effect.
pub fn start(options: Options) {
    let Options { format, level } = options;
    let level = match level {
        Level::Info => "info",
        Level::Debug => "info,entrepot=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let shows_ids = filter.max_level_hint().is_some_and(|level| level >= LevelFilter::DEBUG);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Text => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer =
                tracing_subscriber::fmt::layer().event_format(text::Text { colour, shows_ids });
            registry.with(layer).try_init()
        }
        Format::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
            registry.with(layer.with_current_span(false).with_span_list(false)).try_init()
        }
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}
