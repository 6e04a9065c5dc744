//! Media types of manifests.

use std::fmt;

/// Every media type under which registries serve a manifest or an index.
const MANIFESTS: [&str; 6] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// The media type of a manifest or index, exactly as the registry gave it, without parameters.
///
/// A registry's other documents (a login page, an error) have no such type and are never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaType(&'static str);

impl MediaType {
    /// Reads a `Content-Type` value; `None` where that is no manifest's.
    #[must_use]
    pub fn of_manifest(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        MANIFESTS.into_iter().find(|known| *known == essence).map(Self)
    }

    /// As it stands in `Content-Type`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.0
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_have_a_media_type_here() {
        let oci = "application/vnd.oci.image.index.v1+json";
        assert_eq!(MediaType::of_manifest(oci).unwrap().as_str(), oci);
        let with_parameter = format!("{oci}; charset=utf-8");
        assert_eq!(MediaType::of_manifest(&with_parameter).unwrap().as_str(), oci);
        for other in ["text/html", "application/json", "", "application/octet-stream"] {
            assert_eq!(MediaType::of_manifest(other), None);
        }
    }
}
