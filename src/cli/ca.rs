//! `entrepot ca`: the certificate that clients trust.

use std::io::{self, Write as _};

use anyhow::Context as _;
use entrepot_ca::Authority;
use serde_json::json;
use time::OffsetDateTime;

use super::Report;
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
