//! Repositories, and what is in them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::image::{Blob, Image};

/// Everything a registry holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    repositories: HashMap<String, Repository>,
    uploads: HashMap<String, Vec<u8>>,
    next_upload: usize,
}

#[derive(Debug, Default)]
struct Repository {
    blobs: HashMap<String, Bytes>,
    manifests: BTreeMap<String, Blob>,
    tags: BTreeMap<String, String>,
}

impl Content {
    pub(super) fn add_image(&mut self, repository: &str, image: &Image) {
        for blob in image.blobs() {
            self.add_blob(repository, blob);
        }
        self.add_manifest(repository, &image.manifest);
    }

    pub(super) fn add_blob(&mut self, repository: &str, blob: &Blob) {
        let blobs = &mut self.entry(repository).blobs;
        blobs.insert(blob.digest.clone(), blob.bytes.clone());
    }

    pub(super) fn add_manifest(&mut self, repository: &str, manifest: &Blob) {
        let manifests = &mut self.entry(repository).manifests;
        manifests.insert(manifest.digest.clone(), manifest.clone());
    }

    pub(super) fn tag(&mut self, repository: &str, tag: &str, digest: &str) {
        self.entry(repository).tags.insert(tag.to_owned(), digest.to_owned());
    }

    pub(super) fn untag(&mut self, repository: &str, tag: &str) {
        self.entry(repository).tags.remove(tag);
    }

    /// Whether there was such a blob.
    pub(super) fn remove_blob(&mut self, repository: &str, digest: &str) -> bool {
        self.entry(repository).blobs.remove(digest).is_some()
    }

    /// Removes a tag, or a manifest with all its tags; whether there was one.
    pub(super) fn remove_manifest(&mut self, repository: &str, reference: &str) -> bool {
        let repository = self.entry(repository);
        if repository.tags.remove(reference).is_some() {
            return true;
        }
        repository.tags.retain(|_, digest| digest != reference);
        repository.manifests.remove(reference).is_some()
    }

    fn entry(&mut self, repository: &str) -> &mut Repository {
        self.repositories.entry(repository.to_owned()).or_default()
    }

    pub(super) fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.repositories.get(repository)?.blobs.get(digest).cloned()
    }

    /// The bytes of a blob, wherever it is: a CDN knows no repositories.
    pub(super) fn blob_anywhere(&self, digest: &str) -> Option<Bytes> {
        self.repositories.values().find_map(|repository| repository.blobs.get(digest).cloned())
    }

    pub(super) fn digest_of_tag(&self, repository: &str, tag: &str) -> Option<String> {
        self.repositories.get(repository)?.tags.get(tag).cloned()
    }

    /// A manifest by its tag or its digest.
    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<Blob> {
        let repository = self.repositories.get(repository)?;
        let digest = repository.tags.get(reference).map_or(reference, String::as_str);
        repository.manifests.get(digest).cloned()
    }

    /// The names of a repository's tags, in order.
    pub(super) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        Some(self.repositories.get(repository)?.tags.keys().cloned().collect())
    }

    /// The manifests of a repository that name `subject` as theirs.
    pub(super) fn referrers(&self, repository: &str, subject: &str) -> Vec<Blob> {
        let Some(repository) = self.repositories.get(repository) else { return Vec::new() };
        let refers = |manifest: &&Blob| {
            let parsed: serde_json::Value =
                serde_json::from_slice(&manifest.bytes).unwrap_or_default();
            parsed["subject"]["digest"] == subject
        };
        repository.manifests.values().filter(refers).cloned().collect()
    }

    pub(super) fn start_upload(&mut self) -> String {
        self.next_upload += 1;
        let id = format!("upload-{}", self.next_upload);
        self.uploads.insert(id.clone(), Vec::new());
        id
    }

    /// Adds to an upload; the length it has then, if there is such an upload.
    pub(super) fn append(&mut self, id: &str, bytes: &[u8]) -> Option<usize> {
        let upload = self.uploads.get_mut(id)?;
        upload.extend_from_slice(bytes);
        Some(upload.len())
    }

    pub(super) fn finish_upload(&mut self, id: &str) -> Option<Vec<u8>> {
        self.uploads.remove(id)
    }
}
