//! Log events as text for people.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::line::{TARGET, shortened};
use super::safe::is_line_safe;

/// `HIT  GET docker.io library/alpine blob sha256:ab12… 3.4 MB 2 ms 10.0.0.7`, and other events
/// as `warn  what happened: field=value`.
///
/// Lines carry no time: `docker logs -t`, journald and Kubernetes add it.
pub(super) struct Text {
    pub(super) colour: bool,
    /// Who looks closely wants to tell the lines of one request from those of others.
    pub(super) shows_ids: fn() -> bool,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::with_room();
        event.record(&mut fields);
        let line = if event.metadata().target() == TARGET {
            fields.request_line((self.shows_ids)())?
        } else {
            fields.event_line(*event.metadata().level())
        };
        let colour = if self.colour { colour(&line) } else { None };
        match colour {
            Some(code) => writeln!(writer, "\u{1b}[{code}m{line}\u{1b}[0m"),
            None => writeln!(writer, "{line}"),
        }
    }
}

/// Adds what was asked for, its digest cut to what tells objects apart.
fn push_short(line: &mut String, object: &str) {
    let (kind, name) = object.rsplit_once(' ').unwrap_or(("", object));
    match shortened(name).filter(|_| !kind.is_empty()) {
        Some(short) => line.extend([kind, " ", short, "\u{2026}"]),
        None => line.push_str(object),
    }
}

fn colour(line: &str) -> Option<u8> {
    match line.split(' ').next()? {
        "HIT" | "REVALIDATED" | "JOINED" | "BUCKET" | "PEER" => Some(32),
        "STALE" | "warn" => Some(33),
        "DENIED" | "ERROR" | "error" => Some(31),
        "RELAY" | "TUNNEL" | "debug" | "trace" => Some(2),
        _ => None,
    }
}

