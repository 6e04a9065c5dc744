//! The whole way of a person with each engine, by proxy and by mirror: set up by the script that
//! the proxy hands out, pull, pull again without the registry's blobs, undo.

use std::rc::Rc;

use anyhow::{Result, ensure};

use crate::buildah::Buildah;
use crate::containerd::Containerd;
use crate::dockerd::Dockerd;
use crate::engine::{Engine, pull_twice};
use crate::images;
use crate::machine::{Machine, ensure_undone};
use crate::podman::Podman;
use crate::site::Site;
use crate::skopeo::Skopeo;
use crate::way::Way;

/// Sets a machine up by `script` with `arguments`, has an engine there pull everything twice, and
/// takes the set-up back.
fn whole_way<E: Engine>(
    script: &str,
    arguments: &str,
    start: impl FnOnce(&Site, &Rc<Machine>) -> Result<E>,
) -> Result<()> {
    let (site, images) = Site::start(images::create_some)?;
    let machine = Rc::new(Machine::start(site.directory("machine")?)?);
    let access = site.access();
    let before = machine.files()?;
    let told = machine.pipe(&access, script, arguments)?;
    let is_checked = told.lines().any(|line| line.starts_with("checked: "));
    ensure!(is_checked, "nothing was checked: {told}");
    let set_up = machine.files()?;
    let again = machine.pipe(&access, script, arguments)?;
    ensure!(again.contains("nothing to change"), "the second time: {again}");

    let engine = start(&site, &machine)?;
    let pulls = pull_twice(&engine, &site, &images)?;
    drop(engine);

    machine.pipe(&access, &format!("{script}?undo"), "")?;
    ensure_undone(&before, &set_up, &machine.files()?)?;
    pulls.check(site)
}

fn dockerd(site: &Site, machine: &Rc<Machine>) -> Result<Dockerd> {
    Dockerd::set_up(site.directory("dockerd")?, machine)
}

/// `ctr` fetches in its own process: it is given what systemd would give to containerd.
fn containerd(site: &Site, machine: &Rc<Machine>) -> Result<Containerd> {
    let environment = machine.environment_of("containerd.service")?;
    Containerd::start(site.directory("containerd")?, Way::SetUp(Rc::clone(machine), environment))
}

fn podman(site: &Site, machine: &Rc<Machine>) -> Result<Podman> {
    Ok(Podman { home: site.directory("podman")?, way: Way::SetUp(Rc::clone(machine), Vec::new()) })
}

fn buildah(site: &Site, machine: &Rc<Machine>) -> Result<Buildah> {
    Ok(Buildah {
        home: site.directory("buildah")?,
        way: Way::SetUp(Rc::clone(machine), Vec::new()),
    })
}

/// It reads no settings, as the script says.
fn skopeo(site: &Site, machine: &Rc<Machine>) -> Result<Skopeo> {
    let proxy = format!("http://{}", site.access().mirror());
    let environment = vec![("HTTPS_PROXY".to_owned(), proxy)];
    Skopeo::with(site.directory("skopeo")?, Way::SetUp(Rc::clone(machine), environment))
}

fn skopeo_with_mirror(site: &Site, machine: &Rc<Machine>) -> Result<Skopeo> {
    Skopeo::with(site.directory("skopeo")?, Way::SetUp(Rc::clone(machine), Vec::new()))
}

#[test]
fn dockerd_by_proxy() -> Result<()> {
    whole_way("systemd", "", dockerd)
}

#[test]
fn dockerd_by_mirror() -> Result<()> {
    whole_way("docker-mirror", "", dockerd)
}

#[test]
fn containerd_by_proxy() -> Result<()> {
    whole_way("containerd", "", containerd)
}

#[test]
fn containerd_by_mirror() -> Result<()> {
    whole_way("containerd", "--mirror --tls", |site, machine| {
        Ok(containerd(site, machine)?.with_hosts("/etc/containerd/certs.d".into()))
    })
}

#[test]
fn podman_by_proxy() -> Result<()> {
    whole_way("podman", "", podman)
}

#[test]
fn podman_by_mirror() -> Result<()> {
    whole_way("podman", "--mirror", podman)
}

#[test]
fn buildah_by_proxy() -> Result<()> {
    whole_way("podman", "", buildah)
}

#[test]
fn buildah_by_mirror() -> Result<()> {
    whole_way("podman", "--mirror", buildah)
}

#[test]
fn skopeo_by_proxy() -> Result<()> {
    whole_way("podman", "", skopeo)
}

#[test]
fn skopeo_by_mirror() -> Result<()> {
    whole_way("podman", "--mirror", skopeo_with_mirror)
}
