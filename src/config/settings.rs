//! The settings, built from a reader.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use entrepot_oci::{Host, HostPattern};
use serde_json::Value as Json;

use super::error::ConfigError;
use super::proxies::{self, Own};
use super::reader::Reader;
use super::registry::RegistryEntry;
use super::run_as::RunAs;
use super::show::{DEFAULT, fill_in};
use super::source::Sources;
use super::units::exact_size;
use super::value::ByteSize;
use super::{access, admin, bucket, contradictions, savings};
use crate::admin::guard::Token;
use crate::admin::onlookers::Onlooker;
use crate::admin::setup::ProxyAddress;
use crate::admin::socket::Place;
use crate::listener::speaker::Contact;
use crate::listener::{self, Policy, ProxyNames};
use crate::log;
use crate::memory::{self, Shares};
use crate::peers;
use crate::savings::Price;
use crate::upstream;
use crate::upstream::certs::Certificates;
use crate::upstream::proxy::Proxies;
use crate::upstream::reach::{Exemptions, OwnListeners, PrivateNetworks};
use crate::{gateway, listener::policy::Tunnels, registry};

/// The registries that are cached unless `intercept` says otherwise. CDNs are never among them:
/// redirects are followed by the proxy, and a signed URL is nobody else's business.
pub(crate) const BUILT_IN_REGISTRIES: &[&str] = &[
    "docker.io",
    "ghcr.io",
    "quay.io",
    "gcr.io",
    "*.gcr.io",
    "*-docker.pkg.dev",
    "registry.k8s.io",
    "mcr.microsoft.com",
    "*.azurecr.io",
    "public.ecr.aws",
    "*.dkr.ecr.*.amazonaws.com",
    "registry.gitlab.com",
    "nvcr.io",
    "docker.elastic.co",
    "registry.access.redhat.com",
    "registry.redhat.io",
    "registry.fedoraproject.org",
    "lscr.io",
    "cgr.dev",
    "icr.io",
    "*.icr.io",
    "container-registry.oracle.com",
    "registry.suse.com",
    "dhi.io",
    "docker.n8n.io",
    "xpkg.upbound.io",
];

/// No address: for `admin-listen` where what was given is wrong, and its default too.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Longer than this, a wait is none that anybody meant.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

/// Everything the proxy was told, valid.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The proxy's listener.
    pub listener: listener::ListenerOptions,
    /// `admin-listen`.
    pub admin_listen: SocketAddr,
    /// `admin-token-file`, for who asks another proxy.
    pub admin_token_file: Option<PathBuf>,
    /// The token in it.
    pub admin_token: Option<Token>,
    /// `admin-look-from`.
    pub admin_look_from: Vec<Onlooker>,
    /// `admin-socket`.
    pub admin_socket: Place,
    /// What was configured, without secrets.
    pub shown: Json,
    /// The same as a file that gives these settings, but for the secrets.
    pub text: String,
    /// `external-url`.
    pub external_url: Option<ProxyAddress>,
    /// `contact`.
    pub contact: Option<Contact>,
    /// `ca-dir`.
    pub ca_dir: PathBuf,
    /// `ca-constrain`: the hosts that a new CA may vouch for, if it is to be constrained.
    pub ca_constraints: Option<Vec<Host>>,
    /// The store: `cache-dir`, `max-size`, `min-free`, `max-idle`.
    pub store: entrepot_cache::Options,
    /// `memory-budget`: how it is divided.
    pub shares: Shares,
    /// How registry requests are decided.
    pub gateway: gateway::Options,
    /// How upstreams are reached.
    pub upstream: upstream::Options,
    /// `[peers]`: the other replicas.
    pub peers: peers::Options,
    /// `[bucket]`: what is shared by all replicas, if there are several.
    pub bucket: Option<crate::bucket::Options>,
    /// `[savings]`: what bytes cost.
    pub price: Price,
    /// `log`.
    pub log: log::LogOptions,
    /// `run-as`.
    pub run_as: Option<RunAs>,
    /// What the operator should know although nothing is wrong, a sentence each.
    pub notes: Vec<String>,
}

