//! How clients reach the proxy.

use std::net::SocketAddr;

use aws_lc_rs::digest;
use entrepot_ca::Authority;

use crate::admin::setup::{self, Client, ProxyAddress, Script};
use crate::config::Settings;

/// The proxy's URL, as clients reach it.
pub(super) fn proxy_url(settings: &Settings, addresses: &[SocketAddr]) -> String {
    let guessed = || url_of(addresses, &host_name());
    settings.external_url.as_ref().map_or_else(guessed, ToString::to_string)
}

/// What this proxy is called: the host of `external-url`, or its machine's name.
pub(super) fn name(settings: &Settings) -> String {
    let external = settings.external_url.as_ref().map(|url| url.host().to_string());
    external.unwrap_or_else(host_name)
}

/// How clients reach a listener at `addresses`, on a machine of this name.
fn url_of(addresses: &[SocketAddr], host_name: &str) -> String {
    let first = addresses.first();
    let port = first.map_or(3128, SocketAddr::port);
    match first {
        // Nobody else reaches it, whatever the machine is called.
        Some(first) if addresses.iter().all(is_loopback) => format!("http://{first}"),
        _ if is_container_id(host_name) => format!("http://THIS-MACHINE:{port}"),
        _ => format!("http://{host_name}:{port}"),
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Docker and Podman call a container by the first twelve digits of its id. Outside of it nobody
/// knows that name, nor does it know the machine's.
fn is_container_id(host_name: &str) -> bool {
    host_name.len() == 12 && host_name.chars().all(|c| c.is_ascii_hexdigit())
}

/// The line to run on a client.
pub(super) fn set_up(proxy_url: &str, certificates: &Authority) -> String {
    let plain = certificates.fingerprint().to_string().replace(':', "").to_lowercase();
    // A machine that is new does not know the certificate of a proxy that is spoken to by TLS.
    let curl = if proxy_url.starts_with("https:") { "curl -fsSk" } else { "curl -fsS" };
    format!("{curl} '{proxy_url}/setup/systemd?fp={plain}' | sudo sh")
}

/// The SHA-256 of each script as a client gets it that comes by `proxy_url`; nothing where that is
/// no address that could be come by.
pub(super) fn scripts(settings: &Settings, proxy_url: &str, fingerprint: &str) -> Option<String> {
    if settings.external_url.is_none() && is_container_id(&host_name()) {
        return None;
    }
    let address = ProxyAddress::from_url(proxy_url).ok()?;
    let (undo, expected_fingerprint) = (false, None);
    let script = Script { address: &address, fingerprint, undo, expected_fingerprint };
    let mut hashes = vec![format!("check={}", sha256(&setup::check(&script).ok()?))];
    for client in Client::ALL {
        let made = setup::script(client, &script).ok()?;
        hashes.push(format!("{}={}", client.name(), sha256(&made)));
    }
    Some(hashes.join(" "))
}

fn sha256(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The name of this machine.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_that_leads_here() {
        let everywhere = ["0.0.0.0:3128", "[::]:3128"];
        let both_loopbacks = ["127.0.0.1:8080", "[::1]:8080"];
        for (addresses, host_name, url) in [
            (everywhere, "proxy.corp", "http://proxy.corp:3128"),
            (everywhere, "3f5c0a9be412", "http://THIS-MACHINE:3128"),
            (everywhere, "entrepot-7d9f", "http://entrepot-7d9f:3128"),
            (both_loopbacks, "proxy.corp", "http://127.0.0.1:8080"),
            (both_loopbacks, "3f5c0a9be412", "http://127.0.0.1:8080"),
            (["[::ffff:127.0.0.2]:80", "[::1]:80"], "proxy.corp", "http://[::ffff:127.0.0.2]:80"),
            (["127.0.0.1:3129", "10.0.0.5:3129"], "proxy.corp", "http://proxy.corp:3129"),
        ] {
            let listening: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(url_of(&listening, host_name), url, "{addresses:?} {host_name}");
        }
    }
}
