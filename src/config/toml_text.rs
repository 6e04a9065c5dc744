//! What is configured as a file: TOML that gives the same settings, with a comment on where each
//! value comes from.
//!
//! What nobody has set stands there as a comment, so that a default stays one. So do secrets, which
//! nobody gets to see: whoever uses the file has to fill them in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::error::Position;
use super::keys::{Default, KEYS, Key};
use super::raw_config::RawConfig;
use super::reader::beside;
use super::show::{DEFAULT, HIDDEN, may_hold_a_password};
use super::source::{ConfigEntry, Value};
use super::value::{FromValue as _, NoProxyEntry};
use crate::log::one_line;

/// Keys of files, which lie beside the file that names them.
const FILES: [&str; 5] = [
    "access.htpasswd",
    "admin-token-file",
    "password-file",
    "upstream.ca-files",
    "upstream.certs-dir",
];
/// Keys that may say that no key says something, but the process's environment.
const OF_ENVIRONMENT: [&str; 2] = ["upstream.proxy", "upstream.no-proxy"];
/// The marks of lines that are to be filled in.
const FILL_IN: &str = "secret, not shown: FILL IN";

/// The file. `shown` is the same as [`shown`](super::show::shown) tells it, with what is in force.
/// Whether the environment names one proxy for everything, without a password, is for
/// `has_plain_proxy` to say: only then it can stand in the file.
pub(super) fn text(found: &RawConfig, shown: &Json, has_plain_proxy: bool) -> String {
    let mut lines = Vec::new();
    let mut section = "";
    let top = KEYS.iter().filter(|key| !key.name.contains('.'));
    for key in top.chain(KEYS.iter().filter(|key| key.name.contains('.'))) {
        let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            lines.push(format!("\n[{section}]"));
        }
        let given = found.entries.iter().rfind(|entry| entry.key == key.name);
        lines.push(match given {
            Some(entry) => given_line(key.name, name, entry),
            None => unset_line(key, name, shown, has_plain_proxy),
        });
    }
    for entries in &found.registries {
        lines.push("\n[[registry]]".to_owned());
        lines.extend(entries.iter().map(registry_line));
    }
    let mut text = format!(
        "# entrepot {}: what is configured, and where each value comes from.\n",
        env!("CARGO_PKG_VERSION")
    );
    if lines.iter().any(|line| line.contains(FILL_IN)) {
        text.push_str("# Secrets are left out: without those lines this is not the same.\n");
    }
    text.push('\n');
    text + &lines.join("\n") + "\n"
}

fn given_line(key: &str, name: &str, entry: &ConfigEntry) -> String {
    let place = place(&entry.place);
    match &entry.value {
        Value::Text(url) if may_hold_a_password(key) && url.contains('@') => {
            let host = url.rsplit('@').next().unwrap_or_default();
            let value = quoted(&format!("{HIDDEN}@{host}"));
            format!("# {name} = {value}  # {place}; {FILL_IN}")
        }
        value => format!("{name} = {}  # {place}", toml(&typed(key, &resolved(key, value, entry)))),
    }
}

fn registry_line(entry: &ConfigEntry) -> String {
    match entry.key.as_str() {
        "password" => {
            format!("# password = {}  # {}; {FILL_IN}", quoted(HIDDEN), place(&entry.place))
        }
        // Only that tool's variables say it.
        "token-server" => {
            format!(
                "# the password goes to {} alone  # {}",
                toml(&entry.value),
                place(&entry.place)
            )
        }
        key => given_line(key, key, entry),
    }
}

/// A key that no source of ours sets: as it is in force.
fn unset_line(key: &Key, name: &str, shown: &Json, has_plain_proxy: bool) -> String {
    let of_key = shown.get("keys").and_then(|keys| keys.get(key.name));
    let of_key = |field: &str| of_key.and_then(|shown| shown.get(field)).unwrap_or(&Json::Null);
    let (value, from) = (of_key("value"), of_key("from").as_str().unwrap_or(DEFAULT));
    let from = one_line(from);
    match value {
        Json::Null => format!("# {name} =  # not set"),
        value if from == DEFAULT => {
            let value = in_words(key, value);
            format!("# {name} = {value}  # default")
        }
        Json::String(hosts) if key.name == "upstream.no-proxy" => {
            let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
            let known = hosts.filter(|host| NoProxyEntry::from_text(host).is_some());
            let list = known.map(quoted).collect::<Vec<_>>().join(", ");
            format!("{}{name} = [{list}]  # {from}", commented(!has_plain_proxy))
        }
        value => {
            let is_other = OF_ENVIRONMENT.contains(&key.name) && !has_plain_proxy;
            format!("{}{name} = {}  # {from}", commented(is_other), json(value))
        }
    }
}

