//! Imports between the rooms of the house point one way (docs/architecture.md): between the modules
//! of `src/`, and between the rooms inside those that have many.
//!
//! A room is a file or directory; the `mod.rs` or `lib.rs` beside it is the room `mod`. Tests
//! within a file are not looked at: they may name what they like.

#![expect(clippy::unwrap_used, reason = "a test that can't read the sources fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top down: each may name itself and whatever stands below it.
struct Floors {
    /// The directory whose files and directories the rooms are.
    directory: &'static str,
    /// Where its module path begins: the directory of the crate's root.
    root: &'static str,
    rooms: &'static [&'static str],
    /// Pairs that point up all the same, each with the reason.
    exceptions: &'static [(&'static str, &'static str, &'static str)],
}

const HOUSE: [Floors; 12] = [
    Floors {
        directory: "src",
        root: "src",
        rooms: &[
            "main", "mod", "cli", "app", "config", "admin", "images", "savings", "listener",
            "pulls", "gateway", "registry", "records", "bucket", "peers", "upstream", "metrics",
            "log", "collapse", "memory", "trickle", "secret", "words",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "src/gateway",
        root: "src",
        rooms: &[
            "fuzzing",
            "mod",
            "explain",
            "vouching",
            "pruning",
            "writes",
            "blobs",
            "manifests",
            "listings",
            "limited",
            "ping",
            "tokens",
            "relay",
            "download",
            "supplies",
            "answer",
            "exchange",
            "question",
            "generations",
            "hops",
            "accept",
            "arrivals",
            "shares",
            "access",
            "way",
            "store_health",
            "options",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "src/gateway/answer",
        root: "src",
        rooms: &[
            "mod",
            "addresses",
            "passed",
            "object",
            "errors",
            "served",
            "body",
            "multipart",
            "stored",
            "piece",
            "rescue",
            "verified",
            "broken",
            "ranges",
            "provenance",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "src/gateway/manifests",
        root: "src",
        rooms: &["mod", "by_tag", "by_digest", "tags", "uses"],
        exceptions: &[],
    },
    Floors {
        directory: "src/registry",
        root: "src",
        rooms: &[
            "fuzzing",
            "mod",
            "client",
            "refusals",
            "login",
            "own_tokens",
            "challenge",
            "token_server",
            "states",
            "pressure",
            "quota",
            "identity",
            "answer",
            "fields",
            "options",
            "credentials",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "cache/src",
        root: "cache/src",
        rooms: &[
            "fuzzing", "mod", "store", "records", "inner", "download", "eviction", "options",
            "bytes", "errors", "index", "disk",
        ],
        exceptions: &[(
            "eviction",
            "download",
            "a digest is reserved while its file is removed: nothing is published under that",
        )],
    },
    Floors {
        directory: "cache/src/bytes",
        root: "cache/src",
        rooms: &[
            "mod",
            "opening",
            "first_use",
            "verify",
            "kept",
            "open_files",
            "reader",
            "object",
            "buffers",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "cache/src/disk",
        root: "cache/src",
        rooms: &[
            "mod",
            "recovery",
            "lock",
            "tree",
            "open_error",
            "threads",
            "calls",
            "file",
            "seam",
            "error",
            "faults",
            "checksum",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "cache/src/download",
        root: "cache/src",
        rooms: &[
            "mod",
            "reservation",
            "writer",
            "queue",
            "disk_end",
            "whole",
            "publish",
            "in_flight",
            "origin",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "cache/src/eviction",
        root: "cache/src",
        rooms: &[
            "mod",
            "sweep",
            "partials",
            "remover",
            "withdrawal",
            "records",
            "stock",
            "groups",
            "ledger",
            "clock",
            "wake",
            "pins",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "cache/src/index",
        root: "cache/src",
        rooms: &[
            "mod",
            "owner",
            "sled_engine",
            "codec",
            "table",
            "engine",
            "node",
            "state",
            "references",
        ],
        exceptions: &[],
    },
    Floors {
        directory: "cache/src/records",
        root: "cache/src",
        rooms: &["mod", "repository", "pruning", "listing", "savings", "files"],
        exceptions: &[],
    },
];

#[test]
fn nothing_imports_upward() {
    let mut wrong = Vec::new();
    for floors in &HOUSE {
        let edges = floors.edges();
        assert!(
            !edges.is_empty(),
            "{}: no import was found: has its form changed?",
            floors.directory
        );
        for (from, to) in &edges {
            let is_exception = floors.exceptions.iter().any(|one| (one.0, one.1) == (from, to));
            if floors.floor(from) > floors.floor(to) && !is_exception {
                wrong.push(format!("{}: {from} names {to}", floors.directory));
            }
        }
        for (from, to, reason) in floors.exceptions {
            assert!(!reason.is_empty());
            if !edges.contains(&((*from).to_owned(), (*to).to_owned())) {
                wrong.push(format!("{}: {from} does not name {to} any more", floors.directory));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_its_floor() {
    for floors in &HOUSE {
        let found: BTreeSet<_> = floors.files().into_iter().map(|(room, _)| room).collect();
        let listed = floors.rooms.iter().map(|room| (*room).to_owned()).collect();
        assert_eq!(found, listed, "{}", floors.directory);
    }
}

impl Floors {
    fn floor(&self, room: &str) -> usize {
        self.rooms.iter().position(|known| *known == room).unwrap()
    }

    /// Every source file below the directory, with the room that it belongs to.
    fn files(&self) -> Vec<(String, PathBuf)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.directory);
        let rooms = rust_files(&directory).into_iter().map(|file| {
            let path = module_path(file.strip_prefix(&directory).unwrap());
            (path.first().cloned().unwrap_or_else(|| "mod".to_owned()), file)
        });
        rooms.filter(|(room, _)| room != "tests").collect()
    }

    /// Which room names which other, each pair once.
    fn edges(&self) -> BTreeSet<(String, String)> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let base = module_path(Path::new(self.directory).strip_prefix(self.root).unwrap());
        let mut edges = BTreeSet::new();
        for (room, file) in self.files() {
            let own = module_path(file.strip_prefix(source.join(self.root)).unwrap());
            for named in named_paths(&without_tests(&fs::read_to_string(&file).unwrap())) {
                let Some(rest) = absolute(&own, &named).strip_prefix(&base[..]).map(<[_]>::to_vec)
                else {
                    continue;
                };
                let to = rest.first().filter(|to| self.rooms.contains(&to.as_str()));
                let to = to.cloned().unwrap_or_else(|| "mod".to_owned());
                if to != room {
                    edges.insert((room.clone(), to));
                }
            }
        }
        edges
    }
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

/// `gateway/manifests/mod.rs` is `[gateway, manifests]`.
fn module_path(file: &Path) -> Vec<String> {
    let names = file.components().map(|part| part.as_os_str().to_str().unwrap());
    let names = names.map(|name| name.trim_end_matches(".rs").to_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// The text up to its tests, without comments and strings' words that look like paths.
fn without_tests(text: &str) -> String {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join("\n");
    // Whom something is visible to is no import.
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |code, part| code + part.split_once(')').map_or(part, |(_, rest)| rest))
}

/// Every path that begins at the crate's root or goes up from where it stands, braces spelled out.
fn named_paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && !matches!(before, '_' | ':') {
                spell_out(&text[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads the tree of a path from the beginning of `text`; returns what is behind it.
fn spell_out<'a>(text: &'a str, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = spell_out(rest, &mut path.clone(), found).trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if !name.is_empty() {
        path.push(name.to_owned());
    }
    if let Some(rest) = rest.strip_prefix("::") {
        return spell_out(rest, path, found);
    }
    found.push(path.clone());
    // `as name` is no path.
    rest.find([',', '}', ';', '\n'])
        .map_or(rest, |at| if rest.starts_with(" as ") { &rest[at..] } else { rest })
}

/// A path from the crate's root, as it is named in the module `own`.
fn absolute(own: &[String], named: &[String]) -> Vec<String> {
    let mut path = own.to_vec();
    for (at, name) in named.iter().enumerate() {
        match name.as_str() {
            "crate" if at == 0 => path.clear(),
            "super" => drop(path.pop()),
            _ => path.push(name.clone()),
        }
    }
    path
}
