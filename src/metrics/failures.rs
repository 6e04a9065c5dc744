//! What goes wrong, each kind of it once: what, how often, and since when.
//!
//! The same outage fails request after request, each time with another duration or address in its
//! words. Such words are one group. What a user has got wrong (a name with a mistake in it, a host
//! that is not served here) is no registry's trouble, and is told apart: it neither looks like one
//! nor takes its place.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::log::{Outcome, RequestLine, Subject};

/// Groups kept of each side: what fits a screen.
const MOST: usize = 32;
/// What has not been seen for so long is told no more.
const LONGEST: Duration = Duration::from_hours(24);

/// On whose side something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The registry's, or that of the way there.
    Registry,
    /// Of whoever asked for it: for what there is not, or is not served to him.
    Client,
}

impl Side {
    /// The word in documents.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Client => "client",
        }
    }
}

/// What goes wrong in one way.
#[derive(Debug, Clone)]
pub struct FailureGroup {
    /// At which registry, if it is about one.
    pub registry: Option<String>,
    /// On whose side.
    pub side: Side,
    /// In words, as they were the last time.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: SystemTime,
    /// The last time.
    pub last: SystemTime,
}

#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Vec<(Key, FailureGroup)>>);

/// What is the same in all of a group.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    side: Side,
    /// The registry, or another host.
    whom: String,
    words: String,
}

impl Failures {
    /// Notes a request that was refused or has failed.
    pub(super) fn note(&self, line: &RequestLine) {
        if !matches!(line.outcome, Outcome::Denied | Outcome::Error) {
            return;
        }
        let (now, reason) = (SystemTime::now(), reason(line));
        let registry = line.subject.registry();
        let side = side(line);
        let whom = registry.map_or_else(|| host(&line.subject), str::to_owned);
        let key = Key { side, whom, words: constant_words(&reason) };
        let registry = registry.map(str::to_owned);
        let mut groups = self.0.lock();
        if let Some((_, group)) = groups.iter_mut().find(|(known, _)| *known == key) {
            (group.count, group.last, group.reason) = (group.count + 1, now, reason);
            return;
        }
        make_room(&mut groups, side, now);
        let group = FailureGroup { registry, side, reason, count: 1, first: now, last: now };
        groups.push((key, group));
    }

    /// The groups: the registries' first, of each side those that were seen last first.
    pub(super) fn groups(&self) -> Vec<FailureGroup> {
        let now = SystemTime::now();
        let groups = self.0.lock();
        let recent = groups.iter().filter(|(_, group)| !is_over(group, now));
        let mut told: Vec<_> = recent.map(|(_, group)| group.clone()).collect();
        drop(groups);
        told.sort_by_key(|group| (group.side == Side::Client, std::cmp::Reverse(group.last)));
        told
    }
}

fn is_over(group: &FailureGroup, now: SystemTime) -> bool {
    now.duration_since(group.last).is_ok_and(|since| since > LONGEST)
}

/// Drops what is over, and of a side that is full what was seen once alone before what comes again
/// and again.
fn make_room(groups: &mut Vec<(Key, FailureGroup)>, side: Side, now: SystemTime) {
    groups.retain(|(_, group)| !is_over(group, now));
    let of_side = || groups.iter().enumerate().filter(|(_, (_, group))| group.side == side);
    if of_side().count() < MOST {
        return;
    }
    let least = of_side().min_by_key(|(_, (_, group))| (group.count > 1, group.last));
    if let Some((least, _)) = least {
        groups.swap_remove(least);
    }
}

/// Whoever asks a registry for what it has not, or does not give him, is told so with a 4xx. One of
/// them is about the registry itself: it has had enough.
fn side(line: &RequestLine) -> Side {
    let is_asked_wrong = line
        .status
        .is_some_and(|status| status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS);
    let is_registrys = line.outcome == Outcome::Error
        && line.method != Method::CONNECT
        && line.subject.registry().is_some()
        && !is_asked_wrong;
    if is_registrys { Side::Registry } else { Side::Client }
}

/// Why it failed. That a host "has been unreachable for 7 s" is what the count and the times of a
/// group say better.
fn reason(line: &RequestLine) -> String {
    let status = || line.status.map(|status| format!(" ({})", status.as_u16()));
    let Some(reason) = &line.reason else {
        return format!("{}{}", line.outcome.label(), status().unwrap_or_default());
    };
    let cause = reason.split_once(" has been unreachable for ").and_then(|(_, rest)| {
        let (_, cause) = rest.split_once(": ")?;
        Some(cause.to_owned())
    });
    cause.unwrap_or_else(|| reason.clone())
}

/// The host of what is no registry.
fn host(subject: &Subject) -> String {
    let what = subject.object();
    let behind = what.split_once("://").map_or(&*what, |(_, behind)| behind);
    behind.split('/').next().unwrap_or_default().to_owned()
}

/// A reason without what is another in each of its instances: addresses, ports, durations, digests.
/// A status says what it is about.
fn constant_words(reason: &str) -> String {
    let words = reason.split_whitespace().map(constant_word);
    words.collect::<Vec<_>>().join(" ")
}

