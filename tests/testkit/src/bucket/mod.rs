//! A bucket that replicas share, on a real S3 server: Ceph's radosgw, which Debian has.
//!
//! A cluster of one monitor, one OSD in memory and one gateway is started once for a test binary,
//! which takes some 12 s, and ends with its process, however that ends: the script that runs it
//! (`ceph.sh`) waits for the end of its standard input. Every [`Bucket`] is a prefix of its own in
//! the one bucket of that server.
//!
//! `ENTREPOT_TEST_BUCKET="127.0.0.1:3900 KEY SECRET BUCKET"` names another server, over plain HTTP
//! and in the region us-east-1, in place of that: what differs from Ceph shows there.
//!
//! - `s3`: what a test itself asks of the server
//! - [`forwarder`]: the way to the server, with whatever goes wrong on it

pub mod forwarder;
mod s3;

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use crate::canary::CANARY;
use crate::proxy::Builder;
use crate::pull::Pulled;
use crate::{PATIENCE, wait_until};

pub use s3::Object;
use s3::S3;

/// The variable that names another server.
const ANOTHER: &str = "ENTREPOT_TEST_BUCKET";
/// The bucket on the server.
const NAME: &str = "fleet";
/// Between two questions whether something has come.
const BETWEEN: Duration = Duration::from_millis(20);
const ACCESS_KEY: &str = "TESTKEY1234567890AB";

/// The programs that it takes, and the packages that have them.
const PROGRAMS: [(&str, &str); 6] = [
    ("ceph", "ceph-common"),
    ("ceph-mon", "ceph-mon"),
    ("ceph-osd", "ceph-osd"),
    ("curl", "curl"),
    ("radosgw", "radosgw"),
    ("radosgw-admin", "ceph-common"),
];

/// The server of this test binary, and who asks it.
fn server() -> &'static S3 {
    static SHARED: OnceLock<(S3, Option<Ceph>)> = OnceLock::new();
    let (s3, _) = SHARED.get_or_init(|| {
        if let Ok(named) = std::env::var(ANOTHER) {
            return (another(&named), None);
        }
        let ceph = Ceph::start();
        (ceph.s3.clone(), Some(ceph))
    });
    s3
}

fn another(named: &str) -> S3 {
    let words: Vec<_> = named.split_whitespace().collect();
    let [address, key, secret, bucket] = words.as_slice() else {
        panic!("{ANOTHER} is no ADDRESS KEY SECRET BUCKET");
    };
    S3::new(address.parse().expect("an address"), key, secret, bucket)
}

/// A cluster that runs.
#[derive(Debug)]
struct Ceph {
    s3: S3,
    // In the order in which they go, where they do: the script ends when this end of its input
    // does, which is when this process does at the latest.
    _script: Child,
    _home: TempDir,
}

impl Ceph {
    fn start() -> Self {
        if let Some(hint) = what_is_missing() {
            panic!("{hint}");
        }
        // Somebody may take a port before the cluster does.
        let attempts = (0..3).map(|_| Self::attempt()).find_map(Result::ok);
        let ceph = attempts.unwrap_or_else(|| Self::attempt().unwrap_or_else(|e| panic!("{e}")));
        ceph.s3.make_bucket();
        ceph
    }

    fn attempt() -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("entrepot-ceph-").tempdir().unwrap();
        let script = home.path().join("ceph.sh");
        std::fs::write(&script, include_str!("ceph.sh")).unwrap();
        let [gateway, monitor] = free_addresses();
        let secret = format!("{CANARY}-secret-of-the-bucket");
        let mut child = Command::new("bash")
            .arg(&script)
            .arg(home.path().join("cluster"))
            .args([gateway.port().to_string(), monitor.port().to_string()])
            .env("USER_ID", "tests")
            .env("ACCESS_KEY", ACCESS_KEY)
            .env("SECRET_KEY", &secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash");
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.trim() == "ready" {
            let s3 = S3::new(gateway, ACCESS_KEY, &secret, NAME);
            return Ok(Self { s3, _script: child, _home: home });
        }
        let output = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("Ceph does not start in {}:\n{words}", home.path().display()))
    }
}

/// How to install what is missing for a bucket, if something is.
#[must_use]
pub fn what_is_missing() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    let (program, package) = PROGRAMS.iter().find(|(program, _)| !is_there(program))?;
    Some(format!(
        "{program} is not installed: `apt-get install {package}`, \
         or scripts/install-test-tools for all that the tests need"
    ))
}

fn free_addresses() -> [SocketAddr; 2] {
    let bound = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    bound.map(|listener| listener.local_addr().unwrap())
}

/// A place in the bucket that no other test has.
#[derive(Debug, Clone)]
pub struct Bucket {
    s3: S3,
    prefix: String,
}

