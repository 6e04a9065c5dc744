//! Which proxy is on the way to which destination: the keys, then the process's environment.

use std::net::{IpAddr, SocketAddr};

use entrepot_oci::{Authority, Host, HostPattern};

use super::error::Position;
use super::reader::Reader;
use super::registry::RegistryEntry;
use super::source::Sources;
use super::value::NoProxyEntry;
use crate::admin::setup::ProxyAddress;
use crate::upstream::proxy::{ForwardProxy, NoProxy, Proxies, ProxyChoice};

/// Where this proxy itself can be reached, as far as the configuration tells.
pub(super) struct Own<'a> {
    pub(super) listen: &'a [SocketAddr],
    pub(super) external_url: Option<&'a ProxyAddress>,
}

/// Reads every rule; a proxy that is this one is wrong.
pub(super) fn read(
    reader: &mut Reader,
    sources: &Sources,
    registries: &[RegistryEntry],
    own: &Own<'_>,
) -> Proxies {
    let key = "upstream.proxy";
    let configured: Option<ProxyChoice> = reader.get(key);
    let (https, http) = match configured.map(|choice| choice.named_by(key)) {
        Some(ProxyChoice::Direct) => (None, None),
        Some(ProxyChoice::Through(proxy)) => {
            own.refuse(reader, reader.place(key), &proxy);
            (Some(proxy.clone()), Some(proxy))
        }
        // In the order in which Go's programs (so the engines) look.
        None => {
            let mut named = |names| from_environment(reader, sources, own, names);
            let https = named(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
            (https, named(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]))
        }
    };
    for entry in registries {
        if let Some(ProxyChoice::Through(proxy)) = &entry.proxy {
            own.refuse(reader, entry.proxy_place.clone(), proxy);
        }
    }
    Proxies {
        registries: registries.iter().flat_map(ways).collect(),
        https,
        http,
        exempt: exempt(reader, sources),
    }
}

/// An entry's choice for its registry, as it is named and as it is dialled.
fn ways(entry: &RegistryEntry) -> impl Iterator<Item = (HostPattern, Option<ProxyChoice>)> {
    let patterns = std::iter::once(entry.rule.host.clone()).chain(entry.at_plain_port());
    patterns.map(|pattern| (pattern, entry.proxy.clone()))
}

fn exempt(reader: &mut Reader, sources: &Sources) -> NoProxy {
    let listed: Option<Vec<NoProxyEntry>> = reader.get("upstream.no-proxy");
    if let Some(listed) = listed {
        return NoProxy::new(listed.iter().map(|entry| entry.0.as_str()));
    }
    NoProxy::new(no_proxy(sources).unwrap_or_default().1.split(','))
}

/// The variable that says which hosts are reached without a proxy, and what it says.
pub(super) fn no_proxy(sources: &Sources) -> Option<(&'static str, &str)> {
    let mut names = ["NO_PROXY", "no_proxy"].into_iter();
    names.find_map(|name| Some((name, sources.variable(name)?)))
}

fn from_environment(
    reader: &mut Reader,
    sources: &Sources,
    own: &Own<'_>,
    names: [&str; 4],
) -> Option<ForwardProxy> {
    let name = names.into_iter().find(|name| sources.variable(name).is_some())?;
    let place = Position::Environment(name.to_owned());
    match sources.variable(name)?.parse::<ForwardProxy>() {
        Ok(proxy) => {
            let proxy = proxy.named_by(name);
            own.refuse(reader, Some(place), &proxy);
            Some(proxy)
        }
        // Its value is not shown: it may hold a password.
        Err(error) => {
            reader.problem(Some(place), format!("not the URL of a proxy: {error}"));
            None
        }
    }
}

impl Own<'_> {
    /// Each request would come back here for ever. An environment for clients of this proxy is
    /// easily handed on to the proxy itself.
    fn refuse(&self, reader: &mut Reader, place: Option<Position>, proxy: &ForwardProxy) {
        if self.is_at(proxy.authority()) {
            let text = format!("the proxy {proxy} is this proxy itself: name another, or none");
            reader.problem(place, text);
        }
    }

    /// Whether a connection to `authority` may come to this proxy.
    pub(super) fn is_at(&self, authority: &Authority) -> bool {
        let external = self.external_url.map(ProxyAddress::authority);
        external == Some(authority)
            || self.listen.iter().any(|listen| {
                listen.port() == authority.port() && is_this_machine(authority.host(), listen.ip())
            })
    }
}

/// Whether a connection to `host` may come to a listener on this address.
fn is_this_machine(host: &Host, listen: IpAddr) -> bool {
    let on_loopback = listen.is_unspecified() || listen.is_loopback();
    match host {
        Host::Ip(ip) if *ip == listen => true,
        Host::Ip(ip) if ip.is_unspecified() => on_loopback,
        Host::Ip(ip) => listen.is_unspecified() && ip.is_loopback(),
        Host::Name(name) if &**name == "localhost" || name.ends_with(".localhost") => on_loopback,
        Host::Name(name) => {
            **name == *rustix::system::uname().nodename().to_string_lossy().to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_recognised_by_address_and_port() {
        let url = ProxyAddress::from_url("http://proxy.corp:3128").unwrap();
        let is_own = |listen: &str, proxy: &str| {
            let listen = [listen.parse().unwrap()];
            Own { listen: &listen, external_url: Some(&url) }.is_at(&proxy.parse().unwrap())
        };
        for (listen, proxy) in [
            ("0.0.0.0:3128", "127.0.0.1:3128"),
            ("0.0.0.0:3128", "localhost:3128"),
            ("[::]:3128", "[::1]:3128"),
            ("127.0.0.1:3128", "localhost:3128"),
            ("127.0.0.1:3128", "0.0.0.0:3128"),
            ("10.0.0.1:3128", "10.0.0.1:3128"),
            ("10.0.0.1:8080", "proxy.corp:3128"),
        ] {
            assert!(is_own(listen, proxy), "{listen} {proxy}");
        }
        for (listen, proxy) in [
            ("0.0.0.0:3128", "127.0.0.1:8080"),
            ("10.0.0.1:3128", "127.0.0.1:3128"),
            ("127.0.0.1:3128", "127.0.0.2:3128"),
            ("0.0.0.0:3128", "other.corp:3128"),
        ] {
            assert!(!is_own(listen, proxy), "{listen} {proxy}");
        }
    }
}
