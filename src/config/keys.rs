//! The keys there are, with their defaults.

use self::Default::{Nothing, Unsaid, Value, Words};

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Its path, with dots.
    pub name: &'static str,
    /// Whether it takes several values (separated by commas outside the file).
    pub is_list: bool,
    /// What it has where nobody sets it.
    pub default: Default,
    /// What it is for, in words.
    pub about: &'static str,
}

/// What a key has where nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Default {
    /// This, as it would be given; of a list, each after a comma and a space.
    Value(&'static str),
    /// What these words say: it depends on the machine, or is no value that could be given.
    Words(&'static str),
    /// Nothing.
    Nothing,
    /// Nothing that needs to be said, or what `about` says.
    Unsaid,
}

impl Key {
    /// The key of this name.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The values that there are, where they are few.
    #[must_use]
    pub(crate) fn choices(&self) -> &'static [&'static str] {
        match (self.name, self.default) {
            ("tunnel", _) => &["public", "any", "none"],
            ("push", _) => &["client", "deny"],
            ("bucket.private", _) => &["share", "keep-local"],
            ("log", _) => &["text", "json"],
            ("log-level", _) => &["error", "warn", "info", "debug", "trace"],
            (_, Value("true" | "false")) => &["true", "false"],
            _ => &[],
        }
    }

    /// What `--help` says of it.
    #[must_use]
    pub(crate) fn help(&self) -> String {
        let about = self.about;
        match self.default {
            Value(text) | Words(text) => format!("{about} [default: {text}]"),
            Nothing => format!("{about} [default: none]"),
            Unsaid => about.to_owned(),
        }
    }
}

const fn one(name: &'static str, default: Default, about: &'static str) -> Key {
    Key { name, is_list: false, default, about }
}

const fn many(name: &'static str, default: Default, about: &'static str) -> Key {
    Key { name, is_list: true, default, about }
}

