//! Creating the two files: at most once, whoever else starts at the same time, and whenever the
//! power fails.
//!
//! Under the directory's lock both files are written and synced under staging names, then linked to
//! their own: the key first, the certificate last. A link never replaces a file. What an
//! interruption leaves is told apart from an operator's half-copied CA by the inode: only if
//! `ca.key` *is* the staged key do we finish what was begun.
//!
//! ```text
//! .lock          held while looking and creating; stays
//! .ca.key.new    0600, the same inode as ca.key until it is removed
//! .ca.crt.new    0644, likewise
//! ```

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::directory::{CaDirectory, Contents};
use crate::error::AuthorityError;
use crate::root::Root;

const LOCK: &str = ".lock";
const STAGED_KEY: &str = ".ca.key.new";
const STAGED_CERTIFICATE: &str = ".ca.crt.new";

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Creating takes milliseconds; a process that holds the lock this long is stopped or stuck.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Whether the pair was there or has just been made.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Found,
    Made,
}

/// Sees to it that the directory holds a pair: `make` is called only if it holds neither file. A
/// single file is an error.
pub(crate) fn ensure(
    directory: &CaDirectory,
    make: impl FnOnce() -> Result<Root, AuthorityError>,
) -> Result<Outcome, AuthorityError> {
    if directory.contents()? == Contents::Pair {
        // Left behind by an interruption between the last link and its clearing up. A read-only
        // directory keeps them.
        let _ = clear_staged(directory);
        return Ok(Outcome::Found);
    }
    let _lock = lock(&directory.path().join(LOCK))?;
    match finish_interrupted(directory)? {
        Contents::Pair => Ok(Outcome::Found),
        Contents::Nothing => create(directory, &make()?).map(|()| Outcome::Made),
        Contents::Half { present, missing } => Err(AuthorityError::Unpaired { present, missing }),
    }
}

fn create(directory: &CaDirectory, root: &Root) -> Result<(), AuthorityError> {
    let (key, certificate) = staged(directory);
    stage(&key, root.key_pem.as_bytes(), KEY_MODE)?;
    stage(&certificate, root.certificate_pem.as_bytes(), CERTIFICATE_MODE)?;
    sync(directory.path())?;
    publish(directory, &key, &directory.key())?;
    publish(directory, &certificate, &directory.certificate())?;
    clear_staged(directory)
}

/// Completes a creation that stopped between its two links.
fn finish_interrupted(directory: &CaDirectory) -> Result<Contents, AuthorityError> {
    let (key, certificate) = staged(directory);
    if !directory.certificate().exists() && same_file(&key, &directory.key()) {
        publish(directory, &certificate, &directory.certificate())?;
        clear_staged(directory)?;
    }
    directory.contents()
}

fn staged(directory: &CaDirectory) -> (PathBuf, PathBuf) {
    (directory.path().join(STAGED_KEY), directory.path().join(STAGED_CERTIFICATE))
}

/// A new file with exactly `mode`, from its first byte on no more than that: the umask can only
/// take away.
fn stage(path: &Path, contents: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let write = || {
        remove(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(contents)?;
        file.sync_all()
    };
    write().map_err(|source| unwritable(path, source))
}

/// Gives a staged file its own name, durably, or fails if that name is taken.
fn publish(directory: &CaDirectory, staged: &Path, path: &Path) -> Result<(), AuthorityError> {
    fs::hard_link(staged, path).map_err(|source| unwritable(path, source))?;
    sync(directory.path())
}

fn clear_staged(directory: &CaDirectory) -> Result<(), AuthorityError> {
    let (key, certificate) = staged(directory);
    for path in [key, certificate] {
        remove(&path).map_err(|source| unwritable(&path, source))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let inode = |path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}

fn sync(directory: &Path) -> Result<(), AuthorityError> {
    let synced = File::open(directory).and_then(|file| file.sync_all());
    synced.map_err(|source| unwritable(directory, source))
}

/// Waits for the lock; it is let go with the returned file.
fn lock(path: &Path) -> Result<File, AuthorityError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(KEY_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(|source| unwritable(path, source))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(unwritable(path, source)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => return Err(locked(path)),
        }
    }
}

fn locked(path: &Path) -> AuthorityError {
    AuthorityError::Locked { path: path.to_owned(), waited_secs: LOCK_WAIT.as_secs() }
}

fn unwritable(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Root {
        Root { certificate_pem: format!("{text} crt"), key_pem: format!("{text} key") }
    }

    fn names(directory: &CaDirectory) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn never() -> Result<Root, AuthorityError> {
        panic!("made a root where there was something")
    }

    #[test]
    fn a_pair_is_made_once_and_leaves_nothing_staged() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = CaDirectory::prepare(tmp.path()).unwrap();
        assert_eq!(ensure(&directory, || Ok(root("a"))).unwrap(), Outcome::Made);
        assert_eq!(ensure(&directory, never).unwrap(), Outcome::Found);
        assert_eq!(names(&directory), [".lock", "ca.crt", "ca.key"]);
        assert_eq!(directory.read_key().unwrap(), b"a key");
    }

    #[test]
    fn half_a_pair_is_named_and_left_alone() {
        for (present, missing) in [("ca.crt", "ca.key"), ("ca.key", "ca.crt")] {
            let tmp = tempfile::tempdir().unwrap();
            let directory = CaDirectory::prepare(tmp.path()).unwrap();
            fs::write(tmp.path().join(present), "mine").unwrap();
            let text = ensure(&directory, never).unwrap_err().to_string();
            assert!(text.contains(&format!("{missing} is missing")), "{text}");
            assert_eq!(names(&directory), [".lock", present]);
            assert_eq!(fs::read(tmp.path().join(present)).unwrap(), b"mine");
        }
    }

    /// The directory as a crash leaves it after each step of `create`.
    #[test]
    fn an_interruption_at_any_step_is_recovered_from() {
        for steps in 0..=4 {
            let tmp = tempfile::tempdir().unwrap();
            let directory = CaDirectory::prepare(tmp.path()).unwrap();
            interrupted_after(steps, &directory);
            let outcome = ensure(&directory, || Ok(root("new"))).unwrap();
            let (expected, key) = match steps {
                0..=2 => (Outcome::Made, "new key"),
                _ => (Outcome::Found, "old key"),
            };
            assert_eq!(outcome, expected, "after {steps} steps");
            assert_eq!(directory.read_key().unwrap(), key.as_bytes());
            let names = names(&directory);
            let staged =
                names.iter().any(|name| [STAGED_KEY, STAGED_CERTIFICATE].contains(&&**name));
            assert!(!staged, "after {steps} steps: {names:?}");
        }
    }

    fn interrupted_after(steps: usize, directory: &CaDirectory) {
        let (key, certificate) = staged(directory);
        let create: [&dyn Fn() -> Result<(), AuthorityError>; 4] = [
            &|| stage(&key, b"old key", KEY_MODE),
            &|| stage(&certificate, b"old crt", CERTIFICATE_MODE),
            &|| publish(directory, &key, &directory.key()),
            &|| publish(directory, &certificate, &directory.certificate()),
        ];
        create.iter().take(steps).for_each(|step| step().unwrap());
    }

    #[test]
    fn a_staged_certificate_is_not_given_to_another_key() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = CaDirectory::prepare(tmp.path()).unwrap();
        interrupted_after(2, &directory);
        fs::write(directory.key(), "an operator's").unwrap();
        let error = ensure(&directory, never).unwrap_err();
        assert!(matches!(error, AuthorityError::Unpaired { .. }), "{error}");
    }
}
