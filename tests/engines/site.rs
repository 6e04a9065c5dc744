//! The world of a test: a registry that plays Docker Hub, and an entrepot in front of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::images::Image;
use crate::process::{Daemon, PATIENCE, command, run};

/// The host that engines turn to for an image of Docker Hub.
pub(crate) const HUB: &str = "registry-1.docker.io";

/// The registry's configuration file.
const REGISTRY_CONFIG: &str = "registry.json";

/// A registry with a certificate for Docker Hub's name, on a port of this machine.
pub(crate) struct Registry {
    daemon: Daemon,
    pub(crate) address: SocketAddr,
    /// The certificate of the authority behind the registry's.
    pub(crate) authority: PathBuf,
    home: PathBuf,
}

impl Registry {
    pub(crate) fn start(home: PathBuf) -> Result<Self> {
        let tls =
            serde_json::json!({"certificate": home.join("leaf.pem"), "key": home.join("leaf.key")});
        Self::speaking(home, &serde_json::json!({"addr": "127.0.0.1:0", "tls": tls}))
    }

    /// One of plain HTTP.
    pub(crate) fn plain(home: PathBuf) -> Result<Self> {
        Self::speaking(home, &serde_json::json!({"addr": "127.0.0.1:0"}))
    }

    fn speaking(home: PathBuf, http: &serde_json::Value) -> Result<Self> {
        fs::create_dir(&home)?;
        let authority = home.join("authority.pem");
        certify(&home, &authority)?;
        let config = home.join(REGISTRY_CONFIG);
        let storage = serde_json::json!({
            "filesystem": {"rootdirectory": home.join("storage")},
            "delete": {"enabled": true},
        });
        // YAML, of which JSON is a part.
        fs::write(
            &config,
            serde_json::json!({
                "version": "0.1",
                "log": {"accesslog": {"disabled": false}},
                "storage": storage,
                "http": http,
            })
            .to_string(),
        )?;
        let daemon = Daemon::start(command("docker-registry", &home)?.arg("serve").arg(config))?;
        let line =
            daemon.line(0, "its address", |line| line.contains("listening on 127.0.0.1:"))?;
        let address = line
            .split_once("listening on ")
            .and_then(|(_, rest)| rest.split([',', '"']).next())
            .context("no address")?
            .parse()
            .with_context(|| format!("no address in {line:?}"))?;
        Ok(Self { daemon, address, authority, home })
    }

    /// Puts an image there, without the proxy.
    pub(crate) fn store(&self, image: &Image) -> Result<()> {
        let source = format!("oci:{}:{}", image.layout.display(), image.tag);
        let target = format!("docker://{}/{}:{}", self.address, image.repository, image.tag);
        run(command("skopeo", &self.home)?
            .args(["copy", "--quiet", "--all", "--preserve-digests"])
            .args(["--dest-tls-verify=false", &source, &target]))?;
        Ok(())
    }

    /// Takes a manifest away there, without the proxy, and every blob that nothing refers to then.
    pub(crate) fn lose(&self, image: &Image) -> Result<()> {
        let name = format!("docker://{}/{}:{}", self.address, image.repository, image.tag);
        run(command("skopeo", &self.home)?.args(["delete", "--tls-verify=false", &name]))?;
        let config = self.home.join(REGISTRY_CONFIG);
        run(command("docker-registry", &self.home)?.arg("garbage-collect").arg(config))?;
        Ok(())
    }

    /// Ends it, after which its log is complete: the digest of every blob that was fetched, as
    /// often as it was.
    pub(crate) fn stop(self) -> Result<Vec<String>> {
        Ok(self.daemon.stop()?.iter().filter_map(|line| fetched_blob(line)).collect())
    }
}

/// The digest in a line of the access log that tells of a blob fetched.
fn fetched_blob(line: &str) -> Option<String> {
    let (_, request) = line.split_once("\"GET /v2/")?;
    let (path, _) = request.split_once(' ')?;
    let (_, digest) = path.split_once("/blobs/sha256:")?;
    Some(format!("sha256:{digest}"))
}