/// Every key outside `[[registry]]`.
pub(crate) const KEYS: &[Key] = &[
    many("listen", Value("0.0.0.0:3128, [::]:3128"), "Addresses of the proxy"),
    many(
        "proxy-protocol-from",
        Nothing,
        "Networks of load balancers that say by PROXY protocol who their client is",
    ),
    one("admin-listen", Value("127.0.0.1:3129"), "Address of the admin listener"),
    one(
        "admin-token-file",
        Nothing,
        "A file with the token of the admin API, which is asked of all but the admin socket's users",
    ),
    many(
        "admin-look-from",
        Nothing,
        "Networks that may look at the admin API without a token where there is none, or gateway",
    ),
    one(
        "admin-socket",
        Words("admin.sock in cache-dir"),
        "Where the admin socket lies, for root and the proxy's own user",
    ),
    one(
        "external-url",
        Unsaid,
        "How clients reach the proxy, for set-up scripts, e.g. http://proxy.corp:3128",
    ),
    one("contact", Nothing, "Whom to ask, told with every error, e.g. \"ask #platform\""),
    one(
        "data-dir",
        Words("$STATE_DIRECTORY, as root /var/lib/entrepot, else $XDG_DATA_HOME/entrepot"),
        "Where everything is kept",
    ),
    one("ca-dir", Words("ca in data-dir"), "Where the CA lies"),
    one("cache-dir", Words("cache in data-dir"), "Where the store lies"),
    one("max-size", Value("32GiB"), "How many bytes are kept at most"),
    one("min-free", Value("1GiB"), "How many bytes of the file system stay free"),
    one("max-idle", Value("60d"), "After how long without use something goes"),
    one(
        "memory-budget",
        Words("a quarter of what the machine, or its control group, has; at least 128MiB"),
        "How much memory goes to what clients and registries make the proxy hold",
    ),
    one(
        "ca-constrain",
        Value("false"),
        "Make a new CA that can only vouch for the intercepted hosts",
    ),
    one("tag-ttl", Value("0s"), "How long a tag is served without asking the registry"),
    one(
        "stale-after",
        Value("2s"),
        "How long a registry is waited for before what is kept is served as it is",
    ),
    one("offline", Value("false"), "Never contact a registry"),
    one("keep-deleted", Value("false"), "Go on serving a tag that the registry has deleted"),
    // Enough for an image that is not held at all.
    one("quota-floor", Value("5"), "How many pulls of a registry's quota are left alone"),
    one(
        "run-as",
        Words("root"),
        "As root: the user to become, UID[:GID], unless cache-dir is somebody else's",
    ),
    many("intercept", Unsaid, "Registries to cache, instead of the built-in list; * is allowed"),
    many("intercept-also", Unsaid, "Registries to cache beside that list"),
    many(
        "mirror-names",
        Unsaid,
        "Names by which clients may reach the mirror, beside its machine's and external-url's",
    ),
    one("tunnel", Value("public"), "Other hosts: public (addresses, usual port), any, none"),
    one("push", Value("client"), "Pushes: client (relayed under the client's credential), deny"),
    one("log", Value("text"), "Log format: text, json"),
    one("log-level", Value("info"), "How much is logged: error, warn, info, debug, trace"),
    one(
        "savings.cost-per-gb",
        Nothing,
        "What a gigabyte (10^9 bytes) costs that comes from a registry, e.g. 0.045",
    ),
    one("savings.currency", Value("USD"), "The currency of that"),
    many("access.clients", Words("all"), "Networks whose clients may use the proxy"),
    one("access.htpasswd", Unsaid, "A file of users (bcrypt), who are asked for their passwords"),
    many(
        "upstream.connect-to",
        Unsaid,
        "HOST1:PORT1:HOST2:PORT2, as for curl; may lead to a private address",
    ),
    many("upstream.ca-files", Unsaid, "PEM files of CAs to trust beside the system's"),
    one(
        "upstream.certs-dir",
        Unsaid,
        "Certificates per host, as in /etc/docker/certs.d: HOST[:PORT]/*.crt, NAME.cert, NAME.key",
    ),
    one(
        "upstream.proxy",
        Words("HTTPS_PROXY, HTTP_PROXY"),
        "The proxy to reach upstreams through, or direct",
    ),
    many("upstream.no-proxy", Words("NO_PROXY"), "Hosts to reach without it"),
    many(
        "upstream.private-networks",
        Nothing,
        "Networks that count as private beside those that do everywhere",
    ),
    one("upstream.ipv6", Value("true"), "Whether IPv6 addresses of upstreams are used"),
    one("upstream.connect-timeout", Value("10s"), "For reaching an upstream"),
    one("upstream.header-timeout", Value("30s"), "For an upstream's answer to begin"),
    one("upstream.idle-timeout", Value("60s"), "For the longest silence within an answer"),
    many(
        "peers.names",
        Nothing,
        "Where the other replicas are, HOST:PORT: all addresses behind each name",
    ),
    one("peers.username", Nothing, "As which user of access.htpasswd this replica asks the others"),
    one("peers.password-file", Nothing, "A file with the password of that"),
    one(
        "bucket.url",
        Nothing,
        "The bucket of all replicas: s3://BUCKET[/PREFIX], gs://…, az://ACCOUNT/CONTAINER[/PREFIX]",
    ),
    one("bucket.endpoint", Unsaid, "The server, if it is not Amazon's: https://minio.corp:9000"),
    one("bucket.region", Words("AWS_REGION, else us-east-1"), "The region"),
    one(
        "bucket.path-style",
        Words("true with an endpoint, else false"),
        "Whether the bucket's name stands in the path",
    ),
    one(
        "bucket.credentials",
        Words("the first of these that the environment names"),
        "Where the credential comes from: environment, web-identity, container, instance, none",
    ),
    one("bucket.access-key-id", Nothing, "An access key in place of that"),
    one("bucket.secret-access-key-file", Nothing, "The file with its secret"),
    one(
        "bucket.encryption",
        Words("the bucket's own"),
        "How objects are encrypted: AES256, aws:kms, aws:kms:dsse",
    ),
    one("bucket.kms-key", Nothing, "The key of aws:kms"),
    one("bucket.max-idle", Value("90d"), "What no replica has used for so long goes; off: nothing"),
    one("bucket.max-size", Nothing, "How many bytes of objects it has at most"),
    one(
        "bucket.timeout",
        Value("3s"),
        "For the bucket's answer to begin, before a registry is asked",
    ),
    one("bucket.key-file", Words("bucket.key in ca-dir"), "The key that records are signed with"),
    one(
        "bucket.private",
        Value("share"),
        "What was fetched under a client's own credential: share, keep-local",
    ),
];

/// The keys of a `[[registry]]` entry.
pub(crate) const REGISTRY_KEYS: &[&str] = &[
    "host",
    "scheme",
    "username",
    "password",
    "password-file",
    "credential-helper",
    "password-for-every-host",
    "proxy",
    "tag-ttl",
];

