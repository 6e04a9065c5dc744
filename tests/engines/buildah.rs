//! Buildah, with storage of its own and the proxy in its environment.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::engine::{Engine, Login, second_pulls_come_from_the_cache};
use crate::images::Image;
use crate::process::run;
use crate::site::Site;
use crate::way::Way;

#[test]
fn buildah_pulls_again_from_the_cache() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        Ok(Buildah { home: site.directory("buildah")?, way: Way::Proxy(site.access()) })
    })
}

#[test]
fn buildah_finds_the_proxy_in_its_settings() -> Result<()> {
    second_pulls_come_from_the_cache(|site: &Site| {
        let home = site.directory("buildah")?;
        let settings = site.access().containers_conf(&home)?;
        Ok(Buildah { home, way: Way::Settings(site.access(), settings) })
    })
}

pub(crate) struct Buildah {
    pub(crate) home: PathBuf,
    pub(crate) way: Way,
}

impl Buildah {
    fn buildah(&self) -> Result<Command> {
        let mut buildah = self.way.command("buildah", &self.home)?;
        buildah
            .args(["--storage-driver", "vfs"])
            .arg("--root")
            .arg(self.home.join("root"))
            .arg("--runroot")
            .arg(self.home.join("runroot"));
        Ok(buildah)
    }
}

impl Engine for Buildah {
    fn pull(&self, image: &Image) -> Result<Vec<String>> {
        let name = image.name();
        let id = run(self.buildah()?.args(["pull", "--quiet", &name]))?;
        let known: Value =
            serde_json::from_str(&run(self.buildah()?.args(["images", "--json", &name]))?)?;
        let digest = known.pointer("/0/digest").and_then(Value::as_str);
        Ok(vec![format!("sha256:{id}"), digest.context("no digest")?.to_owned()])
    }

    fn pull_as(&self, name: &str, login: Option<&Login>) -> Result<()> {
        let mut buildah = self.buildah()?;
        buildah.args(["pull", "--quiet"]);
        if let Some(login) = login {
            buildah.args(["--creds", &login.pair()]);
        }
        run(buildah.arg(name)).map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        run(self.buildah()?.args(["rmi", "--all", "--force"]))?;
        ensure!(run(self.buildah()?.args(["images", "--all", "--quiet"]))?.is_empty());
        Ok(())
    }
}
