//! What of a proxy's state a person sees, in as many columns as there are.
//!
//! What is wrong comes first. What others have said is made one line before it is painted.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use super::super::output::{Paint, Style, fitted, lasting, wrapped};
use super::super::table::{Side, fitting};
use super::facts::{Facts, Fetch, Hits, Peers, Pull, Savings, Stats, Sum, Trouble};
use crate::log::{bytes, one_line};
use crate::words::grouped;

/// Where sections have their names on the left.
const WIDE: usize = 60;
/// How wide those are.
const LABEL: usize = 12;
/// Downloads that are shown.
const MOST_FETCHES: usize = 8;
/// Registries with a quota that are shown.
const MOST_QUOTAS: usize = 8;
/// Replicas that are away that are shown.
const MOST_AWAY: usize = 4;
/// No column: none of a row is cut off.
const NONE: usize = usize::MAX;

/// How it is shown.
pub(super) struct Screen {
    pub(super) width: usize,
    pub(super) paint: Paint,
    pub(super) now: SystemTime,
}

impl Screen {
    /// The lines.
    pub(super) fn lines(&self, facts: &Facts) -> Vec<String> {
        let mut lines = self.head(facts);
        lines.extend(self.verdict(facts));
        lines.extend(self.troubles(&facts.status.troubles));
        let mut sections = self.section("Proxy", self.way(facts));
        if let Some(savings) = &facts.savings {
            sections.extend(self.section("Saved", self.savings(savings)));
        }
        if let Some(stats) = &facts.stats {
            sections.extend(self.section("Hit ratio", self.hits(stats)));
        }
        sections.extend(self.section("Quota", self.quotas(facts)));
        if let Some(stats) = &facts.stats {
            sections.extend(self.section("Store", self.store(stats)));
        }
        if let Some(bucket) = facts.stats.as_ref().and_then(|stats| stats.bucket.as_ref()) {
            sections.extend(self.section("Bucket", self.sentence(&one_line(&bucket.words))));
        }
        if let Some(peers) = &facts.peers {
            sections.extend(self.section("Replicas", self.replicas(peers)));
        }
        sections.extend(self.section("Coming in", self.fetches(&facts.fetches)));
        sections.extend(self.section("Last pulls", self.pulls(&facts.pulls)));
        if !sections.is_empty() {
            lines.push(String::new());
        }
        lines.extend(sections);
        lines
    }

    /// Whose screen it is, and of when.
    fn head(&self, facts: &Facts) -> Vec<String> {
        let status = &facts.status;
        let up = status.started.map(|started| {
            let secs = self.secs().saturating_sub(started);
            format!("up {}", lasting(secs))
        });
        let name = one_line(&status.name).into_owned();
        let version = format!("entrepot {}", one_line(&status.version));
        let told = [Some(version), up].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let clock = self.moment(self.secs());
        let left = name.chars().count() + 2 + told.chars().count();
        let gap = self.width.saturating_sub(left + clock.chars().count());
        if gap < 2 {
            // A narrow one: the clock is what can be done without.
            return vec![
                self.paint.paint(Style::Strong, &fitted(&name, self.width)),
                fitted(&told, self.width),
            ];
        }
        let name = self.paint.paint(Style::Strong, &name);
        let clock = self.paint.paint(Style::Label, &format!("{}{clock}", " ".repeat(gap)));
        vec![format!("{name}  {told}{clock}")]
    }

    fn verdict(&self, facts: &Facts) -> Vec<String> {
        let style = match facts.status.verdict.as_str() {
            "well" => Style::Good,
            "draining" => Style::Warning,
            _ => Style::Bad,
        };
        let lines = wrapped(&one_line(&facts.status.sentence), self.width, "", "");
        lines.iter().map(|line| self.paint.paint(style, line)).collect()
    }

