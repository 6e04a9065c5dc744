//! `entrepot ca`: the certificate that clients trust.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Command;
use entrepot_ca::Authority;
use entrepot_oci::UnixSeconds;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::json;
use time::OffsetDateTime;

use super::arguments::{self, Given};
use super::output::{Report, stdout};
use super::privileges::{self, Missing};
use crate::app::certificates;
use crate::config::Settings;

/// What a CA consists of.
const FILES: [&str; 2] = ["ca.crt", "ca.key"];

/// How many names are tried for the old one: more than anybody renews a CA in as many seconds.
const TRIES: u64 = 1_000;

pub(super) fn command() -> Command {
    let show =
        Command::new("show").about("Show the CA certificate, its fingerprint and its expiry");
    let renew =
        Command::new("renew").about("Make a new CA certificate, which every client must trust");
    let inner = [show, renew]
        .map(|one| arguments::with_keys(one.arg(arguments::json()), &["ca-dir", "data-dir"]));
    Command::new("ca")
        .about("Show or renew the CA certificate that clients trust")
        .subcommand_required(true)
        .subcommands(inner)
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    match given.subcommand() {
        Some(("renew", given)) => renew(&given.settings(Missing::Made)?, given.report()),
        Some((_, given)) => show(&given.settings(Missing::Left)?, given.report()),
        None => Ok(()),
    }
}

/// Shows the CA certificate, its fingerprint and when it ends; never makes one.
fn show(settings: &Settings, report: Report) -> anyhow::Result<()> {
    let authority = Authority::load(&settings.ca_dir, &entrepot_ca::Options::default())
        .with_context(|| format!("ca-dir {}", settings.ca_dir.display()))?;
    let date = |at| OffsetDateTime::from(at).date().to_string();
    let (from, until) = (date(authority.not_before()), date(authority.not_after()));
    let (subject, sha256) = (authority.subject(), authority.fingerprint().to_string());
    let pem = authority.certificate_pem();
    let mut output = stdout();
    match report {
        Report::Json => {
            let told = json!({
                "subject": subject, "sha256": sha256, "not_before": from, "not_after": until,
                "certificate": pem,
            });
            writeln!(output, "{told}")?;
        }
        Report::Text => {
            writeln!(output, "subject  {subject}\nsha256   {sha256}\nvalid    {from} to {until}")?;
            write!(output, "{pem}")?;
        }
    }
    Ok(())
}

/// Makes a new CA in the place of the old one, which stays beside it under another name.
///
/// Every client has to trust the new one; a proxy that runs goes on with the old one until it is
/// started again.
fn renew(settings: &Settings, report: Report) -> anyhow::Result<()> {
    privileges::become_owner(&settings.ca_dir)?;
    let aside = set_aside(&settings.ca_dir, SystemTime::now())?;
    let authority = certificates(settings)?;
    let sha256 = authority.fingerprint().to_string();
    let mut output = stdout();
    match report {
        Report::Json => {
            let aside: Vec<_> = aside.iter().map(|path| path.display().to_string()).collect();
            writeln!(output, "{}", json!({ "sha256": sha256, "set_aside": aside }))?;
        }
        Report::Text => {
            for path in aside {
                writeln!(output, "the old one is now {}", path.display())?;
            }
            writeln!(output, "the new CA has the SHA-256 {sha256}")?;
            writeln!(output, "start entrepot again, and set every client up anew")?;
        }
    }
    Ok(())
}

/// Renames what there is of a CA, to names that nobody has: what was set aside before stays. After
/// an interruption, which a start reports as a CA of one file, this goes on when it is run again.
fn set_aside(directory: &Path, now: SystemTime) -> anyhow::Result<Vec<PathBuf>> {
    let secs = UnixSeconds::from(now).0;
    let pair = |suffix: u64| FILES.map(|name| directory.join(format!("{name}.{suffix}")));
    let is_free =
        |names: &[PathBuf; 2]| names.iter().all(|name| fs::symlink_metadata(name).is_err());
    let names = (secs..secs.saturating_add(TRIES)).map(pair).find(is_free);
    let names = names.context("there is no free name for the old CA")?;
    let mut aside = Vec::new();
    for (name, to) in FILES.into_iter().zip(names) {
        let from = directory.join(name);
        if from.exists() {
            rename(&from, &to).with_context(|| format!("{} can't be renamed", from.display()))?;
            aside.push(to);
        }
    }
    Ok(aside)
}

/// Renames a file, and never replaces another: somebody else may do the same just now.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows how; that nobody has the name was seen just before.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_set_aside_before_stays() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let mut all = Vec::new();
        for time in ["first", "second", "third"] {
            for name in FILES {
                fs::write(directory.path().join(name), format!("{time} {name}")).unwrap();
            }
            let aside = set_aside(directory.path(), now).unwrap();
            let suffixes: Vec<_> = aside.iter().filter_map(|path| path.extension()).collect();
            assert_eq!(suffixes[0], suffixes[1]);
            all.extend(aside.into_iter().zip(FILES.map(|name| format!("{time} {name}"))));
        }
        assert_eq!(all.len(), 6);
        for (path, text) in all {
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "{}", path.display());
        }
        let (from, to) =
            (directory.path().join("ca.crt.1000"), directory.path().join("ca.crt.1001"));
        assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
