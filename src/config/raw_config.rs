//! Every source read: all entries there are, and what could not be read.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::drop_in;
use super::error::{Position, Problem};
use super::keys::{KEYS, Key, REGISTRY_KEYS, similar, variable};
use super::source::{ConfigEntry, RegistryEntries, Sources, Value};

/// All entries, weakest first, and what could not be read.
#[derive(Debug, Default)]
pub(super) struct RawConfig {
    pub(super) entries: Vec<ConfigEntry>,
    pub(super) registries: Vec<RegistryEntries>,
    pub(super) problems: Vec<Problem>,
    /// What the operator should know although nothing is wrong.
    pub(super) notes: Vec<String>,
    /// Whether more is to be logged.
    pub(super) debug: bool,
    /// Whether the file could not be read, or is not TOML: what it says is not known then, and what
    /// is wrong with that together with the rest is nothing to go by.
    pub(super) is_file_broken: bool,
}

/// Variables of the name's family that configure nothing here: `ENTREPOT_CONFIG` names the file,
/// scripts that start a proxy, such as those of `bench/`, are told by `ENTREPOT_BIN` which, and
/// subcommands by [`SERVER`] which one to ask.
const OTHER_VARIABLES: [&str; 3] = ["ENTREPOT_CONFIG", "ENTREPOT_BIN", SERVER];
/// Where the admin listener of a running proxy is, for who asks it.
pub(crate) const SERVER: &str = "ENTREPOT_SERVER";

/// Kubernetes tells a pod of every service, in variables that begin with the service's name: one
/// that is called `entrepot` must not keep entrepot from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_of_port = name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP"));
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || is_of_port || is_address
}

fn is_list(key: &str) -> bool {
    Key::named(key).is_some_and(|known| known.is_list)
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

impl RawConfig {
    /// Reads every source. Reads the configuration file: blocking.
    pub(super) fn read(sources: &Sources) -> Self {
        let drop_in = drop_in::read(sources);
        let mut found = Self {
            entries: drop_in.implied,
            registries: drop_in.with_credentials,
            problems: drop_in.problems,
            notes: drop_in.notes,
            debug: drop_in.debug,
            is_file_broken: false,
        };
        if let Some(path) = sources.file() {
            match std::fs::read_to_string(&path) {
                Ok(text) => found.add_file(&path, &text),
                Err(error) => {
                    let text = format!("can't be read: {error}");
                    found.problem(Position::WholeFile(path), text);
                    found.is_file_broken = true;
                }
            }
        }
        found.entries.extend(drop_in.entries);
        found.registries.extend(drop_in.named);
        for (name, value) in &sources.environment {
            found.add_variable(name, value);
        }
        for (key, values) in &sources.flags {
            let place = Position::Flag(key.clone());
            found.entries.push(ConfigEntry {
                key: key.clone(),
                value: from_flag(key, values),
                place,
            });
        }
        found
    }

    fn problem(&mut self, place: Position, text: String) {
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
        let place = Position::Environment(name.to_owned());
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
        self.entries.push(ConfigEntry { key: key.name.to_owned(), value, place });
    }

    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let file = File { path, text };
        match DeTable::parse(text) {
            Ok(root) => self.add_table(&file, "", root.get_ref()),
            // The first alone, and nothing else of the file: what follows a bracket that is missing
            // is wrong for that reason, and what is taken for a value may be a part of a password.
            Err(error) => {
                self.is_file_broken = true;
                let span = error.span().unwrap_or_default();
                let words = in_words(error.message(), text.get(span.clone()).unwrap_or_default());
                self.problem(file.place(span), format!("not TOML: {words}"));
            }
        }
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
                _ if Key::named(&key).is_none() => self.unknown_key(place, &key),
                other => self.add_value(key, other, place),
            }
        }
    }

    fn unknown_key(&mut self, place: Position, key: &str) {
        let hint = suggestion(similar(key, KEYS.iter().map(|known| known.name)));
        self.problem(place, format!("unknown key {key:?}{hint}"));
    }

    fn add_value(&mut self, key: String, value: &DeValue<'_>, place: Position) {
        match plain(value) {
            Some(value) => self.entries.push(ConfigEntry { key, value, place }),
            None => self.problem(place, format!("{key}: found a {}", value.type_str())),
        }
    }

    fn add_registry(&mut self, file: &File<'_>, value: &DeValue<'_>, place: Position) {
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
                entries.push(ConfigEntry { key, value, place });
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

/// What a parser says, as whoever wrote the file would. What is found there is repeated where it is
/// a key alone: it could be a password else.
fn in_words(message: &str, found: &str) -> String {
    match message {
        "missing comma between array elements, expected `,`" => {
            "a list is not closed here: expected `]`, or `,` and another value".to_owned()
        }
        "invalid inline table element, expected `,`" => {
            "a table is not closed here: expected `}`, or `,` and another key".to_owned()
        }
        "string values must be quoted, expected literal string" => {
            "a text stands in quotes: expected \"…\"".to_owned()
        }
        "duplicate key" => format!("{found:?} is there twice"),
        other => other.to_owned(),
    }
}

/// A TOML value as ours; `None` for floats and dates, which no key takes.
fn plain(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Value::Number(number.as_str().to_owned())
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
    fn place(&self, span: Range<usize>) -> Position {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        // What is missing is missing at the end of what is there, not where the next thing begins.
        let before = if span.is_empty() { before.trim_end() } else { before };
        Position::File(self.path.to_owned(), before.matches('\n').count() + 1)
    }
}
