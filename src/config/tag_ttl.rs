//! `tag-ttl`: one duration, or a list of tag patterns with theirs.

use std::time::Duration;

use entrepot_oci::TagPattern;

use super::source::Value;
use super::value::FromValue;
use crate::gateway::TagTtl;

impl FromValue for TagTtl {
    const EXPECTED: &'static str =
        "a duration such as 10m, or a list such as [{ tag = \"latest\", ttl = \"1m\" }]";

    fn from_text(text: &str) -> Option<Self> {
        Duration::from_text(text).map(|ttl| Self { rules: Vec::new(), default: Some(ttl) })
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Self::from_text(text),
            Value::List(items) => {
                let rules = items.iter().map(rule).collect::<Option<_>>()?;
                Some(Self { rules, default: None })
            }
            Value::Number(_) | Value::Boolean(_) | Value::Table(_) => None,
        }
    }
}

/// `{ tag = "v*", ttl = "60d" }` or `{ regex = "v[0-9]", ttl = "60d" }`, and nothing else in it.
fn rule(value: &Value) -> Option<(TagPattern, Duration)> {
    let Value::Table(fields) = value else { return None };
    let field = |name: &str| match fields.iter().find(|(key, _)| key == name) {
        Some((_, Value::Text(text))) => Some(text.as_str()),
        _ => None,
    };
    let pattern = match (field("tag"), field("regex")) {
        (Some(tag), None) => tag.parse().ok()?,
        (None, Some(expression)) => TagPattern::expression(expression).ok()?,
        _ => return None,
    };
    let ttl = Duration::from_text(field("ttl")?)?;
    (fields.len() == 2).then_some((pattern, ttl))
}

/// A count, such as that of pulls.
impl FromValue for u64 {
    const EXPECTED: &'static str = "a whole number such as 5";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(text) | Value::Text(text) => Self::from_text(text),
            Value::Boolean(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}
