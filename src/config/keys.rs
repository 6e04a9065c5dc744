//! The keys there are.

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path, with dots.
    pub name: &'static str,
    /// Whether it takes several values (separated by commas outside the file).
    pub is_list: bool,
    /// What `--help` says of it.
    pub help: &'static str,
}

const fn one(name: &'static str, help: &'static str) -> Key {
    Key { name, is_list: false, help }
}

const fn many(name: &'static str, help: &'static str) -> Key {
    Key { name, is_list: true, help }
}

/// Every key outside `[[registry]]`.
pub const KEYS: &[Key] = &[
    many("listen", "Addresses of the proxy [default: 0.0.0.0:3128, [::]:3128]"),
    one("admin-listen", "Address of the admin listener [default: 127.0.0.1:3129]"),
    one(
        "admin-token-file",
        "A file with the token that opens the admin API to other machines [default: none]",
    ),
    one(
        "external-url",
        "How clients reach the proxy, for set-up scripts, e.g. http://proxy.corp:3128",
    ),
    one(
        "data-dir",
        "Where everything is kept [default: $STATE_DIRECTORY, as root /var/lib/entrepot, else $XDG_DATA_HOME/entrepot]",
    ),
    one("ca-dir", "Where the CA lies [default: ca in data-dir]"),
    one("cache-dir", "Where the store lies [default: cache in data-dir]"),
    one("max-size", "How many bytes are kept at most [default: 32GiB]"),
    one("min-free", "How many bytes of the file system stay free [default: 1GiB]"),
    one("max-idle", "After how long without use something goes [default: 60d]"),
    one(
        "ca-constrain",
        "Make a new CA that can only vouch for the intercepted hosts [default: false]",
    ),
    one("tag-ttl", "How long a tag is served without asking the registry [default: 0s]"),
    one("offline", "Never contact a registry [default: false]"),
    one("keep-deleted", "Go on serving a tag that the registry has deleted [default: false]"),
    one("quota-floor", "How many pulls of a registry's quota are left alone [default: 5]"),
    one(
        "run-as",
        "As root: the user to become, UID[:GID], unless cache-dir is somebody else's [default: root]",
    ),
    many("intercept", "Registries to cache, instead of the built-in list; * is allowed"),
    many("intercept-also", "Registries to cache beside that list"),
    one("tunnel", "Other hosts: public (addresses, usual port), any, none [default: public]"),
    one("push", "Pushes: client (relayed under the client's credential), deny [default: client]"),
    one("log", "Log format: text, json [default: text]"),
    one("log-level", "How much is logged: error, warn, info, debug, trace [default: info]"),
    many("access.clients", "Networks whose clients may use the proxy [default: all]"),
    one("access.htpasswd", "A file of users (bcrypt), who are asked for their passwords"),
    many(
        "upstream.connect-to",
        "HOST1:PORT1:HOST2:PORT2, as for curl; may lead to a private address",
    ),
    many("upstream.ca-files", "PEM files of CAs to trust beside the system's"),
    one(
        "upstream.certs-dir",
        "Certificates per host, as in /etc/docker/certs.d: HOST[:PORT]/*.crt, NAME.cert, NAME.key",
    ),
    one(
        "upstream.proxy",
        "The proxy to reach upstreams through, or direct [default: HTTPS_PROXY, HTTP_PROXY]",
    ),
    many("upstream.no-proxy", "Hosts to reach without it [default: NO_PROXY]"),
    one("upstream.ipv6", "Whether IPv6 addresses of upstreams are used [default: true]"),
    one("upstream.connect-timeout", "For reaching an upstream [default: 10s]"),
    one("upstream.header-timeout", "For an upstream's answer to begin [default: 30s]"),
    one("upstream.idle-timeout", "For the longest silence within an answer [default: 60s]"),
];

/// The keys of a `[[registry]]` entry.
pub const REGISTRY_KEYS: &[&str] = &[
    "host",
    "scheme",
    "username",
    "password",
    "password-file",
    "credential-helper",
    "proxy",
    "tag-ttl",
];

/// The environment variable of a key: `upstream.ca-files` is `ENTREPOT_UPSTREAM_CA_FILES`.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("ENTREPOT_{}", name.to_ascii_uppercase().replace(['.', '-'], "_"))
}

/// The known name that is most like `unknown`, if any is like it at all.
#[must_use]
pub fn similar<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_key() {
        let page = include_str!("../../docs/configuration.md");
        for key in KEYS {
            assert!(page.contains(&format!("\n| `{}` |", key.name)), "{} is not there", key.name);
        }
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, KEYS.len(), "a key is documented that is not there");
        for key in REGISTRY_KEYS {
            assert!(page.contains(&format!("\n{key} = ")), "{key} is not there");
        }
    }
}
