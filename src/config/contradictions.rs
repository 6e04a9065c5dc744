//! Values that are right each by itself, and can't be meant together or on this machine.
//!
//! What could not work, or would do nothing of what it says, is an error; what works and is perhaps
//! meant is told as a note.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use entrepot_oci::Authority;
use ipnet::IpNet;

use super::error::Position;
use super::proxies::Own;
use super::reader::Reader;
use super::registry::RegistryEntry;
use super::settings::Settings;
use super::units::{exact_duration, exact_size};
use crate::gateway::TagTtl;
use crate::memory;

/// Less holds no manifest with its configuration: nothing could be kept.
const LEAST_SIZE: u64 = 64_000;
/// What Docker Hub gives to those without an account (the smallest quota that a big registry has).
const SMALL_QUOTA: u64 = 100;

/// Notes whatever there is of it.
pub(super) fn check(reader: &mut Reader, settings: &Settings) {
    intercepted(reader, settings);
    addresses(reader, settings);
    clients(reader, settings);
    bounds(reader, settings);
    directories(reader, settings);
    ways(reader, settings);
    times(reader, settings);
}

fn problem(reader: &mut Reader, key: &str, text: &str) {
    let place = reader.place(key);
    reader.problem(place, format!("{key}: {text}"));
}

fn intercepted(reader: &mut Reader, settings: &Settings) {
    if reader.is_given("intercept") && reader.is_given("intercept-also") {
        let text = "found beside intercept, which stands in place of the list that this adds to; \
                    expected one of the two: put all of them into intercept";
        problem(reader, "intercept-also", text);
    }
    if settings.listener.policy.intercept.is_empty() {
        reader.note("no registry is in intercept: everything is passed on, and nothing kept");
    }
}

/// A socket can have an address once, and a wildcard has all of its family.
fn addresses(reader: &mut Reader, settings: &Settings) {
    let listen = &settings.listener.addresses;
    for (at, address) in listen.iter().enumerate() {
        let earlier = listen.iter().take(at).find(|other| are_one(**other, *address));
        if let Some(other) = earlier {
            let text = format!("found {address} beside {other}, which is the same; expected one");
            problem(reader, "listen", &text);
        }
    }
    let admin = settings.admin_listen;
    if let Some(other) = listen.iter().find(|other| are_one(**other, admin)) {
        let place = reader.place("admin-listen").or_else(|| reader.place("listen"));
        let text = format!(
            "admin-listen: found {admin}, which listen has ({other}); expected another port"
        );
        reader.problem(place, text);
    }
    let external = settings.external_url.as_ref().map(|url| url.authority().clone());
    let is_admin = |url: &Authority| Own { listen: &[admin], external_url: None }.is_at(url);
    if let Some(url) = external.filter(is_admin) {
        let text = format!("found {url}, which is admin-listen; expected an address of listen");
        problem(reader, "external-url", &text);
    }
}

fn are_one(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same_family = one.is_ipv4() == other.is_ipv4();
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && is_same_family
        && (is_any || one.ip() == other.ip())
}

fn clients(reader: &mut Reader, settings: &Settings) {
    let access = &settings.listener.access;
    let addresses = &settings.listener.addresses;
    // Who a balancer says that its client is may have any address.
    let is_direct = access.announcers.is_empty();
    let may_come = |network: &IpNet| addresses.iter().any(|listen| may_come_from(*listen, network));
    if is_direct && !access.clients.is_empty() && !access.clients.iter().any(may_come) {
        // Everybody is refused by it, which may be what is meant.
        reader.note(
            "access.clients: nobody has such an address who can reach what listen says, so that all \
             are refused",
        );
    }
    if access.announcers.iter().any(|network| network.prefix_len() == 0) {
        reader.note(
            "proxy-protocol-from has a network of everybody: whoever connects may say who they are",
        );
    }
}

