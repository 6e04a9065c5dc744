//! The local certificate authority: the root that clients trust, and the leaves signed by it.
//!
//! An [`Authority`] is a CA certificate with its key, kept in a directory as `ca.crt` and `ca.key`,
//! and created there once when the directory has neither. It signs a short-lived leaf for each host
//! that the proxy speaks for. It knows names and keys; it does not know HTTP, sockets, or which
//! hosts deserve a leaf: that decision is the caller's, made before asking.
//!
//! | file | subject |
//! |---|---|
//! | `authority.rs` | open, load, and what the rest of the program may ask |
//! | `root.rs` | the profile of a root that we make |
//! | `directory.rs`, `pair.rs` | the directory: modes, reading; creating both files at most once |
//! | `certificate.rs`, `validity.rs` | what `ca.crt` says, and whether it can be used now |
//! | `strictness.rs` | what strict clients refuse in it |
//! | `key.rs`, `legacy.rs` | every form of `ca.key`, encrypted ones included |
//! | `constraints.rs`, `ip_block.rs` | name constraints: written into a root, read from any CA |
//! | `leaf.rs`, `mint.rs` | the cache of leaves; one leaf |
//! | `options.rs` | how an authority is opened |
//! | `host.rs`, `fingerprint.rs`, `hex.rs`, `clock.rs`, `error.rs` | the vocabulary |
//!
//! Invariants: the CA key leaves its file only for this process's memory, and no type here prints
//! it; a leaf's key is never the CA's and never on disk; nothing here overwrites a file in the
//! directory.

mod authority;
mod certificate;
mod clock;
mod constraints;
mod directory;
mod error;
mod fingerprint;
mod hex;
mod host;
mod ip_block;
mod key;
mod leaf;
mod legacy;
mod mint;
mod options;
mod pair;
mod root;
mod strictness;
mod validity;

pub use authority::{Authority, Origin};
pub use clock::{Clock, ManualClock};
pub use constraints::{Constraints, ConstraintsError};
pub use directory::is_ours_alone;
pub use error::{AuthorityError, LeafError, OutsideConstraints};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use key::{KeyError, Passphrase};
pub use options::Options;