impl Settings {
    /// Reads every source. Reads the configuration file: blocking.
    pub(crate) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::of(Reader::new(sources), sources)
    }

    /// What was read, as settings.
    pub(super) fn of(mut reader: Reader, sources: &Sources) -> Result<Self, ConfigError> {
        let shown = reader.shown();
        let mut settings = build(&mut reader, sources);
        contradictions::check(&mut reader, &settings);
        settings.notes = reader.notes();
        settings.shown = settings.as_in_force(shown, sources);
        let has_plain_proxy = settings.has_plain_proxy(sources);
        settings.text = reader.text(&settings.shown, has_plain_proxy);
        reader.finish(settings)
    }

    /// What was configured, with what has come of keys that nobody has set.
    fn as_in_force(&self, mut shown: Json, sources: &Sources) -> Json {
        let path = |path: &Path| Json::from(path.to_string_lossy());
        let directories = [
            ("data-dir", default_data_dir(sources)),
            ("ca-dir", Some(self.ca_dir.clone())),
            ("cache-dir", Some(self.store.dir.clone())),
            ("admin-socket", Some(self.admin_socket.path.clone())),
        ];
        for (key, dir) in directories {
            fill_in(&mut shown, key, &dir.as_deref().map_or(Json::Null, path), DEFAULT);
        }
        if self.log.level != log::Level::default() {
            let level = Json::from(self.log.level.name());
            fill_in(&mut shown, "log-level", &level, "DEBUG");
        }
        let budget = Json::from(exact_size(self.shares.whole));
        fill_in(&mut shown, "memory-budget", &budget, DEFAULT);
        fill_in(&mut shown, "intercept", &Json::from(BUILT_IN_REGISTRIES), DEFAULT);
        let proxies = &self.upstream.proxies;
        let (proxy, from) = match proxies.https.as_ref().or(proxies.http.as_ref()) {
            Some(proxy) => (Json::from(proxy.url()), proxy.setting()),
            None => (Json::Null, DEFAULT),
        };
        fill_in(&mut shown, "upstream.proxy", &proxy, from);
        let (exempt, from) = match proxies::no_proxy(sources) {
            Some((name, value)) => (Json::from(value), name),
            None => (Json::Null, DEFAULT),
        };
        fill_in(&mut shown, "upstream.no-proxy", &exempt, from);
        shown
    }

    /// Whether the environment names one proxy for everything, and no password for it.
    fn has_plain_proxy(&self, sources: &Sources) -> bool {
        let Proxies { https: Some(https), http: Some(http), .. } = &self.upstream.proxies else {
            return false;
        };
        let urls = [https, http].map(|proxy| sources.variable(proxy.setting()));
        let [Some(https), Some(http)] = urls else { return false };
        https == http && !https.contains('@')
    }
}

/// How long at least a tunnel may be silent.
const TUNNEL_SILENCE: Duration = Duration::from_mins(5);

