//! Where configuration comes from, and an entry of it.

use std::path::PathBuf;

use super::error::Position;

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text: quoted in the file, or anything in environment and flags.
    Text(String),
    /// A number in the file.
    Number(String),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// Several values.
    List(Vec<Value>),
    /// Values with names, inline in the file.
    Table(Vec<(String, Value)>),
}

/// A value with its key and place.
#[derive(Debug, Clone)]
pub(crate) struct ConfigEntry {
    /// The key's path, with dots.
    pub key: String,
    /// What was given.
    pub value: Value,
    /// Where.
    pub place: Position,
}

/// A `[[registry]]` entry's values.
pub(crate) type RegistryEntries = Vec<ConfigEntry>;

/// Where configuration comes from; the caller reads the process, so that tests need not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: Vec<(String, String)>,
    /// Flags, by key.
    pub flags: Vec<(String, Vec<String>)>,
    /// [`CACHE_VOLUME`](super::drop_in::CACHE_VOLUME), if there is such a directory.
    pub mirror_cache: Option<PathBuf>,
}

/// Where the file is looked for when none is named.
const USUAL_FILES: [&str; 2] = ["entrepot.toml", "/etc/entrepot/entrepot.toml"];

impl Sources {
    /// A variable of the environment, if it says something.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }

    /// A variable of the environment; one that is there may be empty.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The file that is read: the named one, else `$ENTREPOT_CONFIG`, else the first usual one
    /// that exists.
    #[must_use]
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let named =
            self.file.clone().or_else(|| self.variable("ENTREPOT_CONFIG").map(PathBuf::from));
        let usual = || USUAL_FILES.iter().map(PathBuf::from).find(|path| path.exists());
        named.or_else(usual)
    }
}
