//! Replicas behind one bucket, as their users meet them: real processes with directories of their
//! own, a registry that counts what it is asked, and a real S3 server (Ceph's radosgw), with or
//! without something that goes wrong on the way there. One module a behaviour.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the steps of a test are no product code: one that can't go on has failed"
)]

mod access;
#[path = "../proxy/authorisation_matrix.rs"]
mod authorisation_matrix;
mod costs;
mod forgeries;
mod hits;
mod identities;
mod kit;
mod operations;
mod outages;
mod peers;
mod troubles;
mod uploads;

use entrepot_testkit::image::digest_of;
use entrepot_testkit::pull::Pulled;
use entrepot_testkit::{
    Blob, Fleet, Forwarder, Gate, Image, On, Proxy, Registry, Request, Response, Trouble,
};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_entrepot");
/// A repository that everybody may pull from.
const ALPINE: &str = "library/alpine";
/// A repository that few may pull from.
const PRIVATE: &str = "team/private";

/// A fleet in front of a registry that asks nobody for anything and has one image there.
fn fleet_with(image: &Image) -> Fleet {
    let registry = Registry::open();
    registry.push(ALPINE, "1", image);
    Fleet::new(BINARY, registry)
}

/// Pulls the image that [`fleet_with`] has, and waits until the bucket has all of it.
#[track_caller]
fn share(fleet: &Fleet, replica: &Proxy) -> Pulled {
    let pulled = replica.puller().pull(ALPINE, "1").unwrap();
    fleet.bucket.wait_until_all_shared(ALPINE, "1", &pulled);
    pulled
}

/// Asks a replica for a blob of [`ALPINE`], as engines do once they know how to.
fn blob(replica: &Proxy, fleet: &Fleet, digest: &str) -> Response {
    let url = format!("https://{}/v2/{ALPINE}/blobs/{digest}", fleet.registry.host());
    replica.client().get(&url).unwrap()
}

/// The same, of which the bytes must be right.
#[track_caller]
fn right_blob(replica: &Proxy, fleet: &Fleet, layer: &Blob) -> Response {
    let answer = blob(replica, fleet, &layer.digest);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), replica.log().join("\n"));
    assert_eq!(digest_of(&answer.body), layer.digest);
    answer
}

/// The value of a metric, summed over its labels; 0 where there is none.
fn metric(replica: &Proxy, name: &str) -> f64 {
    let metrics = replica.admin("/metrics").text();
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Who is asked in the authorisation matrix: a replica beside the one that has filled the bucket.
struct Stand {
    fleet: Fleet,
    forwarder: Forwarder,
    filling: Proxy,
    asked: Proxy,
}

impl Stand {
    /// What is in flight comes from the bucket.
    const FLIES_FROM_KEPT: bool = true;

    fn new(registry: Registry) -> Self {
        let fleet = Fleet::new(BINARY, registry);
        let forwarder = Forwarder::to(fleet.bucket.server());
        let filling = fleet.replica().start();
        let asked = fleet.replica_by(&forwarder, "20s").start();
        Self { fleet, forwarder, filling, asked }
    }

    fn registry(&self) -> &Registry {
        &self.fleet.registry
    }

    fn asked(&self) -> &Proxy {
        &self.asked
    }

    fn keeping(&self) -> &Proxy {
        &self.filling
    }

    fn wait_until_kept(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.blobs().chain([&image.manifest]) {
            self.fleet.bucket.wait_until_shared(repository, &blob.digest);
        }
        self.fleet.bucket.wait_for_record(&format!("/{repository}/_tags/{tag}"));
    }

    fn stall(&self, digest: &str, after: usize, gate: &Gate) {
        let hex = digest.trim_start_matches("sha256:");
        let bytes = On::get(format!("/blobs/sha256/{}/{hex}", &hex[..2]));
        self.forwarder.times(1, bytes, Trouble::Stall(after, gate.clone()));
    }
}

/// A request for something of [`ALPINE`] at the registry.
fn request(fleet: &Fleet, method: &str, path: &str) -> Request {
    Request::new(method, format!("https://{}/v2/{ALPINE}/{path}", fleet.registry.host()))
}