fn build(reader: &mut Reader, sources: &Sources) -> Settings {
    let entries = registries(reader);
    let intercepted = intercepted(reader, &entries);
    let tunnels: Tunnels = reader.get_or_default("tunnel").unwrap_or_default();
    let exemptions = exemptions(&intercepted, &entries, tunnels);
    let plain = entries.iter().filter(|entry| entry.at_plain_port().is_some());
    let plain = plain.map(|entry| entry.rule.host.clone()).collect();
    let external_url: Option<ProxyAddress> = reader.get("external-url");
    let ca_constraints = constraints(reader, &intercepted.all);
    let addresses = listen(reader);
    let own = Own { listen: &addresses, external_url: external_url.as_ref() };
    let proxies = proxies::read(reader, sources, &entries, &own);
    let (ca_dir, cache_dir) = directories(reader, sources);
    let (admin_token_file, admin_token) = admin::token(reader);
    let upstream = upstream_options(reader, exemptions, proxies);
    let shares = shares(reader);
    let bucket = bucket::options(reader, sources, &ca_dir, upstream.idle_timeout);
    Settings {
        listener: listener::ListenerOptions {
            addresses,
            policy: Policy { intercept: intercepted.all, plain, tunnels },
            names: names(reader, external_url.as_ref()),
            access: access::options(reader),
            // Nobody can tell whether an answer is awaited in there.
            tunnel_silence: TUNNEL_SILENCE.max(upstream.header_timeout),
        },
        admin_listen: reader.get_or_default("admin-listen").unwrap_or(NOWHERE),
        admin_token_file,
        admin_token,
        admin_look_from: admin::onlookers(reader),
        admin_socket: admin::socket(reader, &cache_dir),
        shown: Json::Null,
        text: String::new(),
        external_url,
        contact: reader.get("contact"),
        ca_dir,
        ca_constraints,
        store: store(reader, cache_dir, shares),
        shares,
        gateway: gateway_options(reader, entries),
        upstream,
        peers: super::peers::options(reader),
        bucket,
        price: savings::price(reader),
        log: log::LogOptions {
            format: reader.get_or_default("log").unwrap_or_default(),
            level: level(reader),
            filter: sources.given("RUST_LOG").map(str::to_owned),
            is_plain: sources.given("NO_COLOR").is_some(),
        },
        run_as: reader.get("run-as"),
        notes: Vec::new(),
    }
}

fn level(reader: &mut Reader) -> log::Level {
    let given = reader.get("log-level");
    let louder = reader.is_debugging().then_some(log::Level::Debug);
    given.or(louder).or_else(|| reader.default("log-level")).unwrap_or_default()
}

fn listen(reader: &mut Reader) -> Vec<SocketAddr> {
    let addresses: Vec<SocketAddr> = reader.get_or_default("listen").unwrap_or_default();
    if addresses.is_empty() {
        let place = reader.place("listen");
        reader.problem(place, "listen: found no address; expected at least one");
    }
    addresses
}

fn registries(reader: &mut Reader) -> Vec<RegistryEntry> {
    let entries = reader.registries(super::registry::entry);
    contradictions::entries(reader, &entries);
    entries
}

/// The registries that are intercepted.
struct Intercepted {
    all: Vec<HostPattern>,
    /// Those that the operator has named, rather than this program.
    named: Vec<HostPattern>,
    /// Those that this program names.
    built_in: Vec<HostPattern>,
}

/// The built-in list or `intercept` in its place, with `intercept-also` and the registries that
/// have an entry of their own.
fn intercepted(reader: &mut Reader, registries: &[RegistryEntry]) -> Intercepted {
    let instead: Option<Vec<HostPattern>> = reader.get("intercept");
    let also: Vec<HostPattern> = reader.get("intercept-also").unwrap_or_default();
    let built_in = match &instead {
        Some(_) => Vec::new(),
        None => BUILT_IN_REGISTRIES.iter().filter_map(|host| host.parse().ok()).collect(),
    };
    let configured = registries.iter().map(|entry| entry.rule.host.clone());
    let named: Vec<_> = instead.into_iter().flatten().chain(also).chain(configured).collect();
    Intercepted { all: [built_in.clone(), named.clone()].concat(), named, built_in }
}

/// A registry that the operator has named one by one, or in a `[[registry]]` entry, may lie at a
/// private address.
fn exemptions(
    intercepted: &Intercepted,
    registries: &[RegistryEntry],
    tunnels: Tunnels,
) -> Exemptions {
    let exact = intercepted.named.iter().filter(|pattern| pattern.is_exact());
    let configured = registries.iter().map(|entry| &entry.rule.host);
    Exemptions {
        registries: exact.chain(configured).cloned().collect(),
        plain: registries.iter().filter_map(RegistryEntry::at_plain_port).collect(),
        built_in: intercepted.built_in.clone(),
        everything: tunnels == Tunnels::Any,
    }
}

