//! The protocol's vocabulary, pure: hosts, routes, names, references, media types, challenges and
//! errors of the OCI distribution specification.
//!
//! Bytes from a socket become one of these types in one place, strictly; after that no code looks
//! at a path or a header string again. Nothing here does I/O, and nothing here knows of a store.
//!
//! - `digest`, `hasher`, `hex`: names of objects, and how they are computed
//! - `host`: host names, authorities (`host:port`), host patterns
//! - `registry`: which registry an authority stands for
//! - `name`, `reference`: repository names, tags, references
//! - `image`: image names as people type them
//! - `image_pattern`: patterns of their full names
//! - `tag_pattern`: patterns of tags
//! - `seconds`: points in time, as records have them
//! - `route`: what a request path asks for
//! - `manifest`: manifests and indexes, and what they say of other objects
//! - `contents`, `platform`: what of it is pulled, and for which machines
//! - `media_type`: which media types are manifests
//! - `challenge`: what `WWW-Authenticate` asks for
//! - `error`: the error document

pub mod challenge;
mod contents;
mod digest;
pub mod error;
mod hasher;
pub mod hex;
pub mod host;
mod image;
mod image_pattern;
pub mod manifest;
pub mod media_type;
pub mod name;
mod platform;
pub mod reference;
pub mod registry;
pub mod route;
mod seconds;
mod tag_pattern;

pub use contents::{Contents, ContentsError, ImageBlob, Listed};
pub use digest::{Algorithm, Digest, DigestError};
pub use error::{ErrorCode, ErrorDocument};
pub use hasher::Hasher;
pub use host::{Authority, Host, HostPattern};
pub use image::{ImageName, ImageNameError, full_repository};
pub use image_pattern::{ImagePattern, ImagePatternError};
pub use media_type::MediaType;
pub use name::RepositoryName;
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, Tag};
pub use registry::Registry;
pub use route::Route;
pub use seconds::UnixSeconds;
pub use tag_pattern::TagPattern;
