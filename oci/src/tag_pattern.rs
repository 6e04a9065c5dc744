//! Patterns of tags.

use std::fmt;
use std::str::FromStr;

use regex::Regex;

use super::Tag;
use super::reference::TagError;

/// Which tags are meant: `*` stands for any run of characters (`v*`, `*-rc*`, `latest`); or those
/// that begin with what a regular expression matches.
#[derive(Debug, Clone)]
pub struct TagPattern(Form);

#[derive(Debug, Clone)]
enum Form {
    Stars(String),
    Expression { text: String, begins: Regex },
}

impl TagPattern {
    /// Tags that begin with what `expression` matches. It takes time in proportion to the tag,
    /// whatever it says.
    pub fn expression(expression: &str) -> Result<Self, regex::Error> {
        // By itself first: what only makes sense within the group is none.
        Regex::new(expression)?;
        let begins = Regex::new(&format!("^(?:{expression})"))?;
        Ok(Self(Form::Expression { text: expression.to_owned(), begins }))
    }

    /// Whether `tag` is one of them.
    #[must_use]
    pub fn matches(&self, tag: &Tag) -> bool {
        match &self.0 {
            Form::Stars(pattern) => matches_stars(pattern, tag.as_str()),
            Form::Expression { begins, .. } => begins.is_match(tag.as_str()),
        }
    }
}

fn matches_stars(pattern: &str, tag: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == tag };
    let Some(mut left) = tag.strip_prefix(first) else { return false };
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

impl PartialEq for TagPattern {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Stars(one), Form::Stars(other)) => one == other,
            (Form::Expression { text: one, .. }, Form::Expression { text: other, .. }) => {
                one == other
            }
            (Form::Stars(_), Form::Expression { .. })
            | (Form::Expression { .. }, Form::Stars(_)) => false,
        }
    }
}

impl Eq for TagPattern {}

impl FromStr for TagPattern {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        // What stands for nothing is taken out; the rest must be able to be a tag.
        let plain: String = text.chars().filter(|c| *c != '*').collect();
        let begins_open = text.starts_with('*');
        let checked = if begins_open { format!("x{plain}") } else { plain };
        checked.parse::<Tag>().map(|_| Self(Form::Stars(text.to_owned())))
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Stars(text) | Form::Expression { text, .. } => f.write_str(text),
        }
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

    #[test]
    fn an_expression_is_of_how_a_tag_begins() {
        let numbers = r"(.*)(\d|\.)+(.*)(\d|\.)+(.*)(\d|\.)+";
        let cases = [
            ("(stable|test)", "stable", true),
            ("(stable|test)", "test-2", true),
            ("(stable|test)", "unstable", false),
            ("a|b", "ba", true),
            (numbers, "1.2", true),
            (numbers, "v20", false),
            (numbers, "latest", false),
        ];
        for (text, tag, expected) in cases {
            let pattern = TagPattern::expression(text).unwrap();
            assert_eq!(pattern.matches(&tag.parse().unwrap()), expected, "{text} {tag}");
        }
        for bad in ["(", "a)b(", "(?=x)", "\\1"] {
            assert!(TagPattern::expression(bad).is_err(), "{bad:?}");
        }
        assert_ne!("a".parse(), Ok(TagPattern::expression("a").unwrap()));
    }
}
