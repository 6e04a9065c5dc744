//! What was configured, and where: as an operator may see it.

use serde_json::{Map, Value as Json, json};

use super::keys::{Default, KEYS, Key};
use super::raw_config::RawConfig;
use super::source::{ConfigEntry, Value};

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";
/// Where a value comes from that nobody has set.
pub(super) const DEFAULT: &str = "default";

/// Every key with its value and where that was given, and every `[[registry]]` entry; passwords are
/// hidden.
pub(super) fn shown(found: &RawConfig) -> Json {
    let keys: Map<_, _> = KEYS
        .iter()
        .map(|key| {
            let given = found.entries.iter().rfind(|entry| entry.key == key.name);
            let shown = match given {
                Some(entry) => {
                    json!({ "value": visible(entry), "from": entry.place.to_string() })
                }
                None => json!({ "value": default_of(key), "from": DEFAULT }),
            };
            (key.name.to_owned(), shown)
        })
        .collect();
    let registries: Vec<_> = found.registries.iter().map(|entries| registry(entries)).collect();
    json!({ "keys": keys, "registries": registries })
}

fn registry(entries: &[ConfigEntry]) -> Json {
    let values = entries.iter().map(|entry| (entry.key.clone(), visible(entry)));
    Json::Object(values.collect())
}

/// A default as the file would have it.
fn default_of(key: &Key) -> Json {
    match key.default {
        Default::Nothing | Default::Unsaid => Json::Null,
        Default::Words(words) => Json::from(words),
        Default::Value(several) if key.is_list => several.split(", ").collect(),
        Default::Value(one) => one
            .parse::<bool>()
            .map(Json::from)
            .or_else(|_| one.parse::<u64>().map(Json::from))
            .unwrap_or_else(|_| Json::from(one)),
    }
}

/// Shows what has come of a key that nobody has set, where that depends on the machine, and what it
/// has come from.
pub(super) fn fill_in(shown: &mut Json, key: &str, value: &Json, from: &str) {
    let entry = shown.get_mut("keys").and_then(|keys| keys.get_mut(key));
    if let Some(entry) = entry.filter(|entry| entry.get("from").is_some_and(|f| f == DEFAULT)) {
        *entry = json!({ "value": value, "from": from });
    }
}

fn visible(entry: &ConfigEntry) -> Json {
    let name = entry.key.rsplit('.').next().unwrap_or_default();
    match &entry.value {
        _ if name == "password" => Json::from(HIDDEN),
        Value::Text(text) if may_hold_a_password(name) => Json::from(without_user(text)),
        other => value(other),
    }
}

/// Whether a value of this key may be a URL with a password in it.
pub(super) fn may_hold_a_password(key: &str) -> bool {
    key.rsplit('.').next() == Some("proxy")
}

fn value(given: &Value) -> Json {
    match given {
        Value::Text(text) => Json::from(text.as_str()),
        Value::Number(number) => {
            let whole = number.parse::<i64>().map(Json::from);
            let fraction = || number.parse::<f64>().map(Json::from);
            whole.or_else(|_| fraction()).unwrap_or(Json::Null)
        }
        Value::Boolean(flag) => Json::from(*flag),
        Value::List(items) => items.iter().map(value).collect(),
        Value::Table(fields) => {
            fields.iter().map(|(name, given)| (name.clone(), value(given))).collect()
        }
    }
}

/// A URL without the user name and password in it.
fn without_user(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{HIDDEN}@{host}"),
        // Not a URL, but perhaps meant as one.
        (None, Some((_, host))) => format!("{HIDDEN}@{host}"),
        (_, None) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, Sources};
    use super::*;

    #[test]
    fn everything_is_shown_but_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("entrepot.toml");
        let text = "tunnel = \"none\"\nintercept-also = [\"a.example\"]\n[upstream]\n\
                    proxy = \"http://me:s3cret@corp:8080\"\nipv6 = false\n\
                    [[registry]]\nhost = \"b.example\"\nusername = \"me\"\npassword = \"s3cret\"\n\
                    proxy = \"https://me:s3c@ret@corp\"\n";
        std::fs::write(&file, text).unwrap();
        let flags = vec![("tunnel".to_owned(), vec!["any".to_owned()])];
        let sources = Sources { file: Some(file), flags, ..Sources::default() };
        let shown = shown(&RawConfig::read(&sources));
        let text = shown.to_string();
        assert!(!text.contains("s3c"), "{text}");
        assert_eq!(shown["keys"]["tunnel"], json!({ "value": "any", "from": "--tunnel" }));
        assert_eq!(shown["keys"]["push"]["from"], "default");
        assert_eq!(shown["keys"]["push"]["value"], "client");
        assert_eq!(shown["keys"]["intercept-also"]["value"], json!(["a.example"]));
        let place = shown["keys"]["upstream.ipv6"]["from"].as_str().unwrap();
        assert!(place.ends_with("entrepot.toml:5"), "{place}");
        assert_eq!(shown["keys"]["upstream.proxy"]["value"], "http://(hidden)@corp:8080");
        assert_eq!(shown["registries"][0]["password"], HIDDEN);
        assert_eq!(shown["registries"][0]["proxy"], "https://(hidden)@corp");
    }

    #[test]
    fn what_nobody_has_set_is_shown_as_it_is_in_force() {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![
            variable("STATE_DIRECTORY", "/state"),
            variable("ENTREPOT_CA_DIR", "/ca"),
            variable("HTTPS_PROXY", "http://me:s3cret@corp:8080"),
            variable("no_proxy", ".corp"),
        ];
        let settings = Settings::load(&Sources { environment, ..Sources::default() }).unwrap();
        let keys = &settings.shown["keys"];
        let of = |value: Json, from: &str| json!({ "value": value, "from": from });
        for (key, shown) in [
            ("data-dir", of(json!("/state"), "default")),
            ("cache-dir", of(json!("/state/cache"), "default")),
            ("ca-dir", of(json!("/ca"), "ENTREPOT_CA_DIR")),
            ("upstream.proxy", of(json!("http://corp:8080"), "HTTPS_PROXY")),
            ("upstream.no-proxy", of(json!(".corp"), "no_proxy")),
            ("admin-token-file", of(Json::Null, "default")),
            ("listen", of(json!(["0.0.0.0:3128", "[::]:3128"]), "default")),
            ("offline", of(json!(false), "default")),
            ("quota-floor", of(json!(5), "default")),
        ] {
            assert_eq!(keys[key], shown, "{key}");
        }
        assert_eq!(keys["intercept"]["value"][0], "docker.io");
    }
}
