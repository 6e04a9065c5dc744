//! containerd as Kubernetes uses it: by the container runtime interface (CRI), whose images the
//! daemon fetches itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::engine::{Engine, Login, second_pulls_come_from_the_cache};
use crate::images::Image;
use crate::process::{Daemon, PATIENCE, command, run};
use crate::site::Site;
use crate::way::Way;

/// The namespace of what the CRI has pulled.
const NAMESPACE: &str = "k8s.io";

#[test]
fn a_kubelets_containerd_pulls_again_from_the_cache() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        Cri::start(site.directory("cri")?, &Way::Proxy(site.access()), "")
    })
}

#[test]
fn a_kubelets_containerd_pulls_again_from_a_mirror() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        let home = site.directory("cri")?;
        let hosts = home.join("hosts");
        fs::create_dir_all(hosts.join("_default"))?;
        let mirror = format!(
            "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            site.access().mirror()
        );
        fs::write(hosts.join("_default/hosts.toml"), mirror)?;
        let registry =
            format!("[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = {hosts:?}\n");
        Cri::start(home, &Way::Told, &registry)
    })
}

pub(crate) struct Cri {
    home: PathBuf,
    socket: PathBuf,
    // Stopped when dropped.
    _daemon: Daemon,
}

impl Cri {
    /// A daemon that goes this way, with these lines at the end of its configuration.
    pub(crate) fn start(home: PathBuf, way: &Way, settings: &str) -> Result<Self> {
        let (socket, config) = (home.join("socket"), home.join("config.toml"));
        let text = format!(
            "version = 2\n\
             root = \"{home}/root\"\n\
             state = \"{home}/state\"\n\
             [grpc]\n\
             address = \"{home}/socket\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             snapshotter = \"native\"\n\
             {settings}",
            home = home.display()
        );
        fs::write(&config, text)?;
        let daemon = Daemon::start(way.command("containerd", &home)?.arg("--config").arg(config))?;
        daemon.line(0, "that it is up", |line| line.contains("containerd successfully booted"))?;
        Ok(Self { home, socket, _daemon: daemon })
    }

    /// `PullImage` of the image service, as the kubelet calls it.
    fn pull_image(&self, name: &str, login: Option<&Login>) -> Result<()> {
        let image = field(1, name.as_bytes());
        let auth = login.map(|login| {
            let pair = [field(1, login.name.as_bytes()), field(2, login.password.as_bytes())];
            field(2, &pair.concat())
        });
        let request = [field(1, &image), auth.unwrap_or_default()].concat();
        // gRPC over HTTP/2: a message uncompressed, its length, itself; the outcome is in trailers.
        let length = u32::try_from(request.len())?.to_be_bytes();
        let message = self.home.join("request");
        fs::write(&message, [&[0][..], &length, &request].concat())?;
        let deadline = Instant::now() + PATIENCE;
        let told = loop {
            let told = self.call(&message)?;
            // The daemon takes calls a moment before it can answer them.
            if !told.contains("server is not initialized yet") || Instant::now() > deadline {
                break told;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        ensure!(told.lines().any(|line| line.trim_end() == "grpc-status: 0"), "{name}: {told}");
        Ok(())
    }

    /// The head and the trailers of the answer.
    fn call(&self, message: &Path) -> Result<String> {
        run(command("curl", &self.home)?
            .args(["-q", "--silent", "--show-error", "--http2-prior-knowledge", "--noproxy", "*"])
            .args(["--header", "content-type: application/grpc", "--header", "te: trailers"])
            .args(["--dump-header", "-", "--unix-socket"])
            .arg(&self.socket)
            .arg("--data-binary")
            .arg(format!("@{}", message.display()))
            .arg("--output")
            .arg(self.home.join("answer"))
            .arg("http://localhost/runtime.v1.ImageService/PullImage"))
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut ctr = command("ctr", &self.home)?;
        run(ctr.arg("--address").arg(&self.socket).args(["--namespace", NAMESPACE]).args(arguments))
    }

    fn content(&self) -> Result<Vec<String>> {
        let content = self.ctr(&["content", "ls", "--quiet"])?;
        Ok(content.lines().map(str::to_owned).collect())
    }
}

impl Engine for Cri {
    fn pull(&self, image: &Image) -> Result<Vec<String>> {
        self.pull_image(&image.name(), None)?;
        let content = self.content()?;
        for layer in &image.native()?.layers {
            ensure!(content.contains(layer), "{} lacks {layer}", image.name());
        }
        Ok(content)
    }

    fn pull_as(&self, name: &str, login: Option<&Login>) -> Result<()> {
        self.pull_image(name, login)
    }

    fn forget_everything(&self) -> Result<()> {
        let images = self.ctr(&["images", "ls", "--quiet"])?;
        let names: Vec<_> = images.lines().collect();
        self.ctr(&[&["images", "rm", "--sync"][..], &names].concat())?;
        ensure!(self.content().context("what is left")?.is_empty());
        Ok(())
    }
}

/// A field of a protocol buffers message that holds a text or another message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let mut bytes = vec![(number << 3) | LENGTH_DELIMITED];
    let mut rest = content.len();
    while rest > 127 {
        bytes.push(u8::try_from(rest % 128).unwrap_or_default() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap_or_default());
    [bytes, content.to_vec()].concat()
}
