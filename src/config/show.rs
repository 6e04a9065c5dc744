//! What was configured, and where: as an operator may see it.

use serde_json::{Map, Value as Json, json};

use super::keys::KEYS;
use super::source::{Entry, Found, Value};

/// What stands in place of a secret.
const HIDDEN: &str = "(hidden)";

/// Every key with its value and where that was given, and every `[[registry]]` entry; passwords are
/// hidden.
pub(super) fn shown(found: &Found) -> Json {
    let keys: Map<_, _> = KEYS
        .iter()
        .map(|key| {
            let given = found.entries.iter().rfind(|entry| entry.key == key.name);
            let shown = match given {
                Some(entry) => {
                    json!({ "value": visible(entry), "from": entry.place.to_string() })
                }
                None => json!({ "value": default_of(key.help), "from": "default" }),
            };
            (key.name.to_owned(), shown)
        })
        .collect();
    let registries: Vec<_> = found.registries.iter().map(|entries| registry(entries)).collect();
    json!({ "keys": keys, "registries": registries })
}

fn registry(entries: &[Entry]) -> Json {
    let values = entries.iter().map(|entry| (entry.key.clone(), visible(entry)));
    Json::Object(values.collect())
}

/// What `--help` says of it.
fn default_of(help: &str) -> Json {
    let default = help.split_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
    default.map_or(Json::Null, Json::from)
}

fn visible(entry: &Entry) -> Json {
    let name = entry.key.rsplit('.').next().unwrap_or_default();
    if name == "password" { Json::from(HIDDEN) } else { value(&entry.value) }
}

fn value(given: &Value) -> Json {
    match given {
        Value::Text(text) => Json::from(without_user(text)),
        Value::Integer(number) => number.parse::<i64>().map_or(Json::Null, Json::from),
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
    use super::super::Sources;
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
        let shown = shown(&sources.read());
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
}
