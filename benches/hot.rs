//! What every request costs, function by function. `make bench` runs it.

#![expect(clippy::expect_used, reason = "a benchmark that can't be set up has nothing to measure")]
#![expect(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use entrepot::{ByteRanges, Framing, Metrics, Outcome, RequestLine, Subject};
use entrepot_oci::{Algorithm, Authority, Digest, Registry, Route};
use rustls_pki_types::ServerName;

const BLOB: &str = "/v2/library/alpine/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A request as containerd sends it, with a token of usual length.
fn request() -> String {
    let token = "x".repeat(1500);
    format!(
        "GET {BLOB} HTTP/1.1\r\nHost: registry-1.docker.io\r\nUser-Agent: containerd/2.1.4\r\n\
         Accept: application/vnd.docker.image.rootfs.diff.tar.gzip, */*\r\n\
         Authorization: Bearer {token}\r\nAccept-Encoding: identity\r\n\r\n"
    )
}

fn parsing(criterion: &mut Criterion) {
    criterion.bench_function("route of a blob", |bencher| {
        bencher.iter(|| Route::parse(black_box(BLOB), None));
    });
    criterion.bench_function("framing of a GET", |bencher| {
        let request = request();
        let mut framing = Framing::default();
        bencher.iter(|| framing.observe(black_box(request.as_bytes())));
        assert!(framing.loss().is_none(), "the request is sound");
    });
    criterion.bench_function("authority of a CONNECT", |bencher| {
        bencher.iter(|| Authority::parse_with_port(black_box("registry-1.docker.io:443")));
    });
    criterion.bench_function("two byte ranges", |bencher| {
        bencher
            .iter(|| ByteRanges::parse(black_box("bytes=0-1023,1048576-")).map(|r| r.of(1 << 30)));
    });
}

fn counting(criterion: &mut Criterion) {
    let metrics = Metrics::new((0..20).map(|number| format!("registry{number}.example")));
    let registry = Registry::at(&"registry19.example:443".parse().expect("an authority"));
    let subject = Subject::of(registry, Route::parse(BLOB, None), BLOB);
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    let mut line = RequestLine::new(Outcome::Hit, http::Method::GET, subject, client);
    line.elapsed = std::time::Duration::from_millis(2);
    line.status = Some(http::StatusCode::OK);
    let line = std::sync::Arc::new(line);
    criterion.bench_function("count of a request, 20 registries", |bencher| {
        bencher.iter(|| metrics.answered(black_box(&line)));
    });
    criterion.bench_function("count of a body's piece", |bencher| {
        let answering = metrics.counting(&line);
        bencher.iter(|| answering.sent(black_box(Outcome::Hit), 256 * 1024));
    });
    let full = Metrics::new((0..200).map(|number| format!("registry{number:03}.example")));
    criterion.bench_function("count of a request, too many registries", |bencher| {
        bencher.iter(|| full.answered(black_box(&line)));
    });
}

fn hashing(criterion: &mut Criterion) {
    let bytes = vec![7u8; 1 << 20];
    let mut group = criterion.benchmark_group("digest");
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("sha256 of 1 MiB", |bencher| {
        bencher.iter(|| Digest::of(Algorithm::Sha256, black_box(&bytes)));
    });
    group.finish();
}

fn leaves(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let authority = entrepot_ca::Authority::open(
        &directory.path().join("ca"),
        &entrepot_ca::Options::default(),
    )
    .expect("a new CA");
    let known = ServerName::try_from("ghcr.io").expect("a name");
    criterion.bench_function("known leaf", |bencher| bencher.iter(|| authority.leaf(&known)));
    let mut number = 0u64;
    criterion.bench_function("new leaf", |bencher| {
        bencher.iter(|| {
            number += 1;
            let name = ServerName::try_from(format!("host{number}.example"));
            name.map(|name| authority.leaf(&name).is_ok())
        });
    });
}

criterion_group!(hot, parsing, counting, hashing, leaves);
criterion_main!(hot);
