//! What fuzz targets feed: the text of a configuration file, the environment, single values.

use std::path::Path;
use std::time::Duration;

use super::raw_config::RawConfig;
use super::reader::Reader;
use super::value::{ByteSize, FromValue};
use super::{Settings, Sources, drop_in};

/// Keys whose values name files that are read at once: a target reads none.
const FILES: [&str; 4] =
    ["access.htpasswd", "admin-token-file", "upstream.ca-files", "upstream.certs-dir"];

/// What a configuration has come to.
#[derive(Debug)]
pub struct Loaded {
    /// Everything that an operator could get to see of it: `config show`, notes, `Debug`.
    pub shown: String,
    /// The waits for upstreams.
    pub timeouts: [Duration; 3],
    /// How many addresses are listened on.
    pub listeners: usize,
}

/// A file with this text, beside the least that it needs; the error is what an operator reads.
pub fn file(text: &str) -> Result<Loaded, String> {
    let mut found = RawConfig::default();
    found.add_file(Path::new("/nowhere/entrepot.toml"), text);
    load(found, &Sources { environment: vec![home()], ..Sources::default() })
}

/// An environment with these variables.
pub fn environment(variables: Vec<(String, String)>) -> Result<Loaded, String> {
    let environment = [vec![home()], variables].concat();
    let file = Some("/dev/null".into());
    let sources = Sources { file, environment, ..Sources::default() };
    load(RawConfig::read(&sources), &sources)
}

fn home() -> (String, String) {
    ("HOME".to_owned(), "/nowhere".to_owned())
}

fn load(mut found: RawConfig, sources: &Sources) -> Result<Loaded, String> {
    found.entries.retain(|entry| !FILES.contains(&entry.key.as_str()));
    let settings = Settings::of(Reader::of(found), sources).map_err(|error| error.to_string())?;
    let upstream = &settings.upstream;
    Ok(Loaded {
        shown: format!("{}\n{}\n{settings:?}", settings.shown, settings.text),
        timeouts: [upstream.connect_timeout, upstream.header_timeout, upstream.idle_timeout],
        listeners: settings.listener.addresses.len(),
    })
}

/// A duration, as a key takes it.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    Duration::from_text(text)
}

/// A number of bytes, as a key takes it.
#[must_use]
pub fn byte_size(text: &str) -> Option<u64> {
    ByteSize::from_text(text).map(|size| size.0)
}

/// A size and a time, as nginx takes them.
#[must_use]
pub fn nginx(text: &str) -> (Option<u64>, Option<Duration>) {
    (drop_in::units::size(text), drop_in::units::time(text))
}
