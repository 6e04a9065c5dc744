//! The parts together: load generator, ceiling, origin. Counts and bytes, no times.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::ceiling::Ceiling;
use crate::certificates::{Identity, client};
use crate::image::{Image, Object, Shape, by_tag};
use crate::load::{
    self, Connection, Connections, Job, Limit, Pattern, Request, Tally, Target, Way,
};
use crate::origin::Origin;
use crate::serve::{Answers, accept};

const SHAPE: Shape = Shape { large: 2, large_bytes: 700_000, small: 3, small_bytes: 5000 };

fn image() -> (TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::generate(dir.path(), SHAPE).unwrap();
    Identity::generate(dir.path()).unwrap();
    (dir, image)
}

async fn serving(dir: &Path, answers: impl Answers) -> Arc<Target> {
    let identity = Identity::in_dir(dir);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, Arc::new(identity.server().unwrap()), answers));
    let tls = client(&identity.ca).unwrap();
    Arc::new(Target { address, way: Way::Direct, tls, port: address.port() })
}

fn blobs(objects: &[Object]) -> Pattern {
    Pattern::Cycle(objects.iter().map(Request::blob).collect())
}

async fn done(target: &Arc<Target>, pattern: Pattern, connections: Connections) -> Tally {
    load::run(target, Job { pattern, limit: Limit::Count(10), connections }, || ()).await
}

#[tokio::test]
async fn every_byte_of_the_ceiling_is_counted() {
    let (dir, image) = image();
    let target = serving(dir.path(), Ceiling { dir: dir.path().to_owned() }).await;
    for connections in [Connections::Held(4), Connections::Fresh(4)] {
        let tally = done(&target, blobs(&image.large), connections).await;
        assert_eq!(tally.errors, [""; 0]);
        assert_eq!((tally.requests, tally.bytes), (10, 7_000_000));
        assert!(tally.latencies.per_mille(500) >= tally.first_bytes.per_mille(500));
    }
}

#[tokio::test]
async fn a_job_of_some_time_makes_requests_until_then() {
    let (dir, image) = image();
    let target = serving(dir.path(), Ceiling { dir: dir.path().to_owned() }).await;
    let limit = Limit::For(Duration::from_millis(50));
    let job = Job { pattern: blobs(&image.small), limit, connections: Connections::Held(2) };
    let tally = load::run(&target, job, || ()).await;
    assert_eq!(tally.errors, [""; 0]);
    assert!(tally.requests > 0 && tally.bytes == tally.requests * 5000);
    assert!(tally.elapsed >= Duration::from_millis(50));
}

#[tokio::test]
async fn wrong_lengths_and_wrong_statuses_are_errors() {
    let (dir, image) = image();
    let target = serving(dir.path(), Ceiling { dir: dir.path().to_owned() }).await;
    let mut wrong = image.small[0].clone();
    wrong.size += 1;
    let tally = done(&target, blobs(&[wrong]), Connections::Held(1)).await;
    assert!(tally.requests == 0 && tally.errors[0].contains("5000 bytes, not 5001"), "{tally:?}");
    let missing = Object { digest: format!("sha256:{:064}", 0), size: 5000 };
    let target = serving(dir.path(), Origin::new(dir.path().to_owned())).await;
    let tally = done(&target, blobs(&[missing]), Connections::Held(1)).await;
    assert!(tally.requests == 0 && tally.errors[0].contains("status 404, not 200"), "{tally:?}");
}

#[tokio::test]
async fn the_origin_counts_and_serves_parts_and_tags() {
    let (dir, image) = image();
    let target = serving(dir.path(), Origin::new(dir.path().to_owned())).await;
    let object = image.large[0].clone();
    let digest = object.digest.clone();
    let parts = Pattern::Parts { object, bytes: 1000 };
    let tally = done(&target, parts, Connections::Held(3)).await;
    assert_eq!((tally.bytes, tally.errors.len()), (10_000, 0));
    let tag = Pattern::Cycle(vec![Request::whole(by_tag(), &image.manifest)]);
    let tally = done(&target, tag, Connections::Held(1)).await;
    assert_eq!((tally.requests, tally.errors.len()), (10, 0));
    let mut connection = Connection::open(&target).await.unwrap();
    assert_eq!(connection.page(&format!("/count/{digest}")).await.unwrap(), "10");
    assert_eq!(connection.page("/count/").await.unwrap(), "20");
}

#[tokio::test]
async fn the_origin_keeps_to_its_rate() {
    let (dir, image) = image();
    let target = serving(dir.path(), Origin::new(dir.path().to_owned())).await;
    let mut connection = Connection::open(&target).await.unwrap();
    connection.page("/rate/35000000").await.unwrap();
    let tally = done(&target, blobs(&image.large), Connections::Held(5)).await;
    // 7 MB at 35 MB/s, but for what a late timer may make up, and the first pieces.
    assert_eq!(tally.bytes, 7_000_000);
    assert!(tally.elapsed > Duration::from_millis(150), "{:?}", tally.elapsed);
}
