//! Where a subcommand finds what is kept: in a proxy that runs, or in the store of one that does
//! not.

use std::path::Path;

use anyhow::{Context as _, bail};
use entrepot_cache::{Claim, OpenError, Options, Store, is_held};

use super::api::Api;
use super::privileges;
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
    /// proxy that holds it. Where there is no store none is made: an empty one that a mistyped
    /// directory has become would pass for what was meant.
    pub(super) async fn open(
        settings: &Settings,
        server: Option<&str>,
        options: Options,
    ) -> anyhow::Result<Self> {
        let dir = &settings.store.dir;
        if server.is_none() && Claim::of(dir).with_context(|| place(dir))? == Claim::Free {
            bail!("{}: there is no store; name another, or a proxy with --server", place(dir));
        }
        Self::open_or_create(settings, server, options).await
    }

    /// As [`open`](Self::open); where there is no store one is made.
    pub(super) async fn open_or_create(
        settings: &Settings,
        server: Option<&str>,
        options: Options,
    ) -> anyhow::Result<Self> {
        if server.is_some() {
            return Ok(Self::Running(Api::new(settings, server)?));
        }
        if !is_held(&settings.store.dir) {
            privileges::become_owner(&settings.store.dir)?;
        }
        match Store::open(options).await {
            Ok(store) => Ok(Self::Stopped(store)),
            Err(locked @ OpenError::Locked { .. }) => {
                Ok(Self::Running(Api::of_holder(settings, &locked)?))
            }
            Err(error) => Err(error).with_context(|| place(&settings.store.dir)),
        }
    }

    /// Closes the store.
    pub(super) async fn close(self) {
        if let Self::Stopped(store) = self {
            store.close().await;
        }
    }
}

fn place(dir: &Path) -> String {
    format!("cache-dir {}", dir.display())
}

/// The store of this configuration, where nothing is to be evicted while it is looked at.
pub(super) fn unbounded(settings: &Settings) -> Options {
    let mut options = Options::new(&settings.store.dir);
    options.references = settings.store.references;
    options
}
