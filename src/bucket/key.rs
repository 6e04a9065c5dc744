//! The fleet's own key, and what is signed with it.
//!
//! A record in the bucket is the local record's JSON with a code in front: who can write to the
//! bucket, and has not the key, can delete records or put old ones back, but can't say anything
//! new. What is signed is the record's key in the bucket as well, so that one that was moved
//! elsewhere is worth nothing.
//!
//! ```text
//! <64 hex: HMAC-SHA256 over the key in the bucket, a zero byte, the JSON> {"recorded":1760000000}
//! ```

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use entrepot_ca::is_ours_alone;
use entrepot_oci::hex::{decode, encode};

/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// More than a file of 64 digits and a line feed has, and less than is worth reading.
const MOST_IN_FILE: u64 = 256;
const MODE: u32 = 0o600;
/// What each use of the key is for: none of them tells anything about another.
const FOR_RECORDS: &str = "entrepot bucket 1 records";
const FOR_FINGERPRINT: &str = "entrepot bucket 1 fingerprint";
/// More than any record has, the code included.
pub(super) const MOST_RECORD: usize = 64 * 1024 + 2 * KEY_BYTES + 2;

/// There is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The file can't be read.
    #[error("the bucket's key in {} can't be read: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be made.
    #[error("the bucket's key can't be made in {}: {source}", path.display())]
    Make {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others have it.
    #[error(
        "others than its owner can read or write the bucket's key {} (mode {mode:04o}); run: chmod \
         600 '{}'", path.display(), path.display()
    )]
    Loose {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error(
        "{} holds no key: expected 64 hexadecimal digits in lower case (openssl rand -hex 32)", path.display()
    )]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes for the bucket's key")]
    NoRandomness,
}

/// What the replicas have in common and nobody else has. Neither shown nor compared.
#[derive(Clone)]
pub(crate) struct SharedKey {
    records: hmac::Key,
    fingerprint: String,
}

impl SharedKey {
    /// The key in this file, which is made with its directory where there is none: by one of those
    /// who begin at the same time, for all. Blocking.
    pub(crate) fn read_or_make(path: &Path) -> Result<Self, KeyError> {
        match Self::read(path) {
            Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                make(path)?;
                Self::read(path)
            }
            other => other,
        }
    }

    /// The key in this file. Blocking.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !is_ours_alone(&metadata) {
            let mode = metadata.permissions().mode() & 0o7777;
            return Err(KeyError::Loose { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MOST_IN_FILE).read_to_string(&mut text).map_err(unreadable)?;
        let bytes = decode(text.trim_end()).filter(|bytes| bytes.len() == KEY_BYTES);
        bytes.map(|bytes| Self::of(&bytes)).ok_or_else(|| KeyError::NoKey { path: path.to_owned() })
    }

    fn of(bytes: &[u8]) -> Self {
        let whole = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = |label: &str| hmac::sign(&whole, label.as_bytes());
        let records = hmac::Key::new(hmac::HMAC_SHA256, derived(FOR_RECORDS).as_ref());
        let fingerprint = derived(FOR_FINGERPRINT);
        let shown = fingerprint.as_ref().get(..16).unwrap_or_default();
        Self { records, fingerprint: encode(shown) }
    }

    /// A key of these bytes, for tests.
    #[cfg(test)]
    pub(super) fn for_tests(bytes: &[u8]) -> Self {
        Self::of(bytes)
    }

    /// What tells this key from others, and nothing about it.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The line that stands at `key` in the bucket for a record of this JSON.
    #[must_use]
    pub(super) fn seal(&self, key: &str, json: &str) -> String {
        let code = hmac::sign(&self.records, &signed(key, json));
        format!("{} {json}\n", encode(code.as_ref()))
    }

    /// The JSON of the record at `key`, if somebody who has this key has put it there. The code is
    /// compared in constant time.
    #[must_use]
    pub(super) fn unseal<'a>(&self, key: &str, line: &'a [u8]) -> Option<&'a str> {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let (code, json) = line.split_once(' ')?;
        hmac::verify(&self.records, &signed(key, json), &decode(code)?).ok()?;
        Some(json)
    }
}

/// No key in the bucket has a zero byte in it: nothing can be moved from one part to the other.
fn signed(key: &str, json: &str) -> Vec<u8> {
    [key.as_bytes(), &[0], json.as_bytes()].concat()
}

