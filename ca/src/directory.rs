//! The CA's directory: that only its owner can change it, and what its two files hold.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::AuthorityError;

/// A chain of a hundred certificates; anything longer is another kind of file.
const CERTIFICATE_LIMIT_BYTES: u64 = 256 * 1024;

/// An RSA key of 16,384 bits has 13 KB in PEM.
const KEY_LIMIT_BYTES: u64 = 64 * 1024;

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// The permission bits, the sticky one included.
const MODE_BITS: u32 = 0o7777;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const OPEN_TO_OTHERS: u32 = 0o066;
const READABLE_BY_GROUP: u32 = 0o040;

/// A directory that others than its owner can't write in.
#[derive(Debug)]
pub(crate) struct CaDirectory {
    path: PathBuf,
}

/// Which of the two files are there.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Contents {
    Nothing,
    Pair,
    Half { present: PathBuf, missing: PathBuf },
}

impl CaDirectory {
    /// The directory at `path`, made (0700, with its parents) if it is not there.
    pub(crate) fn prepare(path: &Path) -> Result<Self, AuthorityError> {
        create(path).map_err(|source| AuthorityError::Write { path: path.to_owned(), source })?;
        Self::existing(path)
    }

    /// The directory at `path`, which must exist. Refused if group or others can write in it,
    /// unless the sticky bit keeps them from replacing files that are not theirs.
    pub(crate) fn existing(path: &Path) -> Result<Self, AuthorityError> {
        let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
        let mode = metadata.mode() & MODE_BITS;
        if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
            return Err(AuthorityError::LooseDirectory { path: path.to_owned(), mode });
        }
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.path.join(CERTIFICATE)
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.path.join(KEY)
    }

    pub(crate) fn contents(&self) -> Result<Contents, AuthorityError> {
        let (certificate, key) = (self.certificate(), self.key());
        Ok(match (exists(&certificate)?, exists(&key)?) {
            (true, true) => Contents::Pair,
            (false, false) => Contents::Nothing,
            (true, false) => Contents::Half { present: certificate, missing: key },
            (false, true) => Contents::Half { present: key, missing: certificate },
        })
    }

    pub(crate) fn read_certificate(&self) -> Result<Vec<u8>, AuthorityError> {
        let path = self.certificate();
        let file = open(&path)?;
        read(&path, file, CERTIFICATE_LIMIT_BYTES)
    }

    /// The key's file. The modes are those of the open file, so of what a symlink leads to.
    pub(crate) fn read_key(&self) -> Result<Vec<u8>, AuthorityError> {
        let path = self.key();
        let file = open(&path)?;
        let metadata = file.metadata().map_err(|source| unreadable(&path, source))?;
        let mode = metadata.mode() & MODE_BITS;
        if !is_ours_alone(&metadata) {
            return Err(AuthorityError::LooseKey { path, mode });
        }
        read(&path, file, KEY_LIMIT_BYTES)
    }
}

/// Whether nobody but this process can read or write a file, or nobody but its own group can read
/// it: Kubernetes gives a pod the files of a secret by way of such a group (`fsGroup`).
#[must_use]
pub fn is_ours_alone(metadata: &Metadata) -> bool {
    match metadata.mode() & OPEN_TO_OTHERS {
        0 => true,
        READABLE_BY_GROUP => is_own_group(metadata.gid()),
        _ => false,
    }
}

fn is_own_group(gid: u32) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    others.iter().chain([&rustix::process::getegid()]).any(|own| own.as_raw() == gid)
}

/// Like `mkdir -p`, 0700 whatever the umask takes away.
fn create(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    parent.map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Not blocking, so that a FIFO in the file's place can't hold us.
fn open(path: &Path) -> Result<File, AuthorityError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|source| unreadable(path, source))
}

fn read(path: &Path, file: File, limit: u64) -> Result<Vec<u8>, AuthorityError> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| unreadable(path, source))?;
    if bytes.len() as u64 > limit {
        return Err(AuthorityError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

fn exists(path: &Path) -> Result<bool, AuthorityError> {
    path.try_exists().map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & MODE_BITS
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_directory_and_its_parents_are_made_for_the_owner_only() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b/ca");
        CaDirectory::prepare(&path).unwrap();
        CaDirectory::prepare(&path).unwrap();
        assert_eq!(mode_of(&path), 0o700);
        assert_eq!(mode_of(&tmp.path().join("a")), 0o700);
    }

    #[test]
    fn a_directory_that_others_can_write_in_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        for (mode, accepted) in
            [(0o700, true), (0o755, true), (0o770, false), (0o757, false), (0o1777, true)]
        {
            set_mode(tmp.path(), mode);
            let result = CaDirectory::prepare(tmp.path());
            assert_eq!(result.is_ok(), accepted, "{mode:o}");
            if let Err(error) = result {
                assert!(error.to_string().contains("chmod go-w"), "{error}");
            }
        }
    }

    /// As root, whose groups are few, any other group will do.
    #[test]
    fn a_key_that_the_own_group_can_read_is_taken() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = CaDirectory::prepare(tmp.path()).unwrap();
        fs::write(directory.key(), "key").unwrap();
        let own = fs::metadata(directory.key()).unwrap().gid();
        for (mode, accepted) in
            [(0o440, true), (0o640, true), (0o660, false), (0o444, false), (0o644, false)]
        {
            set_mode(&directory.key(), mode);
            assert_eq!(directory.read_key().is_ok(), accepted, "{mode:o}");
        }
        set_mode(&directory.key(), 0o440);
        assert!(is_own_group(own));
        assert!(!is_own_group(own + 54_321), "nobody's here");
    }

    #[test]
    fn a_key_that_others_can_reach_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = CaDirectory::prepare(tmp.path()).unwrap();
        fs::write(directory.key(), "key").unwrap();
        for (mode, accepted) in
            [(0o600, true), (0o400, true), (0o604, false), (0o620, false), (0o644, false)]
        {
            set_mode(&directory.key(), mode);
            let result = directory.read_key();
            assert_eq!(result.is_ok(), accepted, "{mode:o}");
            if let Err(error) = result {
                let text = error.to_string();
                assert!(text.contains(&format!("mode 0{mode:o}")), "{text}");
                assert!(
                    text.contains(&format!("chmod 600 {}", directory.key().display())),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_symlinked_key_is_judged_by_its_target() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = CaDirectory::prepare(&tmp.path().join("ca")).unwrap();
        let target = tmp.path().join("elsewhere");
        fs::write(&target, "key").unwrap();
        symlink(&target, directory.key()).unwrap();
        set_mode(&target, 0o600);
        assert_eq!(directory.read_key().unwrap(), b"key");
        set_mode(&target, 0o644);
        assert!(matches!(directory.read_key(), Err(AuthorityError::LooseKey { mode: 0o644, .. })));
    }

    #[test]
    fn a_file_that_is_no_key_by_its_length_is_not_read() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = CaDirectory::prepare(tmp.path()).unwrap();
        fs::write(directory.key(), vec![0; 65_537]).unwrap();
        set_mode(&directory.key(), 0o600);
        assert!(matches!(directory.read_key(), Err(AuthorityError::TooLarge { .. })));
    }
}
