//! Docker Engine: a private `dockerd`, whose environment names the proxy.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::engine::{Engine, Login, second_pulls_come_from_the_cache};
use crate::images::Image;
use crate::machine::Machine;
use crate::process::{Daemon, command, find, run};
use crate::site::{Access, Site};

#[test]
fn dockerd_pulls_again_from_the_cache() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        Dockerd::start(site.directory("dockerd")?, Some(&site.access()))
    })
}

#[test]
fn dockerd_pulls_again_from_a_mirror() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        let mirrors = serde_json::json!({
            "registry-mirrors": [format!("http://{}", site.access().mirror())],
        });
        Dockerd::start_with(site.directory("dockerd")?, None, &mirrors)
    })
}

/// A Docker daemon of the test's own.
pub(crate) struct Dockerd {
    home: PathBuf,
    socket: String,
    // Stopped when dropped.
    _daemon: Daemon,
}

impl Dockerd {
    /// With a proxy, its pulls go through it.
    pub(crate) fn start(home: PathBuf, proxy: Option<&Access>) -> Result<Self> {
        Self::start_with(home, proxy, &serde_json::json!({}))
    }

    /// With what stands in its `daemon.json`, lest the machine's own is read.
    fn start_with(home: PathBuf, proxy: Option<&Access>, settings: &Value) -> Result<Self> {
        let file = home.join("daemon.json");
        std::fs::write(&file, settings.to_string())?;
        // What it mounts goes away with it.
        let mut dockerd = command("unshare", &home)?;
        dockerd.arg("--mount").arg(find("dockerd")?).arg("--config-file").arg(file);
        if let Some(proxy) = proxy {
            proxy.client(&mut dockerd);
        }
        Self::launch(home, dockerd)
    }

    /// As a set-up script has left it on this machine.
    pub(crate) fn set_up(home: PathBuf, machine: &Machine) -> Result<Self> {
        let mut dockerd = machine.command("unshare", &home)?;
        dockerd.arg("--mount").arg(find("dockerd")?);
        dockerd.envs(machine.environment_of("docker.service")?);
        Self::launch(home, dockerd)
    }

    fn launch(home: PathBuf, mut dockerd: Command) -> Result<Self> {
        let socket = format!("unix://{}", home.join("socket").display());
        dockerd
            .args(["--iptables=false", "--bridge=none", "--host", &socket])
            .arg("--data-root")
            .arg(home.join("data"))
            .arg("--exec-root")
            .arg(home.join("exec"))
            .arg("--pidfile")
            .arg(home.join("pid"));
        let daemon = Daemon::start(&mut dockerd)?;
        daemon.line(0, "that it listens", |line| line.contains("API listen on"))?;
        Ok(Self { home, socket, _daemon: daemon })
    }

    /// A `docker` command for this daemon.
    pub(crate) fn docker(&self) -> Result<Command> {
        self.docker_at("docker")
    }

    /// The same, with this program.
    pub(crate) fn docker_at(&self, program: &str) -> Result<Command> {
        let mut docker = command(program, &self.home)?;
        docker.args(["--host", &self.socket]);
        Ok(docker)
    }

    /// Runs a `docker` command to its end.
    pub(crate) fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        run(self.docker()?.args(arguments))
    }
}

impl Dockerd {
    /// Logs in at a registry.
    pub(crate) fn log_in(&self, registry: &str, login: &Login) -> Result<String> {
        self.run(["login", "--username", &login.name, "--password", &login.password, registry])
    }
}

impl Engine for Dockerd {
    fn pull(&self, image: &Image) -> Result<Vec<String>> {
        let name = image.name();
        self.run(["pull", "--quiet", &name])?;
        let format = "{{.Id}}{{range .RepoDigests}} {{.}}{{end}}";
        let known = self.run(["image", "inspect", "--format", format, &name])?;
        Ok(known
            .split_whitespace()
            .map(|word| word.rsplit('@').next().unwrap_or(word).to_owned())
            .collect())
    }

    fn pull_as(&self, name: &str, login: Option<&Login>) -> Result<()> {
        if let Some(login) = login {
            self.run(["login", "--username", &login.name, "--password", &login.password])?;
        }
        self.run(["pull", "--quiet", name]).map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        self.run(["system", "prune", "--all", "--force", "--volumes"])?;
        anyhow::ensure!(self.run(["images", "--all", "--quiet"])?.is_empty());
        Ok(())
    }
}
