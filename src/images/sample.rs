//! A small image that is kept and that everybody may have: for who wants to try the proxy.

use entrepot_cache::RepositoryPath;
use entrepot_oci::{ImageName, Reference};

use super::Images;

/// Repositories that are looked at: one is as good as another.
const ENOUGH: usize = 64;
/// Nothing smaller is looked for.
const SMALL: u64 = 10_000_000;
/// Nothing larger is pulled to try something.
const LARGEST: u64 = 300_000_000;

impl Images {
    /// The name of a small image that is kept whole for some platform, if there is one.
    ///
    /// Only of repositories that are open to everybody by their registry's own rules: whoever may
    /// use the proxy is told this name.
    pub(crate) async fn sample(&self) -> Option<ImageName> {
        if !self.is_settled().await {
            return None;
        }
        let mut best: Option<(u64, ImageName)> = None;
        let repositories = self.store.repositories().await.ok()?;
        for path in repositories.into_iter().filter(is_public).take(ENOUGH) {
            for (bytes, name) in self.whole_in(path).await {
                if bytes <= LARGEST && best.as_ref().is_none_or(|(least, _)| bytes < *least) {
                    best = Some((bytes, name));
                }
            }
            if best.as_ref().is_some_and(|(bytes, _)| *bytes <= SMALL) {
                break;
            }
        }
        best.map(|(_, name)| name)
    }

    async fn is_settled(&self) -> bool {
        self.settled().await.is_ok()
    }

    /// The tags of a repository whose images are kept whole, with what they take.
    async fn whole_in(&self, path: RepositoryPath) -> Vec<(u64, ImageName)> {
        let mut whole = Vec::new();
        for entry in self.in_repository(path).await.unwrap_or_default() {
            let image = self.described(&entry).await;
            if image.is_complete && matches!(entry.name.reference, Reference::Tag(_)) {
                whole.push((image.bytes, entry.name));
            }
        }
        whole
    }
}

/// Whether a repository is one of those that its registry opens to everybody.
fn is_public((registry, repository): &RepositoryPath) -> bool {
    let name = repository.as_str();
    match registry.as_str() {
        "docker.io" => name.starts_with("library/"),
        "public.ecr.aws" => name.starts_with("docker/library/"),
        "registry.k8s.io" | "mcr.microsoft.com" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_everybodys_is_named_to_everybody() {
        let is = |name: &str| {
            let ImageName { registry, repository, .. } = name.parse().unwrap();
            is_public(&(registry, repository))
        };
        for public in ["alpine", "registry.k8s.io/pause:3.9", "public.ecr.aws/docker/library/redis"]
        {
            assert!(is(public), "{public}");
        }
        for other in ["acme/app", "ghcr.io/acme/app", "registry.corp/library/x"] {
            assert!(!is(other), "{other}");
        }
    }
}