fn constraints(reader: &mut Reader, intercept: &[HostPattern]) -> Option<Vec<Host>> {
    let is_wanted: bool = reader.get_or_default("ca-constrain").unwrap_or_default();
    if !is_wanted {
        return None;
    }
    let constraints: Option<Vec<Host>> = intercept.iter().map(HostPattern::constraint).collect();
    if constraints.is_none() {
        let place = reader.place("ca-constrain");
        reader.problem(
            place,
            "ca-constrain: a CA can't be constrained to \"*\"; name the hosts in intercept",
        );
    }
    constraints
}

fn upstream_options(
    reader: &mut Reader,
    exemptions: Exemptions,
    proxies: Proxies,
) -> upstream::Options {
    upstream::Options {
        connect_to: reader.get("upstream.connect-to").unwrap_or_default(),
        certificates: certificates(reader),
        proxies,
        ipv6: reader.get_or_default("upstream.ipv6").unwrap_or_default(),
        connect_timeout: timeout(reader, "upstream.connect-timeout"),
        header_timeout: timeout(reader, "upstream.header-timeout"),
        idle_timeout: timeout(reader, "upstream.idle-timeout"),
        exemptions,
        private: PrivateNetworks(reader.get("upstream.private-networks").unwrap_or_default()),
        own: OwnListeners::default(),
        offline: reader.get_or_default("offline").unwrap_or_default(),
    }
}

fn gateway_options(reader: &mut Reader, registries: Vec<RegistryEntry>) -> gateway::Options {
    let tag_ttl_at =
        registries.iter().map(|entry| (entry.rule.host.clone(), entry.tag_ttl.clone()));
    let stale_after = reader.get_or_default("stale-after").unwrap_or_default();
    gateway::Options {
        push: reader.get_or_default("push").unwrap_or_default(),
        tag_ttl_at: tag_ttl_at.collect(),
        registry: registry::Options {
            rules: registries.into_iter().map(|entry| entry.rule).collect(),
            slow_after: slow_after(stale_after),
        },
        // One that has no say comes to its default in the end.
        tag_ttl: reader.get("tag-ttl").unwrap_or_default(),
        stale_after,
        keep_deleted: reader.get_or_default("keep-deleted").unwrap_or_default(),
        quota_floor: reader.get_or_default("quota-floor").unwrap_or_default(),
    }
}

/// After how long a registry counts as slow: when it is waited for no longer, unless that is at
/// once or never.
fn slow_after(stale_after: Duration) -> Duration {
    const USUAL: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_secs(10);
    if stale_after.is_zero() { USUAL } else { stale_after.min(LONGEST) }
}

/// Reads the files that are named: whatever is wrong with them is told with the rest.
fn certificates(reader: &mut Reader) -> Certificates {
    let mut certificates = Certificates::default();
    let key = "upstream.ca-files";
    for path in reader.get::<Vec<PathBuf>>(key).unwrap_or_default() {
        if let Err(error) = certificates.add_ca_file(&reader.beside(key, path)) {
            reader.problem(reader.place(key), format!("{key}: {error}"));
        }
    }
    let key = "upstream.certs-dir";
    if let Some(path) = reader.get::<PathBuf>(key) {
        for error in certificates.add_directory(&reader.beside(key, path)) {
            reader.problem(reader.place(key), format!("{key}: {error}"));
        }
    }
    certificates
}

fn timeout(reader: &mut Reader, key: &str) -> Duration {
    let duration: Duration = reader.get_or_default(key).unwrap_or_default();
    if duration > LONGEST_TIMEOUT {
        let place = reader.place(key);
        reader
            .problem(place, format!("{key}: found {} s; expected at most 1d", duration.as_secs()));
    }
    if duration.is_zero() {
        let place = reader.place(key);
        reader.problem(place, format!("{key}: found 0; expected more: every wait has an end"));
    }
    duration
}

