//! Patterns of tags against a tag: the answer is that of a slow reading, and soon there.

#![no_main]

use entrepot_fuzz::parts;
use entrepot_oci::{Tag, TagPattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some([pattern, tag]) = parts(text) else { return };
    let Ok(tag) = tag.parse::<Tag>() else { return };
    if let Ok(parsed) = pattern.parse::<TagPattern>() {
        assert_eq!(parsed.to_string(), pattern);
        assert_eq!(
            parsed.matches(&tag),
            fits(pattern.as_bytes(), tag.as_str().as_bytes()),
            "{text}"
        );
    }
    // An expression is an operator's, but comes from another tool's environment.
    if pattern.len() <= 200
        && let Ok(parsed) = TagPattern::expression(pattern)
    {
        let _ = parsed.matches(&tag);
    }
});

/// A `*` stands for any bytes, or none: by all ways at once.
fn fits(pattern: &[u8], tag: &[u8]) -> bool {
    let mut reached = vec![false; tag.len() + 1];
    reached[0] = true;
    for part in pattern {
        let mut next = vec![false; tag.len() + 1];
        for at in 0..=tag.len() {
            next[at] = if *part == b'*' {
                reached[at] || (at > 0 && next[at - 1])
            } else {
                at > 0 && tag[at - 1] == *part && reached[at - 1]
            };
        }
        reached = next;
    }
    reached[tag.len()]
}
