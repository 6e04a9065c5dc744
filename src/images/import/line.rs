//! What is told of an import while it goes on, one JSON object a line.

use serde::{Deserialize, Serialize};

/// An image that has been imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Imported {
    /// Its name.
    pub name: String,
    /// What the name stands for.
    pub digest: String,
    /// The platforms that have come.
    pub platforms: Vec<String>,
}

/// One line of what is told of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImportLine {
    /// Now and then: how many bytes of the archive have been read.
    Read(u64),
    /// An image can be pulled.
    Image(Imported),
    /// An image of the archive that is none of those that were named.
    LeftOut(String),
    /// The last line, if all went well: how many objects are new, and their bytes.
    Summary {
        /// How many there are.
        objects: u64,
        /// Their sizes' sum.
        bytes: u64,
    },
    /// The last line, if not.
    Error(String),
}