fn commented(is_comment: bool) -> &'static str {
    if is_comment { "# " } else { "" }
}

/// A default, which may be words.
fn in_words(key: &Key, value: &Json) -> String {
    match (key.default, value) {
        (Default::Words(words), Json::String(text)) if words == text => format!("({words})"),
        _ => json(value),
    }
}

fn place(place: &Position) -> String {
    one_line(&place.to_string()).into_owned()
}

/// The value, with paths that mean the same wherever the file lies.
fn resolved(key: &str, value: &Value, entry: &ConfigEntry) -> Value {
    if !FILES.contains(&key) {
        return value.clone();
    }
    match value {
        Value::Text(path) => {
            Value::Text(absolute(&beside(Some(&entry.place), PathBuf::from(path))))
        }
        Value::List(paths) => {
            Value::List(paths.iter().map(|path| resolved(key, path, entry)).collect())
        }
        other => other.clone(),
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).as_deref().unwrap_or(path).display().to_string()
}

/// What environment and flags have as text, as the file has it.
fn typed(key: &str, value: &Value) -> Value {
    let default = Key::named(key).map(|key| key.default);
    match (default, value) {
        (Some(Default::Value(default)), Value::Text(text)) => {
            match (default.parse::<bool>(), text.parse::<bool>(), default.parse::<u64>()) {
                (Ok(_), Ok(flag), _) => Value::Boolean(flag),
                (_, _, Ok(_)) if text.parse::<u64>().is_ok() => Value::Number(text.clone()),
                _ => value.clone(),
            }
        }
        _ => value.clone(),
    }
}