/// Whether a client of `network` can connect to what listens there.
fn may_come_from(listen: SocketAddr, network: &IpNet) -> bool {
    let loopback = match network {
        IpNet::V4(network) => {
            listen.is_ipv4()
                && (network.addr().is_loopback() || network.contains(&Ipv4Addr::LOCALHOST))
        }
        IpNet::V6(network) => listen.is_ipv6() && network.contains(&Ipv6Addr::LOCALHOST),
    };
    let is_same_family = matches!(network, IpNet::V4(_)) == listen.is_ipv4();
    if listen.ip().is_loopback() { loopback } else { is_same_family }
}

fn bounds(reader: &mut Reader, settings: &Settings) {
    let store = &settings.store;
    if let Some(found) = store.max_size.filter(|found| *found < LEAST_SIZE) {
        let (found, least) = (exact_size(found), exact_size(LEAST_SIZE));
        problem(reader, "max-size", &format!("found {found}; expected at least {least}"));
    }
    if store.max_idle.is_some_and(|idle| idle.is_zero()) {
        problem(reader, "max-idle", "found 0: all would go at once; expected more");
    }
    let disk = file_system(&store.dir);
    if let (Some(min_free), Some(disk), true) = (store.min_free, disk, reader.is_given("min-free"))
        && min_free >= disk
    {
        let (found, disk) = (exact_size(min_free), crate::log::bytes(disk));
        let text = format!(
            "found {found}, and the whole file system of cache-dir has {disk}: nothing could ever \
             be kept; expected less"
        );
        problem(reader, "min-free", &text);
    }
    if let (Some(max_size), Some(disk), true) = (store.max_size, disk, reader.is_given("max-size"))
        && max_size > disk
    {
        reader.note(format!(
            "max-size is {}, and the whole file system of cache-dir has {}: min-free is what bounds \
             the store",
            exact_size(max_size),
            crate::log::bytes(disk)
        ));
    }
    let budget = settings.shares.whole;
    if reader.is_given("memory-budget") && memory::available().is_some_and(|all| budget > all) {
        reader.note("memory-budget is more than all the memory that this process may use");
    }
    if settings.gateway.quota_floor >= SMALL_QUOTA {
        reader.note(format!(
            "quota-floor is {}: of a registry whose quota is {SMALL_QUOTA}, as Docker Hub's is \
             without an account, no new image would come",
            settings.gateway.quota_floor
        ));
    }
}

/// The size of the file system that `directory` lies on or will.
fn file_system(directory: &Path) -> Option<u64> {
    let existing = directory.ancestors().find(|path| path.exists())?;
    let system = rustix::fs::statvfs(existing).ok()?;
    system.f_blocks.checked_mul(system.f_frsize)
}

fn directories(reader: &mut Reader, settings: &Settings) {
    if settings.ca_dir == settings.store.dir && !settings.ca_dir.as_os_str().is_empty() {
        let key = if reader.is_given("ca-dir") { "ca-dir" } else { "cache-dir" };
        problem(reader, key, "ca-dir and cache-dir are the same directory; expected two");
    }
}

fn ways(reader: &mut Reader, settings: &Settings) {
    let own =
        Own { listen: &settings.listener.addresses, external_url: settings.external_url.as_ref() };
    for entry in &settings.upstream.connect_to {
        let led = entry.asked().and_then(|asked| entry.apply(&asked));
        if let Some(led) = led.filter(|led| own.is_at(led)) {
            let text = format!("found {led}, which is this proxy itself; expected another");
            problem(reader, "upstream.connect-to", &text);
        }
    }
    let proxies = &settings.upstream.proxies;
    let is_direct = proxies.https.is_none() && proxies.http.is_none();
    if is_direct && reader.is_given("upstream.no-proxy") {
        reader.note("upstream.no-proxy has no effect: there is no proxy to do without");
    }
}

