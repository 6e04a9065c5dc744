//! Private images: every engine logs in through the proxy, and gets what it would get without it.
//!
//! The Hub is the test kit's here: Debian's registry has no token server.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Access as Rules, Fault, Hangup, On, Proxy, Registry, Role, User};
use tempfile::TempDir;

use crate::buildah::Buildah;
use crate::containerd::Containerd;
use crate::cri::Cri;
use crate::dockerd::Dockerd;
use crate::engine::{Engine, Login};
use crate::images::{self, Image};
use crate::podman::Podman;
use crate::process::PATIENCE;
use crate::site::Access;
use crate::skopeo::Skopeo;
use crate::way::Way;

const PRIVATE: &str = "team/private";
const PUBLIC: &str = "library/public";

pub(crate) struct World {
    home: TempDir,
    pub(crate) hub: Registry,
    pub(crate) access: Access,
    alice: Login,
    private: Image,
    pub(crate) public: Image,
    pub(crate) proxy: Proxy,
}

impl World {
    /// A Hub with an image that everybody may pull and one that Alice alone may; she has pushed
    /// both through the proxy.
    pub(crate) fn start() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let alice = User::new("alice").pushes(PRIVATE).pushes(PUBLIC);
        let login = Login { name: alice.name.clone(), password: alice.password.clone() };
        let rules = Rules::bearer([alice]).anonymous("library/*");
        let hub = Registry::builder().access(rules).start();
        let proxy = Proxy::builder(env!("CARGO_BIN_EXE_entrepot")).in_front_of(&hub).start();
        let access = Access::to(proxy.address(), home.path(), || Ok(()))?;
        let layouts = home.path().join("layouts");
        let native = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let image = |name| images::create(&layouts, name, &[(native, &[9_000, 90_000])]);
        let (private, public) = (image(PRIVATE)?, image(PUBLIC)?);
        let world = Self { home, hub, access, alice: login, private, public, proxy };
        let skopeo = Skopeo::with(world.directory("pusher")?, Way::Proxy(world.access.clone()))?;
        for image in [&world.private, &world.public] {
            skopeo.push_as(image, &world.alice)?;
        }
        Ok(world)
    }

    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Nobody gets the private image, before and after Alice has; everybody gets the public one,
/// without a token request of their own.
fn private_images_are_their_owners<E: Engine>(
    start: impl Fn(PathBuf, Access) -> Result<E>,
) -> Result<()> {
    let world = World::start()?;
    let nobody = start(world.directory("nobody")?, world.access.clone())?;
    let wrong = Login { name: world.alice.name.clone(), password: "wrong".to_owned() };
    let is_refused = |login: Option<&Login>| {
        let refused = nobody.pull_as(&world.private.name(), login);
        ensure!(refused.is_err(), "a private image was pulled as nobody");
        Ok(())
    };
    is_refused(None)?;
    let owner = start(world.directory("owner")?, world.access.clone())?;
    owner.pull_as(&world.private.name(), Some(&world.alice))?;
    is_refused(None)?;
    is_refused(Some(&wrong))?;

    world.hub.forget_requests();
    for name in ["first", "second"] {
        let engine = start(world.directory(name)?, world.access.clone())?;
        engine.pull_as(&world.public.name(), None)?;
    }
    let tokens = world.hub.requests().to(Role::Auth);
    ensure!(tokens.len() <= 1, "each its own token: {}", tokens.summary());
    Ok(())
}

/// A pull by a new engine, of what another has pulled, with the Hub and its token server gone and
/// the proxy started again.
fn pulls_go_on_without_the_hub<E: Engine>(
    start: impl Fn(PathBuf, Access) -> Result<E>,
) -> Result<()> {
    let mut world = World::start()?;
    let first = start(world.directory("first")?, world.access.clone())?;
    first.pull_as(&world.public.name(), None)?;
    for layer in &world.public.native()?.layers {
        world.proxy.wait_until_kept(layer);
    }
    world.hub.stop();
    world.proxy.restart(Signal::TERM);
    let access = Access::to(world.proxy.address(), world.home.path(), || Ok(()))?;
    let second = start(world.directory("second")?, access)?;
    let began = Instant::now();
    second.pull_as(&world.public.name(), None)?;
    ensure!(began.elapsed() < PATIENCE / 4, "it took {:?}", began.elapsed());
    let gone = second.pull_as("docker.io/library/never-pulled:1", None);
    ensure!(gone.is_err(), "an image that nobody has was pulled");
    Ok(())
}

