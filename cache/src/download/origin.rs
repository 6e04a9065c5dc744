//! Which registry a download comes from.
//!
//! Bytes that are not verified yet belong to the clients of the registry that sent them: another
//! registry that claims to have this object must not be able to show them to its own.

use std::sync::Arc;

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

    /// The name, for those who share it.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}
