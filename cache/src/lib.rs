//! The content-addressed store of entrepot: digests and bytes on disk, nothing else.
//!
//! What it does: keeps finished objects under their digest, lets at most one download of a digest
//! from one registry run at a time while every reader follows its bytes, verifies before it
//! publishes, survives crashes and bad disks, stays within its bounds, and keeps small records of
//! which repository has shown which object.
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
//! | `records` | what a registry has shown where |
//! | `download` | from the right to a digest to a file under its name |
//! | `eviction` | what goes when the bound is reached, and what never does |
//! | `bytes` | what readers share of an object, and when its end is theirs |
//! | `index` | hints: sizes, last use |
//! | [`disk`] | every file call, and the threads that wait for it |
//! | `inner` | what the handles of an open store share |
//! | `fuzzing` | what fuzz targets feed of it |
//! | `options`, `errors` | how a store is opened; what can go wrong once it is |
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

mod bytes;
pub mod disk;
mod download;
mod errors;
mod eviction;
#[cfg(fuzzing)]
pub mod fuzzing;
mod index;
mod inner;
mod options;
mod records;
mod store;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests look at the files, and damage them")]
mod tests;

pub use bytes::object::HOLD_BACK;
pub use bytes::reader::Reader;
pub use bytes::verify::{Pace, Verdict};
pub use disk::lock::is_held;
pub use disk::open_error::OpenError;
pub use disk::tree::Claim;
pub use download::in_flight::Download;
pub use download::reservation::{Reservation, Start};
pub use download::writer::{Verified, Writer};
pub use errors::{
    BeginError, FinishError, PutError, QuarantineError, ReadError, RecordError, WriteError,
};
pub use eviction::withdrawal::{Reach, Withdrawn};
pub use index::references::ReadReferences;
pub use index::state::{IndexState, Kept, Totals};
pub use inner::Presence;
pub use options::Options;
pub use records::listing::RepositoryPath;
pub use records::pruning::{Lifetimes, ReadTag};
pub use records::repository::{ContentRecord, Fact, Repository};
pub use records::savings::SavingsRecord;
pub use store::{Lookup, Store};
