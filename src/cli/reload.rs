//! SIGHUP: the configuration is read again, from where it was read at the start.
//!
//! What decides on a request is replaced while requests are served. What is built once (sockets, the
//! store, the way to upstreams) stays as it is, and the log names what wants a restart. A configuration
//! that is not valid changes nothing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::serve::warn_of_credentials;
use crate::admin;
use crate::config::keys::KEYS;
use crate::config::{ConfigError, Settings, Sources};
use crate::listener::AccessRules;
use crate::log::Volume;

/// The keys that take effect at once, beside `[[registry]]`.
const AT_ONCE: [&str; 8] = [
    "access.clients",
    "access.htpasswd",
    "admin-token-file",
    "keep-deleted",
    "log-level",
    "push",
    "quota-floor",
    "tag-ttl",
];
/// What of a `[[registry]]` entry does not: the key for people, and as it is shown.
const OF_REGISTRIES: [(&str, &str); 2] = [("registry.host", "host"), ("registry.proxy", "proxy")];

/// What can be replaced.
pub(super) struct Reload {
    pub(super) sources: Sources,
    pub(super) volume: Volume,
    pub(super) access: AccessRules,
    pub(super) operators: Arc<admin::Services>,
}

impl Reload {
    /// Reads it and puts it into force, or says what is wrong with it.
    pub(super) async fn run(&self) {
        let sources = self.sources.clone();
        match tokio::task::spawn_blocking(move || Settings::load(&sources)).await {
            Ok(Ok(settings)) => self.put_into_force(settings),
            Ok(Err(error)) => report(&error),
            Err(error) => tracing::error!(%error, "the configuration could not be read again"),
        }
    }

    fn put_into_force(&self, settings: Settings) {
        // The one step that can fail comes first.
        if let Err(error) = self.access.replace(settings.listener.access.clone()) {
            tracing::error!(%error, "the configuration stays as it was");
            return;
        }
        for note in &settings.notes {
            tracing::warn!("{note}");
        }
        warn_of_credentials(&settings);
        self.operators.gateway.reconfigure(settings.gateway);
        self.operators.guard.replace_token(settings.admin_token);
        let is_heard = self.volume.set(settings.log.level);
        let (in_force, waiting) = merged(&self.operators.config.load(), settings.shown);
        self.operators.config.store(Arc::new(in_force));
        tracing::info!("the configuration was read again and is in force");
        if !is_heard {
            tracing::warn!("RUST_LOG is set: log-level has no effect");
        }
        for key in waiting {
            tracing::warn!(key, "this has changed and takes effect at the next start");
        }
    }
}

/// A line for each thing that is wrong: it is for the log.
fn report(error: &ConfigError) {
    for problem in &error.problems {
        let place = problem.place.as_ref().map(ToString::to_string);
        tracing::error!(place, problem = problem.text, "the new configuration is not valid");
    }
    tracing::error!("the configuration stays as it was");
}

/// What is in force now, as an operator may see it, and what of the new configuration is not.
fn merged(before: &Value, mut after: Value) -> (Value, Vec<&'static str>) {
    let mut waiting = Vec::new();
    for key in KEYS.iter().map(|key| key.name).filter(|name| !AT_ONCE.contains(name)) {
        if keep(before, &mut after, key) {
            waiting.push(key);
        }
    }
    let changed = OF_REGISTRIES
        .into_iter()
        .filter(|(_, field)| of_registries(before, field).ne(of_registries(&after, field)));
    waiting.extend(changed.map(|(key, _)| key));
    (waiting_for(after, &waiting), waiting)
}

/// A configuration as it is shown, with the keys that take effect at the next start.
pub(super) fn waiting_for(mut shown: Value, keys: &[&str]) -> Value {
    if let Some(document) = shown.as_object_mut() {
        document.insert("waiting_for_restart".to_owned(), json!(keys));
    }
    shown
}

/// Shows a key as it was, if it has changed; whether it has.
fn keep(before: &Value, after: &mut Value, key: &str) -> bool {
    let shown = |document: &Value| document.get("keys")?.get(key).cloned();
    let value = |entry: &Option<Value>| entry.as_ref()?.get("value").cloned();
    let (old, new) = (shown(before), shown(after));
    if value(&old) == value(&new) {
        return false;
    }
    if let Some(keys) = after.get_mut("keys").and_then(Value::as_object_mut) {
        keys.insert(key.to_owned(), old.unwrap_or_default());
    }
    true
}

/// One field of all `[[registry]]` entries, in their order.
fn of_registries<'a>(
    document: &'a Value,
    field: &'a str,
) -> impl Iterator<Item = Option<&'a Value>> {
    let entries = document.get("registries").and_then(Value::as_array).into_iter().flatten();
    entries.map(move |entry| entry.get(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(listen: &str, ttl: &str, host: &str) -> Value {
        json!({
            "keys": { "listen": { "value": listen }, "tag-ttl": { "value": ttl } },
            "registries": [{ "host": host }],
        })
    }

    #[test]
    fn what_wants_a_restart_is_shown_as_it_was() {
        let (in_force, waiting) =
            merged(&shown("a:1", "1s", "x.example"), shown("a:2", "2s", "x.example"));
        assert_eq!(waiting, ["listen"]);
        assert_eq!(in_force["keys"]["listen"]["value"], "a:1");
        assert_eq!(in_force["keys"]["tag-ttl"]["value"], "2s");
        assert_eq!(in_force["waiting_for_restart"], json!(["listen"]));
        // Compared with what is in force, not with what was read last.
        let (_, waiting) = merged(&in_force, shown("a:2", "2s", "y.example"));
        assert_eq!(waiting, ["listen", "registry.host"]);
    }

    #[test]
    fn the_keys_that_take_effect_at_once_are_keys_and_documented() {
        let page = include_str!("../../docs/configuration.md");
        let listed = page.split("## Changing it while it runs").nth(1).unwrap();
        let listed = listed.split("\n## ").next().unwrap();
        for name in AT_ONCE {
            assert!(KEYS.iter().any(|key| key.name == name), "{name}");
            assert!(
                listed.contains(&format!("`{name}`")),
                "{name} is not in docs/configuration.md"
            );
        }
    }
}
