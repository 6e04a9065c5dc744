//! Which records there are: repositories, tags and objects by their names alone.
//!
//! A look at the directories, for people and their tools; no request of a client needs it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use entrepot_oci::{Algorithm, Digest, Registry, RepositoryName, Tag};

use crate::disk::tree::Tree;
use crate::disk::{DiskError, Kind};

/// A repository that has records, and its registry.
pub type RepositoryPath = (Registry, RepositoryName);

/// Every directory in which there may be records, those of repositories before those above them.
/// Blocks.
pub(crate) fn directories(tree: &Tree) -> Result<Vec<PathBuf>, DiskError> {
    let mut found = Vec::new();
    let registries = names(tree, &tree.repositories(), Kind::Directory)?.into_iter();
    let mut rest: Vec<PathBuf> =
        registries.map(|registry| tree.repositories().join(registry)).collect();
    while let Some(dir) = rest.pop() {
        rest.extend(subdirectories(tree, &dir)?);
        found.push(dir);
    }
    found.reverse();
    Ok(found)
}

/// Where it is on record, in the records at `dir`, that an object belongs there.
pub(crate) fn content(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("_contents").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Where it is on record what a tag stands for.
pub(crate) fn tag(dir: &Path, tag: &Tag) -> PathBuf {
    dir.join("_tags").join(tag.as_str())
}

/// Every repository that has records, in order. Blocks.
pub(crate) fn repositories(tree: &Tree) -> Result<Vec<RepositoryPath>, DiskError> {
    let mut found = Vec::new();
    for registry in parsed::<Registry>(names(tree, &tree.repositories(), Kind::Directory)?) {
        let root = tree.repositories().join(registry.as_str());
        let mut rest: Vec<PathBuf> = subdirectories(tree, &root)?;
        while let Some(dir) = rest.pop() {
            rest.extend(subdirectories(tree, &dir)?);
            let below = names(tree, &dir, Kind::Directory)?;
            let is_repository = below.iter().any(|name| name == "_contents" || name == "_tags");
            let name = dir.strip_prefix(&root).ok().and_then(Path::to_str);
            if let Some(name) = name.and_then(|name| name.parse().ok())
                && is_repository
            {
                found.push((registry.clone(), name));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The directories in `dir` that are parts of a repository's name, which never begin so.
pub(crate) fn subdirectories(tree: &Tree, dir: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let names = names(tree, dir, Kind::Directory)?.into_iter();
    Ok(names.filter(|name| !name.starts_with(['_', '.'])).map(|name| dir.join(name)).collect())
}

/// The tags on record below `dir`, in order. Blocks.
pub(crate) fn tags(tree: &Tree, dir: &Path) -> Result<Vec<Tag>, DiskError> {
    let mut tags: Vec<Tag> = parsed(names(tree, &dir.join("_tags"), Kind::File)?).collect();
    tags.sort_unstable();
    Ok(tags)
}

/// Those of `names` that parse; others are no records of ours.
fn parsed<T: FromStr>(names: Vec<String>) -> impl Iterator<Item = T> {
    names.into_iter().filter_map(|name| name.parse().ok())
}

/// The objects on record below `dir`, in order. Blocks.
pub(crate) fn contents(tree: &Tree, dir: &Path) -> Result<Vec<Digest>, DiskError> {
    let mut digests = Vec::new();
    for algorithm in Algorithm::ALL {
        let dir = dir.join("_contents").join(algorithm.as_str());
        let names = names(tree, &dir, Kind::File)?.into_iter();
        digests.extend(names.filter_map(|name| Digest::from_hex(algorithm, &name).ok()));
    }
    digests.sort_unstable();
    Ok(digests)
}

/// The names of this kind in `dir`; none where there is no such directory.
pub(crate) fn names(tree: &Tree, dir: &Path, kind: Kind) -> Result<Vec<String>, DiskError> {
    match tree.disk().list(dir) {
        Ok(entries) => Ok(entries
            .into_iter()
            .filter(|entry| entry.kind == kind)
            .map(|entry| entry.name)
            .collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