    /// Where there are several, one line each; one is in the sentence already.
    fn troubles(&self, troubles: &[Trouble]) -> Vec<String> {
        if troubles.len() < 2 {
            return Vec::new();
        }
        troubles.iter().flat_map(|trouble| self.trouble(trouble)).collect()
    }

    fn trouble(&self, trouble: &Trouble) -> Vec<String> {
        let words = trouble.words.clone().unwrap_or_else(|| {
            let whose = trouble.registry.as_deref().unwrap_or("the store");
            let since = trouble.since.map(|at| format!(" since {}", self.moment(at)));
            let until = trouble.until.map(|at| format!(" until {}", self.moment(at)));
            let why = trouble.why.as_ref().map(|why| format!(": {why}"));
            let more = [since, until, why].into_iter().flatten().collect::<String>();
            format!("{whose} is {}{more}", trouble.state)
        });
        wrapped(&one_line(&words), self.width, "- ", "  ")
    }

    /// How clients reach it, and whom to ask.
    fn way(&self, facts: &Facts) -> Vec<String> {
        let contact = facts.status.contact.as_ref().map(|contact| format!("contact: {contact}"));
        let told = [facts.status.proxy_url.clone(), contact].into_iter().flatten();
        let told = told.collect::<Vec<_>>().join("; ");
        if told.is_empty() { Vec::new() } else { self.sentence(&one_line(&told)) }
    }

    fn savings(&self, savings: &Savings) -> Vec<String> {
        let currency = savings.currency.as_deref().unwrap_or_default();
        let since = savings.since.map(|at| format!("since {}", self.date(at)));
        let rows = [("this month", &savings.this_month, None), ("in total", &savings.total, since)];
        let rows = rows.into_iter().filter_map(|(when, sum, since)| {
            let sum = sum.as_ref()?;
            let mut row = vec![when.to_owned()];
            row.extend(saved(sum, currency));
            row.push(since.unwrap_or_default());
            Some(row)
        });
        let sides = [Side::Left, Side::Right, Side::Right, Side::Right, Side::Left, Side::Left];
        fitting(rows.collect(), &sides, self.room(), NONE, &[5, 4, 3, 2])
    }

    fn hits(&self, stats: &Stats) -> Vec<String> {
        let kinds = [("manifests", &stats.manifests), ("blobs", &stats.blobs)];
        let told: Vec<_> = kinds
            .into_iter()
            .filter_map(|(kind, hits)| Some(format!("{kind} {}", ratio(hits.as_ref()?)?)))
            .collect();
        if told.is_empty() { Vec::new() } else { self.sentence(&told.join(", ")) }
    }

    fn quotas(&self, facts: &Facts) -> Vec<String> {
        let rows = facts.registries.iter().filter_map(|registry| {
            let quota = registry.quota.as_ref()?;
            let remaining = quota.remaining?;
            let left = match quota.limit {
                Some(limit) => format!("{remaining} of {limit} left"),
                None => format!("{remaining} left"),
            };
            let is_whole = quota.limit.is_some_and(|limit| remaining >= limit);
            let whole = quota.whole_again.filter(|at| !is_whole && *at > self.secs());
            let whole = whole.map(|at| format!("whole at {}", self.moment(at)));
            let registry = one_line(&registry.registry).into_owned();
            Some(vec![registry, left, whole.unwrap_or_default()])
        });
        let sides = [Side::Left; 3];
        fitting(rows.take(MOST_QUOTAS).collect(), &sides, self.room(), 0, &[2])
    }

    fn store(&self, stats: &Stats) -> Vec<String> {
        let store = &stats.store;
        let most = store.max_bytes.map(|most| {
            let percent = (store.bytes.saturating_mul(100)).checked_div(most).unwrap_or_default();
            format!(" of {} ({percent} %)", bytes(most))
        });
        let free = store.free_bytes.map(|free| {
            let least = store.min_free_bytes.map(|least| format!(" (min-free {})", bytes(least)));
            format!("; {} free on the disk{}", bytes(free), least.unwrap_or_default())
        });
        let (most, free) = (most.unwrap_or_default(), free.unwrap_or_default());
        self.sentence(&format!(
            "{}{most} in {} objects{free}",
            bytes(store.bytes),
            grouped(store.objects)
        ))
    }