fn toml(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Number(number) => number.clone(),
        Value::Boolean(flag) => flag.to_string(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", "))
        }
        Value::Table(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{} = {}", bare(name), toml(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

fn json(value: &Json) -> String {
    match value {
        Json::String(text) => quoted(text),
        Json::Array(items) => {
            format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A key, in quotes where it needs them.
fn bare(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A basic string (TOML 1.0, String: "any Unicode character may be used except those that must be
/// escaped").
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if is_shown_as_it_is(c) => quoted.push(c),
            // Writing to memory does not fail.
            c if u32::from(c) <= 0xffff => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => drop(write!(quoted, "\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

fn is_shown_as_it_is(c: char) -> bool {
    let text = c.to_string();
    one_line(&text) == text
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, Sources};
    use super::*;

    /// The settings of a file at this path with these variables.
    fn load(path: &Path, environment: &[(&str, &str)]) -> Settings {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let state = ("STATE_DIRECTORY".to_owned(), "/state".to_owned());
        let sources = Sources {
            file: Some(path.to_owned()),
            environment: environment.chain([state]).collect(),
            ..Sources::default()
        };
        Settings::load(&sources).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Everything that is in force, without the words on where it comes from.
    fn in_force(mut settings: Settings) -> String {
        settings.shown = Json::Null;
        settings.text.clear();
        settings.notes.clear();
        format!("{settings:#?}")
    }

    #[track_caller]
    fn assert_comes_back(file: &str, environment: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entrepot.toml");
        std::fs::write(directory.path().join("token"), "a-token-for-the-tests").unwrap();
        std::fs::write(&path, file).unwrap();
        let settings = load(&path, environment);
        let text = settings.text.clone();
        // Elsewhere, with nothing beside it.
        let elsewhere = tempfile::tempdir().unwrap();
        let copy = elsewhere.path().join("copy.toml");
        std::fs::write(&copy, &text).unwrap();
        assert_eq!(in_force(load(&copy, &[])), in_force(settings), "{text}");
        text.replace(&directory.path().display().to_string(), ".")
    }

    #[test]
    fn what_is_shown_gives_the_same_settings() {
        assert_comes_back("", &[]);
        let file = r#"
listen = "127.0.0.1:1"
admin-token-file = "token"
tag-ttl = [{ tag = "latest", ttl = "1m" }, { regex = "v\\d+", ttl = "60d" }]
max-size = 1073741824
offline = true
intercept-also = ["registry.corp:5000", "*.lab"]
data-dir = "/srv/a@b \"quoted\" \\ \u007f"

[upstream]
connect-to = ["a.example:443:127.0.0.1:5443"]
header-timeout = "1h 30m"
proxy = "http://corp:8080"
no-proxy = [".corp"]

[[registry]]
host = "a.example"
scheme = "http"
tag-ttl = "2w"

[[registry]]
host = "b.example"
username = "robot@b"
password-file = "b.password"
proxy = "direct"
"#;
        let text = assert_comes_back(file, &[]);
        assert!(text.contains("\nadmin-token-file = \"./token\"  # ./entrepot.toml:3\n"), "{text}");
        assert!(text.contains("\n# max-idle = \"60d\"  # default\n"), "{text}");
        let environment = [
            ("ENTREPOT_OFFLINE", "true"),
            ("ENTREPOT_QUOTA_FLOOR", "7"),
            ("ENTREPOT_MAX_SIZE", "10g"),
            ("ENTREPOT_ACCESS_CLIENTS", "10.0.0.0/8,::1"),
            ("HTTPS_PROXY", "http://corp:8080"),
            ("HTTP_PROXY", "http://corp:8080"),
            ("NO_PROXY", ".corp, 10.0.0.0/8"),
        ];
        let text = assert_shows_the_same_values(&environment);
        assert!(text.contains("\noffline = true  # ENTREPOT_OFFLINE\n"), "{text}");
        assert!(text.contains("\nproxy = \"http://corp:8080\"  # HTTPS_PROXY\n"), "{text}");
    }

    /// As [`assert_comes_back`], where the names of the settings that gave a value differ.
    #[track_caller]
    fn assert_shows_the_same_values(environment: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entrepot.toml");
        std::fs::write(&path, "").unwrap();
        let first = load(&path, environment);
        let text = first.text.clone();
        std::fs::write(&path, &text).unwrap();
        let again = load(&path, &[]);
        let values = |settings: &Settings| {
            let keys = settings.shown["keys"].as_object().unwrap().clone();
            keys.into_iter().map(|(key, shown)| (key, shown["value"].clone())).collect::<Vec<_>>()
        };
        for ((key, one), (_, other)) in values(&first).into_iter().zip(values(&again)) {
            // NO_PROXY is one text, and a list in the file; and text is what environment has.
            if !["upstream.no-proxy", "offline", "quota-floor"].contains(&key.as_str()) {
                assert_eq!(one, other, "{key}: {text}");
            }
        }
        assert_eq!(again.text.lines().count(), text.lines().count());
        text
    }

    #[test]
    fn what_another_tools_variables_become_comes_back_in_human_units() {
        let environment = [
            ("ENABLE_MANIFEST_CACHE", "true"),
            ("CACHE_MAX_SIZE", "500g"),
            ("CACHE_INACTIVE", "1d12h"),
            ("ALLOW_PUSH", "true"),
            ("REGISTRIES", "harbor.corp"),
            ("PROXY_READ_TIMEOUT", "90"),
            ("DEBUG", "true"),
        ];
        let text = assert_comes_back("", &environment);
        for line in [
            "max-size = \"500GiB\"  # CACHE_MAX_SIZE",
            "max-idle = \"1d12h\"  # CACHE_INACTIVE",
            "header-timeout = \"1m30s\"  # PROXY_READ_TIMEOUT",
            "log-level = \"debug\"  # DEBUG",
            "host = \"harbor.corp\"  # REGISTRIES",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in {text}");
        }
    }

    #[test]
    fn secrets_are_left_out_and_missed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entrepot.toml");
        let file = "[upstream]\nproxy = \"http://me:s3cret@corp\"\n[[registry]]\n\
                    host = \"a.example\"\nusername = \"me\"\npassword = \"s3cret\"\n";
        std::fs::write(&path, file).unwrap();
        let environment = [("AUTH_REGISTRIES", "gitlab.com:me:s3cret")];
        let text = load(&path, &environment).text;
        assert!(!text.contains("s3cret"), "{text}");
        assert_eq!(text.matches(FILL_IN).count(), 4, "{text}");
        // Nobody gets another identity without a word.
        std::fs::write(&path, &text).unwrap();
        let sources = Sources { file: Some(path), ..Sources::default() };
        let error = Settings::load(&sources).unwrap_err().to_string();
        assert!(error.contains("credentials are username with password"), "{error}");
        let hidden = [("HTTPS_PROXY", "http://me:s3cret@corp"), ("NO_PROXY", ".corp")];
        let empty = directory.path().join("empty.toml");
        std::fs::write(&empty, "").unwrap();
        let text = load(&empty, &hidden).text;
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("\n# proxy = \"http://corp:80\"  # HTTPS_PROXY\n"), "{text}");
        assert!(text.contains("\n# no-proxy = [\".corp\"]  # NO_PROXY\n"), "{text}");
    }
}
