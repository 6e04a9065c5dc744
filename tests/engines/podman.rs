//! Podman, with storage of its own and the proxy in its environment.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use entrepot_testkit::{Proxy, Registry, Request, Response, Server};

use crate::engine::{Engine, Login, second_pulls_come_from_the_cache};
use crate::images::Image;
use crate::process::{run, run_for_all_output};
use crate::site::{Access, Site};
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

/// The Hub's search is at a name that its registry shares.
#[test]
fn podman_searches_the_hub() -> Result<()> {
    let hub = Registry::open();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let index = Server::https(hub.ca().leaf(&["index.docker.io"]), {
        let asked = Arc::clone(&asked);
        move |request: &Request| {
            if let Ok(mut asked) = asked.lock() {
                asked.push(request.target.clone());
            }
            Response::new(200).header("Content-Type", "application/json").body(FOUND)
        }
    });
    let proxy = Proxy::builder(env!("CARGO_BIN_EXE_entrepot"))
        .in_front_of(&hub)
        .connect_to(&format!("index.docker.io:443:{}", index.address()))
        .start();
    let home = tempfile::tempdir()?;
    let access = Access::to(proxy.address(), home.path(), || Ok(()))?;
    let podman = Podman { home: home.path().to_owned(), way: Way::Proxy(access) };
    let found = run(podman.podman()?.args(["search", "--no-trunc", "docker.io/thing"]))?;
    ensure!(found.contains("docker.io/library/thing"), "{found}");
    let asked = asked.lock().map(|asked| asked.clone()).unwrap_or_default();
    ensure!(asked.iter().any(|target| target.starts_with("/v1/search?")), "{asked:?}");
    ensure!(asked.iter().all(|target| !target.starts_with("/v2/")), "{asked:?}");
    Ok(())
}

/// What the Hub's search answers.
const FOUND: &str = r#"{"num_pages":1,"num_results":1,"page":1,"page_size":25,"query":"thing",
"results":[{"name":"library/thing","description":"a thing","is_automated":false,"is_official":true,
"is_trusted":false,"star_count":7}]}"#;

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

impl Podman {
    /// Logs in at a registry.
    pub(crate) fn log_in(&self, registry: &str, login: &Login) -> Result<String> {
        let mut podman = self.podman()?;
        podman.arg("login").args(["--username", &login.name, "--password", &login.password]);
        run_for_all_output(podman.arg("--authfile").arg(self.home.join("auth.json")).arg(registry))
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