fn times(reader: &mut Reader, settings: &Settings) {
    let (upstream, gateway) = (&settings.upstream, &settings.gateway);
    let longest: Duration = upstream.connect_timeout.saturating_add(upstream.header_timeout);
    if reader.is_given("stale-after") && gateway.stale_after >= longest {
        reader.note(format!(
            "stale-after has no effect: a registry is given up after {} \
             (upstream.connect-timeout and upstream.header-timeout)",
            exact_duration(longest)
        ));
    }
    rules(reader, "tag-ttl", &gateway.tag_ttl);
    for (host, ttl) in &gateway.tag_ttl_at {
        rules(reader, &format!("tag-ttl of [[registry]] {host}"), ttl);
    }
}

/// Of patterns the first that fits wins.
fn rules(reader: &mut Reader, whose: &str, ttl: &TagTtl) {
    let every = "*".parse().ok();
    let dead = ttl.rules.iter().enumerate().find(|(at, (pattern, _))| {
        let mut earlier = ttl.rules.iter().take(*at).map(|(pattern, _)| pattern);
        earlier.any(|earlier| earlier == pattern || Some(earlier) == every.as_ref())
    });
    if let Some((at, _)) = dead {
        reader.note(format!("{whose}: rule {} is never come to: one before it fits", at + 1));
    }
}

