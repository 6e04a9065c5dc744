//! What lies where in the bucket: names to what they stand for, and back.
//!
//! It is the layout of the disk, so that who knows one knows the other. All below the prefix:
//!
//! ```text
//! VERSION
//! blobs/<alg>/<2 hex>/<hex>                                        an object, byte for byte
//! uses/<alg>/<2 hex>/<hex>                                         empty: in use when last
//! modified
//! repositories/<registry>/<repository>/_contents/<alg>/<hex>
//! repositories/<registry>/<repository>/_access
//! repositories/<registry>/<repository>/_refused
//! repositories/<registry>/<repository>/_import
//! repositories/<registry>/<repository>/_tags/<tag>
//! repositories/<registry>/_contents/<alg>/<hex>
//! repositories/<registry>/_challenge
//! pins/<alg>/<hex>
//! notes/<unix ms>-<replica>
//! ```
//!
//! No component of a repository's name begins with `_`, so that none is taken for a record.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use entrepot_oci::{Algorithm, Digest, Registry, RepositoryName, Tag};
use object_store::path::Path;
use percent_encoding::percent_decode_str;

/// Where it is said who may use the bucket.
pub(super) const VERSION: &str = "VERSION";
/// Where an operator's trial puts what it puts, with a random end.
pub(super) const TRIAL: &str = "check-";

const BLOBS: &str = "blobs";
const USES: &str = "uses";
const REPOSITORIES: &str = "repositories";
const PINS: &str = "pins";
const NOTES: &str = "notes";
/// The longest pseudonym of a replica in a note's name.
const LONGEST_REPLICA: usize = 64;

/// Which record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RecordKey {
    /// That an object belongs to a registry, or to one of its repositories.
    Content(Registry, Option<RepositoryName>, Digest),
    /// When the shared identity was last served there.
    Access(Registry, RepositoryName),
    /// When the registry last refused the shared identity there.
    Refused(Registry, RepositoryName),
    /// That an operator has brought objects there.
    Import(Registry, RepositoryName),
    /// What a tag stands for.
    Tag(Registry, RepositoryName, Tag),
    /// How a registry wants to be authenticated to.
    Challenge(Registry),
    /// That an object stays.
    Pin(Digest),
    /// What an operator has removed.
    Note(NoteName),
}

/// When a note was written, and by whom: names of notes are in the order of time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NoteName {
    /// Milliseconds since 1970.
    millis: u64,
    /// The pseudonym of the replica.
    replica: String,
}

impl NoteName {
    /// The name of a note of this replica; `None` where its pseudonym is none.
    #[must_use]
    pub(crate) fn new(at: SystemTime, replica: &str) -> Option<Self> {
        let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let is_name = (1..=LONGEST_REPLICA).contains(&replica.len())
            && replica.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let millis = u64::try_from(millis).ok()?;
        is_name.then(|| Self { millis, replica: replica.to_owned() })
    }

    /// When it was written, by the writer's clock.
    #[must_use]
    pub(crate) fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis)
    }

    /// The pseudonym of who wrote it.
    #[must_use]
    pub(crate) fn replica(&self) -> &str {
        &self.replica
    }
}

impl fmt::Display for NoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of one length until the year 2286, so that their order is that of time.
        write!(f, "{:013}-{}", self.millis, self.replica)
    }
}

impl FromStr for NoteName {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let (millis, replica) = text.split_once('-').ok_or(NoName)?;
        let at = UNIX_EPOCH + Duration::from_millis(millis.parse().map_err(|_| NoName)?);
        let name = Self::new(at, replica).ok_or(NoName)?;
        if name.to_string() == text { Ok(name) } else { Err(NoName) }
    }
}

/// A name that stands for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoName;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An object's bytes.
    Blob(Digest),
    /// The mark of its last use.
    Use(Digest),
    /// A record.
    Record(RecordKey),
}

/// What is listed at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Objects: all, or those of a shard.
    Blobs(Option<Shard>),
    /// Marks of use: all, or those of a shard.
    Uses(Option<Shard>),
    /// All records of registries and repositories.
    Repositories,
    /// Pins.
    Pins,
    /// Notes.
    Notes,
}

/// The objects of one algorithm whose digests begin with one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard(pub(crate) Algorithm, pub(crate) u8);

impl Shard {
    /// Every shard there is.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Algorithm::ALL
            .into_iter()
            .flat_map(|algorithm| (0..=u8::MAX).map(move |first| Self(algorithm, first)))
    }

    /// The one that holds `digest`.
    #[cfg(test)]
    pub(crate) fn of(digest: &Digest) -> Self {
        Self(digest.algorithm(), digest.as_bytes().first().copied().unwrap_or_default())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_shard = |f: &mut fmt::Formatter<'_>, room: &str, shard: &Option<Shard>| match shard {
            None => f.write_str(room),
            Some(Shard(algorithm, first)) => write!(f, "{room}/{algorithm}/{first:02x}"),
        };
        match self {
            Self::Blobs(shard) => of_shard(f, BLOBS, shard),
            Self::Uses(shard) => of_shard(f, USES, shard),
            Self::Repositories => f.write_str(REPOSITORIES),
            Self::Pins => f.write_str(PINS),
            Self::Notes => f.write_str(NOTES),
        }
    }
}