/// A login while the token server is away is no login, whatever the password; once it is back, the
/// right one is.
fn no_login_succeeds_unseen(
    log_in: impl Fn(PathBuf, Access, &Login) -> Result<String>,
) -> Result<()> {
    let world = World::start()?;
    let wrong = Login { name: world.alice.name.clone(), password: "wrong".to_owned() };
    let gone = Fault::NoAnswer(Hangup::Rst);
    for (name, fault) in [("503", Fault::status(503)), ("gone", gone)] {
        world.hub.heal();
        world.hub.fault_always(On::path("/token").at(Role::Auth), fault);
        for (who, login) in [("wrong", &wrong), ("right", &world.alice)] {
            let home = world.directory(&format!("{name}-{who}"))?;
            let told = log_in(home, world.access.clone(), login);
            ensure!(told.is_err(), "logged in with the {who} password: {told:?}");
        }
    }
    world.hub.heal();
    ensure!(log_in(world.directory("wrong")?, world.access.clone(), &wrong).is_err());
    let told = log_in(world.directory("right")?, world.access.clone(), &world.alice)?;
    ensure!(told.contains("Login Succeeded"), "{told}");
    Ok(())
}

#[test]
fn skopeo_does_not_log_in_without_the_token_server() -> Result<()> {
    no_login_succeeds_unseen(|home, access, login| {
        Skopeo::with(home, Way::Proxy(access))?.log_in("docker.io", login)
    })
}

#[test]
fn podman_does_not_log_in_without_the_token_server() -> Result<()> {
    no_login_succeeds_unseen(|home, access, login| {
        Podman { home, way: Way::Proxy(access) }.log_in("docker.io", login)
    })
}

#[test]
fn dockerd_pulls_without_the_hub() -> Result<()> {
    pulls_go_on_without_the_hub(|home, access| Dockerd::start(home, Some(&access)))
}

#[test]
fn containerd_pulls_without_the_hub() -> Result<()> {
    pulls_go_on_without_the_hub(|home, access| Containerd::start(home, Way::Proxy(access)))
}

#[test]
fn a_kubelet_pulls_without_the_hub() -> Result<()> {
    pulls_go_on_without_the_hub(|home, access| Cri::start(home, &Way::Proxy(access), ""))
}

#[test]
fn podman_pulls_without_the_hub() -> Result<()> {
    pulls_go_on_without_the_hub(|home, proxy| Ok(Podman { home, way: Way::Proxy(proxy) }))
}

#[test]
fn buildah_pulls_without_the_hub() -> Result<()> {
    pulls_go_on_without_the_hub(|home, proxy| Ok(Buildah { home, way: Way::Proxy(proxy) }))
}

#[test]
fn skopeo_pulls_without_the_hub() -> Result<()> {
    pulls_go_on_without_the_hub(|home, access| Skopeo::with(home, Way::Proxy(access)))
}

#[test]
fn dockerd_logs_in_through_the_proxy() -> Result<()> {
    private_images_are_their_owners(|home, access| Dockerd::start(home, Some(&access)))
}

#[test]
fn containerd_logs_in_through_the_proxy() -> Result<()> {
    private_images_are_their_owners(|home, access| Containerd::start(home, Way::Proxy(access)))
}

#[test]
fn a_kubelet_logs_in_through_the_proxy() -> Result<()> {
    private_images_are_their_owners(|home, access| Cri::start(home, &Way::Proxy(access), ""))
}

#[test]
fn podman_logs_in_through_the_proxy() -> Result<()> {
    private_images_are_their_owners(|home, proxy| Ok(Podman { home, way: Way::Proxy(proxy) }))
}

#[test]
fn buildah_logs_in_through_the_proxy() -> Result<()> {
    private_images_are_their_owners(|home, proxy| Ok(Buildah { home, way: Way::Proxy(proxy) }))
}

#[test]
fn skopeo_logs_in_through_the_proxy() -> Result<()> {
    private_images_are_their_owners(|home, access| Skopeo::with(home, Way::Proxy(access)))
}
