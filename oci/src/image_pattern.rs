//! Patterns of full image names.

use std::fmt;
use std::str::FromStr;

/// The longest pattern: no name is longer.
const LONGEST: usize = 512;

/// Not a pattern of image names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pattern of image names: {1}")]
pub struct ImagePatternError(String, &'static str);

/// Which images are meant, by their full names: `docker.io/library/*`, `ghcr.io/acme/**`,
/// `alpine:3.*`.
///
/// `*` stands for any run of characters but a slash, `**` for any run, `?` for one character but a
/// slash. A pattern is read as engines read names: without a slash it is of `docker.io/library`,
/// and without a registry of `docker.io`; a first part with a `*` in it may be a registry's. One
/// that says nothing of tags and digests means all of them. `*` alone means every image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern {
    typed: String,
    /// Of full names, in pieces.
    pieces: Vec<Piece>,
    /// Whether a tag or a digest is a part of it.
    is_explicit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `?`
    One,
    /// `*`
    Within,
    /// `**`
    Across,
}

impl ImagePattern {
    /// Whether `text` is one, rather than a name.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.contains(['*', '?'])
    }

    /// Whether the image with this repository (`docker.io/library/alpine`) and full name is meant.
    /// Takes time in proportion to the product of both lengths, at most.
    #[must_use]
    pub fn matches(&self, repository: &str, name: &str) -> bool {
        self.fits(name) || (!self.is_explicit && self.fits(repository))
    }

    /// Whether an image of this repository may be meant.
    #[must_use]
    pub fn may_be_in(&self, repository: &str) -> bool {
        let mut fixed = self.pieces.iter().map_while(|piece| match piece {
            Piece::Char(c) => Some(*c),
            _ => None,
        });
        // Behind the repository come its tags.
        let same = fixed.clone().zip(repository.chars()).all(|(one, other)| one == other);
        let is_behind = fixed.nth(repository.chars().count());
        same && is_behind.is_none_or(|c| matches!(c, ':' | '@'))
    }

    fn fits(&self, text: &str) -> bool {
        // Which beginnings of the text fit the pieces so far.
        let text: Vec<char> = text.chars().collect();
        let mut reached = vec![false; text.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for piece in &self.pieces {
            let mut next = vec![false; text.len() + 1];
            let mut is_open = false;
            for (at, slot) in next.iter_mut().enumerate() {
                let before = at.checked_sub(1).and_then(|at| text.get(at)).copied();
                let was_reached = |at: usize| reached.get(at).copied().unwrap_or_default();
                let came = at.checked_sub(1).is_some_and(was_reached);
                *slot = match (piece, before) {
                    (Piece::Char(c), Some(found)) => came && *c == found,
                    (Piece::One, Some(found)) => came && found != '/',
                    (Piece::Char(_) | Piece::One, None) => false,
                    (Piece::Within | Piece::Across, found) => {
                        let is_passed =
                            matches!(piece, Piece::Across) || found.is_some_and(|c| c != '/');
                        is_open = was_reached(at) || (is_open && is_passed);
                        is_open
                    }
                };
            }
            reached = next;
        }
        reached.last().copied().unwrap_or_default()
    }
}

impl FromStr for ImagePattern {
    type Err = ImagePatternError;

    fn from_str(text: &str) -> Result<Self, ImagePatternError> {
        let wrong = |why| Err(ImagePatternError(text.to_owned(), why));
        if text.len() > LONGEST {
            return wrong("it is longer than any name");
        }
        if text.contains("://") {
            return wrong("it is written without a scheme");
        }
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]*?".contains(c);
        if text.is_empty() || !text.chars().all(is_fit) {
            return wrong("names have letters, digits and . _ - / : @, patterns * and ? as well");
        }
        let full = full(text);
        let last = full.rsplit('/').next().unwrap_or_default();
        let is_explicit = last.contains([':', '@']);
        Ok(Self { typed: text.to_owned(), pieces: pieces(&full), is_explicit })
    }
}