/// The name below the prefix.
impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |registry: &Registry, repository: &RepositoryName, what: &str| {
            format!("{REPOSITORIES}/{registry}/{repository}/{what}")
        };
        match self {
            Self::Content(registry, None, digest) => {
                let (algorithm, hex) = (digest.algorithm(), digest.hex());
                write!(f, "{REPOSITORIES}/{registry}/_contents/{algorithm}/{hex}")
            }
            Self::Content(registry, Some(repository), digest) => {
                let (algorithm, hex) = (digest.algorithm(), digest.hex());
                write!(f, "{}/{algorithm}/{hex}", at(registry, repository, "_contents"))
            }
            Self::Access(registry, repository) => f.write_str(&at(registry, repository, "_access")),
            Self::Refused(registry, repository) => {
                f.write_str(&at(registry, repository, "_refused"))
            }
            Self::Import(registry, repository) => f.write_str(&at(registry, repository, "_import")),
            Self::Tag(registry, repository, tag) => {
                write!(f, "{}/{tag}", at(registry, repository, "_tags"))
            }
            Self::Challenge(registry) => write!(f, "{REPOSITORIES}/{registry}/_challenge"),
            Self::Pin(digest) => write!(f, "{PINS}/{}/{}", digest.algorithm(), digest.hex()),
            Self::Note(name) => write!(f, "{NOTES}/{name}"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |f: &mut fmt::Formatter<'_>, room: &str, digest: &Digest| {
            let hex = digest.hex();
            let shard = hex.get(..2).unwrap_or_default();
            write!(f, "{room}/{}/{shard}/{hex}", digest.algorithm())
        };
        match self {
            Self::Blob(digest) => of(f, BLOBS, digest),
            Self::Use(digest) => of(f, USES, digest),
            Self::Record(key) => key.fmt(f),
        }
    }
}

impl FromStr for Entry {
    type Err = NoName;

    /// Reads a name as it is written here, and nothing else.
    fn from_str(name: &str) -> Result<Self, NoName> {
        let parts: Vec<_> = name.split('/').collect();
        let entry = match parts.as_slice() {
            [BLOBS, algorithm, _, hex] => Self::Blob(digest(algorithm, hex)?),
            [USES, algorithm, _, hex] => Self::Use(digest(algorithm, hex)?),
            [PINS, algorithm, hex] => Self::Record(RecordKey::Pin(digest(algorithm, hex)?)),
            [NOTES, note] => Self::Record(RecordKey::Note(note.parse()?)),
            [REPOSITORIES, registry, rest @ ..] => {
                let registry = registry.parse().map_err(|_| NoName)?;
                Self::Record(of_registry(registry, rest)?)
            }
            _ => return Err(NoName),
        };
        if entry.to_string() == name { Ok(entry) } else { Err(NoName) }
    }
}

fn of_registry(registry: Registry, rest: &[&str]) -> Result<RecordKey, NoName> {
    let repository = |parts: &[&str]| parts.join("/").parse().map_err(|_| NoName);
    Ok(match rest {
        ["_challenge"] => RecordKey::Challenge(registry),
        ["_contents", algorithm, hex] => {
            RecordKey::Content(registry, None, digest(algorithm, hex)?)
        }
        [name @ .., "_contents", algorithm, hex] => {
            let digest = digest(algorithm, hex)?;
            RecordKey::Content(registry, Some(repository(name)?), digest)
        }
        [name @ .., "_tags", tag] => {
            let tag = tag.parse().map_err(|_| NoName)?;
            RecordKey::Tag(registry, repository(name)?, tag)
        }
        [name @ .., "_access"] => RecordKey::Access(registry, repository(name)?),
        [name @ .., "_refused"] => RecordKey::Refused(registry, repository(name)?),
        [name @ .., "_import"] => RecordKey::Import(registry, repository(name)?),
        _ => return Err(NoName),
    })
}

fn digest(algorithm: &str, hex: &str) -> Result<Digest, NoName> {
    format!("{algorithm}:{hex}").parse().map_err(|_| NoName)
}

/// Where below the whole bucket everything lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Root(String);

impl Root {
    /// This prefix, without slashes around it; empty: the whole bucket.
    #[must_use]
    pub(crate) fn new(prefix: &str) -> Self {
        Self(prefix.trim_matches('/').to_owned())
    }