fn constant_word(word: &str) -> String {
    let is_outside = |c: char| !c.is_alphanumeric() && !"[]:".contains(c);
    let bare = word.trim_matches(is_outside).trim_end_matches(':');
    let is_status = matches!(bare.parse(), Ok(400..=599_u16));
    if is_status {
        return word.to_owned();
    }
    if bare.parse::<IpAddr>().is_ok() || bare.parse::<SocketAddr>().is_ok() {
        return "#".to_owned();
    }
    let mut text = String::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| c.is_alphanumeric() != first.is_alphanumeric());
        let (run, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let varies = first.is_alphanumeric() && run.contains(|c: char| c.is_ascii_digit());
        text.push_str(if varies { "#" } else { run });
        rest = behind;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::{Registry, Route};

    fn line(outcome: Outcome, host: &str, status: u16, reason: &str) -> RequestLine {
        let registry = Registry::at(&format!("{host}:443").parse().unwrap());
        let path = "/v2/org/app/manifests/1";
        let subject = Subject::of(registry, Route::parse(path, None), path);
        let line = RequestLine::new(outcome, Method::GET, subject, [10, 0, 0, 7].into());
        let status = StatusCode::from_u16(status).ok();
        RequestLine { status, ..line.because(Some(reason.to_owned())) }
    }

    fn told(failures: &Failures) -> Vec<(String, String, u64, Side)> {
        let told = |group: FailureGroup| {
            (group.registry.unwrap_or_default(), group.reason, group.count, group.side)
        };
        failures.groups().into_iter().map(told).collect()
    }

    #[test]
    fn one_outage_is_one_group_whatever_its_words_count() {
        let failures = Failures::default();
        for reason in [
            "no connection to ghcr.io:443 at 140.82.121.33:443: Connection refused",
            "no connection to ghcr.io:443 at 140.82.121.34:8443: Connection refused",
            "no connection to ghcr.io:443 at [2606:50c0::153]:443: Connection refused",
            "ghcr.io:443 has been unreachable for 0 s: no connection to ghcr.io:443 at 10.0.0.1:443: \
             Connection refused",
            "ghcr.io:443 has been unreachable for 71 s: no connection to ghcr.io:443 at \
             140.82.121.33:443: Connection refused",
        ] {
            failures.note(&line(Outcome::Error, "ghcr.io", 503, reason));
        }
        let words = "no connection to ghcr.io:443 at 140.82.121.33:443: Connection refused";
        let expected = ("ghcr.io".to_owned(), words.to_owned(), 5, Side::Registry);
        assert_eq!(told(&failures), [expected]);
    }

    #[test]
    fn what_differs_stays_apart() {
        let failures = Failures::default();
        for (host, reason) in [
            ("ghcr.io", "ghcr.io:443 answers 502 Bad Gateway"),
            ("ghcr.io", "ghcr.io:443 answers 503 Service Unavailable"),
            ("ghcr.io", "the certificate of ghcr.io:443 is refused: it has expired"),
            ("quay.io", "ghcr.io:443 answers 502 Bad Gateway"),
        ] {
            failures.note(&line(Outcome::Error, host, 502, reason));
        }
        failures.note(&line(Outcome::Hit, "quay.io", 200, "nothing is wrong"));
        assert_eq!(told(&failures).len(), 4);
    }

    #[test]
    fn mistakes_of_users_are_no_registrys_trouble() {
        let failures = Failures::default();
        failures.note(&line(Outcome::Error, "docker.io", 503, "it is away"));
        failures.note(&line(Outcome::Error, "docker.io", 429, "it has had enough"));
        failures.note(&line(
            Outcome::Error,
            "docker.io",
            404,
            "nosuch/image:latest: no such image",
        ));
        failures.note(&line(Outcome::Denied, "docker.io", 405, "pushes are refused"));
        for other in ["mail.example:25", "http://mail.example:25/1", "http://mail.example:25/2"] {
            let subject = Subject::Other(other.to_owned());
            let denied =
                RequestLine::new(Outcome::Denied, Method::CONNECT, subject, [10, 0, 0, 7].into());
            failures.note(&denied.because(Some("not a registry".to_owned())));
        }
        let groups = told(&failures);
        let sides: Vec<_> = groups.iter().map(|(.., side)| *side).collect();
        let (registry, client) = (Side::Registry, Side::Client);
        assert_eq!(sides, [registry, registry, client, client, client], "{groups:?}");
        assert!(
            groups.iter().any(|(_, reason, count, _)| reason == "not a registry" && *count == 3)
        );
    }

    #[test]
    fn there_are_no_more_than_fit_and_what_comes_again_stays() {
        let failures = Failures::default();
        for _ in 0..2 {
            failures.note(&line(Outcome::Error, "ghcr.io", 503, "it is away"));
        }
        let word = |number: usize| {
            let digits = number.to_string();
            let letters: String = digits.bytes().map(|digit| char::from(digit + 49)).collect();
            format!("about {letters}")
        };
        for number in 0..10 * MOST {
            failures.note(&line(Outcome::Error, "ghcr.io", 503, &word(number)));
            failures.note(&line(Outcome::Denied, "ghcr.io", 403, &word(number)));
        }
        let groups = told(&failures);
        assert_eq!(groups.len(), 2 * MOST);
        assert!(groups.iter().any(|(_, reason, ..)| reason == "it is away"));
    }
}
