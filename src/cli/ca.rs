//! `entrepot ca`: the certificate that clients trust.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use entrepot_ca::Authority;
use serde_json::json;
use time::OffsetDateTime;

use super::{Report, serve};
use crate::config::Settings;

/// Shows the CA certificate, its fingerprint and when it ends; never makes one.
pub(super) fn show(settings: &Settings, report: Report) -> anyhow::Result<()> {
    let authority = Authority::load(&settings.ca_dir, &entrepot_ca::Options::default())
        .with_context(|| format!("ca-dir {}", settings.ca_dir.display()))?;
    let date = |at| OffsetDateTime::from(at).date().to_string();
    let (from, until) = (date(authority.not_before()), date(authority.not_after()));
    let (subject, sha256) = (authority.subject(), authority.fingerprint().to_string());
    let pem = authority.certificate_pem();
    let mut output = io::stdout().lock();
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
pub(super) fn renew(settings: &Settings, report: Report) -> anyhow::Result<()> {
    let aside = set_aside(&settings.ca_dir)?;
    let authority = serve::certificates(settings)?;
    let sha256 = authority.fingerprint().to_string();
    let mut output = io::stdout().lock();
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

/// Renames what there is of a CA. After an interruption, which a start reports as a CA of one file,
/// this goes on when it is run again.
fn set_aside(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut aside = Vec::new();
    for name in ["ca.crt", "ca.key"] {
        let (from, to) =
            (directory.join(name), directory.join(format!("{name}.{}", now.as_secs())));
        if from.exists() {
            fs::rename(&from, &to)
                .with_context(|| format!("{} can't be renamed", from.display()))?;
            aside.push(to);
        }
    }
    Ok(aside)
}