    fn fetches(&self, fetches: &[Fetch]) -> Vec<String> {
        let shown = fetches.iter().take(MOST_FETCHES).map(|fetch| {
            let digest = fetch.digest.split(':').next_back().unwrap_or_default();
            let what = fetch.image.clone().unwrap_or_else(|| {
                format!("{} {}", fetch.registry, digest.chars().take(12).collect::<String>())
            });
            let percent = fetch.total_bytes.and_then(|total| {
                let percent = fetch.bytes.saturating_mul(100).checked_div(total)?;
                Some(format!("{} %", percent.min(100)))
            });
            let size = bytes(fetch.total_bytes.unwrap_or(fetch.bytes));
            let left = fetch.remaining_secs.map(|secs| format!("{} left", lasting(secs)));
            let waiting = fetch.waiting.filter(|waiting| *waiting > 1);
            vec![
                familiar(&one_line(&what)).to_owned(),
                percent.unwrap_or_default(),
                size,
                fetch.bytes_per_sec.map(speed).unwrap_or_default(),
                left.unwrap_or_default(),
                waiting.map(|waiting| format!("{waiting} wait")).unwrap_or_default(),
            ]
        });
        let sides = [Side::Left, Side::Right, Side::Right, Side::Right, Side::Right, Side::Left];
        let mut lines = fitting(shown.collect(), &sides, self.room(), 0, &[5, 2, 4, 3]);
        if let Some(more) = fetches.len().checked_sub(MOST_FETCHES).filter(|more| *more > 0) {
            lines.push(format!("and {more} more"));
        }
        lines
    }

    fn pulls(&self, pulls: &[Pull]) -> Vec<String> {
        let shown = pulls.iter().map(|pull| {
            let reference = pull.tag.as_ref().or(pull.reference.as_ref());
            let reference = match reference.map(|reference| (reference, reference.split_once(':')))
            {
                Some((_, Some(("sha256" | "sha512", hex)))) => {
                    format!("@{}", hex.chars().take(12).collect::<String>())
                }
                Some((reference, _)) => format!(":{reference}"),
                None => String::new(),
            };
            let image = format!("{}/{}{reference}", pull.registry, pull.repository);
            let client = match &pull.user {
                Some(user) => format!("{user}@{}", pull.client),
                None => pull.client.clone(),
            };
            let came = match pull.outcome.as_deref() {
                Some("failed") => "failed".to_owned(),
                Some("abandoned") => "given up".to_owned(),
                Some("checked") => "looked at".to_owned(),
                _ => {
                    let share = pull.share_from_cache.unwrap_or_default();
                    format!("{:.0} % cached", (share * 100.0).clamp(0.0, 100.0))
                }
            };
            vec![
                self.clock(pull.at_ms / 1000),
                one_line(&client).into_owned(),
                familiar(&one_line(&image)).to_owned(),
                bytes(pull.bytes),
                came,
                took(Duration::from_millis(pull.duration_ms)),
            ]
        });
        let sides = [Side::Left, Side::Left, Side::Left, Side::Right, Side::Right, Side::Right];
        fitting(shown.collect(), &sides, self.room(), 2, &[5, 3, 1, 4])
    }