/// The pattern of full names, as engines read a name.
fn full(text: &str) -> String {
    if text.chars().all(|c| c == '*') {
        return "**".to_owned();
    }
    let Some((first, rest)) = text.split_once('/') else {
        return format!("docker.io/library/{text}");
    };
    let is_host = first.contains(['.', ':', '*', '?']) || first == "localhost";
    match (first, rest) {
        // As the engines: what lies in no namespace of the Hub lies in library.
        ("docker.io" | "index.docker.io" | "registry-1.docker.io", rest) => {
            let is_whole = rest.contains('/') || ImagePattern::is_one(rest);
            format!("docker.io/{}{rest}", if is_whole { "" } else { "library/" })
        }
        _ if is_host => text.to_owned(),
        _ => format!("docker.io/{text}"),
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for c in text.chars() {
        match (c, pieces.last_mut()) {
            ('*', Some(last @ (Piece::Within | Piece::Across))) => *last = Piece::Across,
            ('*', _) => pieces.push(Piece::Within),
            ('?', _) => pieces.push(Piece::One),
            (c, _) => pieces.push(Piece::Char(c)),
        }
    }
    pieces
}

impl fmt::Display for ImagePattern {
    /// As it was typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let pattern: ImagePattern = pattern.parse().expect(pattern);
        let tail = name.rfind('/').expect("a full name");
        let end = name[tail..].find(['@', ':']).expect("an explicit name");
        let repository = &name[..tail + end];
        let is_meant = pattern.matches(repository, name);
        assert!(!is_meant || pattern.may_be_in(repository), "{pattern} {name}");
        is_meant
    }

    #[test]
    fn patterns_mean_what_people_type() {
        for (pattern, name, expected) in [
            ("docker.io/library/*", "docker.io/library/alpine:3.20", true),
            ("docker.io/library/*", "docker.io/org/alpine:3.20", false),
            ("docker.io/*", "docker.io/library/alpine:3.20", false),
            ("docker.io/**", "docker.io/library/alpine:3.20", true),
            ("docker.io/*/*", "docker.io/library/alpine:3.20", true),
            ("alpine:*", "docker.io/library/alpine:3.20", true),
            ("alpine:3.?0", "docker.io/library/alpine:3.20", true),
            ("alpine:3.?", "docker.io/library/alpine:3.20", false),
            ("alp*", "docker.io/library/alpine:3.20", true),
            ("*pine", "docker.io/library/alpine:3.20", true),
            ("*pine", "docker.io/library/alpine:latest", true),
            ("org/*", "docker.io/org/app:1", true),
            ("org/*", "ghcr.io/org/app:1", false),
            ("ghcr.io/*/app", "ghcr.io/org/app:1", true),
            ("ghcr.io/*/app", "ghcr.io/org/app@sha256:ab", true),
            ("ghcr.io/*/app", "ghcr.io/org/app2:1", false),
            ("ghcr.io/org/*@*", "ghcr.io/org/app@sha256:ab", true),
            ("ghcr.io/org/*@*", "ghcr.io/org/app:1", false),
            ("*.azurecr.io/**", "x.azurecr.io/a/b/c:1", true),
            ("**/app:1", "ghcr.io/org/app:1", true),
            ("**/app", "ghcr.io/a/b/app:1", true),
            ("*", "ghcr.io/a/b/app:1", true),
            ("**", "ghcr.io/a/b/app:1", true),
            ("registry.corp:5000/*", "registry.corp:5000/app:1", true),
            ("registry.corp:5000/*", "registry.corp/app:1", false),
            ("ghcr.io/org/app*:v1", "ghcr.io/org/app-x:v1", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        for wrong in ["", "https://ghcr.io/*", "a b*", "a;*", "*$(id)"] {
            assert!(wrong.parse::<ImagePattern>().is_err(), "{wrong}");
        }
        assert!("*".repeat(LONGEST + 1).parse::<ImagePattern>().is_err());
        assert!(ImagePattern::is_one("alp*") && !ImagePattern::is_one("alpine:3"));
    }

    #[test]
    fn a_repository_is_passed_over_where_nothing_in_it_can_be_meant() {
        let may = |pattern: &str, repository: &str| {
            pattern.parse::<ImagePattern>().expect(pattern).may_be_in(repository)
        };
        assert!(may("docker.io/library/*", "docker.io/library/alpine"));
        assert!(may("alpine:3.*", "docker.io/library/alpine"));
        assert!(!may("alpine:3.*", "docker.io/library/alp"));
        assert!(!may("ghcr.io/**", "docker.io/library/alpine"));
        assert!(!may("ghcr.io/org/app/*", "ghcr.io/org/app"));
    }

    proptest! {
        #[test]
        fn a_name_fits_itself_with_any_run_of_it_starred(
            name in "[a-z]{1,5}\\.io(/[a-z]{1,6}){1,3}:[a-z0-9.]{1,6}",
            from: proptest::sample::Index,
            to: proptest::sample::Index,
        ) {
            let (from, to) = (from.index(name.len()), to.index(name.len()));
            let (from, to) = (from.min(to), from.max(to));
            let starred = format!("{}**{}", &name[..from], &name[to..]);
            // What has lost its slash is read as a name of the Hub.
            prop_assume!(starred.contains('/') && starred.starts_with(&name[..1]) && from > 0);
            prop_assume!(starred.split('/').next().is_some_and(|first| first.contains('.')));
            prop_assert!(matches(&starred, &name), "{} {}", starred, name);
        }
    }
}
