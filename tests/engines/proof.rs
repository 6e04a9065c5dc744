//! `/check`, as a person pipes it into a shell on a client: what it says of each engine that is set
//! up, and of one that is not; and that nothing of it stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use anyhow::{Result, ensure};

use crate::containerd::Containerd;
use crate::dockerd::Dockerd;
use crate::images::{self, Image};
use crate::machine::Machine;
use crate::podman::Podman;
use crate::process::run;
use crate::site::Site;
use crate::way::Way;

/// A machine of a person, and the images that can be pulled there.
struct Desk {
    site: Site,
    machine: Rc<Machine>,
    images: Vec<Image>,
}

impl Desk {
    fn new() -> Result<Self> {
        let (site, images) = Site::start(images::create_some)?;
        let machine = Rc::new(Machine::start(site.directory("machine")?)?);
        Ok(Self { site, machine, images })
    }

    /// What the script says of `engine`, and whether all is well.
    fn check(&self, engine: &str, environment: &str) -> Result<(String, bool)> {
        let image = self.images.first().map(Image::name).unwrap_or_default();
        let url = format!("http://{}/check", self.site.access().mirror());
        let told = self.machine.shell(&format!(
            "export {environment} TMPDIR=$HOME
             curl -q -fsS --noproxy '*' '{url}' >$HOME/check
             code=0
             sh -s -- --engine {engine} --image {image} <$HOME/check 2>&1 || code=$?
             echo \"exit code $code\""
        ))?;
        let is_well = told.ends_with("exit code 0");
        eprintln!("{told}\n");
        Ok((told, is_well))
    }

    /// Puts a program of this name first, which is this command.
    fn program(&self, name: &str, command: &Command) -> Result<()> {
        let directory = self.site.directory_of("machine").join("bin");
        fs::create_dir_all(&directory)?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        write_program(&directory.join(name), &format!("exec {} \"$@\"", words.join(" ")))
    }
}

fn write_program(path: &Path, line: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{line}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[test]
fn a_docker_that_is_set_up_is_proved_and_one_that_is_not_is_told_how() -> Result<()> {
    let desk = Desk::new()?;
    let bare = Dockerd::set_up(desk.site.directory("bare")?, &desk.machine)?;
    desk.program("docker", &bare.docker()?)?;
    let (told, is_well) = desk.check("docker", "X=")?;
    ensure!(!is_well && told.contains("WRONG trust: this machine does not trust"), "{told}");
    ensure!(told.contains("WRONG docker: ") && told.contains("/setup/systemd?fp="), "{told}");
    drop(bare);

    desk.machine.pipe(&desk.site.access(), "systemd", "")?;
    let dockerd = Dockerd::set_up(desk.site.directory("dockerd")?, &desk.machine)?;
    desk.program("docker", &dockerd.docker()?)?;
    let (told, is_well) = desk.check("docker", "X=")?;
    ensure!(is_well && !told.contains("WRONG"), "{told}");
    ensure!(told.contains("ok    trust: "), "{told}");
    ensure!(told.contains("ok    cache: second fetch of"), "{told}");
    let proved = told.lines().any(|line| {
        line.starts_with("ok    docker: second pull of") && line.contains("all from the cache")
    });
    ensure!(proved, "{told}");
    ensure!(dockerd.run(["images", "--all", "--quiet"])?.is_empty(), "an image is left");
    // What is there already stays.
    let image = desk.images.first().map(Image::name).unwrap_or_default();
    dockerd.run(["pull", "--quiet", &image])?;
    let (told, is_well) = desk.check("docker", "X=")?;
    ensure!(is_well && told.contains("it has"), "{told}");
    ensure!(!dockerd.run(["images", "--all", "--quiet"])?.is_empty(), "the image is gone");
    Ok(())
}

#[test]
fn podman_and_skopeo_are_proved_as_they_are_set_up() -> Result<()> {
    let desk = Desk::new()?;
    desk.machine.pipe(&desk.site.access(), "podman", "")?;
    let podman = Podman { home: desk.site.directory("podman")?, way: Way::Told };
    desk.program("podman", &podman.podman()?)?;
    let (told, is_well) = desk.check("podman", "X=")?;
    ensure!(is_well && told.contains("ok    podman: second pull of"), "{told}");
    let left = run(podman.podman()?.args(["images", "--all", "--quiet"]))?;
    ensure!(left.is_empty(), "an image is left: {left}");
    let proxy = format!("HTTPS_PROXY=http://{}", desk.site.access().mirror());
    let (told, is_well) = desk.check("skopeo", &proxy)?;
    ensure!(is_well && told.contains("ok    skopeo: second pull of"), "{told}");
    Ok(())
}

#[test]
fn a_machine_without_an_engine_is_proved_by_curl_alone() -> Result<()> {
    let desk = Desk::new()?;
    desk.machine.pipe(&desk.site.access(), "ca", "")?;
    let before = desk.machine.files()?;
    let (told, is_well) = desk.check("none", "X=")?;
    ensure!(is_well && told.contains("ok    cache: second fetch of"), "{told}");
    ensure!(told.contains("all from the cache"), "{told}");
    ensure!(desk.machine.files()? == before, "something was changed");
    Ok(())
}

/// `ctr` fetches in its own process, with the daemon's environment where systemd tells of one.
#[test]
fn containerd_is_proved_by_ctr() -> Result<()> {
    let desk = Desk::new()?;
    desk.machine.pipe(&desk.site.access(), "ca", "")?;
    let containerd = Containerd::start(desk.site.directory("containerd")?, Way::Told)?;
    desk.program("ctr", &containerd.ctr()?)?;
    let environment =
        format!("HTTPS_PROXY=http://{} CONTAINERD_SNAPSHOTTER=native", desk.site.access().mirror());
    let (told, is_well) = desk.check("containerd", &environment)?;
    ensure!(is_well && told.contains("ok    containerd: second pull of"), "{told}");
    let left = run(containerd.ctr()?.args(["namespaces", "ls", "--quiet"]))?;
    ensure!(!left.contains("entrepot-check"), "{left}");
    Ok(())
}