/// Where CA and store lie: their own keys, else below `data-dir`.
fn directories(reader: &mut Reader, sources: &Sources) -> (PathBuf, PathBuf) {
    let data: Option<PathBuf> = reader.get("data-dir").or_else(|| default_data_dir(sources));
    let mut below = |key: &str, name: &str| {
        let named: Option<PathBuf> = reader.get(key);
        named.or_else(|| data.as_ref().map(|data| data.join(name))).unwrap_or_else(|| {
            reader.problem(None, format!("{key}: no place for it: set data-dir or {key}"));
            PathBuf::new()
        })
    };
    (below("ca-dir", "ca"), below("cache-dir", "cache"))
}

/// What little is asked for is too little to serve anybody.
fn shares(reader: &mut Reader) -> Shares {
    let configured = reader.get("memory-budget").map(|ByteSize(bytes)| bytes);
    if configured.is_some_and(|bytes| bytes < memory::LEAST) {
        let place = reader.place("memory-budget");
        let (found, least) = (configured.unwrap_or_default(), memory::LEAST >> 20);
        let problem = format!("memory-budget: found {found} bytes; expected at least {least}MiB");
        reader.problem(place, problem);
    }
    Shares::new(configured)
}

fn store(reader: &mut Reader, dir: PathBuf, shares: Shares) -> entrepot_cache::Options {
    let mut options = entrepot_cache::Options::new(dir);
    let mut size = |key: &str| reader.get_or_default(key).map(|ByteSize(bytes)| bytes);
    options.max_size = size("max-size");
    options.min_free = size("min-free");
    options.references = Some(entrepot_oci::manifest::references);
    options.max_objects = Some(shares.objects());
    options.max_reference_bytes = shares.references();
    options.max_queued_bytes = shares.queued();
    options.max_idle = reader.get_or_default("max-idle");
    options
}

fn default_data_dir(sources: &Sources) -> Option<PathBuf> {
    if let Some(state) = sources.variable("STATE_DIRECTORY") {
        // systemd separates several by colons; the first is the service's own.
        return state.split(':').next().map(PathBuf::from);
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/entrepot"));
    }
    let data_home = sources.variable("XDG_DATA_HOME").map(PathBuf::from);
    let home = || sources.variable("HOME").map(|home| Path::new(home).join(".local/share"));
    data_home.or_else(home).map(|base| base.join("entrepot"))
}

/// The names under which a client may reach the proxy.
fn names(reader: &mut Reader, external_url: Option<&ProxyAddress>) -> ProxyNames {
    let mirror = reader.get("mirror-names").unwrap_or_default();
    ProxyNames { own: own_names(external_url), mirror }
}

