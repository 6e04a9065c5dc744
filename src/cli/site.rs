//! Where a subcommand finds what is kept: in a proxy that runs, or in the store of one that does not.

use anyhow::Context as _;
use entrepot_cache::{OpenError, Options, Store};

use super::api::Api;
use crate::config::Settings;

/// Where it is.
pub(super) enum Site {
    /// A proxy runs: it is asked.
    Running(Api),
    /// None does: its store is open here, and nobody else can open it meanwhile.
    Stopped(Store),
}

impl Site {
    /// The proxy at `server`; else the store of this configuration, opened with `options`, or the
    /// proxy that holds it.
    pub(super) async fn open(
        settings: &Settings,
        server: Option<&str>,
        options: Options,
    ) -> anyhow::Result<Self> {
        if server.is_some() {
            return Ok(Self::Running(Api::new(settings, server)?));
        }
        match Store::open(options).await {
            Ok(store) => Ok(Self::Stopped(store)),
            Err(locked @ OpenError::Locked { .. }) => {
                Ok(Self::Running(Api::of_holder(settings, &locked)?))
            }
            Err(error) => {
                Err(error).with_context(|| format!("cache-dir {}", settings.store.dir.display()))
            }
        }
    }
}

/// The store of this configuration, where nothing is to be evicted while it is looked at.
pub(super) fn unbounded(settings: &Settings) -> Options {
    let mut options = Options::new(&settings.store.dir);
    options.references = settings.store.references;
    options
}
