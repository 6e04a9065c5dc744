//! From root to nobody in particular: what the container image begins with.
//!
//! A directory that an engine makes for `-v /path:/ca` is root's, and one that an earlier tool used
//! is its user's. So the image starts as root, hands over what is root's, and runs the program
//! again as somebody who owns the directories.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::config::{RunAs, Settings};

/// What becomes of directories that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are made: the user could not make them.
    Made,
    /// Nobody needs them.
    Left,
}

/// As root with `run-as`: does not come back, unless that user can't be become, or could not use
/// what is there (a secret that is mounted read-only, say). Then root it stays, which is told.
pub(super) fn give_up(settings: &Settings, missing: Missing, arguments: &[OsString]) {
    let Some(run_as) = settings.run_as else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directories = [settings.ca_dir.as_path(), settings.store.dir.as_path()];
    let user = owner_of(&settings.store.dir).unwrap_or(run_as);
    if user.uid == 0 {
        return;
    }
    let mut needed =
        directories.into_iter().filter(|path| missing == Missing::Made || path.exists());
    let handed_over = needed.try_for_each(|path| hand_over(path, user));
    let error = handed_over.err().unwrap_or_else(|| run_again(user, arguments));
    eprintln!(
        "entrepot: running on as root, since user {user} can't be become: {error}; start it as a \
         user that owns {} and {}, or let root have CHOWN, DAC_OVERRIDE, FOWNER, SETGID and SETUID",
        settings.ca_dir.display(),
        settings.store.dir.display(),
    );
}

/// As root, where `directory` is somebody else's: runs the program again as them, and comes back
/// only with the reason why not. What root left there they could not use, and where they lead root
/// by links is theirs to choose.
pub(super) fn become_owner(directory: &Path) -> anyhow::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let Some(owner) = owner_of(directory).filter(|_| is_root) else { return Ok(()) };
    let arguments: Vec<_> = std::env::args_os().collect();
    let error = run_again(owner, &arguments);
    Err(error).with_context(|| {
        format!("{} belongs to user {owner}, who can't be become", directory.display())
    })
}

/// Whose a directory is, or what it will be made in, if it is not root's.
fn owner_of(directory: &Path) -> Option<RunAs> {
    let existing = directory.ancestors().find_map(|path| fs::metadata(path).ok())?;
    (existing.uid() != 0).then(|| RunAs { uid: existing.uid(), gid: existing.gid() })
}

/// Gives root's directory, made if it is not there, with all that is in it to `user`. The directory
/// itself comes last: what was cut short is finished the next time.
fn hand_over(directory: &Path, user: RunAs) -> io::Result<()> {
    make(directory)?;
    if fs::metadata(directory)?.uid() != 0 {
        return Ok(());
    }
    hand_over_contents(directory, user)?;
    lchown(directory, Some(user.uid), Some(user.gid))
}

/// Makes a directory that is for nobody but its owner. Those above it are for all to go through:
/// they stay root's.
fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(directory)
}

/// Links are not followed, and what is somebody else's stays theirs.
fn hand_over_contents(directory: &Path, user: RunAs) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            hand_over_contents(&path, user)?;
        }
        if metadata.uid() == 0 {
            lchown(&path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}

/// Runs this program again as `user`, in its other groups no more; comes back only with the reason
/// why not.
fn run_again(user: RunAs, arguments: &[OsString]) -> io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    // The standard library leaves root's supplementary groups where it changes the user.
    let rest = arguments.iter().skip(1);
    Command::new(program).args(rest).uid(user.uid).gid(user.gid).exec()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_made_is_for_its_owner_alone_and_can_be_reached() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("entrepot/cache");
        hand_over(&directory, RunAs { uid: 65_532, gid: 65_532 }).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(fs::metadata(&directory).unwrap().uid(), 65_532);
        let usual = home.path().join("usual");
        fs::create_dir(&usual).unwrap();
        assert_eq!(mode(directory.parent().unwrap()), mode(&usual), "the user goes through it");
    }

    #[test]
    fn what_is_roots_is_handed_over_and_nothing_else() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        let directory = home.path().join("ca");
        fs::create_dir_all(directory.join("deep")).unwrap();
        for name in ["ca.key", "deep/file", "theirs"] {
            fs::write(directory.join(name), "x").unwrap();
        }
        fs::write(&outside, "x").unwrap();
        symlink(&outside, directory.join("link")).unwrap();
        lchown(directory.join("theirs"), Some(7), Some(7)).unwrap();

        let user = RunAs { uid: 65_532, gid: 65_533 };
        hand_over(&directory, user).unwrap();
        let owner = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.uid(), metadata.gid())
        };
        for name in ["", "ca.key", "deep", "deep/file", "link"] {
            assert_eq!(owner(&directory.join(name)), (65_532, 65_533), "{name}");
        }
        assert_eq!(owner(&directory.join("theirs")), (7, 7));
        assert_eq!(owner(&outside), (0, 0), "links are not followed");
        // A directory of somebody else's is not gone through.
        fs::write(directory.join("new"), "x").unwrap();
        hand_over(&directory, RunAs { uid: 8, gid: 8 }).unwrap();
        assert_eq!(owner(&directory.join("new")), (0, 0));
        assert_eq!(owner_of(&directory.join("not/yet")), Some(user));
        assert_eq!(owner_of(&outside), None);
    }
}
