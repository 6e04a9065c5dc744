//! Entries by key, and the list of what is wrong with them.

use std::path::PathBuf;

use super::error::{ConfigError, Position, Problem};
use super::keys::{Default, Key};
use super::raw_config::RawConfig;
use super::show;
use super::source::{ConfigEntry, Sources, Value};
use super::toml_text;
use super::value::FromValue;

/// Hands out values; what is wrong with one is noted and its default goes on in its place, so
/// that everything wrong is found in one go.
pub(super) struct Reader {
    found: RawConfig,
}

impl Reader {
    pub(super) fn new(sources: &Sources) -> Self {
        Self::of(RawConfig::read(sources))
    }

    /// Hands out what was read before.
    pub(super) fn of(found: RawConfig) -> Self {
        Self { found }
    }

    /// What was configured, as an operator may see it.
    pub(super) fn shown(&self) -> serde_json::Value {
        show::shown(&self.found)
    }

    /// The same as a file; `shown` with what has come of it.
    pub(super) fn text(&self, shown: &serde_json::Value, has_plain_proxy: bool) -> String {
        toml_text::text(&self.found, shown, has_plain_proxy)
    }

    /// The strongest value of `key`, if it was given and is right.
    pub(super) fn get<T: FromValue>(&mut self, key: &str) -> Option<T> {
        let entry = self.found.entries.iter().rfind(|entry| entry.key == key)?;
        parsed(entry).map_err(|problem| self.found.problems.push(problem)).ok()
    }

    /// The strongest value of `key`, else the default that [`KEYS`](super::keys::KEYS) has for it.
    pub(super) fn get_or_default<T: FromValue>(&mut self, key: &str) -> Option<T> {
        self.get(key).or_else(|| self.default(key))
    }

    /// The default of `key`, if it has one that is a value. One that is none is our own mistake,
    /// and is told as any other.
    pub(super) fn default<T: FromValue>(&mut self, key: &str) -> Option<T> {
        let known = Key::named(key)?;
        let Default::Value(text) = known.default else { return None };
        let one = |text: &str| Value::Text(text.to_owned());
        let value = if known.is_list {
            Value::List(text.split(", ").map(one).collect())
        } else {
            one(text)
        };
        let default = T::from_value(&value);
        if default.is_none() {
            self.problem(None, format!("{key}: its default {text:?} is not {}", T::EXPECTED));
        }
        default
    }

    /// Where the strongest value of `key` was given.
    pub(super) fn place(&self, key: &str) -> Option<Position> {
        self.found.entries.iter().rfind(|entry| entry.key == key).map(|entry| entry.place.clone())
    }

    /// A path that was given for `key`: relative ones begin beside the file that names them.
    pub(super) fn beside(&self, key: &str, path: PathBuf) -> PathBuf {
        beside(self.place(key).as_ref(), path)
    }

    /// Each `[[registry]]` entry, built by `build` from its values.
    pub(super) fn registries<T>(
        &mut self,
        build: impl Fn(&mut RegistryReader<'_>) -> Option<T>,
    ) -> Vec<T> {
        let registries = self.found.registries.clone();
        let problems = &mut self.found.problems;
        let build = |entries| build(&mut RegistryReader { entries, problems: &mut *problems });
        registries.iter().filter_map(build).collect()
    }

    /// Notes something wrong that only shows between keys. Where a file could not be read nobody
    /// knows what is between them.
    pub(super) fn problem(&mut self, place: Option<Position>, text: impl Into<String>) {
        if !self.found.is_file_broken {
            self.found.problems.push(Problem { place, text: text.into() });
        }
    }

    /// Notes what the operator should know although nothing is wrong, a sentence.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.found.notes.push(text.into());
    }

    /// Whether somebody has given `key`.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// What the operator should know although nothing is wrong, a sentence each.
    pub(super) fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found.notes)
    }

    /// Whether more is to be logged.
    pub(super) fn is_debugging(&self) -> bool {
        self.found.debug
    }

    /// What was built, unless something was wrong.
    pub(super) fn finish<T>(self, built: T) -> Result<T, ConfigError> {
        let mut problems = self.found.problems;
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        // One variable may serve two purposes, and is wrong once.
        problems.dedup();
        if problems.is_empty() { Ok(built) } else { Err(ConfigError { problems }) }
    }
}

/// The values of one `[[registry]]` entry.
pub(super) struct RegistryReader<'a> {
    entries: &'a Vec<ConfigEntry>,
    problems: &'a mut Vec<Problem>,
}

impl RegistryReader<'_> {
    pub(super) fn get<T: FromValue>(&mut self, key: &str) -> Option<T> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        parsed(entry).map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Where a value was given.
    pub(super) fn place(&self, key: &str) -> Option<Position> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.place.clone())
    }

    /// A path that was given for `key`: relative ones begin beside the file that names them.
    pub(super) fn beside(&self, key: &str, path: PathBuf) -> PathBuf {
        beside(self.place(key).as_ref(), path)
    }

    /// Notes something wrong that only shows between keys.
    pub(super) fn problem(&mut self, place: Option<Position>, text: impl Into<String>) {
        self.problems.push(Problem { place, text: text.into() });
    }
}

pub(super) fn beside(place: Option<&Position>, path: PathBuf) -> PathBuf {
    match place {
        Some(Position::File(file, _)) => file.parent().map(|dir| dir.join(&path)).unwrap_or(path),
        _ => path,
    }
}

/// The entry's value; what is wrong with it is told with what was found, unless that may hold a
/// password.
fn parsed<T: FromValue>(entry: &ConfigEntry) -> Result<T, Problem> {
    T::from_value(&entry.value).ok_or_else(|| {
        let found = if T::IS_SECRET {
            "something else (not shown: it may hold a password)".to_owned()
        } else {
            shown(&entry.value)
        };
        let text = format!("{}: found {found}; expected {}", entry.key, T::EXPECTED);
        Problem { place: Some(entry.place.clone()), text }
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Number(number) => number.clone(),
        Value::Boolean(flag) => flag.to_string(),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name} = {}", shown(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}