/// An event's fields in their order, with everything that could end or colour a line escaped.
#[derive(Default)]
struct Fields {
    /// Each with the end of its value, which begins where the one before ends.
    ends: Vec<(&'static str, usize)>,
    /// The values, one after the other.
    values: String,
}

impl Fields {
    fn with_room() -> Self {
        Self { ends: Vec::with_capacity(16), values: String::with_capacity(256) }
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let mut begin = 0;
        self.ends.iter().map(move |(name, end)| {
            let value = self.values.get(begin..*end).unwrap_or_default();
            begin = *end;
            (*name, value)
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    fn request_line(&self, shows_ids: bool) -> Result<String, fmt::Error> {
        let mut line = String::with_capacity(self.values.len() + 32);
        write!(line, "{:<4}", self.get("outcome").unwrap_or_default())?;
        for name in ["method", "registry", "repository"] {
            if let Some(value) = self.get(name) {
                line.push(' ');
                line.push_str(value);
            }
        }
        if let Some(object) = self.get("object") {
            line.push(' ');
            push_short(&mut line, object);
        }
        // A success needs no number; whatever else it was does.
        if let Some(status) = self.get("status").filter(|status| !matches!(*status, "200" | "206"))
        {
            line.push(' ');
            line.push_str(status);
        }
        let client = self.get("client").unwrap_or_default();
        let size = bytes(self.number("body_bytes"));
        let time = duration(self.number("elapsed_ms"));
        write!(line, " {size} {time} {client}")?;
        if let Some(id) = self.get("id").filter(|_| shows_ids) {
            write!(line, " id={id}")?;
        }
        if let Some(reason) = self.get("reason") {
            write!(line, ": {reason}")?;
        }
        Ok(line)
    }

    fn event_line(&self, level: Level) -> String {
        let level = level.as_str().to_ascii_lowercase();
        let mut line = format!("{level:<5} {}", self.get("message").unwrap_or_default());
        for (name, value) in self.iter().filter(|(name, _)| *name != "message") {
            if value.contains(' ') {
                line.extend([" ", name, "=\"", value, "\""]);
            } else {
                line.extend([" ", name, "=", value]);
            }
        }
        line
    }

    /// Ends the field whose value stands at the end of `values` from `begin` on.
    fn end(&mut self, field: &Field, begin: usize) {
        let value = self.values.get(begin..).unwrap_or_default();
        let is_plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_plain && !value.chars().all(is_line_safe) {
            let unsafe_value = self.values.split_off(begin);
            for c in unsafe_value.chars() {
                if is_line_safe(c) {
                    self.values.push(c);
                } else {
                    self.values.extend(c.escape_default());
                }
            }
        }
        self.ends.push((field.name(), self.values.len()));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let begin = self.values.len();
        self.values.push_str(value);
        self.end(field, begin);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let begin = self.values.len();
        // What could not be printed is cut to nothing.
        if write!(self.values, "{value:?}").is_err() {
            self.values.truncate(begin);
        }
        self.end(field, begin);
    }
}

/// A size in decimal units, as engines print them: `3.4 MB`.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut tenths = count / 100;
    let mut unit = "kB";
    for name in UNITS {
        unit = name;
        if tenths < 10_000 {
            break;
        }
        tenths /= 1000;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

fn duration(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{millis} ms"),
        10_000..600_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => format!("{} min", millis / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Outcome, RequestLine, Subject};
    use entrepot_oci::{Registry, Route};
    use http::{Method, StatusCode};
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(emit: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Text { colour: false, shows_ids: || false })
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, emit);
        let bytes = captured.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn line(subject: Subject) -> RequestLine {
        let client = "10.0.0.7".parse().unwrap();
        RequestLine {
            status: Some(StatusCode::OK),
            body_bytes: 3_412_000,
            elapsed: Duration::from_millis(2),
            ..RequestLine::new(Outcome::Hit, Method::GET, subject, client)
        }
    }

    #[test]
    fn a_request_is_one_readable_line() {
        let path = "/v2/library/alpine/blobs/sha256:ab12e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852";
        let hub = Registry::at(&"docker.io:443".parse().unwrap());
        let subject = Subject::of(hub, Route::parse(path, None), path);
        insta::assert_snapshot!(
            logged(|| line(subject).emit()),
            @"HIT  GET docker.io library/alpine blob sha256:ab12e3b0c442… 3.4 MB 2 ms 10.0.0.7"
        );
    }

    #[test]
    fn a_slow_answer_is_named_as_its_request_is() {
        let path = "/v2/library/alpine/manifests/3.20";
        let hub = Registry::at(&"docker.io:443".parse().unwrap());
        let subject = Subject::of(hub, Route::parse(path, None), path);
        let text = logged(|| line(subject).warn_of_wait(Duration::from_secs(12)));
        let named =
            " registry=docker.io repository=library/alpine object=\"manifest 3.20\" wait_ms=12000";
        assert!(text.trim_end().ends_with(named), "{text}");
    }

    #[test]
    fn a_failure_shows_its_status_and_reason() {
        let subject = Subject::Other("evil.example:22".to_owned());
        let denied = RequestLine {
            outcome: Outcome::Denied,
            method: Method::CONNECT,
            status: Some(StatusCode::FORBIDDEN),
            body_bytes: 0,
            reason: Some("port 22".to_owned()),
            ..line(subject)
        };
        insta::assert_snapshot!(
            logged(|| denied.emit()),
            @"DENIED CONNECT evil.example:22 403 0 B 2 ms 10.0.0.7: port 22"
        );
    }

    #[test]
    fn nothing_a_client_sends_breaks_the_line() {
        let subject = Subject::Other("/a\r\nHIT \u{1b}[31m \u{2028} \u{61c} x".to_owned());
        let text = logged(|| line(subject).emit());
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains(['\u{1b}', '\u{2028}', '\u{61c}']), "{text:?}");
    }

    #[test]
    fn other_events_name_their_fields() {
        let text = logged(|| tracing::warn!(path = "/a b", count = 3, "store is read-only"));
        insta::assert_snapshot!(text, @r#"warn  store is read-only path="/a b" count=3"#);
    }

    #[test]
    fn sizes_and_times_read_well() {
        let sizes = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "999.9 kB")];
        for (count, text) in sizes {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(1_000_000), "1.0 MB");
        assert_eq!(bytes(268_435_456), "268.4 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(duration(9_999), "9999 ms");
        assert_eq!(duration(12_345), "12.3 s");
        assert_eq!(duration(3_600_000), "60 min");
    }
}
