//! Files, environment and flags as entries.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::drop_in;
use super::error::{Place, Problem};
use super::keys::{KEYS, REGISTRY_KEYS, similar, variable};

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text: quoted in the file, or anything in environment and flags.
    Text(String),
    /// A number in the file.
    Integer(String),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// Several values.
    List(Vec<Value>),
    /// Values with names, inline in the file.
    Table(Vec<(String, Value)>),
}

/// A value with its key and place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key's path, with dots.
    pub key: String,
    /// What was given.
    pub value: Value,
    /// Where.
    pub place: Place,
}

/// A `[[registry]]` entry's values.
pub type RegistryEntries = Vec<Entry>;

/// Where configuration comes from; the caller reads the process, so that tests need not.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: Vec<(String, String)>,
    /// Flags, by key.
    pub flags: Vec<(String, Vec<String>)>,
    /// [`drop_in::CACHE_VOLUME`], if there is such a directory.
    pub mirror_cache: Option<PathBuf>,
}

/// All entries, weakest first, and what could not be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) registries: Vec<RegistryEntries>,
    pub(super) problems: Vec<Problem>,
    /// What the operator should know although nothing is wrong.
    pub(super) notes: Vec<String>,
    /// Whether more is to be logged.
    pub(super) debug: bool,
}

/// Variables of the name's family that configure nothing here: `ENTREPOT_CONFIG` names the file,
/// and scripts that start a proxy, such as those of `bench/`, are told by `ENTREPOT_BIN` which.
const OTHER_VARIABLES: [&str; 2] = ["ENTREPOT_CONFIG", "ENTREPOT_BIN"];

/// Where the file is looked for when none is named.
const USUAL_FILES: [&str; 2] = ["entrepot.toml", "/etc/entrepot/entrepot.toml"];

impl Sources {
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The file that is read: the named one, else `$ENTREPOT_CONFIG`, else the first usual one
    /// that exists.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        let named =
            self.file.clone().or_else(|| self.variable("ENTREPOT_CONFIG").map(PathBuf::from));
        let usual = || USUAL_FILES.iter().map(PathBuf::from).find(|path| path.exists());
        named.or_else(usual)
    }

    pub(super) fn read(&self) -> Found {
        let drop_in = drop_in::read(self);
        let mut found = Found {
            entries: drop_in.implied,
            registries: drop_in.with_credentials,
            problems: drop_in.problems,
            notes: drop_in.notes,
            debug: drop_in.debug,
        };
        if let Some(path) = self.file() {
            match std::fs::read_to_string(&path) {
                Ok(text) => found.add_file(&path, &text),
                Err(error) => {
                    let text = format!("{}: can't be read: {error}", path.display());
                    found.problems.push(Problem { place: None, text });
                }
            }
        }
        found.entries.extend(drop_in.entries);
        found.registries.extend(drop_in.named);
        for (name, value) in &self.environment {
            found.add_variable(name, value);
        }
        for (key, values) in &self.flags {
            let place = Place::Flag(key.clone());
            found.entries.push(Entry { key: key.clone(), value: from_flag(key, values), place });
        }
        found
    }
}

/// Kubernetes tells a pod of every service, in variables that begin with the service's name: one
/// that is called `entrepot` must not keep entrepot from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_of_port = name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP"));
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || is_of_port || is_address
}

fn is_list(key: &str) -> bool {
    KEYS.iter().any(|known| known.name == key && known.is_list)
}

fn listed(text: &str) -> impl Iterator<Item = Value> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| Value::Text(item.to_owned()))
}

fn from_flag(key: &str, values: &[String]) -> Value {
    if is_list(key) {
        Value::List(values.iter().flat_map(|value| listed(value)).collect())
    } else {
        Value::Text(values.last().cloned().unwrap_or_default())
    }
}

impl Found {
    fn problem(&mut self, place: Place, text: String) {
        self.problems.push(Problem { place: Some(place), text });
    }

    /// `ENTREPOT_*`; a variable that is no key is as wrong as an unknown key in the file.
    fn add_variable(&mut self, name: &str, text: &str) {
        if !name.starts_with("ENTREPOT_") || OTHER_VARIABLES.contains(&name) {
            return;
        }
        if is_service_link(name, text) {
            return;
        }
        let place = Place::Environment(name.to_owned());
        let Some(key) = KEYS.iter().find(|key| variable(key.name) == name) else {
            let known: Vec<_> = KEYS.iter().map(|key| variable(key.name)).collect();
            let hint = suggestion(similar(name, known.iter().map(String::as_str)));
            return self.problem(place, format!("is no variable of entrepot's{hint}"));
        };
        let value = if key.is_list {
            Value::List(listed(text).collect())
        } else {
            Value::Text(text.to_owned())
        };
        self.entries.push(Entry { key: key.name.to_owned(), value, place });
    }

    fn add_file(&mut self, path: &Path, text: &str) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let file = File { path, text };
        for error in errors {
            let place = file.place(error.span().unwrap_or_default());
            self.problem(place, format!("not TOML: {}", error.message()));
        }
        self.add_table(&file, "", root.get_ref());
    }

    fn add_table(&mut self, file: &File<'_>, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let place = file.place(name.span());
            match value.get_ref() {
                DeValue::Array(items) if key == "registry" => {
                    for item in items {
                        self.add_registry(file, item.get_ref(), file.place(item.span()));
                    }
                }
                DeValue::Table(inner) if is_section(&key) => {
                    self.add_table(file, &format!("{key}."), inner);
                }
                _ if !KEYS.iter().any(|known| known.name == key) => self.unknown_key(place, &key),
                other => self.add_value(key, other, place),
            }
        }
    }

    fn unknown_key(&mut self, place: Place, key: &str) {
        let hint = suggestion(similar(key, KEYS.iter().map(|known| known.name)));
        self.problem(place, format!("unknown key {key:?}{hint}"));
    }

    fn add_value(&mut self, key: String, value: &DeValue<'_>, place: Place) {
        match plain(value) {
            Some(value) => self.entries.push(Entry { key, value, place }),
            None => self.problem(place, format!("{key}: found a {}", value.type_str())),
        }
    }

    fn add_registry(&mut self, file: &File<'_>, value: &DeValue<'_>, place: Place) {
        let DeValue::Table(table) = value else {
            return self
                .problem(place, "registry: write [[registry]] with its keys below".to_owned());
        };
        let mut entries = Vec::new();
        for (name, value) in table {
            let key = name.get_ref().to_string();
            let place = file.place(name.span());
            if !REGISTRY_KEYS.contains(&key.as_str()) {
                let hint = suggestion(similar(&key, REGISTRY_KEYS.iter().copied()));
                self.problem(place, format!("unknown key {key:?} in [[registry]]{hint}"));
            } else if let Some(value) = plain(value.get_ref()) {
                entries.push(Entry { key, value, place });
            } else {
                self.problem(place, format!("{key}: found a {}", value.get_ref().type_str()));
            }
        }
        if entries.iter().all(|entry| entry.key != "host") {
            self.problem(place, "a [[registry]] entry needs a host".to_owned());
        }
        self.registries.push(entries);
    }
}

fn suggestion(similar: Option<&str>) -> String {
    similar.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

fn is_section(key: &str) -> bool {
    KEYS.iter().any(|known| known.name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// A TOML value as ours; `None` for floats and dates, which no key takes.
fn plain(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Value::Integer(number.as_str().to_owned())
        }
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| plain(item.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let fields = table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), plain(value.get_ref())?)));
            Value::Table(fields.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        Place::File(self.path.to_owned(), before.matches('\n').count() + 1)
    }
}
