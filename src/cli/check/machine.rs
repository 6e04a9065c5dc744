//! What the proxy needs of this machine.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use entrepot_ca::Authority;
use entrepot_cache::Claim;
use rustix::fs::{Access, access};
use rustix::process::Resource;
use time::OffsetDateTime;

use super::Finding;
use crate::config::Settings;

/// Open files below which a few hundred clients are too many: each costs up to three.
const FEW_FILES: u64 = 4096;
/// How long before its end a CA is to be renewed: every client has to be told.
const SOON: Duration = Duration::from_hours(24 * 30);
/// No clock that is right tells a year before this one.
const THIS_YEAR: i32 = 2026;

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let cache = &settings.store.dir;
    vec![
        Finding::new("ca-dir", directory(&settings.ca_dir)),
        Finding::new("cache-dir", store(cache)),
        Finding::new("disk", free_space(cache, settings.store.min_free.unwrap_or_default())),
        Finding::new("open files", open_files()),
        Finding::new("clock", clock()),
        authority(&settings.ca_dir),
    ]
}

fn directory(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(format!("{shown} will be made at the first start"));
        }
        other => other.with_context(|| format!("{shown} can't be looked at"))?,
    };
    if !metadata.is_dir() {
        bail!("{shown} is not a directory");
    }
    access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).with_context(|| {
        format!("{shown} must be readable and writable for the user that runs entrepot")
    })?;
    Ok(shown.to_string())
}

/// What the proxy would say of it at its start.
fn store(path: &Path) -> anyhow::Result<String> {
    let found = directory(path)?;
    Claim::of(path)?;
    Ok(found)
}

fn free_space(cache: &Path, min_free: u64) -> anyhow::Result<String> {
    let existing = cache.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let system = rustix::fs::statvfs(existing).with_context(|| existing.display().to_string())?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let (free_mb, least_mb) = (free / 1_000_000, min_free / 1_000_000);
    if free < min_free {
        bail!("{free_mb} MB are free, less than min-free ({least_mb} MB): nothing will be kept");
    }
    Ok(format!("{free_mb} MB are free"))
}

fn open_files() -> anyhow::Result<String> {
    match rustix::process::getrlimit(Resource::Nofile).maximum {
        Some(most) if most < FEW_FILES => {
            bail!("at most {most} may be open: raise the hard limit (LimitNOFILE=, ulimit -Hn)")
        }
        Some(most) => Ok(format!("{most} may be open")),
        None => Ok("any number may be open".to_owned()),
    }
}

fn clock() -> anyhow::Result<String> {
    let now = OffsetDateTime::now_utc();
    if now.year() < THIS_YEAR {
        bail!("{}: no certificate is valid yet at that time", now.date());
    }
    Ok(format!("{} UTC", now.date()))
}

fn authority(directory: &Path) -> Finding {
    if !directory.join("ca.crt").exists() && !directory.join("ca.key").exists() {
        return Finding::new("ca", Ok("will be made at the first start".to_owned()));
    }
    match Authority::load(directory, &entrepot_ca::Options::default()) {
        Ok(authority) => {
            Finding { notes: strictness(&authority), ..Finding::new("ca", end_of(&authority)) }
        }
        Err(error) => Finding::new("ca", Err(error.into())),
    }
}

fn end_of(authority: &Authority) -> anyhow::Result<String> {
    let end = authority.not_after();
    let date = OffsetDateTime::from(end).date();
    if end < SystemTime::now() + SOON {
        bail!("ends on {date}: `entrepot ca renew` makes another, which every client must trust");
    }
    Ok(format!("valid until {date}"))
}

fn strictness(authority: &Authority) -> Vec<String> {
    let told = |deficiency| {
        format!(
            "{deficiency}; strict clients refuse what it signs (Python 3.13, for one), engines do \
             not: `entrepot ca renew` makes a CA without fault, which every client must trust"
        )
    };
    authority.deficiencies().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("not/there/yet");
        assert!(free_space(&below, 0).unwrap().ends_with("MB are free"));
        let error = free_space(&below, u64::MAX).unwrap_err().to_string();
        assert!(error.contains("less than min-free"), "{error}");
    }

    #[test]
    fn a_directory_that_is_a_file_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = directory(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("is not a directory"), "{error}");
        assert!(directory(Path::new("/nowhere/x")).unwrap().contains("first start"));
    }

    #[test]
    fn a_directory_that_the_proxy_would_refuse_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (empty, missing) = (directory.path(), directory.path().join("cache"));
        assert!(store(&missing).unwrap().contains("first start"));
        assert_eq!(store(empty).unwrap(), empty.display().to_string());
        std::fs::write(empty.join("photos"), "").unwrap();
        let error = store(empty).unwrap_err().to_string();
        assert!(error.contains("it contains \"photos\""), "{error}");
        std::fs::write(empty.join("VERSION"), "entrepot store 9\n").unwrap();
        let error = store(empty).unwrap_err().to_string();
        assert!(error.contains("unknown format \"entrepot store 9\""), "{error}");
    }
}
