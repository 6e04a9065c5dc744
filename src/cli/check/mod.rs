//! `entrepot check`: what is wrong, in words.
//!
//! - `machine`: directories, disk, limits, the CA
//! - `reach`: registries from here, and registries through a proxy, as a client sees them

mod machine;
mod reach;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::Report;
use super::api::reachable;
use crate::config::Settings;

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth<'a> {
    /// Whether the running proxy answers.
    Alive,
    /// That, and everything around it.
    Full,
    /// As a client of the proxy with this URL, whether a registry is reached through it.
    Client(&'a str),
}

/// What was looked at, and what was found.
pub(super) struct Finding {
    what: String,
    found: anyhow::Result<String>,
}

impl Finding {
    fn new(what: impl Into<String>, found: anyhow::Result<String>) -> Self {
        Self { what: what.into(), found }
    }
}

/// A proxy on this machine answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Checks, and says on standard output what was found. 0: all is well; 1: something is not.
pub(super) fn run(
    settings: &Settings,
    depth: Depth<'_>,
    report: Report,
) -> anyhow::Result<ExitCode> {
    let findings = match depth {
        Depth::Alive => vec![proxy(settings)],
        Depth::Full => {
            let mut findings = machine::check(settings);
            findings.push(proxy(settings));
            findings.extend(reach::registries(settings)?);
            findings
        }
        Depth::Client(url) => reach::through(settings, url)?,
    };
    tell(&findings, report)?;
    let failed = findings.iter().filter(|finding| finding.found.is_err()).count();
    if failed > 0 {
        eprintln!("entrepot: {failed} of the checks failed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(findings: &[Finding], report: Report) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if report == Report::Json {
        let checks = findings.iter().map(|Finding { what, found }| match found {
            Ok(words) => json!({ "what": what, "is_ok": true, "words": words }),
            Err(error) => json!({ "what": what, "is_ok": false, "words": format!("{error:#}") }),
        });
        return writeln!(output, "{}", json!({ "checks": checks.collect::<Vec<_>>() }));
    }
    for Finding { what, found } in findings {
        match found {
            Ok(words) => writeln!(output, "ok    {what}: {words}")?,
            Err(error) => writeln!(output, "WRONG {what}: {error:#}")?,
        }
    }
    Ok(())
}

fn proxy(settings: &Settings) -> Finding {
    let addresses = &settings.listener.addresses;
    let found = addresses.first().map_or_else(|| bail!("no listen address"), |at| alive(*at));
    Finding::new("proxy", found)
}

fn alive(address: SocketAddr) -> anyhow::Result<String> {
    let local = reachable(address);
    let answer = ask(local).with_context(|| format!("no proxy answers on {local}"))?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{local} answers, but not as entrepot does");
    }
    Ok(format!("alive on {local}"))
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