#[test]
fn only_fetched_blobs_are_counted() {
    let blob = r#"127.0.0.1 - - [21/Nov/2026:03:00:00 +0000] "GET /v2/a/b/blobs/sha256:ab HTTP/1.1" 200 5 "" "x""#;
    assert_eq!(fetched_blob(blob).as_deref(), Some("sha256:ab"));
    assert_eq!(fetched_blob(&blob.replace("GET", "HEAD")), None);
    assert_eq!(fetched_blob(&blob.replace("blobs", "manifests")), None);
}

/// Makes an authority and, signed by it, the registry's `leaf.pem` and `leaf.key`.
fn certify(home: &Path, authority: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(authority, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![HUB.to_owned()])?.signed_by(&leaf_key, &issuer)?;
    fs::write(home.join("leaf.pem"), leaf.pem())?;
    fs::write(home.join("leaf.key"), leaf_key.serialize_pem())?;
    Ok(())
}

/// Its configuration file, which it finds where it is started.
const CONFIG: &str = "entrepot.toml";

fn entrepot(home: &Path) -> Command {
    let mut entrepot = Command::new(env!("CARGO_BIN_EXE_entrepot"));
    entrepot.env_clear().env("HOME", home).current_dir(home);
    entrepot
}

/// How entrepot's log names an address that it listens on.
const LISTENING: &str = "listening address=";

/// A running entrepot that finds Docker Hub at [`Registry`].
pub(crate) struct Proxy {
    daemon: Daemon,
    access: Access,
    home: PathBuf,
}

/// How a client uses a proxy.
#[derive(Clone)]
pub(crate) struct Access {
    address: SocketAddr,
    /// What the client trusts: the proxy's authority alone.
    bundle: PathBuf,
}

impl Proxy {
    pub(crate) fn start(home: &Path, registry: &Registry) -> Result<Self> {
        let authority = registry.authority.display();
        let upstream = format!(
            "[upstream]\nconnect-to = [\"{}\"]\nca-files = [\"{authority}\"]\n",
            connect_to(registry)
        );
        Self::configured(home, &upstream)
    }

    /// One that reaches registries through another.
    pub(crate) fn through(home: &Path, parent: &Access) -> Result<Self> {
        let settings = format!(
            "[upstream]\nproxy = \"http://{}\"\nca-files = [\"{}\"]\n",
            parent.address,
            parent.bundle.display()
        );
        Self::configured(home, &settings)
    }

    /// One that contacts nobody.
    pub(crate) fn offline(home: &Path) -> Result<Self> {
        Self::configured(home, "offline = true\n")
    }

    /// One with these lines at the end of its configuration.
    pub(crate) fn configured(home: &Path, settings: &str) -> Result<Self> {
        fs::create_dir(home)?;
        let [_, admin] = free_addresses()?;
        fs::write(
            home.join(CONFIG),
            format!(
                "listen = [\"127.0.0.1:0\"]\nadmin-listen = \"{admin}\"\ndata-dir = \"{}\"\n{settings}",
                home.join("data").display(),
            ),
        )?;
        let mut daemon = Daemon::start(entrepot(home).arg("serve"))?;
        let line = daemon.line(0, "its address", |line| line.contains(LISTENING))?;
        let address = line.split_once(LISTENING).map_or("", |(_, address)| address);
        let address = address.parse().with_context(|| format!("no address in {line:?}"))?;
        let access = Access::to(address, home, || daemon.still_runs())?;
        Ok(Self { daemon, access, home: home.to_owned() })
    }

    /// Runs a subcommand with its configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        run(entrepot(&self.home).args(arguments))
    }

    pub(crate) fn access(&self) -> Access {
        self.access.clone()
    }

    /// Where its log has come to.
    pub(crate) fn mark(&self) -> usize {
        self.daemon.mark()
    }

    /// Ends it, after which its log is complete, and returns that.
    pub(crate) fn stop(self) -> Result<Vec<String>> {
        self.daemon.stop()
    }
}

/// Whether a line of the proxy's log says that it had this blob:
/// `HIT  GET docker.io library/alpine blob sha256:ab12… 3.4 MB 2 ms 10.0.0.7`
pub(crate) fn is_hit(line: &str, digest: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| *word != "HIT");
    let blob = words.by_ref().skip_while(|word| *word != "blob").nth(1);
    blob.and_then(|word| word.strip_suffix('…'))
        .is_some_and(|shown| shown.len() > "sha256:".len() && digest.starts_with(shown))
}

