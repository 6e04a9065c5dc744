//! Comments wrap at 100 columns, which the formatter leaves to us.

#![expect(clippy::unwrap_used, reason = "a test that can't read the sources fails")]

use std::fs;
use std::path::{Path, PathBuf};

const WIDTH: usize = 100;

#[test]
fn comments_wrap() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directories = ["src", "oci", "cache", "ca", "tests", "bench", "benches", "fuzz/src"];
    let files = directories.iter().flat_map(|directory| sources(&root.join(directory)));
    let mut seen = 0;
    let too_wide: Vec<_> = files
        .inspect(|_| seen += 1)
        .flat_map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root).unwrap().display().to_string();
            wide_comments(&text).map(|line| format!("{name}:{line}")).collect::<Vec<_>>()
        })
        .collect();
    assert!(seen > 200, "only {seen} files were looked at");
    assert!(too_wide.is_empty(), "wider than {WIDTH} columns: {too_wide:#?}");
}

#[test]
fn a_wide_comment_is_seen() {
    let wide = "x ".repeat(WIDTH / 2);
    let text = format!("{wide}{wide}\n  /// {wide}\n//! short\n    // | {wide} |\n// {wide}\n");
    assert_eq!(wide_comments(&text).collect::<Vec<_>>(), [2, 5]);
}

/// The numbers of the lines, from 1, that are a comment and too wide. Tables can't be broken.
fn wide_comments(text: &str) -> impl Iterator<Item = usize> {
    let is_wide = |line: &str| {
        let comment =
            line.trim_start().strip_prefix("//").map(|rest| rest.trim_start_matches(['/', '!']));
        comment.is_some_and(|words| !words.trim_start().starts_with('|'))
            && line.chars().count() > WIDTH
    };
    text.lines().zip(1..).filter(move |(line, _)| is_wide(line)).map(|(_, number)| number)
}

/// All Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
