//! containerd: a private daemon, with `ctr`, which fetches in its own process.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::engine::{Engine, Login, second_pulls_come_from_the_cache};
use crate::images::Image;
use crate::process::{Daemon, command, run};
use crate::site::Site;
use crate::way::Way;

#[test]
fn containerd_pulls_again_from_the_cache() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        Containerd::start(site.directory("containerd")?, Way::Proxy(site.access()))
    })
}

/// `_default` is for every registry: containerd says by `ns` which one it means.
#[test]
fn containerd_pulls_again_from_a_mirror() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        let containerd = Containerd::start(site.directory("containerd")?, Way::Told)?;
        let hosts = containerd.home.join("hosts");
        fs::create_dir_all(hosts.join("_default"))?;
        let mirror = format!(
            "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            site.access().mirror()
        );
        fs::write(hosts.join("_default/hosts.toml"), mirror)?;
        Ok(containerd.with_hosts(hosts))
    })
}

pub(crate) struct Containerd {
    home: PathBuf,
    socket: PathBuf,
    way: Way,
    /// Where it reads how registries are reached, if that is not by a proxy.
    hosts: Option<PathBuf>,
    // Stopped when dropped.
    _daemon: Daemon,
}

impl Containerd {
    pub(crate) fn start(home: PathBuf, way: Way) -> Result<Self> {
        let socket = home.join("socket");
        let config = home.join("config.toml");
        fs::write(
            &config,
            format!(
                "version = 2\n\
                 root = \"{home}/root\"\n\
                 state = \"{home}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\n\
                 address = \"{home}/socket\"\n",
                home = home.display()
            ),
        )?;
        let daemon = Daemon::start(command("containerd", &home)?.arg("--config").arg(config))?;
        daemon.line(0, "that it is up", |line| line.contains("containerd successfully booted"))?;
        Ok(Self { home, socket, way, hosts: None, _daemon: daemon })
    }

    /// With the mirrors that this directory names.
    pub(crate) fn with_hosts(self, hosts: PathBuf) -> Self {
        Self { hosts: Some(hosts), ..self }
    }

    pub(crate) fn ctr(&self) -> Result<Command> {
        let mut ctr = self.way.command("ctr", &self.home)?;
        ctr.arg("--address").arg(&self.socket);
        Ok(ctr)
    }

    fn content(&self) -> Result<Vec<String>> {
        let content = run(self.ctr()?.args(["content", "ls", "--quiet"]))?;
        Ok(content.lines().map(str::to_owned).collect())
    }
}

impl Engine for Containerd {
    fn pull(&self, image: &Image) -> Result<Vec<String>> {
        let mut pull = self.ctr()?;
        pull.args(["images", "pull", "--snapshotter", "native"]);
        if let Some(hosts) = &self.hosts {
            pull.arg("--hosts-dir").arg(hosts);
        }
        run(pull.arg(image.name()))?;
        let content = self.content()?;
        for layer in &image.native()?.layers {
            ensure!(content.contains(layer), "{} lacks {layer}", image.name());
        }
        Ok(content)
    }

    fn pull_as(&self, name: &str, login: Option<&Login>) -> Result<()> {
        let mut ctr = self.ctr()?;
        ctr.args(["images", "pull", "--snapshotter", "native"]);
        if let Some(login) = login {
            ctr.args(["--user", &login.pair()]);
        }
        run(ctr.arg(name)).map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        let images = run(self.ctr()?.args(["images", "ls", "--quiet"]))?;
        run(self.ctr()?.args(["images", "rm", "--sync"]).args(images.lines()))?;
        ensure!(self.content()?.is_empty());
        Ok(())
    }
}
