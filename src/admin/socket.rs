//! The admin socket: the API for who is on this machine and may, without a token.
//!
//! TCP does not say who is at the other end: every user of the machine, and whatever forwards
//! requests to it, comes from loopback as root does. Of a Unix socket the kernel says which user
//! connected (`SO_PEERCRED`, unix(7)), and that word can't be forwarded. So what changes something
//! or hands out what is kept is heard here from root and from the proxy's own user, who could go to
//! the files themselves.
//!
//! It lies in `cache-dir`, which one process has to itself: what is found there at a start has been
//! left by one that was killed, and whoever names the same directory finds the proxy that holds it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

/// Its name in `cache-dir`.
pub(crate) const NAME: &str = "admin.sock";
/// The longest path that fits into an address, with the zero behind it (unix(7): 108).
const LONGEST: usize = 107;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// For its owner alone, and root.
const MODE: u32 = 0o600;

/// Where the socket is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its path.
    pub path: PathBuf,
    /// Whether an operator has chosen it: then there is no proxy without it.
    pub is_chosen: bool,
}

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl AdminSocket {
    /// Binds `path`, in place of what a killed process has left there; within a tokio runtime.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let way = Short::of(path)?;
        let socket = match bound(way.path()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(&way)?;
                bound(way.path())?
            }
            bound => bound?,
        };
        let file = SocketFile::of(path)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self { listener, file })
    }

    /// The listener, and its file, which is removed when that is dropped.
    pub(crate) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// A socket that listens at `path`. Linux gives the file the mode that the socket has when it is
/// bound, so that there is no moment in which others could connect.
fn bound(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(MODE))?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Removes a socket that nobody listens on any more; anything else is in somebody's use.
fn remove_stale(way: &Short) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(way.path())?.file_type().is_socket();
    let refused = |error: &io::Error| error.kind() == ErrorKind::ConnectionRefused;
    match BlockingStream::connect(way.path()) {
        Err(error) if is_socket && refused(&error) => fs::remove_file(way.path()),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// The file of a socket: removed with this, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|there| there == self.inode) {
            // One that stays is taken for what it is at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Connects to the socket at `path`, if it is that of root, of this process's own user or of
/// `owner`: in a directory that others may write to, somebody else could be listening.
pub(crate) async fn connect(path: &Path, owner: Option<u32>) -> io::Result<UnixStream> {
    let way = Short::of(path)?;
    let stream = UnixStream::connect(way.path()).await?;
    let user = stream.peer_cred()?.uid();
    if may_use(user) || Some(user) == owner {
        return Ok(stream);
    }
    let reason = format!("the process that listens there is of user {user}, not the proxy's");
    Err(io::Error::new(ErrorKind::PermissionDenied, reason))
}

/// Whether `user` may do what this process may: root, and its own user.
pub(super) fn may_use(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

/// A path that fits into an address: a longer one by way of its open directory.
struct Short {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= LONGEST {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidFilename.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn it_is_for_its_owner_and_goes_with_the_process() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        connect(&path, None).await.unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_process_has_left_is_in_nobodys_way() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        // The standard library leaves the file where it is.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = AdminSocket::bind(&path).unwrap();
        let other = AdminSocket::bind(&path).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::AddrInUse, "that one lives");
        connect(&path, None).await.unwrap();
        drop(socket);
        fs::write(&path, "somebody's").unwrap();
        assert_eq!(AdminSocket::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    }

    #[tokio::test]
    async fn the_file_of_another_socket_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        let first = AdminSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = AdminSocket::bind(&path).unwrap();
        drop(first);
        connect(&path, None).await.unwrap();
    }

    #[tokio::test]
    async fn a_path_may_be_longer_than_an_address() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join(NAME);
        let socket = AdminSocket::bind(&path).unwrap();
        connect(&path, None).await.unwrap();
        drop(socket);
        assert!(!path.exists());
        let named = deep.join("n".repeat(120));
        assert_eq!(AdminSocket::bind(&named).unwrap_err().kind(), ErrorKind::InvalidFilename);
    }
}
