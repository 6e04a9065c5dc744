//! Which images are to be pulled: those of the command line, of files, of standard input.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use entrepot_oci::ImageName;

/// Standard input in place of a name or a file.
pub(super) const STANDARD: &str = "-";
/// A list is shorter: a hundred thousand names.
const LONGEST: u64 = 32 * 1024 * 1024;
/// A list of names that are none is not told to its end.
const MOST_TOLD: usize = 10;

/// What is no list of images.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAList(String);

/// A name as it was given, and where, if that was in a list.
struct Given {
    name: String,
    place: Option<String>,
}

/// The images of these arguments and of these files, each once, in order. What can't be read is an
/// error, and so are words that are no names, all of them at once: that is [`NotAList`].
pub(super) fn read<'a>(
    arguments: impl Iterator<Item = &'a str>,
    files: impl Iterator<Item = &'a Path>,
) -> anyhow::Result<Vec<ImageName>> {
    let mut given = Vec::new();
    let (mut is_read, mut has_list) = (false, false);
    for argument in arguments {
        if argument == STANDARD {
            standard(&mut given, &mut is_read)?;
            has_list = true;
        } else {
            given.push(Given { name: argument.to_owned(), place: None });
        }
    }
    for file in files {
        has_list = true;
        if file.as_os_str() == STANDARD {
            standard(&mut given, &mut is_read)?;
            continue;
        }
        let named = file.display().to_string();
        let opened = File::open(file).with_context(|| named.clone())?;
        lines(opened, &named, &mut given)?;
    }
    let names = parsed(&given)?;
    if names.is_empty() && has_list {
        bail!(NotAList("no image is named there".to_owned()));
    }
    Ok(names)
}

/// What is on standard input, once.
fn standard(given: &mut Vec<Given>, is_read: &mut bool) -> anyhow::Result<()> {
    if std::mem::replace(is_read, true) {
        return Ok(());
    }
    lines(io::stdin(), "standard input", given)
}

/// One name a line; what follows a `#`, and lines without a name, say nothing.
fn lines(from: impl Read, whose: &str, given: &mut Vec<Given>) -> anyhow::Result<()> {
    let lines = BufReader::new(from.take(LONGEST)).lines();
    let mut is_first = true;
    for (line, number) in lines.zip(1..) {
        let line = line.with_context(|| format!("{whose} can't be read"))?;
        // As some editors begin a file.
        let line = line.trim_start_matches('\u{feff}');
        let name = without_comment(line).trim();
        if name.is_empty() {
            continue;
        }
        if std::mem::take(&mut is_first) && name.starts_with(['{', '[']) {
            bail!(NotAList(format!(
                "{whose} has JSON; expected names of images, one a line: take them out with jq, or \
                 with kubectl's -o jsonpath"
            )));
        }
        let place = Some(format!("{whose}:{number}"));
        given.push(Given { name: name.to_owned(), place });
    }
    Ok(())
}

/// A `#` begins a comment where a name could begin: none has one in it.
fn without_comment(line: &str) -> &str {
    line.split_once('#').map_or(line, |(before, _)| before)
}

fn parsed(given: &[Given]) -> anyhow::Result<Vec<ImageName>> {
    let (mut names, mut wrong) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for Given { name, place } in given {
        match name.parse::<ImageName>() {
            Ok(name) if seen.insert(name.clone()) => names.push(name),
            Ok(_) => {}
            Err(error) => {
                let place = place.as_ref().map(|place| format!("{place}: "));
                wrong.push(format!("{}{error}", place.unwrap_or_default()));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(names);
    }
    if let Some(more) = wrong.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
        wrong.truncate(MOST_TOLD);
        wrong.push(format!("and {more} more"));
    }
    bail!(NotAList(wrong.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> Result<Vec<String>, String> {
        let mut given = Vec::new();
        lines(text.as_bytes(), "list", &mut given)
            .and_then(|()| parsed(&given))
            .map(|names| names.iter().map(ToString::to_string).collect())
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_list_has_a_name_a_line() {
        let text =
            "\u{feff}# what we run\n\nalpine:3.20\r\n  ghcr.io/org/app:1  # ours\nalpine:3.20\n";
        let names = of_text(text).unwrap();
        assert_eq!(names, ["docker.io/library/alpine:3.20", "ghcr.io/org/app:1"]);
        assert_eq!(of_text("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn all_that_are_no_names_are_told_with_their_lines() {
        let error = of_text("alpine\nAlpine\nhttps://x/y\n").unwrap_err();
        assert!(error.contains("list:2: \"Alpine\" is not the name of an image"), "{error}");
        assert!(error.contains("\n  list:3: "), "{error}");
        let error = of_text(&"A\n".repeat(15)).unwrap_err();
        assert!(error.ends_with("and 5 more"), "{error}");
        let error = of_text("\n {\"items\": []}\n").unwrap_err();
        assert!(error.contains("list has JSON"), "{error}");
    }

    #[test]
    fn names_come_from_several_places() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("images.txt");
        std::fs::write(&file, "alpine:1\nalpine:2\n").unwrap();
        let names = read(["alpine:2"].into_iter(), [&*file].into_iter()).unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/library/alpine:2", "docker.io/library/alpine:1"]);
        let nothing = directory.path().join("nothing.txt");
        assert!(read([].into_iter(), [&*nothing].into_iter()).is_err());
        std::fs::write(&nothing, "# none\n").unwrap();
        let error = read([].into_iter(), [&*nothing].into_iter()).unwrap_err();
        assert!(error.is::<NotAList>(), "{error}");
    }
}
