//! Whether the fleet's bucket can be used, and is this fleet's.

use anyhow::anyhow;
use entrepot_ca::Authority;

use super::super::runtime;
use super::Finding;
use crate::bucket::{Trial, try_out};
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::upstream::Upstream;

/// Does there once all that replicas do. Nothing, where there is no bucket.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let Some(options) = &settings.bucket else { return Vec::new() };
    let authority = Authority::load(&settings.ca_dir, &entrepot_ca::Options::default()).ok();
    let ca = authority.map(|authority| authority.fingerprint().to_string());
    let trial = runtime::block_on(async {
        let upstream = Upstream::new(&settings.upstream, Metrics::default())?;
        let dialer = upstream.for_strangers().dialer();
        Ok(try_out(options, &dialer, ca.as_deref()).await?)
    });
    let what = format!("bucket {}", options.url);
    match trial {
        Ok(Trial { use_of_it, whose, notes }) => {
            let of_use = Finding::new(what, use_of_it.map_err(|words| anyhow!(words)));
            let whose = Finding::new("bucket's key", whose.map_err(|words| anyhow!(words)));
            vec![of_use, Finding { notes, ..whose }]
        }
        Err(error) => vec![Finding::new(what, Err(error))],
    }
}
