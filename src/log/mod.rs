//! What a person watches: one line a request, and the events beside it.
//!
//! Text for people, JSON for machines, one event a line whatever a client sends. Credentials,
//! tokens and queries are never given to this module: it only sees what was parsed.

#[cfg(fuzzing)]
pub mod fuzzing;
mod line;
mod safe;
mod text;

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub(crate) use line::ContentKind;
pub use line::{Outcome, RequestLine, Subject};
pub(crate) use safe::{Safe, one_line};
pub(crate) use text::bytes;

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged where `RUST_LOG` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Level {
    /// What an operator must act upon.
    Error,
    /// What is degraded as well.
    Warn,
    /// One line a request, and what happens beside them.
    #[default]
    Info,
    /// The decisions as well, with their reasons.
    Debug,
    /// And every step.
    Trace,
}

impl Level {
    /// Its name, as `log-level` takes it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn filter(self) -> EnvFilter {
        // Of what others have to say in such detail nothing is of use here; nor is what
        // object_store says of each request that it tries again.
        EnvFilter::new(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info,object_store=warn",
            Self::Debug => "info,object_store=warn,entrepot=debug",
            Self::Trace => "info,object_store=warn,entrepot=trace",
        })
    }
}

/// How, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogOptions {
    /// `log`.
    pub format: Format,
    /// `log-level`.
    pub level: Level,
    /// `RUST_LOG`, which selects what is logged in place of the level.
    pub filter: Option<String>,
    /// `NO_COLOR`: no colours, on a terminal either.
    pub is_plain: bool,
}

/// How much is logged, to be changed while it is.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    filter: reload::Handle<EnvFilter, Registry>,
    /// `RUST_LOG` is there, and stays as it is.
    is_given: bool,
}

impl Volume {
    /// Logs this much from now on; false where `RUST_LOG` says otherwise.
    #[must_use]
    pub(crate) fn set(&self, level: Level) -> bool {
        !self.is_given && self.filter.reload(level.filter()).is_ok()
    }
}

/// Starts logging to standard output.
///
/// Call once; a second call has no effect.
pub(crate) fn start(options: LogOptions) -> Volume {
    let LogOptions { format, level, filter, is_plain } = options;
    let given = filter.and_then(|filter| EnvFilter::try_new(filter).ok());
    let is_given = given.is_some();
    let (filter, handle) = reload::Layer::new(given.unwrap_or_else(|| level.filter()));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Text => {
            let colour = std::io::stdout().is_terminal() && !is_plain;
            let shows_ids = || LevelFilter::current() >= LevelFilter::DEBUG;
            let layer =
                tracing_subscriber::fmt::layer().event_format(text::Text { colour, shows_ids });
            registry.with(layer).try_init()
        }
        Format::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
            // A string of JSON may hold what a reader of lines, or a terminal, stumbles over.
            let layer = layer.with_writer(|| Safe(std::io::stdout()));
            registry.with(layer.with_current_span(false).with_span_list(false)).try_init()
        }
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    Volume { filter: handle, is_given }
}
