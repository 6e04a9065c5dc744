//! The documentation leads somewhere, and names what there is.

#![expect(
    clippy::unwrap_used,
    reason = "the steps of a test are no product code: one that can't go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

use entrepot::Outcome;
use entrepot::setup::Client;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages_in(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let mut found = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "fuzz/README.md"]
        .map(|name| root().join(name))
        .to_vec();
    pages_in(&root().join("docs"), &mut found);
    found
}

/// What stands between `](` and `)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            seen += 1;
            let path = page.parent().unwrap().join(target);
            assert!(path.exists(), "{}: {link} leads nowhere", page.display());
        }
    }
    assert!(seen > 30, "the links were not found: {seen}");
}

#[test]
fn every_fuzz_target_is_told_of_and_has_seeds() {
    let fuzz = root().join("fuzz");
    let page = fs::read_to_string(fuzz.join("README.md")).unwrap();
    let told = |target: &str| page.contains(&format!("\n| `{target}` | "));
    let mut seen = 0;
    for entry in fs::read_dir(fuzz.join("src/bin")).unwrap() {
        let path = entry.unwrap().path();
        let target = path.file_stem().unwrap().to_str().unwrap();
        assert!(told(target), "fuzz/README.md does not tell of {target}");
        let seeds = fs::read_dir(fuzz.join("seeds").join(target));
        assert!(seeds.is_ok_and(|seeds| seeds.count() > 0), "{target} has no seeds");
        seen += 1;
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, seen, "fuzz/README.md tells of targets that there are not");
    assert!(seen > 20, "the targets were not found: {seen}");
}

#[test]
fn the_readme_names_the_rust_that_it_takes() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let wanted = format!("needs Rust {} or newer", env!("CARGO_PKG_RUST_VERSION"));
    assert!(readme.contains(&wanted), "README.md does not say that it {wanted}");
}

#[test]
fn every_script_is_in_the_list_of_clients() {
    let list = fs::read_to_string(root().join("docs/clients/README.md")).unwrap();
    for client in Client::ALL {
        let page = format!("`/setup/{}`", client.name());
        assert!(list.contains(&page), "{page} is not in docs/clients/README.md");
    }
}

#[test]
fn the_scripts_that_need_systemd_are_named() {
    let page = fs::read_to_string(root().join("docs/clients/README.md")).unwrap();
    let section = page.split("\n## Without systemd\n").nth(1).unwrap();
    let named = section.split("need systemd").next().unwrap();
    for client in Client::ALL {
        let file = format!("src/admin/setup/clients/{}.sh", client.name());
        let needs_it =
            fs::read_to_string(root().join(file)).unwrap().contains("    need_systemd\n");
        let is_named = named.contains(&format!("`/setup/{}`", client.name()));
        assert_eq!(is_named, needs_it, "{}", client.name());
    }
}

#[test]
fn every_word_of_the_log_is_explained() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    for outcome in Outcome::ALL {
        let row = format!("\n| `{}` | ", outcome.as_str());
        assert!(page.contains(&row), "docs/troubleshooting.md does not explain {outcome:?}");
    }
}

/// A page says what an engine prints, which is what the program says.
#[test]
fn what_the_program_prints_is_explained_in_its_own_words() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let said = [
        ("src/listener/mirror.rs", "is not mirrored here: add it to intercept-also"),
        ("src/listener/policy.rs", "not a registry that this proxy knows (tunnel = "),
        ("src/listener/policy.rs", "of a host that is no known registry"),
        ("src/listener/proxy.rs", " is refused: "),
        ("src/listener/access/passwords.rs", "this proxy asks for a user and password"),
        ("src/upstream/error.rs", "which is not a public address"),
        ("src/listener/proxy.rs", "may not use this proxy (access.clients)"),
        ("src/config/raw_config.rs", "is no variable of entrepot's"),
        ("cache/src/disk/open_error.rs", "is not a store and not empty"),
        ("src/upstream/error.rs", "and the one in certs-dir serves pulls alone"),
        ("src/upstream/error.rs", "speaks plain HTTP, not TLS"),
        ("ca/src/error.rs", "others than its owner can read"),
    ];
    for (file, words) in said {
        let source = fs::read_to_string(root().join(file)).unwrap().replace("\\\"", "\"");
        assert!(source.contains(words), "{file} does not say {words:?} any more");
        assert!(page.contains(words), "docs/troubleshooting.md does not explain {words:?}");
    }
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_attack_names_the_tests_that_there_are() {
    let page = fs::read_to_string(root().join("docs/attacks.md")).unwrap();
    let named: Vec<_> = quoted(&page).filter_map(|name| name.split_once(".rs::")).collect();
    assert!(named.len() > 50, "{}", named.len());
    for (file, test) in named {
        let source = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap();
        assert!(source.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
    }
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.contains("| tests |")) {
        assert!(row.contains(".rs::"), "no test: {row}");
    }
}
