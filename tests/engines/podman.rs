//! Podman, with storage of its own and the proxy in its environment.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::engine::{Engine, Login, second_pulls_come_from_the_cache};
use crate::images::Image;
use crate::process::run;
use crate::site::Site;
use crate::way::Way;

#[test]
fn podman_pulls_again_from_the_cache() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        Ok(Podman { home: site.directory("podman")?, way: Way::Proxy(site.access()) })
    })
}

/// A mirror is found under the name of its registry.
#[test]
fn podman_pulls_again_from_a_mirror() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        let home = site.directory("podman")?;
        let registries = home.join("registries.conf");
        let mirror = site.access().mirror();
        fs::write(
            &registries,
            format!(
                "[[registry]]\nlocation = \"docker.io\"\n\
                 [[registry.mirror]]\nlocation = \"{mirror}/docker.io\"\ninsecure = true\n"
            ),
        )?;
        Ok(Podman { home, way: Way::Mirror(registries) })
    })
}

#[test]
fn podman_finds_the_proxy_in_its_settings() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        let home = site.directory("podman")?;
        let settings = site.access().containers_conf(&home)?;
        Ok(Podman { home, way: Way::Settings(site.access(), settings) })
    })
}

pub(crate) struct Podman {
    pub(crate) home: PathBuf,
    pub(crate) way: Way,
}

impl Podman {
    pub(crate) fn podman(&self) -> Result<Command> {
        let mut podman = self.way.command("podman", &self.home)?;
        podman
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--events-backend", "none"])
            .arg("--root")
            .arg(self.home.join("root"))
            .arg("--runroot")
            .arg(self.home.join("runroot"))
            .arg("--tmpdir")
            .arg(self.home.join("tmp"));
        Ok(podman)
    }
}

impl Engine for Podman {
    fn pull(&self, image: &Image) -> Result<Vec<String>> {
        let name = image.name();
        run(self.podman()?.args(["pull", "--quiet", &name]))?;
        let format = "sha256:{{.Id}}{{range .RepoDigests}} {{.}}{{end}}";
        let known = run(self.podman()?.args(["image", "inspect", "--format", format, &name]))?;
        Ok(known
            .split_whitespace()
            .map(|word| word.rsplit('@').next().unwrap_or(word).to_owned())
            .collect())
    }

    fn pull_as(&self, name: &str, login: Option<&Login>) -> Result<()> {
        let mut podman = self.podman()?;
        podman.args(["pull", "--quiet"]);
        if let Some(login) = login {
            podman.args(["--creds", &login.pair()]);
        }
        run(podman.arg(name)).map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        run(self.podman()?.args(["image", "rm", "--all", "--force"]))?;
        ensure!(run(self.podman()?.args(["images", "--all", "--quiet"]))?.is_empty());
        Ok(())
    }
}
