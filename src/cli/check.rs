//! `entrepot check`: what is wrong, in words.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::{Access, access};

use super::api::reachable;
use crate::config::Settings;

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Whether the running proxy answers.
    Alive,
    /// That, and the directories.
    Full,
}

/// A proxy on this machine answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Checks, and says on standard output what was found.
pub(super) fn run(settings: &Settings, depth: Depth) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    if depth == Depth::Full {
        findings.push(("ca-dir", directory(&settings.ca_dir)));
        findings.push(("cache-dir", directory(&settings.store.dir)));
    }
    let addresses = &settings.listener.addresses;
    let answering = addresses.first().map_or_else(|| bail!("no listen address"), |at| alive(*at));
    findings.push(("proxy", answering));

    let mut output = io::stdout().lock();
    let mut failed = 0;
    for (what, finding) in findings {
        match finding {
            Ok(words) => writeln!(output, "ok    {what}: {words}")?,
            Err(error) => {
                failed += 1;
                writeln!(output, "WRONG {what}: {error:#}")?;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of the checks failed");
    }
    Ok(())
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
