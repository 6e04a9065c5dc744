//! A page of metrics, as OpenMetrics or in the text format of before.

use std::fmt::{self, Write as _};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::histogram::Histogram;

/// A label with its value.
pub(crate) type Label<'a> = (&'static str, &'a str);

/// Writes families of metrics. Names have their unit, and no `_total`.
pub(crate) struct Families<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl<'a, 'e> Families<'a, 'e> {
    /// Writes them to `encoder`.
    pub(crate) fn new(encoder: &'a mut DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// A counter without labels.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A counter of seconds without labels.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A counter with labels.
    pub(crate) fn counters<'v, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = ([Label<'v>; N], u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        for (labels, value) in values {
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A moment, in seconds since the epoch.
    pub(crate) fn moment(
        &mut self,
        name: &str,
        help: &str,
        at: std::time::SystemTime,
    ) -> fmt::Result {
        let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.family(name, help, MetricType::Gauge)?.encode_gauge(&since.as_secs_f64())
    }

    /// A gauge with labels.
    pub(crate) fn gauges<'v, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = ([Label<'v>; N], V)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Histograms with labels.
    pub(super) fn histograms<'v, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = ([Label<'v>; N], &'v Histogram)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        for (labels, histogram) in values {
            let buckets = histogram.buckets();
            // Read once: what is counted meanwhile must not make the parts contradict each other.
            let count = buckets.iter().map(|(_, count)| count).sum();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum_secs(),
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everything reads.
    Text,
}

impl Flavour {
    /// What a client wants that sends this `Accept`.
    #[must_use]
    pub(crate) fn accepted_by(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the collectors have to say.
pub(crate) fn exposed(
    collectors: Vec<Box<dyn Collector>>,
    flavour: Flavour,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    for collector in collectors {
        registry.register_collector(collector);
    }
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry)?;
    match flavour {
        Flavour::OpenMetrics => Ok(page),
        Flavour::Text => older(&page),
    }
}

/// OpenMetrics as text 0.0.4: there a counter's family has the name of its samples, and the page no
/// end.
fn older(page: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(page.len());
    let mut help = "";
    for line in page.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map_or("", |(_, words)| words);
        } else if let Some((name, kind)) = described(line) {
            let total = if kind == "counter" { "_total" } else { "" };
            write!(text, "# HELP {name}{total} {help}\n# TYPE {name}{total} {kind}\n")?;
        } else if line != "# EOF" {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

fn described(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::super::histogram::FIRST_BYTE;
    use super::*;

    #[derive(Debug)]
    struct Three;

    impl Collector for Three {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut families = Families::new(&mut encoder);
            families.counter("plain", "One.", 1)?;
            let hostile = [("name", "a\"b\\c\nd")];
            families.gauges("hostile", "Two.", std::iter::once((hostile, 2)))?;
            let (histogram, label) = (Histogram::new(FIRST_BYTE), [("outcome", "hit")]);
            histogram.observe(std::time::Duration::from_millis(2));
            families.histograms("took_seconds", "Three.", std::iter::once((label, &histogram)))
        }
    }

    #[test]
    fn both_formats_say_the_same() {
        insta::assert_snapshot!(exposed(vec![Box::new(Three)], Flavour::Text).unwrap());
        let modern = exposed(vec![Box::new(Three)], Flavour::OpenMetrics).unwrap();
        assert!(modern.contains("# TYPE plain counter\nplain_total 1\n"), "{modern}");
        assert!(modern.ends_with("# EOF\n"), "{modern}");
    }

    #[test]
    fn prometheus_gets_what_it_asks_for() {
        let asked = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
        assert_eq!(Flavour::accepted_by(Some(asked)), Flavour::OpenMetrics);
        assert_eq!(Flavour::accepted_by(Some("*/*")), Flavour::Text);
        assert_eq!(Flavour::accepted_by(None), Flavour::Text);
    }
}
