//! `ENABLE_MANIFEST_CACHE`: how long tags are served without asking, in three tiers.

use entrepot_oci::TagPattern;

use super::Reading;
use crate::config::error::Position;
use crate::config::source::{ConfigEntry, Value};
use crate::config::units::exact_duration;

const SWITCH: &str = "ENABLE_MANIFEST_CACHE";

/// The variables of a tier, and what stands in that tool's image.
struct Tier {
    regex: &'static str,
    time: &'static str,
    usual_regex: &'static str,
    usual_time: &'static str,
}

const TIERS: [Tier; 2] = [
    Tier {
        regex: "MANIFEST_CACHE_PRIMARY_REGEX",
        time: "MANIFEST_CACHE_PRIMARY_TIME",
        usual_regex: "(stable|nightly|production|test)",
        usual_time: "10m",
    },
    Tier {
        regex: "MANIFEST_CACHE_SECONDARY_REGEX",
        time: "MANIFEST_CACHE_SECONDARY_TIME",
        usual_regex: r"(.*)(\d|\.)+(.*)(\d|\.)+(.*)(\d|\.)+",
        usual_time: "60d",
    },
];
/// For what fits neither.
const DEFAULT_TIME: (&str, &str) = ("MANIFEST_CACHE_DEFAULT_TIME", "1h");

/// Where registries without referrers keep signatures: they change, and have many digits.
const FALLBACK_TAGS: &str = "sha256-*";

pub(super) fn read(reading: &mut Reading<'_>) {
    if reading.flag(SWITCH) != Some(true) {
        return;
    }
    let mut rules = vec![rule("tag", FALLBACK_TAGS, "0s")];
    for tier in TIERS {
        let expression = reading.variable(tier.regex).unwrap_or(tier.usual_regex).to_owned();
        if TagPattern::expression(&expression).is_err() {
            reading.wrong(tier.regex, "a regular expression, without look-around and references");
        }
        let time = time(reading, tier.time, tier.usual_time);
        rules.push(rule("regex", &expression, &time));
    }
    let (variable, usual) = DEFAULT_TIME;
    let time = time(reading, variable, usual);
    rules.push(rule("tag", "*", &time));
    // What is wrong is told by the name of its own variable already.
    if reading.layer.problems.iter().any(|problem| is_of_a_tier(problem.place.as_ref())) {
        return;
    }
    let place = Position::Environment(SWITCH.to_owned());
    let entry = ConfigEntry { key: "tag-ttl".to_owned(), value: Value::List(rules), place };
    reading.layer.entries.push(entry);
}

fn is_of_a_tier(place: Option<&Position>) -> bool {
    matches!(place, Some(Position::Environment(name)) if name.starts_with("MANIFEST_CACHE_"))
}

fn time(reading: &mut Reading<'_>, variable: &str, usual: &str) -> String {
    let given = reading.time(variable).map(exact_duration);
    given.unwrap_or_else(|| usual.to_owned())
}

fn rule(key: &str, pattern: &str, ttl: &str) -> Value {
    let field = |key: &str, value: &str| (key.to_owned(), Value::Text(value.to_owned()));
    Value::Table(vec![field(key, pattern), field("ttl", ttl)])
}
