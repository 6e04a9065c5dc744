//! Why no proxy can be put together. All of it is the operator's to cure.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use entrepot_ca::{AuthorityError, ConstraintsError};
use entrepot_cache::OpenError;

use crate::listener::BindError;
use crate::upstream::trust::TrustError;

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AppError {
    /// No CA can be constrained to the hosts that are intercepted.
    #[error("ca-constrain")]
    Constraints(#[source] ConstraintsError),
    /// There is no CA that can be used.
    #[error("ca-dir {}", dir.display())]
    Authority {
        /// Where it was looked for.
        dir: PathBuf,
        /// Why not.
        source: AuthorityError,
    },
    /// The store can't be opened.
    #[error("cache-dir {}", dir.display())]
    Store {
        /// Where it was looked for.
        dir: PathBuf,
        /// Why not.
        source: Box<OpenError>,
    },
    /// There are no roots to trust.
    #[error("TLS towards upstreams")]
    Trust(#[source] TrustError),
    /// The bucket can't be used, whether or not it can be reached.
    #[error("bucket")]
    Bucket(#[source] crate::bucket::OpenError),
    /// The listener can't be set up.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The admin listener can't be set up.
    #[error("can't listen on {address} for the admin listener: choose another with --admin-listen")]
    AdminListen {
        /// Where.
        address: SocketAddr,
        /// The system's own words.
        source: io::Error,
    },
    /// The admin socket can't be set up where the operator has put it.
    #[error("admin-socket {}", path.display())]
    AdminSocket {
        /// Where.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// Nobody knows where the admin listener is.
    #[error(transparent)]
    AdminAddress(io::Error),
}
