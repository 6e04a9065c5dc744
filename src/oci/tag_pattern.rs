//! Patterns of tags.

use std::fmt;
use std::str::FromStr;

use super::Tag;
use super::reference::TagError;

/// Tags with `*` for any run of characters (`v*`, `*-rc*`, `latest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPattern(String);

impl TagPattern {
    /// Whether `tag` is one of them.
    #[must_use]
    pub fn matches(&self, tag: &Tag) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == tag.as_str() };
        let Some(mut left) = tag.as_str().strip_prefix(first) else { return false };
        let mut pieces: Vec<_> = rest.split('*').collect();
        let last = pieces.pop().unwrap_or_default();
        for piece in pieces {
            match left.split_once(piece) {
                Some((_, after)) => left = after,
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

impl FromStr for TagPattern {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        // What stands for nothing is taken out; the rest must be able to be a tag.
        let plain: String = text.chars().filter(|c| *c != '*').collect();
        let begins_open = text.starts_with('*');
        let checked = if begins_open { format!("x{plain}") } else { plain };
        checked.parse::<Tag>().map(|_| Self(text.to_owned()))
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        let cases = [
            ("latest", "latest", true),
            ("latest", "latest2", false),
            ("*", "anything", true),
            ("v*", "v1.2", true),
            ("v*", "1.2", false),
            ("*-rc*", "1.0-rc1", true),
            ("*-rc*", "1.0", false),
            ("1.*.0", "1.2.0", true),
            ("1.*.0", "1.0", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*b", "abb", true),
            ("*b*b", "ab", false),
        ];
        for (pattern, tag, expected) in cases {
            let pattern: TagPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(&tag.parse().unwrap()), expected, "{pattern} {tag}");
        }
        for bad in ["", "a b", "-x", "a/b", ".*"] {
            assert!(bad.parse::<TagPattern>().is_err(), "{bad:?}");
        }
    }
}