    /// How many replicas there are, and which of them are not asked.
    fn replicas(&self, peers: &Peers) -> Vec<String> {
        if !peers.is_configured {
            return Vec::new();
        }
        let away: Vec<_> = peers.members.iter().filter(|one| one.state == "away").collect();
        let all = peers.present + away.len() as u64;
        let mut lines = self.sentence(&format!("{} of {all} fetch for each other", peers.present));
        for one in away.iter().take(MOST_AWAY) {
            let why = one.why.as_deref().unwrap_or_default();
            let words = format!("{}: {why}", one.address);
            lines.extend(wrapped(&one_line(&words), self.room(), "- ", "  "));
        }
        if let Some(more) = away.len().checked_sub(MOST_AWAY).filter(|more| *more > 0) {
            lines.push(format!("and {more} more"));
        }
        lines
    }

    /// A name with its lines beside it, or above them where there is no room.
    fn section(&self, name: &str, lines: Vec<String>) -> Vec<String> {
        let is_wide = self.width >= WIDE;
        let mut named = Vec::new();
        if !is_wide && !lines.is_empty() {
            named.push(self.paint.paint(Style::Label, name));
        }
        for (at, line) in lines.into_iter().enumerate() {
            let label = if at == 0 && is_wide { name } else { "" };
            let label = format!("{label:width$}", width = self.indent());
            named.push(
                format!("{}{line}", self.paint.paint(Style::Label, &label)).trim_end().to_owned(),
            );
        }
        named
    }

    fn indent(&self) -> usize {
        if self.width >= WIDE { LABEL } else { 2 }
    }

    /// How wide a section's lines may be.
    fn room(&self) -> usize {
        self.width - self.indent()
    }

    fn sentence(&self, words: &str) -> Vec<String> {
        wrapped(words, self.room(), "", "")
    }

    fn secs(&self) -> u64 {
        self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// `02:14 UTC`, with the date where it is another day.
    fn moment(&self, secs: u64) -> String {
        let is_today = self.secs() / 86_400 == secs / 86_400;
        let (date, today) = (self.date(secs), self.date(self.secs()));
        let date = match date.split_once('-') {
            _ if is_today => String::new(),
            // Of this year the year says nothing.
            Some((year, of_year)) if today.starts_with(year) => format!("{of_year} "),
            _ => format!("{date} "),
        };
        let clock = self.clock(secs);
        format!("{date}{} UTC", clock.get(..5).unwrap_or_default())
    }

    /// `02:14:05`, in UTC.
    #[expect(clippy::unused_self, reason = "as its neighbours")]
    fn clock(&self, secs: u64) -> String {
        let of_day = secs % 86_400;
        format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
    }

    /// `2026-11-28`, in UTC.
    #[expect(clippy::unused_self, reason = "as its neighbours")]
    fn date(&self, secs: u64) -> String {
        let at = i64::try_from(secs)
            .ok()
            .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
        at.map(|at| at.date().to_string()).unwrap_or_default()
    }
}

/// How much was not fetched, what that is worth, of how much.
fn saved(sum: &Sum, currency: &str) -> [String; 4] {
    let size = bytes(sum.saved_bytes.unsigned_abs());
    let sign = if sum.saved_bytes < 0 { "-" } else { "" };
    let money = sum.money.map(|money| format!("{money:.2} {currency}").trim_end().to_owned());
    let of_quota = match sum.quota_pulls_saved {
        0 => String::new(),
        1 => "1 quota pull".to_owned(),
        saved => format!("{} quota pulls", grouped(saved)),
    };
    [
        format!("{sign}{size}"),
        one_line(&money.unwrap_or_default()).into_owned(),
        of_quota,
        format!("of {} in {} pulls", bytes(sum.served_bytes), grouped(sum.pulls)),
    ]
}

/// A full name as people write it: `alpine:3.20`.
fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short)
}

/// `97 %`; nothing before the first request.
fn ratio(hits: &Hits) -> Option<String> {
    let percent = hits.hits.saturating_mul(100).checked_div(hits.requests)?;
    Some(format!("{percent} % of {}", grouped(hits.requests)))
}

fn speed(per_sec: f64) -> String {
    // A speed is no large number, and no negative one.
    let per_sec =
        Duration::try_from_secs_f64(per_sec).map(|secs| secs.as_secs()).unwrap_or_default();
    format!("{}/s", bytes(per_sec))
}

