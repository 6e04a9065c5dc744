//! Which registry a download comes from.
//!
//! Bytes that are not verified yet belong to the clients of the registry that sent them: another
//! registry that claims to have the same object must not be able to show them to its own.

use std::sync::Arc;

use entrepot_oci::hex::decode;

use crate::{Algorithm, Digest};

/// How many hexadecimal digits of a hash stand for an origin in a file's name: so many that nobody
/// finds a second name for them.
const TAG_DIGITS: usize = 32;

/// A registry's name as the caller spells it; compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(Arc<str>);

impl Origin {
    pub(crate) fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a partial file of `digest` that came from here.
    pub(crate) fn partial_name(&self, digest: &Digest) -> String {
        let mut tag = Digest::of(Algorithm::Sha256, self.0.as_bytes()).hex();
        tag.truncate(TAG_DIGITS);
        format!("{}.{tag}", digest.hex())
    }
}

/// The digest in the name of a partial file, if it is the name of one.
pub(crate) fn partial_digest(algorithm: Algorithm, name: &str) -> Option<Digest> {
    let (hex, tag) = name.split_once('.')?;
    let tagged = tag.len() == TAG_DIGITS && decode(tag).is_some();
    Digest::from_hex(algorithm, hex).ok().filter(|_| tagged)
}
