//! Any part of any object is that part of the truth, whether the object is kept or on its way.

use entrepot_testkit::{Blob, Fault, Gate, On, Proxy, Registry, Request, Response};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::{ALPINE, one_layer};

const SIZE: usize = 1_000_000;
/// What has come of a download that stands still, less what is held back.
const HERE: usize = 500_000;

#[derive(Debug, Clone, Copy)]
enum Range {
    Between(usize, usize),
    From(usize),
    Last(usize),
}

impl Range {
    fn text(self) -> String {
        match self {
            Self::Between(first, last) => format!("{first}-{last}"),
            Self::From(first) => format!("{first}-"),
            Self::Last(count) => format!("-{count}"),
        }
    }

    /// The first byte and the one after the last; none where there is nothing of it.
    fn of(self, size: usize) -> Option<(usize, usize)> {
        let (from, to) = match self {
            Self::Between(first, last) => (first, (last + 1).min(size)),
            Self::From(first) => (first, size),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        (from < to).then_some((from, to))
    }
}

fn field(ranges: &[Range]) -> String {
    let texts: Vec<_> = ranges.iter().map(|range| range.text()).collect();
    format!("bytes={}", texts.join(", "))
}

/// Ranges of an object of `size` bytes, some of them beyond its end.
fn any_range(size: usize) -> impl Strategy<Value = Range> {
    let offset = prop_oneof![3 => 0..size, 1 => size - 10..size + 10, 1 => 0..10usize];
    prop_oneof![
        4 => (offset.clone(), 0..size).prop_map(|(first, more)| Range::Between(first, first + more)),
        2 => offset.clone().prop_map(Range::From),
        1 => offset.prop_map(Range::Last),
    ]
}

/// An answer against what the RFC has of the truth.
fn check(ranges: &[Range], answer: &Response, truth: &[u8]) -> Result<(), TestCaseError> {
    let parts: Vec<_> = ranges.iter().filter_map(|range| range.of(truth.len())).collect();
    match answer.status {
        416 => {
            prop_assert!(parts.is_empty());
            let total = format!("bytes */{}", truth.len());
            prop_assert_eq!(answer.headers.get("content-range"), Some(&*total));
        }
        200 => {
            prop_assert!(parts.len() > 1, "one part of it can be sent as such");
            prop_assert!(answer.body == truth, "200 has everything");
        }
        206 if parts.len() == 1 => {
            let (from, to) = parts[0];
            let expected = format!("bytes {from}-{}/{}", to - 1, truth.len());
            prop_assert_eq!(answer.headers.get("content-range"), Some(&*expected));
            prop_assert!(answer.body == truth[from..to]);
        }
        206 => {
            let expected = multipart(answer, &parts, truth);
            prop_assert!(answer.body == expected, "the parts differ");
        }
        other => prop_assert!(false, "{}", other),
    }
    Ok(())
}

/// The body that RFC 9110 §14.6 wants of these parts.
fn multipart(answer: &Response, parts: &[(usize, usize)], truth: &[u8]) -> Vec<u8> {
    let content_type = answer.headers.get("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut body = Vec::new();
    for (number, (from, to)) in parts.iter().enumerate() {
        let before = if number == 0 { "" } else { "\r\n" };
        let head = format!(
            "{before}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {from}-{}/{}\r\n\r\n",
            to - 1,
            truth.len()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&truth[*from..*to]);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    body
}

fn ask(registry: &Registry, proxy: &Proxy, blob: &Blob, ranges: &[Range]) -> Response {
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    proxy.client().send(&Request::get(&url).header("Range", field(ranges))).unwrap()
}

fn runner(cases: u32) -> TestRunner {
    // The seed of a failure is printed; there is no file to keep it in.
    TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

#[test]
fn any_range_of_a_kept_object_is_the_slice_of_the_truth() {
    let (registry, proxy, blob) = one_layer(SIZE);
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    proxy.wait_until_kept(&blob.digest);
    let ranges = proptest::collection::vec(any_range(SIZE), 1..6);
    let checked = runner(150).run(&ranges, |ranges| {
        check(&ranges, &ask(&registry, &proxy, &blob, &ranges), &blob.bytes)
    });
    checked.unwrap();
    assert_eq!(registry.requests().blob_gets().len(), 1, "all from the store");
}

#[test]
fn any_range_of_what_has_come_is_the_slice_of_the_truth() {
    let (registry, proxy, blob) = one_layer(SIZE);
    let gate = Gate::new();
    registry.fault(On::get(&blob.digest), Fault::Stall(HERE, gate.clone()));
    std::thread::scope(|scope| {
        let download = scope.spawn(|| proxy.puller().blob(ALPINE, &blob.digest));
        gate.wait_until_reached(1);
        let here = HERE - 70_000;
        let range = (0..here, 0..here)
            .prop_map(move |(first, more)| Range::Between(first, (first + more).min(here)));
        let checked = runner(60).run(&proptest::collection::vec(range, 1..4), |ranges| {
            check(&ranges, &ask(&registry, &proxy, &blob, &ranges), &blob.bytes)
        });
        gate.open();
        checked.unwrap();
        download.join().unwrap().unwrap();
    });
    assert_eq!(registry.requests().blob_gets().len(), 1, "all from the one download");
}

#[test]
fn open_ranges_that_are_closed_early_cost_the_registry_one_download() {
    const SIZE: usize = 6_000_000;
    let (registry, proxy, blob) = one_layer(SIZE);
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    // As containerd 2.1 does it: each worker asks for everything from its chunk on, and hangs up.
    std::thread::scope(|scope| {
        for chunk in 0..12 {
            let (url, blob, proxy, host) = (&url, &blob, &proxy, registry.host());
            scope.spawn(move || {
                let from = chunk * SIZE / 12;
                let range = format!("bytes={from}-");
                let mut connection = proxy.client().open(host).unwrap();
                let request = Request::get(url).header("Range", range);
                let mut download = connection.start(&request).unwrap();
                assert_eq!(download.head().status, 206);
                let part = download.read_exactly(SIZE / 12).unwrap();
                assert_eq!(part, blob.bytes.slice(from..from + SIZE / 12));
            });
        }
    });
    proxy.wait_until_kept(&blob.digest);
    let gets = registry.requests().blob_gets();
    assert_eq!(gets.len(), 1, "{}", gets.summary());
}