/// `0.2 s`.
fn took(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    if duration < Duration::from_secs(100) {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else {
        lasting(duration.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// 2026-11-28 11:42:00 UTC.
    const NOW: u64 = 1_795_866_120;

    fn screen(width: usize) -> Screen {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        Screen { width, paint: Paint::NONE, now }
    }

    fn facts(documents: Value) -> Facts {
        let Value::Object(documents) = documents else { panic!("an object expected") };
        Facts::of(documents)
    }

    fn sum(saved: i64, money: &Value) -> Value {
        json!({
            "served_bytes": 4_900_000_000_000_u64, "fetched_bytes": 700_000_000_000_u64,
            "saved_bytes": saved, "pulls": 18_300, "quota_pulls_saved": 17_000, "money": money,
        })
    }

    fn busy() -> Facts {
        facts(json!({
            "status": {
                "name": "proxy.corp", "version": "1.2.3", "contact": "platform@acme",
                "proxy_url": "http://proxy.corp:3128", "started": NOW - 266_400,
                "verdict": "troubled",
                "sentence": "2 registries are not well: ghcr.io since 02:14 UTC (certificate), \
                             quay.io; what is kept is served.",
                "troubles": [
                    { "registry": "ghcr.io", "state": "away", "since": NOW - 34_080, "until": null,
                      "why": "the certificate has expired",
                      "words": "ghcr.io can't be reached since 02:14 UTC: the certificate of \
                                ghcr.io:443 has expired; what is kept is served" },
                    { "registry": "quay.io", "state": "limited", "since": NOW - 90_000,
                      "until": NOW + 60, "why": "429 Too Many Requests", "words": null },
                ],
            },
            "registries": { "registries": [
                { "registry": "docker.io", "state": "well", "quota": {
                    "remaining": 88, "limit": 100, "window_secs": 21_600, "source": "10.0.0.1",
                    "told": NOW - 60, "whole_again": NOW + 19_800 } },
                { "registry": "ghcr.io", "state": "away", "quota": null },
                { "registry": "a-registry-with-a-long-name.example.com", "quota": {
                    "remaining": 3, "limit": 100, "whole_again": NOW + 90_000 } },
            ] },
            "savings": {
                "since": NOW - 28_425_600, "currency": "USD", "cost_per_gb": 0.045,
                "this_month": sum(4_200_000_000_000, &json!(189.0)),
                "total": sum(12_900_000_000_000, &json!(580.5)),
            },
            "stats": {
                "manifests": { "requests": 40_000, "hits": 36_400 },
                "blobs": { "requests": 200_000, "hits": 194_000 },
                "store": { "objects": 5_120, "bytes": 19_500_000_000_u64,
                    "max_bytes": 34_359_738_368_u64, "free_bytes": 210_000_000_000_u64,
                    "min_free_bytes": 1_073_741_824 },
                "bucket": { "words": "41,203 objects, 1.3 TB, 0 pending, reachable" },
            },
            "fetches": { "fetches": [
                { "digest": "sha256:aaaaaaaaaaaaaaaaaaaaaaaa", "registry": "docker.io",
                  "bytes": 62_100_000, "total_bytes": 138_000_000,
                  "image": "docker.io/library/postgres:17", "for": ["10.0.0.7", "10.0.0.8"],
                  "waiting": 2, "bytes_per_sec": 11_500_000, "remaining_secs": 7 },
                { "digest": "sha256:bbbbbbbbbbbbbbbbbbbbbbbb", "registry": "ghcr.io",
                  "bytes": 1_000, "total_bytes": null, "image": null, "for": [], "waiting": 1,
                  "bytes_per_sec": 0, "remaining_secs": null },
            ] },
            "peers": { "is_configured": true, "own_id": "entrepot-1", "present": 2, "members": [
                { "address": "10.1.0.4:3128", "id": "entrepot-1", "state": "own", "why": null },
                { "address": "10.1.0.5:3128", "id": "entrepot-2", "state": "present", "why": null },
                { "address": "10.1.0.6:3128", "id": null, "state": "away",
                  "why": "it does not answer" },
            ] },
            "pulls": { "pulls": [
                { "number": 2, "at_ms": (NOW - 60) * 1000, "client": "10.0.0.7", "user": null,
                  "registry": "docker.io", "repository": "library/alpine", "reference": "3.20",
                  "tag": null, "bytes": 3_100_000, "share_from_cache": 1.0, "duration_ms": 240,
                  "outcome": "complete" },
                { "number": 1, "at_ms": (NOW - 120) * 1000, "client": "10.0.0.8", "user": "ci",
                  "registry": "ghcr.io", "repository": "org/application-with-a-long-name",
                  "reference": "sha256:cccccccccccccccccccccccc", "tag": null, "bytes": 0,
                  "share_from_cache": 0.0, "duration_ms": 125_000, "outcome": "failed" },
            ] },
        }))
    }

    #[test]
    fn a_busy_proxy_in_eighty_columns() {
        insta::assert_snapshot!(screen(80).lines(&busy()).join("\n"));
    }

    #[test]
    fn the_same_on_a_narrow_terminal() {
        insta::assert_snapshot!(screen(40).lines(&busy()).join("\n"));
    }

    #[test]
    fn a_new_proxy_has_little_to_say() {
        let fresh = facts(json!({
            "status": { "name": "box", "version": "1.2.3", "started": NOW - 5,
                        "verdict": "well", "sentence": "All well.", "troubles": [] },
            "stats": { "manifests": { "requests": 0, "hits": 0 },
                       "store": { "objects": 0, "bytes": 0, "max_bytes": null } },
            "savings": { "since": NOW, "this_month": sum(-500, &Value::Null), "total": null },
        }));
        insta::assert_snapshot!(screen(80).lines(&fresh).join("\n"));
        assert!(fresh.is_well());
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        for width in 20..200 {
            for line in screen(width).lines(&busy()) {
                // Words that have no place in a line stand out.
                let longest = line.split_whitespace().map(|word| word.chars().count()).max();
                let most = width.max(longest.unwrap_or_default() + 2);
                assert!(line.chars().count() <= most, "{width}: {line}");
            }
        }
    }

    #[test]
    fn what_others_have_said_changes_nothing_on_the_screen() {
        let hostile = "x\u{1b}[2Jy\nz\u{202e}";
        let facts = facts(json!({
            "status": { "name": hostile, "version": hostile, "verdict": "troubled",
                        "sentence": hostile, "troubles": [
                { "registry": hostile, "state": hostile, "why": hostile, "words": null },
                { "registry": null, "state": hostile, "why": null, "words": hostile },
            ] },
            "registries": { "registries": [{ "registry": hostile, "quota": { "remaining": 1 } }] },
            "fetches": { "fetches": [{ "image": hostile }, { "registry": hostile }] },
            "stats": { "bucket": { "words": hostile } },
            "peers": { "is_configured": true, "members": [
                { "address": hostile, "state": "away", "why": hostile }] },
            "pulls": { "pulls": [{ "client": hostile, "registry": hostile, "tag": hostile }] },
        }));
        for line in screen(80).lines(&facts) {
            assert!(one_line(&line) == line, "{line:?}");
        }
    }

    #[test]
    fn colours_say_how_well_it_is() {
        let screen = Screen { paint: Paint::ALL, ..screen(80) };
        let lines = screen.lines(&busy());
        assert!(lines[1].starts_with("\u{1b}[1;31m2 registries"), "{:?}", lines[1]);
        assert!(lines[0].starts_with("\u{1b}[1mproxy.corp\u{1b}[0m  "), "{:?}", lines[0]);
    }
}