/// Notes entries that another one stands before: of the entries that fit a host the first is meant,
/// with all that it says and does not say.
pub(super) fn entries(reader: &mut Reader, entries: &[RegistryEntry]) {
    for (at, entry) in entries.iter().enumerate() {
        let Some(Position::File(_, line)) = entry.place else { continue };
        let host = &entry.rule.host;
        let fits = |other: &&RegistryEntry| {
            let is_of_file = matches!(other.place, Some(Position::File(..)));
            let exact = host.exact();
            is_of_file
                && exact.map_or(other.rule.host == *host, |one| other.rule.host.matches(&one))
        };
        let Some(earlier) = entries.iter().take(at).find(fits) else { continue };
        if earlier.rule.host.is_exact() == host.is_exact() {
            let text = format!(
                "host: found {host}, which has an entry before this one ({}); expected one entry \
                 with all its keys",
                earlier.place.as_ref().map(ToString::to_string).unwrap_or_default()
            );
            reader.problem(entry.place.clone(), text);
        } else {
            reader.note(format!(
                "the [[registry]] entry of {host} in line {line} is never come to: that of {}, \
                 before it, fits; put the pattern behind it",
                earlier.rule.host
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, Sources};

    fn load(file: &str) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entrepot.toml");
        let data = directory.path().display().to_string();
        std::fs::write(&path, format!("data-dir = {data:?}\n{file}")).unwrap();
        let sources = Sources { file: Some(path), ..Sources::default() };
        Settings::load(&sources)
            .map(|settings| settings.notes)
            .map_err(|error| error.to_string().replace(&data, "."))
    }

    #[test]
    fn what_can_not_be_meant_together_is_an_error_with_its_line() {
        for (file, line, words) in [
            ("min-free = \"1000000TB\"", 2, "min-free: found 1000PB, and the whole file system"),
            ("max-size = \"1B\"", 2, "max-size: found 1B; expected at least 64kB"),
            ("max-size = 0", 2, "max-size: found 0B; expected at least 64kB"),
            ("max-idle = \"0s\"", 2, "max-idle: found 0: all would go at once"),
            (
                "intercept = [\"a.example\"]\nintercept-also = [\"b.example\"]",
                3,
                "intercept-also: found beside intercept",
            ),
            (
                "listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
                2,
                "listen: found 127.0.0.1:1 beside 127.0.0.1:1, which is the same",
            ),
            (
                "listen = [\"127.0.0.1:1\", \"0.0.0.0:1\"]",
                2,
                "listen: found 0.0.0.0:1 beside 127.0.0.1:1",
            ),
            (
                "admin-listen = \"127.0.0.1:3128\"",
                2,
                "admin-listen: found 127.0.0.1:3128, which listen has (0.0.0.0:3128)",
            ),
            (
                "listen = [\"0.0.0.0:3129\"]",
                2,
                "admin-listen: found 127.0.0.1:3129, which listen has (0.0.0.0:3129)",
            ),
            (
                "external-url = \"http://127.0.0.1:3129\"",
                2,
                "external-url: found 127.0.0.1:3129, which is admin-listen",
            ),
            ("ca-dir = \"/x\"\ncache-dir = \"/x\"", 2, "ca-dir: ca-dir and cache-dir are the same"),
            (
                "[upstream]\nconnect-to = [\"ghcr.io:443:127.0.0.1:3128\"]",
                3,
                "upstream.connect-to: found 127.0.0.1:3128, which is this proxy itself",
            ),
            (
                "[[registry]]\nhost = \"docker.io\"\n[[registry]]\nhost = \"registry-1.docker.io\"",
                5,
                "host: found registry-1.docker.io, which has an entry before this one",
            ),
            (
                "[[registry]]\nhost = \"*.corp\"\n[[registry]]\nhost = \"*.corp\"",
                5,
                "host: found *.corp, which has an entry before this one",
            ),
        ] {
            let error = load(file).unwrap_err();
            assert!(error.contains(&format!("./entrepot.toml:{line}: {words}")), "{file}: {error}");
            assert_eq!(error.lines().count(), 2, "{error}");
        }
    }

    #[test]
    fn what_may_be_meant_is_a_note() {
        for (file, words) in [
            ("max-size = \"1000PB\"", "min-free is what bounds the store"),
            (
                "listen = [\"127.0.0.1:1\"]\n[access]\nclients = [\"10.0.0.0/8\"]",
                "access.clients: nobody has such an address",
            ),
            (
                "listen = [\"0.0.0.0:1\"]\n[access]\nclients = [\"fd00::/8\"]",
                "access.clients: nobody has such an address",
            ),
            ("memory-budget = \"1000PB\"", "more than all the memory"),
            ("quota-floor = 100", "no new image would come"),
            ("stale-after = \"1h\"", "stale-after has no effect: a registry is given up after 40s"),
            ("intercept = []", "nothing kept"),
            ("proxy-protocol-from = [\"0.0.0.0/0\"]", "whoever connects may say who they are"),
            ("[upstream]\nno-proxy = [\".corp\"]", "upstream.no-proxy has no effect"),
            (
                "tag-ttl = [{ tag = \"*\", ttl = \"1m\" }, { tag = \"v*\", ttl = \"1d\" }]",
                "tag-ttl: rule 2 is never come to",
            ),
            (
                "[[registry]]\nhost = \"*.corp\"\n[[registry]]\nhost = \"a.corp\"",
                "the [[registry]] entry of a.corp in line 5 is never come to: that of *.corp",
            ),
        ] {
            let notes = load(file).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(notes.iter().any(|note| note.contains(words)), "{file}: {notes:?}");
            assert_eq!(notes.len(), 1, "{notes:?}");
        }
    }

    #[test]
    fn what_goes_together_is_neither() {
        for file in [
            "",
            "listen = [\"127.0.0.1:1\", \"[::1]:1\", \"127.0.0.2:1\"]",
            "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nadmin-listen = \"127.0.0.1:0\"",
            "listen = [\"127.0.0.1:1\"]\n[access]\nclients = [\"127.0.0.0/8\"]",
            "listen = [\"127.0.0.1:1\"]\n[access]\nclients = [\"0.0.0.0/0\"]",
            "listen = [\"[::1]:1\"]\n[access]\nclients = [\"::1\"]",
            "listen = [\"127.0.0.1:1\"]\nproxy-protocol-from = [\"127.0.0.1\"]\n[access]\n\
             clients = [\"10.0.0.0/8\"]",
            "max-size = \"1MB\"\nmin-free = \"0B\"",
            "[[registry]]\nhost = \"a.corp\"\n[[registry]]\nhost = \"*.corp\"",
            "[[registry]]\nhost = \"a.corp\"\n[[registry]]\nhost = \"a.corp:5000\"",
            "tag-ttl = [{ tag = \"v*\", ttl = \"1m\" }, { tag = \"*\", ttl = \"1d\" }]",
        ] {
            assert_eq!(load(file), Ok(Vec::new()), "{file}");
        }
    }
}