/// The environment variable of a key: `upstream.ca-files` is `ENTREPOT_UPSTREAM_CA_FILES`.
#[must_use]
pub(crate) fn variable(name: &str) -> String {
    format!("ENTREPOT_{}", name.to_ascii_uppercase().replace(['.', '-'], "_"))
}

/// The known name that is most like `unknown`, if any is like it at all.
#[must_use]
pub(crate) fn similar<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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

    const EXAMPLE: &str = include_str!("../../docs/entrepot.example.toml");

    /// The keys of the example, with their sections in front and the values that they have there.
    fn of_example() -> Vec<(String, String)> {
        let mut section = String::new();
        let mut keys = Vec::new();
        for line in EXAMPLE.lines() {
            let line = line.strip_prefix('#').unwrap_or(line);
            if let Some(name) = line.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")) {
                section = format!("{name}/");
            } else if let Some(name) =
                line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
            {
                section = format!("{name}.");
            } else if let Some((name, value)) = line.split_once(" = ")
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            {
                keys.push((format!("{section}{name}"), value.to_owned()));
            }
        }
        keys
    }

    #[test]
    fn the_example_has_every_key_with_its_default() {
        let found = of_example();
        for key in KEYS {
            let values: Vec<_> = found.iter().filter(|(name, _)| name == key.name).collect();
            let [(_, value)] = values.as_slice() else {
                panic!("{} is there {} times", key.name, values.len());
            };
            let Value(default) = key.default else { continue };
            let quoted = |text: &str| format!("\"{text}\"");
            let expected = match default {
                several if key.is_list => {
                    format!("[{}]", several.split(", ").map(quoted).collect::<Vec<_>>().join(", "))
                }
                "true" | "false" => default.to_owned(),
                number if number.parse::<u64>().is_ok() => number.to_owned(),
                text => quoted(text),
            };
            assert_eq!(*value, expected, "{}", key.name);
        }
        for key in REGISTRY_KEYS {
            let name = format!("registry/{key}");
            assert!(found.iter().any(|(found, _)| *found == name), "{key} is not there");
        }
        for (name, _) in &found {
            let of_registry =
                name.strip_prefix("registry/").map(|key| REGISTRY_KEYS.contains(&key));
            let is_known = of_registry.unwrap_or_else(|| Key::named(name).is_some());
            assert!(is_known, "{name} is no key");
        }
    }

    #[test]
    fn the_example_is_valid_as_it_is_and_with_every_line_in_force() {
        use crate::config::{Settings, Sources};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entrepot.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let environment = vec![("STATE_DIRECTORY".to_owned(), "/state".to_owned())];
            let file = Some(path.clone());
            Settings::load(&Sources { file, environment, ..Sources::default() })
        };
        let values = |settings: Settings| settings.shown["keys"].clone();
        assert_eq!(values(load(EXAMPLE).unwrap()), values(load("").unwrap()));
        // Prose begins with a space behind the `#`; files and directories are to be there.
        std::fs::write(directory.path().join("admin.token"), "a-token-for-the-tests").unwrap();
        std::fs::write(directory.path().join("peers.password"), "secret").unwrap();
        std::fs::write(
            directory.path().join("users"),
            format!("a:{}", bcrypt::hash("b", 4).unwrap()),
        )
        .unwrap();
        std::fs::write(directory.path().join("bucket-secret"), "secret").unwrap();
        let absent = ["ca-files", "certs-dir", "intercept ", "credentials "];
        let lines = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if absent.iter().any(|key| rest.starts_with(key)) => "",
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let settings = load(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(settings.gateway.registry.rules.len(), 4);
    }

    #[test]
    fn what_can_be_chosen_is_taken_and_the_default_is_among_it() {
        use crate::config::{Settings, Sources};
        for key in KEYS.iter().filter(|key| !key.choices().is_empty()) {
            let Value(default) = key.default else { panic!("{} has no default", key.name) };
            assert!(key.choices().contains(&default), "{}", key.name);
            for value in key.choices() {
                let variable = (variable(key.name), (*value).to_owned());
                let state = ("STATE_DIRECTORY".to_owned(), "/state".to_owned());
                let environment = vec![state, variable];
                let file = Some("/dev/null".into());
                let loaded = Settings::load(&Sources { file, environment, ..Sources::default() });
                assert!(loaded.is_ok(), "{} = {value}: {loaded:?}", key.name);
            }
        }
    }
}
