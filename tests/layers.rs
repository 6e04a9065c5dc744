//! Imports between the modules of `src/` point one way (docs/architecture.md).

#![expect(clippy::unwrap_used, reason = "a test that can't read the sources fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the top down: a module may name itself and whatever stands below it.
const LAYERS: [&str; 9] =
    ["cli", "config", "admin", "images", "listener", "gateway", "upstream", "metrics", "log"];

#[test]
fn nothing_imports_upward() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (height, layer) in LAYERS.iter().enumerate() {
        for file in rust_files(&source.join(layer)) {
            let text = fs::read_to_string(&file).unwrap();
            for named in named_modules(&text) {
                seen += 1;
                let depth = LAYERS.iter().position(|known| *known == named);
                if depth.is_none_or(|depth| depth < height) {
                    wrong.push(format!("{} names crate::{named}", file.display()));
                }
            }
        }
    }
    assert!(seen > 20, "the imports were not found: has their form changed?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_layer() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let directories: BTreeSet<_> = fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(directories, LAYERS.iter().map(|layer| (*layer).to_owned()).collect());
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// What follows each `crate::`, one name or a braced list of them.
fn named_modules(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in text.split("crate::").skip(1) {
        if let Some(list) = after.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or_default();
            names.extend(list.split(',').map(first_word).filter(|name| !name.is_empty()));
        } else {
            names.push(first_word(after));
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
