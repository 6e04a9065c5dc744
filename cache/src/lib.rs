//! The content-addressed store of entrepot: digests and bytes on disk, nothing else.
//!
//! What it does: keeps finished objects under their digest, lets at most one download of a digest
//! run at a time while every reader follows its bytes, verifies before it publishes, survives
//! crashes and bad disks, stays within its bounds, and keeps small records of which repository has shown which object.
//!
//! What it deliberately does not do: HTTP, registries, authorisation, deciding what to fetch. It
//! never trusts its index over the file system.
//!
//! The on-disk layout and its invariants are in `docs/disk-format.md`.
//!
//! # Map
//!
//! | module | subject |
//! |---|---|
//! | `store` | [`Store`]: open, look up, put, totals |
//! | `reservation`, `writer`, `feed`, `pen` | a download: the right to it, its async end, its queue, its disk end |
//! | `object`, `reader`, `buffers` | the bytes that readers share, kept or in flight |
//! | `lanes`, `blocking` | how blocking work reaches threads, and how many of them |
//! | `flights`, `opened` | who is downloading what; which files are open |
//! | `origin` | which registry a download comes from |
//! | `publish`, `inspect` | partial → final name; verification and quarantine |
//! | `check` | verifying a kept object when it is first asked for |
//! | `repository`, `records` | what a registry has shown where |
//! | `catalogue`, `pruning` | which records there are; taking away those of what has long been gone |
//! | `index` | hints: sizes, last use, hits |
//! | `references` | which other objects a document needs |
//! | `bounds`, `pins` | eviction, and what is exempt from it |
//! | `withdrawal` | taking documents out with what nothing else needs |
//! | `tree` ([`Claim`]), `lock`, `recovery` | the directory: layout, ownership, cleaning after a crash |
//! | [`disk`] | every file call, with a seam for faults |
//!
//! # Example
//!
//! ```no_run
//! # async fn example(body: Vec<bytes::Bytes>) -> Result<(), Box<dyn std::error::Error>> {
//! use entrepot_cache::{Lookup, Options, Start, Store};
//! use entrepot_oci::Digest;
//!
//! let store = Store::open(Options::new("/var/lib/entrepot/cache")).await?;
//! let digest: Digest =
//!     "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
//! let reader = match store.lookup(&digest, "docker.io").await {
//!     Lookup::Kept(reader) | Lookup::InFlight(reader) => reader,
//!     Lookup::Absent(reservation) => {
//!         let (mut writer, reader) = reservation.begin(Start::Fresh, None).await?;
//!         tokio::spawn(async move {
//!             for chunk in body {
//!                 if writer.write(chunk).await.is_err() {
//!                     return; // dropping the writer fails its readers
//!                 }
//!             }
//!             let _ = writer.finish().await;
//!         });
//!         reader
//!     }
//! };
//! let mut offset = 0;
//! loop {
//!     let bytes = reader.read_at(offset, 256 * 1024).await?;
//!     if bytes.is_empty() {
//!         break; // the end of a verified object
//!     }
//!     offset += bytes.len() as u64;
//! }
//! # Ok(()) }
//! ```

mod blocking;
mod bounds;
mod buffers;
mod catalogue;
mod check;
mod checksum;
pub mod disk;
mod errors;
mod feed;
mod flights;
mod index;
mod inspect;
mod lanes;
mod lock;
mod object;
mod opened;
mod options;
mod origin;
mod pen;
mod pins;
mod pruning;
mod publish;
mod reader;
mod records;
mod recovery;
mod references;
mod repository;
mod reservation;
mod shared;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod tree;
mod withdrawal;
mod writer;

use entrepot_oci::{Algorithm, Digest, Hasher};

pub use catalogue::RepositoryPath;
pub use errors::{
    BeginError, FinishError, OpenError, PutError, QuarantineError, ReadError, RecordError,
    WriteError,
};
pub use index::IndexState;
pub use inspect::{Pace, Verdict};
pub use lock::is_held;
pub use options::Options;
pub use pruning::{Lifetimes, ReadTag};
pub use reader::Reader;
pub use references::ReadReferences;
pub use repository::{ContentRecord, Fact, Repository};
pub use reservation::{Reservation, Start};
pub use store::{Download, Kept, Lookup, Presence, Store, Totals};
pub use tree::Claim;
pub use withdrawal::{Reach, Withdrawn};
pub use writer::{Verified, Writer};

/// How many bytes at the end of an unfinished object no reader sees before the digest is verified.
pub const HOLD_BACK: u64 = 64 * 1024;