#[test]
fn a_hit_is_told_by_the_start_of_its_digest() {
    let line = "HIT  GET docker.io library/alpine blob sha256:ab12… 3.4 MB 2 ms 10.0.0.7";
    assert!(is_hit(line, "sha256:ab12cd"));
    assert!(!is_hit(line, "sha256:ab13cd"));
    assert!(!is_hit(&line.replace("HIT", "MISS"), "sha256:ab12cd"));
    assert!(!is_hit(&line.replace("blob", "manifest"), "sha256:ab12cd"));
}

impl Access {
    /// Waits until an entrepot answers at `address`, and takes over its authority. `still_there`
    /// fails when there is nothing to wait for.
    pub(crate) fn to(
        address: SocketAddr,
        home: &Path,
        mut still_there: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = get(address, "/healthz") {
            still_there()?;
            ensure!(Instant::now() < deadline, "entrepot is not up: {error:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let bundle = home.join("bundle.pem");
        fs::write(&bundle, get(address, "/ca.crt")?)?;
        Ok(Self { address, bundle })
    }

    /// Where the proxy is a mirror.
    pub(crate) fn mirror(&self) -> SocketAddr {
        self.address
    }

    /// The proxy's authority, in PEM.
    pub(crate) fn authority(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.bundle)?)
    }

    /// As `/setup/podman` writes it to `containers.conf.d`.
    pub(crate) fn containers_conf(&self, home: &Path) -> Result<PathBuf> {
        let path = home.join("containers.conf");
        let proxy = format!("HTTPS_PROXY=http://{}", self.address);
        let settings = format!(
            "[engine]\nenv = [\"{proxy}\", \"NO_PROXY=localhost\"]\n[containers]\nhttp_proxy = false\n"
        );
        fs::write(&path, settings)?;
        Ok(path)
    }

    /// `command`, as a client that trusts the proxy, and knows of it from somewhere else.
    pub(crate) fn trusting<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.client(command).env_remove("HTTPS_PROXY")
    }

    /// `command`, as a client of the proxy.
    pub(crate) fn client<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("HTTPS_PROXY", format!("http://{}", self.address))
            .env("SSL_CERT_FILE", &self.bundle)
            // Beside the bundle Go reads these directories: nothing of this machine's is to help.
            .env("SSL_CERT_DIR", "/nonexistent")
    }
}

/// As in entrepot's configuration: whoever wants Docker Hub gets this registry.
pub(crate) fn connect_to(registry: &Registry) -> String {
    format!("{HUB}:443:{}", registry.address)
}

/// Addresses that nothing listened on a moment ago.
pub(crate) fn free_addresses() -> Result<[SocketAddr; 2]> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok([first.local_addr()?, second.local_addr()?])
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no status")?;
    ensure!(status == "200", "GET {path} was answered {head}");
    Ok(body.to_owned())
}

/// A registry with some images, and a proxy to it.
pub(crate) struct Site {
    // In the order in which they have to go.
    pub(crate) proxy: Proxy,
    pub(crate) registry: Registry,
    pub(crate) home: TempDir,
}

impl Site {
    pub(crate) fn start(
        images: impl FnOnce(&Path) -> Result<Vec<Image>>,
    ) -> Result<(Self, Vec<Image>)> {
        let home = tempfile::tempdir()?;
        let registry = Registry::start(home.path().join("registry"))?;
        let layouts = home.path().join("layouts");
        let images = images(&layouts)?;
        for image in &images {
            registry.store(image)?;
        }
        // They are in the registry now, and not small.
        fs::remove_dir_all(layouts)?;
        let proxy = Proxy::start(&home.path().join("proxy"), &registry)?;
        let site = Self { proxy, registry, home };
        Ok((site, images))
    }

    /// A new directory of the test's.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// The directory of this name that the test has made.
    pub(crate) fn directory_of(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn access(&self) -> Access {
        self.proxy.access()
    }
}