    /// The key in the bucket of what has this name: what a record's code is over.
    #[must_use]
    pub(super) fn key(&self, name: impl fmt::Display) -> String {
        if self.0.is_empty() { name.to_string() } else { format!("{}/{name}", self.0) }
    }

    /// The same, as it is asked for: characters that trouble some server are percent-encoded (the
    /// brackets of `[::1]:5000`).
    #[must_use]
    pub(super) fn path(&self, name: impl fmt::Display) -> Path {
        Path::from(self.key(name))
    }

    /// The name of what lies at `path`, if that is below the prefix.
    #[must_use]
    pub(super) fn name(&self, path: &Path) -> Option<String> {
        let key = percent_decode_str(path.as_ref()).decode_utf8().ok()?;
        if self.0.is_empty() {
            return Some(key.into_owned());
        }
        Some(key.strip_prefix(&self.0)?.strip_prefix('/')?.to_owned())
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"x")
    }

    fn entries() -> Vec<Entry> {
        let registry = || "registry.corp:5000".parse::<Registry>().unwrap();
        let repository = || "team/app".parse::<RepositoryName>().unwrap();
        let note = NoteName::new(SystemTime::now(), "0af3").unwrap();
        let long = Digest::of(Algorithm::Sha512, b"x");
        let records = [
            RecordKey::Content(registry(), None, digest()),
            RecordKey::Content(registry(), Some(repository()), long),
            RecordKey::Access(registry(), repository()),
            RecordKey::Refused("[::1]:5000".parse().unwrap(), repository()),
            RecordKey::Import(registry(), repository()),
            RecordKey::Tag(registry(), repository(), "v1.0".parse().unwrap()),
            // A tag, and not the record of the repository that lies above it.
            RecordKey::Tag(registry(), repository(), "_access".parse().unwrap()),
            RecordKey::Challenge("[::1]:5000".parse().unwrap()),
            RecordKey::Pin(digest()),
            RecordKey::Note(note),
        ];
        let objects = [Entry::Blob(digest()), Entry::Use(long)];
        records.map(Entry::Record).into_iter().chain(objects).collect()
    }

    #[test]
    fn every_name_is_read_as_it_is_written_whatever_the_prefix() {
        for root in ["", "eu", "a/b c/"].map(Root::new) {
            for entry in entries() {
                let path = root.path(&entry);
                assert!(path.as_ref().is_ascii());
                let name = root.name(&Path::parse(path.as_ref()).unwrap()).unwrap();
                assert_eq!(name.parse::<Entry>(), Ok(entry));
            }
        }
        assert_eq!(Root::new("eu").name(&Path::from("europe/VERSION")), None);
        assert_eq!(Root::new("eu").key(VERSION), "eu/VERSION");
        assert_eq!(Root::new("").key(VERSION), "VERSION");
    }

    #[test]
    fn what_is_written_otherwise_stands_for_nothing() {
        let hex = digest().hex();
        let first = &hex[..2];
        for name in [
            "",
            "VERSION",
            "blobs",
            "blobs/sha256",
            &format!("blobs/sha256/00/{hex}"),
            &format!("blobs/sha256/{first}/{}", hex.to_uppercase()),
            &format!("blobs/md5/{first}/{hex}"),
            &format!("blobs/sha256/{first}/{hex}/x"),
            "repositories/ghcr.io",
            "repositories/ghcr.io/_access",
            "repositories/GHCR.io/a/_access",
            "repositories/ghcr.io/../a/_access",
            "repositories/ghcr.io/a/_tags/",
            "repositories/ghcr.io/_a/_tags/x",
            "notes/1-a",
            "notes/0000000000001-",
            "notes/+000000000001-a",
        ] {
            assert_eq!(name.parse::<Entry>(), Err(NoName), "{name}");
        }
    }

    #[test]
    fn shards_hold_every_digest_once() {
        assert_eq!(Shard::all().count(), 512);
        let blob = Entry::Blob(digest()).to_string();
        let holding = Shard::all()
            .filter(|shard| blob.starts_with(&format!("{}/", Prefix::Blobs(Some(*shard)))));
        assert_eq!(holding.collect::<Vec<_>>(), [Shard::of(&digest())]);
    }

    proptest! {
        #[test]
        fn a_name_that_is_read_is_the_one_that_would_be_written(name in "[a-z0-9_:./-]{0,80}") {
            if let Ok(entry) = name.parse::<Entry>() {
                prop_assert_eq!(entry.to_string(), name);
            }
        }

        #[test]
        fn notes_are_in_the_order_of_time(one in 0u64..9_999_999_999_999, other in 0u64..9_999_999_999_999) {
            let name = |millis| {
                NoteName::new(UNIX_EPOCH + Duration::from_millis(millis), "a").unwrap().to_string()
            };
            prop_assert_eq!(one.cmp(&other), name(one).cmp(&name(other)));
        }
    }
}