impl Bucket {
    /// An empty one. The first of a test binary starts the server.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        // Another server may have been here before.
        let run = std::process::id();
        Self { s3: server().clone(), prefix: format!("fleets/{run}/{count}") }
    }

    /// Where the server listens.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        self.s3.server()
    }

    /// As `bucket.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("s3://{}/{}", self.s3.bucket(), self.prefix)
    }

    /// The prefix within the bucket of all that lies here.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Makes a replica use it.
    pub fn behind(&self, replica: Builder) -> Builder {
        self.behind_at(replica, self.server(), "")
    }

    /// Makes a replica use it by way of `endpoint`, with more lines in `[bucket]`.
    pub fn behind_at(&self, replica: Builder, endpoint: SocketAddr, lines: &str) -> Builder {
        let url = self.url();
        replica
            .tables(&format!(
                "[bucket]\nurl = \"{url}\"\nendpoint = \"http://{endpoint}\"\n{lines}"
            ))
            .env("AWS_ACCESS_KEY_ID", self.s3.access_key())
            .env("AWS_SECRET_ACCESS_KEY", self.s3.secret())
    }

    /// As a configuration has it, with the key's secret in this file, which is written.
    #[must_use]
    pub fn settings(&self, secret: &Path) -> String {
        std::fs::write(secret, self.s3.secret()).unwrap();
        format!(
            "[bucket]\nurl = \"{}\"\nendpoint = \"http://{}\"\naccess-key-id = \"{}\"\n\
             secret-access-key-file = \"{}\"\n",
            self.url(),
            self.server(),
            self.s3.access_key(),
            secret.display()
        )
    }

    /// Every object that is here, by its name below the prefix.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        let prefix = format!("{}/", self.prefix);
        let mut objects = self.s3.list(&prefix);
        for object in &mut objects {
            object.name.drain(..prefix.len());
        }
        objects
    }

    /// The names of those whose name contains this.
    #[must_use]
    pub fn names(&self, part: &str) -> Vec<String> {
        let names = self.objects().into_iter().map(|object| object.name);
        names.filter(|name| name.contains(part)).collect()
    }

    /// Whether there is an object of exactly this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.s3.has(&self.key(name))
    }

    /// The bytes of an object.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Bytes> {
        self.s3.get(&self.key(name))
    }

    /// How long it takes to read an object without anything between, to its first byte and to its
    /// last.
    #[must_use]
    pub fn timed(&self, name: &str) -> (Duration, Duration) {
        self.s3.timed(&self.key(name))
    }

    /// Puts an object there, as anybody may who can write to the bucket.
    pub fn write(&self, name: &str, bytes: impl Into<Bytes>) {
        self.s3.put(&self.key(name), bytes.into());
    }

    /// Takes an object away.
    pub fn remove(&self, name: &str) {
        self.s3.delete(&self.key(name));
    }

    /// Takes everything away.
    pub fn empty(&self) {
        for object in self.objects() {
            self.remove(&object.name);
        }
    }

    /// The uploads in parts that have begun and are neither whole nor given up.
    #[must_use]
    pub fn unfinished_uploads(&self) -> Vec<String> {
        self.s3.uploads(&format!("{}/", self.prefix))
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// The name of an object's bytes.
    #[must_use]
    pub fn blob(digest: &str) -> String {
        let (algorithm, hex) = digest.split_once(':').expect("a digest");
        format!("blobs/{algorithm}/{}/{hex}", &hex[..2])
    }

    /// Waits until an object of this digest lies here, and the record that it belongs to
    /// `repository`.
    #[track_caller]
    pub fn wait_until_shared(&self, repository: &str, digest: &str) {
        let (algorithm, hex) = digest.split_once(':').expect("a digest");
        let blob = Self::blob(digest);
        self.wait_for_record(&format!("/{repository}/_contents/{algorithm}/{hex}"));
        wait_until(&format!("{digest} does not come to the bucket"), || {
            self.s3.has(&self.key(&blob))
        });
    }

    /// Waits until everything of an image that was just pulled lies here, with its records: what
    /// the tag means, who may pull, and how the registry is asked.
    #[track_caller]
    pub fn wait_until_all_shared(&self, repository: &str, reference: &str, pulled: &Pulled) {
        for object in pulled.manifests.iter().chain(&pulled.blobs) {
            self.wait_until_shared(repository, &object.digest);
        }
        if !reference.contains(':') {
            self.wait_for_record(&format!("/{repository}/_tags/{reference}"));
        }
        self.wait_for_record("/_challenge");
    }

    /// Waits until there is a record whose name ends like this.
    #[track_caller]
    pub fn wait_for_record(&self, end: &str) {
        // Docker Hub's, as nearly always: a question for one object is the cheapest.
        let likely = self.key(&format!("repositories/docker.io{end}"));
        let began = Instant::now();
        while !self.s3.has(&likely) && !self.names(end).iter().any(|name| name.ends_with(end)) {
            assert!(began.elapsed() < PATIENCE, "no {end} in the bucket: {:#?}", self.names(""));
            // The bucket tells nobody what comes.
            thread::sleep(BETWEEN);
        }
    }

    /// Waits until nothing that this replica has to upload is left.
    #[track_caller]
    pub fn wait_until_uploaded(replica: &crate::Proxy) {
        wait_until("uploads stay pending", || {
            let metrics = replica.admin("/metrics").text();
            metrics.lines().any(|line| line == "entrepot_bucket_pending_objects 0")
        });
    }
}

/// Copies a directory and what it has, as replicas get their CA.
pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