/// Makes a key under a name of its own and links it to its place. A link never replaces a file: of
/// several who do this at once one wins, and all read what that one has made.
fn make(path: &Path) -> Result<(), KeyError> {
    let mut bytes = [0; KEY_BYTES];
    let mut name = [0; 8];
    let random = SystemRandom::new();
    random.fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    random.fill(&mut name).map_err(|_| KeyError::NoRandomness)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let staged = directory.join(format!(".bucket.key.{}.new", encode(&name)));
    let written = write(directory, &staged, &format!("{}\n", encode(&bytes)));
    let linked = written.and_then(|()| match fs::hard_link(&staged, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    // What an interruption leaves is found by nobody and has no effect.
    let _ = fs::remove_file(&staged);
    let synced = linked.and_then(|()| File::open(directory)?.sync_all());
    synced.map_err(|source| KeyError::Make { path: path.to_owned(), source })
}

fn write(directory: &Path, staged: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(staged)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt as _;

    fn key(first: u8) -> SharedKey {
        SharedKey::for_tests(&[first; KEY_BYTES])
    }

    #[test]
    fn a_record_is_worth_something_at_its_place_and_under_its_key_alone() {
        let line = key(1).seal("eu/repositories/a/_access", r#"{"served":1}"#);
        let at = |key: &SharedKey, place: &str, line: &str| {
            key.unseal(place, line.as_bytes()).map(str::to_owned)
        };
        let place = "eu/repositories/a/_access";
        assert_eq!(at(&key(1), place, &line).unwrap(), r#"{"served":1}"#);
        assert_eq!(at(&key(2), place, &line), None, "another's key");
        assert_eq!(at(&key(1), "eu/repositories/b/_access", &line), None, "another's place");
        assert_eq!(at(&key(1), place, line.trim_end()), None, "cut off");
        assert_eq!(at(&key(1), place, &line.replace('1', "2")), None, "altered");
        assert_eq!(at(&key(1), place, &line.to_uppercase()), None);
        assert_eq!(at(&key(1), place, ""), None);
        assert_eq!(key(1).unseal(place, &[0xff; 80]), None);
        // What is moved over the border between the two parts is not what was signed.
        let moved = key(1).seal("a", "b c");
        assert_eq!(at(&key(1), "a\0b", &moved.replace("b c", "c")), None);
    }

    #[test]
    fn a_fingerprint_tells_keys_apart_and_tells_nothing_else() {
        assert_eq!(key(1).fingerprint().len(), 32);
        assert_ne!(key(1).fingerprint(), key(2).fingerprint());
        assert!(!key(1).fingerprint().contains("0101"));
    }

    #[test]
    fn those_who_begin_at_once_end_with_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca/bucket.key");
        let made: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| SharedKey::read_or_make(&path).unwrap().fingerprint))
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(made.iter().all(|fingerprint| *fingerprint == made[0]), "{made:?}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside it");
        assert_eq!(SharedKey::read(&path).unwrap().fingerprint, made[0]);
    }

    #[test]
    fn a_file_that_holds_something_else_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bucket.key");
        for text in ["", "abc", &"A".repeat(64), &"a".repeat(62), &"a".repeat(66)] {
            written(&path, text, 0o600);
            let Err(error) = SharedKey::read_or_make(&path) else { panic!("{text:?}") };
            assert!(matches!(error, KeyError::NoKey { .. }), "{error}");
            assert!(!error.to_string().contains("AAAA"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        written(&path, &"0".repeat(64), 0o600);
        assert!(SharedKey::read(&path).is_ok(), "with and without a line feed");
    }

    #[test]
    fn a_key_that_others_have_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bucket.key");
        for mode in [0o644, 0o604, 0o602, 0o620] {
            written(&path, &"0".repeat(64), mode);
            let error = SharedKey::read_or_make(&path).err().map(|error| error.to_string());
            let error = error.unwrap_or_default();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
        // A secret of Kubernetes comes with the group of the pod.
        written(&path, &"0".repeat(64), 0o440);
        assert!(SharedKey::read(&path).is_ok());
    }

    fn written(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    proptest! {
        #[test]
        fn nothing_that_was_not_sealed_is_unsealed(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(key(1).unseal("a", &line), None);
        }

        #[test]
        fn what_was_sealed_is_unsealed(place in "[a-z/]{1,40}", json in "[ -~]{0,100}") {
            let line = key(1).seal(&place, &json);
            prop_assert_eq!(key(1).unseal(&place, line.as_bytes()), Some(json.as_str()));
        }
    }
}
