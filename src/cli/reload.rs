//! SIGHUP: the configuration is read again, from where it was read at the start.
//!
//! What decides on a request is replaced while requests are served. What is built once (sockets,
//! the store, the way to upstreams) stays as it is, and the log names what wants a restart. A
//! configuration that is not valid changes nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::credentials::warn_of_credentials;
use crate::admin::reload::{ReloadRefusal, Reloaded};
use crate::app::{RunningApp, waiting_for};
use crate::config::keys::KEYS;
use crate::config::{ConfigError, Settings, Sources};
use crate::log::Volume;

/// The keys that take effect at once, beside `[[registry]]`.
const AT_ONCE: &[&str] = &[
    "access.clients",
    "access.htpasswd",
    "admin-look-from",
    "admin-token-file",
    "contact",
    "keep-deleted",
    "log-level",
    "mirror-names",
    "proxy-protocol-from",
    "push",
    "quota-floor",
    "savings.cost-per-gb",
    "savings.currency",
    "stale-after",
    "tag-ttl",
];

/// Where the configuration was read, and what is replaced beside that of the proxy itself.
pub(super) struct Reload {
    pub(super) sources: Sources,
    pub(super) volume: Volume,
    /// The configuration of the start, as it is shown: what takes effect at the next one is
    /// compared with it, and stays as it is there.
    pub(super) started: Value,
}

impl Reload {
    /// Reads it and puts it into force, or says what is wrong with it: in the log, and to whoever
    /// has asked.
    pub(super) async fn run(&self, running: &RunningApp) -> Result<Reloaded, ReloadRefusal> {
        let sources = self.sources.clone();
        match tokio::task::spawn_blocking(move || Settings::load(&sources)).await {
            Ok(Ok(settings)) => self.put_into_force(running, settings),
            Ok(Err(error)) => Err(report(&error)),
            Err(error) => {
                tracing::error!(%error, "the configuration could not be read again");
                Err(ReloadRefusal(vec![format!("it could not be read again: {error}")]))
            }
        }
    }

    fn put_into_force(
        &self,
        running: &RunningApp,
        settings: Settings,
    ) -> Result<Reloaded, ReloadRefusal> {
        if let Err(error) = running.reconfigure(&settings) {
            tracing::error!(%error, "the configuration stays as it was");
            return Err(ReloadRefusal(vec![error.to_string()]));
        }
        let mut notes = settings.notes.clone();
        for note in &notes {
            tracing::warn!("{note}");
        }
        warn_of_credentials(&settings);
        let is_heard = self.volume.set(settings.log.level);
        let before = running.shown();
        let (in_force, waiting) = merged(&self.started, settings.shown);
        let changed = changed(&before, &in_force);
        running.show(in_force);
        tracing::info!("the configuration was read again and is in force");
        if !is_heard {
            let note = "RUST_LOG is set: log-level has no effect";
            tracing::warn!("{note}");
            notes.push(note.to_owned());
        }
        for key in &waiting {
            tracing::warn!(key, "this has changed and takes effect at the next start");
        }
        let waiting_for_restart = waiting.into_iter().map(str::to_owned).collect();
        Ok(Reloaded { changed, waiting_for_restart, notes })
    }
}

/// A line for each thing that is wrong: it is for the log.
fn report(error: &ConfigError) -> ReloadRefusal {
    for problem in &error.problems {
        let place = problem.place.as_ref().map(ToString::to_string);
        tracing::error!(place, problem = problem.text, "the new configuration is not valid");
    }
    tracing::error!("the configuration stays as it was");
    ReloadRefusal(error.problems.iter().map(ToString::to_string).collect())
}

/// The keys whose values are others in the second of these than in the first, as far as that can be
/// seen: a secret looks like any other.
fn changed(before: &Value, after: &Value) -> Vec<String> {
    let value = |document: &Value, key: &str| {
        document.get("keys").and_then(|keys| keys.get(key)?.get("value").cloned())
    };
    let keys = KEYS.iter().map(|key| key.name);
    let keys = keys.filter(|key| value(before, key) != value(after, key)).map(str::to_owned);
    let is_same = before.get("registries") == after.get("registries");
    keys.chain((!is_same).then(|| "registry".to_owned())).collect()
}

/// What is in force now, as an operator may see it, and what of the new configuration is not.
fn merged(started: &Value, mut after: Value) -> (Value, Vec<&'static str>) {
    let mut waiting = Vec::new();
    for key in KEYS.iter().map(|key| key.name).filter(|name| !AT_ONCE.contains(name)) {
        if keep(started, &mut after, key) {
            waiting.push(key);
        }
    }
    waiting.extend(keep_registries(started, &mut after));
    (waiting_for(after, &waiting), waiting)
}

