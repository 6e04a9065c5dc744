//! From flags, environment and file to valid settings.
//!
//! Nothing else reads the environment or the configuration file. Every source is turned into
//! [`source::ConfigEntry`] values that remember their place; the strongest entry of a key wins;
//! then every key is parsed into its type, and whatever is wrong is reported, all of it at once.
//!
//! - `source`: where configuration comes from, and an entry of it
//! - `raw_config`: files, environment and flags as entries
//! - `keys`: the keys there are, with their defaults and their words for `--help`
//! - `value`: one value into one type
//! - `units`: sizes and durations as people write them
//! - `reader`: entries by key, and the list of what is wrong with them
//! - `drop_in`: the environment of docker-registry-proxy
//! - `registry`: one `[[registry]]` entry
//! - `proxies`: which proxy is on the way to which destination
//! - `tag_ttl`: how long tags are served without asking
//! - `run_as`: a user and a group
//! - `settings`: the settings, built from a reader
//! - `contradictions`: values that can't be meant together
//! - `show`: what was configured, as an operator may see it
//! - `toml_text`: the same as a file
//! - `admin`: `admin-token-file`
//! - `access`: `[access]`, with the file of users that it names
//! - `peers`: `[peers]`, the other replicas
//! - `savings`: `[savings]`, what bytes cost
//! - `bucket`: `[bucket]`, the fleet's bucket
//! - `error`: what is said of wrong configuration
//! - `fuzzing`: what fuzz targets feed of it

mod access;
mod admin;
mod bucket;
mod contradictions;
pub(crate) mod drop_in;
pub(crate) mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod keys;
mod peers;
mod proxies;
mod raw_config;
mod reader;
mod registry;
mod run_as;
mod savings;
pub(crate) mod settings;
mod show;
pub(crate) mod source;
mod tag_ttl;
mod toml_text;
pub(crate) mod units;
mod value;

pub(crate) use error::ConfigError;
pub(crate) use raw_config::SERVER;
pub(crate) use run_as::RunAs;
pub(crate) use settings::Settings;
pub(crate) use source::Sources;
