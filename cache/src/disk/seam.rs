//! The seam before every file call: where a test makes it fail.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::DiskError;
use super::faults::{Call, Effect, FaultPlan};

/// The way to the files. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    faults: Option<Arc<FaultPlan>>,
}

impl Disk {
    /// The real file system.
    #[must_use]
    pub const fn real() -> Self {
        Self { faults: None }
    }

    /// The real file system as far as `plan` lets it through. For tests.
    #[must_use]
    pub const fn with_faults(plan: Arc<FaultPlan>) -> Self {
        Self { faults: Some(plan) }
    }

    /// What is to become of a call: asked before it is made.
    pub(super) fn gate(&self, call: Call, path: &Path) -> Result<Effect, DiskError> {
        let Some(plan) = &self.faults else { return Ok(Effect::Proceed) };
        plan.consult(call, path).map_err(|source| DiskError::new(call, path, source))
    }

    /// Does `work`, which is one file call, as far as the plan lets it through.
    pub(super) fn attempt<T>(
        &self,
        call: Call,
        path: &Path,
        work: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, DiskError> {
        self.gate(call, path)?;
        work().map_err(|source| DiskError::new(call, path, source))
    }
}