fn own_names(external_url: Option<&ProxyAddress>) -> Vec<Host> {
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let external = external_url.map(|url| url.host().clone());
    let own = [host_name.as_str(), "localhost"].into_iter().filter_map(|name| name.parse().ok());
    external.into_iter().chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
        let path = tempfile::NamedTempFile::with_suffix(".toml").unwrap().into_temp_path();
        std::fs::write(&path, file).unwrap();
        Sources {
            file: Some(path.keep().unwrap()),
            environment: environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            flags: flags.iter().map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()])).collect(),
            mirror_cache: None,
        }
    }

    fn load(sources: &Sources) -> Result<Settings, String> {
        let loaded = Settings::load(sources);
        let path = sources.file.clone().unwrap();
        std::fs::remove_file(&path).unwrap();
        loaded.map_err(|error| error.to_string().replace(path.to_str().unwrap(), "entrepot.toml"))
    }

    #[test]
    fn nothing_configured_is_valid() {
        let settings = load(&sources("", &[("STATE_DIRECTORY", "/state")], &[])).unwrap();
        assert_eq!(settings.listener.addresses.len(), 2);
        assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:3129");
        assert_eq!(settings.ca_dir, Path::new("/state/ca"));
        assert_eq!(settings.store.dir, Path::new("/state/cache"));
        assert_eq!(settings.admin_socket.path, Path::new("/state/cache/admin.sock"));
        assert_eq!(settings.listener.policy.intercept.len(), BUILT_IN_REGISTRIES.len());
        assert_eq!(settings.store.max_size, Some(32 << 30));
        assert_eq!(settings.upstream.header_timeout, Duration::from_secs(30));
        assert_eq!(settings.listener.tunnel_silence, TUNNEL_SILENCE);
    }

    /// What goes through a tunnel may be a request whose answer takes as long as it may.
    #[test]
    fn tunnels_may_be_silent_as_long_as_a_registry() {
        let file = "data-dir = \"/d\"\n[upstream]\nheader-timeout = \"20m\"\n";
        let settings = load(&sources(file, &[], &[])).unwrap();
        assert_eq!(settings.listener.tunnel_silence, Duration::from_mins(20));
    }

    #[test]
    fn only_what_the_operator_names_may_be_private() {
        use crate::upstream::reach::AddressRule;
        let file = "data-dir = \"/d\"\nintercept-also = [\"harbor.corp\", \"*.corp\"]\n\
                    [[registry]]\nhost = \"*.lab\"\n";
        let settings = load(&sources(file, &[], &[])).unwrap();
        let rule = |host: &str| {
            settings.upstream.exemptions.rule_for(&format!("{host}:443").parse().unwrap())
        };
        assert_eq!(rule("harbor.corp"), AddressRule::Any);
        assert_eq!(rule("x.lab"), AddressRule::Any);
        assert_eq!(rule("other.corp"), AddressRule::Stranger);
        assert_eq!(rule("registry-1.docker.io"), AddressRule::Public, "built in, not named");
    }

    #[test]
    fn the_stronger_source_wins() {
        let file = "tunnel = \"none\"\npush = \"deny\"\nlog = \"json\"\ndata-dir = \"/d\"\n";
        let environment = [("ENTREPOT_TUNNEL", "public"), ("ENTREPOT_PUSH", "client")];
        let settings = load(&sources(file, &environment, &[("tunnel", "any")])).unwrap();
        assert_eq!(settings.listener.policy.tunnels, Tunnels::Any);
        assert_eq!(settings.gateway.push, gateway::Push::Client);
        assert_eq!(settings.log.format, log::Format::Json);
    }

    #[test]
    fn lists_outside_the_file_are_separated_by_commas() {
        let environment = [
            ("ENTREPOT_DATA_DIR", "/d"),
            ("ENTREPOT_LISTEN", "127.0.0.1:1, [::1]:2"),
            ("ENTREPOT_UPSTREAM_CONNECT_TO", "a:1:b:2,c:3:d:4"),
        ];
        let settings = load(&sources("", &environment, &[])).unwrap();
        assert_eq!(settings.listener.addresses.len(), 2);
        assert_eq!(settings.upstream.connect_to.len(), 2);
    }

    #[test]
    fn what_kubernetes_says_of_a_service_is_no_configuration() {
        let links = [
            ("ENTREPOT_SERVICE_HOST", "10.0.0.1"),
            ("ENTREPOT_SERVICE_PORT", "3128"),
            ("ENTREPOT_SERVICE_PORT_PROXY", "3128"),
            ("ENTREPOT_PORT", "tcp://10.0.0.1:3128"),
            ("ENTREPOT_PORT_3128_TCP", "tcp://10.0.0.1:3128"),
            ("ENTREPOT_PORT_3128_TCP_PROTO", "tcp"),
            ("ENTREPOT_PORT_3128_TCP_ADDR", "10.0.0.1"),
        ];
        assert!(load(&sources("data-dir = \"/d\"\n", &links, &[])).is_ok());
        let error = load(&sources("data-dir = \"/d\"\n", &[("ENTREPOT_PORT", "1")], &[]));
        assert!(error.unwrap_err().contains("ENTREPOT_PORT"));
    }

    #[test]
    fn a_bracket_that_is_missing_shows_no_password() {
        let registry = "[[registry]]\nhost = \"ghcr.io\"\nusername = \"me\"\n";
        let file = format!("listen = [\"[::1]:3128\"\n{registry}password = \"s3cret\"\n");
        let error = load(&sources(&file, &[], &[])).unwrap_err();
        assert!(error.contains("not TOML") && !error.contains("s3cret"), "{error}");
        // What else is wrong is told as ever.
        let error = load(&sources(&file, &[("ENTREPOT_PUSH", "maybe")], &[])).unwrap_err();
        assert!(error.contains("found \"maybe\""), "{error}");
    }

    #[test]
    fn a_script_that_starts_it_may_say_where_it_lies() {
        let environment = [("ENTREPOT_BIN", "/usr/bin/entrepot"), ("ENTREPOT_DATA_DIR", "/d")];
        assert!(load(&sources("", &environment, &[])).is_ok());
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let file = r#"
data-dir = "/d"
lisen = ["0.0.0.0:3128"]
tunnel = "open"
log = 3
[upstream]
connect-timeout = "10"
header-timeout = "0s"
proxy = "socks5://user:secret@corp"
no-proxy = ["http://corp"]
[[registry]]
scheme = "ftp"
pasword = "x"
"#;
        let environment = [("ENTREPOT_LISTN", "x"), ("ENTREPOT_PUSH", "maybe")];
        let error = load(&sources(file, &environment, &[("listen", "3128")])).unwrap_err();
        insta::assert_snapshot!(error);
    }

    #[test]
    fn what_is_no_toml_is_told_alone_with_its_line() {
        for (file, line, words) in [
            ("listen = [\"[::1]:3128\"\npush = \"deny\"\n", 1, "a list is not closed here"),
            ("a = 1\nlisten = [\n", 2, "unclosed array"),
            ("a = 1\npush = deny\nb = 2\n", 2, "a text stands in quotes"),
            ("[upstream\nproxy = \"direct\"\n", 1, "unclosed table"),
            ("push = \"deny\"\npush = \"client\"\n", 2, "\"push\" is there twice"),
            ("tag-ttl = [{ tag = \"v*\", ttl = \"60d\"]\n", 1, "a table is not closed here"),
            ("push = \"deny\nlog = \"json\"\n", 1, "invalid basic string"),
            ("max-size: 32GiB\n", 1, "key with no value"),
        ] {
            // No place for the store is no news either: it may be in the file.
            let error = load(&sources(file, &[], &[])).unwrap_err();
            let expected = format!(
                "the configuration is not valid:\n  entrepot.toml:{line}: not TOML: {words}"
            );
            assert!(error.starts_with(&expected), "{file}: {error}");
            assert_eq!(error.lines().count(), 2, "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told_alone() {
        let mut gone = sources("", &[], &[]);
        gone.file = Some("/nowhere/entrepot.toml".into());
        let error = Settings::load(&gone).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(error.contains("\n  /nowhere/entrepot.toml: can't be read: "), "{error}");
    }

    #[test]
    fn credentials_are_of_one_kind_and_never_shown() {
        let file = r#"
data-dir = "/d"
[[registry]]
host = "a.example"
username = "me"
password = 12345
[[registry]]
host = "b.example"
password = "s3cret"
[[registry]]
host = "c.example"
username = "me"
credential-helper = "ecr-login"
[[registry]]
host = "d.example"
credential-helper = "../evil"
"#;
        let error = load(&sources(file, &[], &[])).unwrap_err();
        assert!(!error.contains("s3cret") && !error.contains("12345"), "{error}");
        insta::assert_snapshot!(error);
        let file = "data-dir = \"/d\"\n[[registry]]\nhost = \"a.example\"\n\
                    username = \"me\"\npassword-file = \"pw\"\n";
        assert!(
            load(&sources(file, &[], &[])).unwrap().gateway.registry.rules[0].credentials.is_some()
        );
    }

    #[test]
    fn credentials_are_for_somebody_in_particular() {
        let password = "username = \"me\"\npassword = \"s3cret\"";
        let file = "username = \"me\"\npassword-file = \"pw\"";
        let helper = "credential-helper = \"ecr-login\"";
        let twice = "password-for-every-host = true";
        let load = |host: &str, keys: &[&str]| {
            let keys = keys.join("\n");
            let text = format!("data-dir = \"/d\"\n[[registry]]\nhost = \"{host}\"\n{keys}\n");
            load(&sources(&text, &[], &[]))
        };
        for host in ["*", "*:5000", "*.*", "harbor.*", "*.com", "*.co.uk", "*:80"] {
            for keys in [&[password][..], &[file], &[helper], &[password, twice], &[helper, twice]]
            {
                let error = load(host, keys).unwrap_err();
                assert!(error.contains("entrepot.toml:4: credentials for"), "{host}: {error}");
                assert!(!error.contains("s3cret"), "{error}");
            }
            assert!(load(host, &["scheme = \"http\""]).is_ok(), "{host}");
        }
        for host in ["*.corp.example", "*.corp", "*.azurecr.io", "*.dkr.ecr.*.amazonaws.com"] {
            for keys in [&[password][..], &[file]] {
                let error = load(host, keys).unwrap_err();
                assert!(error.contains("entrepot.toml:4: a password for"), "{host}: {error}");
                assert!(error.contains(twice), "{error}");
                assert!(load(host, &[keys[0], twice]).is_ok(), "{host}");
                let once = "password-for-every-host = false";
                assert!(load(host, &[keys[0], once]).is_err(), "{host}");
            }
            assert!(load(host, &[helper]).is_ok(), "{host}");
        }
        for host in ["docker.io", "r.corp:5000", "10.0.0.1"] {
            assert!(load(host, &[password]).is_ok() && load(host, &[helper]).is_ok(), "{host}");
        }
        // As that of the program before this one.
        let environment = [("AUTH_REGISTRIES", "*:me:s3cret")];
        let error = super::tests::load(&sources("data-dir = \"/d\"\n", &environment, &[]));
        let error = error.unwrap_err();
        assert!(
            error.contains("AUTH_REGISTRIES") && error.contains("credentials for *"),
            "{error}"
        );
    }

    #[test]
    fn a_constrained_ca_needs_named_hosts() {
        let file = "data-dir = \"/d\"\nca-constrain = true\n";
        let settings = load(&sources(file, &[], &[])).unwrap();
        assert_eq!(settings.ca_constraints.unwrap().len(), BUILT_IN_REGISTRIES.len());
        let file = format!("{file}intercept = [\"*\"]\n");
        let error = load(&sources(&file, &[], &[])).unwrap_err();
        assert!(error.contains("entrepot.toml:2: ca-constrain"), "{error}");
    }

    #[test]
    fn certificates_are_found_beside_the_configuration_and_told_with_the_rest() {
        let file = "data-dir = \"/d\"\nlog = 3\n[upstream]\n\
                    ca-files = [\"no-such.pem\", \"/nowhere/x.pem\"]\ncerts-dir = \"no-such.d\"\n";
        let sources = sources(file, &[], &[]);
        let beside = sources.file.clone().unwrap().with_file_name("no-such.");
        let error = load(&sources).unwrap_err();
        let beside = beside.display();
        for part in [
            "entrepot.toml:2: log".to_owned(),
            format!("entrepot.toml:4: upstream.ca-files: {beside}pem: "),
            "entrepot.toml:4: upstream.ca-files: /nowhere/x.pem: ".to_owned(),
            format!("entrepot.toml:5: upstream.certs-dir: {beside}d: "),
        ] {
            assert!(error.contains(&part), "no {part:?} in {error}");
        }
    }

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let mut names: Vec<_> = super::super::keys::KEYS
            .iter()
            .map(|key| super::super::keys::variable(key.name))
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), super::super::keys::KEYS.len());
    }
}
