//! The running proxy, or whether one could listen where this configuration says.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::super::api::reachable;
use super::Finding;
use crate::config::Settings;

/// A proxy on this machine answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than a health page has.
const LARGEST: u64 = 16 * 1024;

/// Whether it answers, and what it says of itself; without one, whether its ports are free.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let proxy = proxy(settings);
    if proxy.found.is_ok() {
        let readiness = Finding::new("readiness", readiness(settings.admin_listen));
        return vec![proxy, readiness];
    }
    let addresses = settings.listener.addresses.iter().chain([&settings.admin_listen]);
    let ports = addresses.map(|at| Finding::new(format!("port {at}"), free(*at)));
    [proxy].into_iter().chain(ports).collect()
}

/// Whether it answers.
pub(super) fn proxy(settings: &Settings) -> Finding {
    let addresses = &settings.listener.addresses;
    let found = addresses.first().map_or_else(|| bail!("no listen address"), |at| alive(*at));
    Finding::new("proxy", found)
}

fn alive(address: SocketAddr) -> anyhow::Result<String> {
    let local = reachable(address);
    let answer = ask(local, "/healthz").with_context(|| format!("no proxy answers on {local}"))?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{local} answers, but not as entrepot does");
    }
    Ok(format!("alive on {local}"))
}

/// What the proxy says of itself.
fn readiness(admin: SocketAddr) -> anyhow::Result<String> {
    let local = reachable(admin);
    let answer = ask(local, "/readyz").with_context(|| format!("{local} (admin-listen)"))?;
    let document = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let told: Value = serde_json::from_str(document)
        .with_context(|| format!("{local} answers, but not as entrepot does"))?;
    let reasons = told.get("reasons").and_then(Value::as_array).into_iter().flatten();
    let reasons: Vec<_> = reasons.filter_map(Value::as_str).collect();
    match told.get("status").and_then(Value::as_str).unwrap_or_default() {
        "ready" => Ok("ready".to_owned()),
        other => bail!("{other}: {}", reasons.join("; ")),
    }
}

/// Whether a proxy could listen there.
fn free(address: SocketAddr) -> anyhow::Result<String> {
    match TcpListener::bind(address) {
        Ok(_) => Ok("free".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("another process listens there: `ss -ltnp` names it")
        }
        Err(error) => Err(error.into()),
    }
}

fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