/// Shows a key as it was, if it has changed; whether it has.
fn keep(started: &Value, after: &mut Value, key: &str) -> bool {
    let shown = |document: &Value| document.get("keys")?.get(key).cloned();
    let value = |entry: &Option<Value>| entry.as_ref()?.get("value").cloned();
    let (old, new) = (shown(started), shown(after));
    if value(&old) == value(&new) {
        return false;
    }
    if let Some(keys) = after.get_mut("keys").and_then(Value::as_object_mut) {
        keys.insert(key.to_owned(), old.unwrap_or_default());
    }
    true
}

/// Shows which `[[registry]]` entries there are, and their proxies, as they were; which of the two
/// has changed. The rest of an entry takes effect at once.
fn keep_registries(started: &Value, after: &mut Value) -> Vec<&'static str> {
    let (before, now) = (ways(started), ways(after));
    let is_led = |(_, proxy): &(&String, &Option<Value>)| proxy.is_some();
    let has_changed = [
        ("registry.host", before.keys().ne(now.keys())),
        ("registry.proxy", before.iter().filter(is_led).ne(now.iter().filter(is_led))),
    ];
    let entries = after.get_mut("registries").and_then(Value::as_array_mut);
    if let Some(entries) = entries {
        for entry in entries.iter_mut() {
            lead_as_before(entry, &before);
        }
        let gone = before.into_iter().filter(|(host, _)| !now.contains_key(host));
        entries.extend(gone.map(|(host, proxy)| match proxy {
            Some(proxy) => json!({ "host": host, "proxy": proxy }),
            None => json!({ "host": host }),
        }));
    }
    has_changed.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
}

fn lead_as_before(entry: &mut Value, before: &BTreeMap<String, Option<Value>>) {
    let host = entry.get("host").and_then(Value::as_str);
    let proxy = host.and_then(|host| before.get(host)).cloned().flatten();
    let Some(fields) = entry.as_object_mut() else { return };
    match proxy {
        Some(proxy) => fields.insert("proxy".to_owned(), proxy),
        None => fields.remove("proxy"),
    };
}

/// The hosts of all `[[registry]]` entries, each with its proxy.
fn ways(document: &Value) -> BTreeMap<String, Option<Value>> {
    let entries = document.get("registries").and_then(Value::as_array).into_iter().flatten();
    let ways = entries.filter_map(|entry| {
        let host = entry.get("host")?.as_str()?;
        Some((host.to_owned(), entry.get("proxy").cloned()))
    });
    ways.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(listen: &str, ttl: &str, registries: &Value) -> Value {
        json!({
            "keys": { "listen": { "value": listen }, "tag-ttl": { "value": ttl } },
            "registries": registries,
        })
    }

    #[test]
    fn what_wants_a_restart_is_shown_as_it_was() {
        let registries = json!([{ "host": "x.example" }]);
        let started = shown("a:1", "1s", &registries);
        let (in_force, waiting) = merged(&started, shown("a:2", "2s", &registries));
        assert_eq!(waiting, ["listen"]);
        assert_eq!(in_force["keys"]["listen"]["value"], "a:1");
        assert_eq!(in_force["keys"]["tag-ttl"]["value"], "2s");
        assert_eq!(in_force["waiting_for_restart"], json!(["listen"]));
        // What is as it was at the start waits for nothing.
        assert!(merged(&started, shown("a:1", "3s", &registries)).1.is_empty());
    }

    #[test]
    fn registries_and_their_proxies_are_shown_as_they_were() {
        let started = json!([{ "host": "x.example", "username": "a" }, { "host": "y.example" }]);
        let started = shown("a:1", "1s", &started);
        let after = |registries| merged(&started, shown("a:1", "1s", &registries));
        let (in_force, waiting) =
            after(json!([{ "host": "x.example", "username": "b" }, { "host": "z.example" }]));
        assert_eq!(waiting, ["registry.host"]);
        let expected = json!([
            { "host": "x.example", "username": "b" }, { "host": "z.example" }, { "host": "y.example" }
        ]);
        assert_eq!(in_force["registries"], expected);
        let led = json!([{ "host": "y.example", "proxy": "direct" }, { "host": "x.example" }]);
        let (in_force, waiting) = after(led);
        assert_eq!(waiting, ["registry.proxy"], "their order is of no interest");
        assert_eq!(
            in_force["registries"],
            json!([{ "host": "y.example" }, { "host": "x.example" }])
        );
        let (_, waiting) = after(json!([]));
        assert_eq!(waiting, ["registry.host"], "no entry has a proxy");
    }

    #[test]
    fn the_keys_that_take_effect_at_once_are_keys_and_documented() {
        let page = include_str!("../../docs/configuration.md");
        let listed = page.split("## Changing it while it runs").nth(1).unwrap();
        let listed = listed.split("\n## ").next().unwrap();
        for name in AT_ONCE {
            assert!(KEYS.iter().any(|key| key.name == *name), "{name}");
            assert!(
                listed.contains(&format!("`{name}`")),
                "{name} is not in docs/configuration.md"
            );
        }
    }
}
