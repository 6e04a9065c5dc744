//! entrepot's own container image: the repository's `Dockerfile`, built, run and used.
//!
//! Its build stage starts from an image that only the internet has. A stand-in takes that place:
//! this machine's shell and tools, and a `cargo` that brings the program which this test was built
//! with. All else is as in a real build, the final stage to the letter.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::dockerd::Dockerd;
use crate::engine::Engine;
use crate::images;
use crate::process::{Daemon, run, run_for_all_output};
use crate::site::{Access, Registry, connect_to, free_addresses};
use crate::skopeo::Skopeo;
use crate::way::Way;

/// The user of the image.
const USER: &str = "65532";

/// What the build stage runs.
const BUILD_TOOLS: [&str; 5] =
    ["/bin/sh", "/bin/bash", "/usr/bin/install", "/usr/bin/ldd", "/usr/bin/sed"];

#[test]
fn image_serves_as_nobody_from_a_read_only_root_and_reports_its_health() -> Result<()> {
    let home = tempfile::tempdir()?;
    let registry = Registry::start(home.path().join("registry"))?;
    let image = images::create(
        &home.path().join("layouts"),
        "library/small",
        &[("amd64", &[30_000, 300_000])],
    )?;
    registry.store(&image)?;
    let dockerd = Dockerd::start(directory(home.path(), "dockerd")?, None)?;
    build(&dockerd, home.path())?;

    let mut events = Daemon::start(dockerd.docker()?.arg("events"))?;
    let container = Container::run(
        &dockerd,
        &registry,
        &["--user=65532:65532", "--cap-drop=ALL", "--security-opt=no-new-privileges"],
    )?;
    let clients = directory(home.path(), "clients")?;
    let access = Access::to(container.listen, &clients, || {
        events.still_runs()?;
        container.still_runs()
    })?;
    let pulled =
        Skopeo::with(directory(home.path(), "skopeo")?, Way::Proxy(access))?.pull(&image)?;
    ensure!(pulled.contains(&image.digest), "{pulled:?}");

    let health = events.line(0, "anything on its health", |line| {
        line.contains("health_status") || line.contains("container die")
    })?;
    ensure!(health.contains("health_status: healthy"), "{health}\n{}", container.log()?);
    container.runs_as(USER)?;
    container.stops()
}

/// The line that starts docker-registry-proxy, with the image's name changed: directories that the
/// engine makes as root, or that the other tool's nginx has used, and a CA from then.
#[test]
fn image_takes_the_place_of_docker_registry_proxy() -> Result<()> {
    let home = tempfile::tempdir()?;
    let registry = Registry::start(home.path().join("registry"))?;
    let image = images::create(
        &home.path().join("layouts"),
        "library/small",
        &[("amd64", &[30_000, 300_000])],
    )?;
    registry.store(&image)?;
    let dockerd = Dockerd::start(directory(home.path(), "dockerd")?, None)?;
    build(&dockerd, home.path())?;
    for (name, nginx) in [("fresh", None), ("used", Some(101))] {
        let place = directory(home.path(), name)?;
        let cache = directory(&place, "docker_mirror_cache")?;
        let certificates = directory(&place, "docker_mirror_certs")?;
        if nginx.is_some() {
            leave_as_the_other_tool(&cache, &certificates)?;
            std::os::unix::fs::chown(&cache, nginx, nginx)?;
        }
        let container = Container::run(
            &dockerd,
            &registry,
            &[
                "--env=ENABLE_MANIFEST_CACHE=true",
                "--env=REGISTRIES=registry.k8s.io gcr.io a.custom.registry",
                "--env=AUTH_REGISTRIES=auth.docker.io:dockerhub_username:dockerhub_password",
                &format!("--volume={}:/docker_mirror_cache", cache.display()),
                &format!("--volume={}:/ca", certificates.display()),
            ],
        )?;
        let clients = directory(&place, "clients")?;
        let access = Access::to(container.listen, &clients, || container.still_runs())?;
        if nginx.is_some() {
            let own = fs::read_to_string(certificates.join("ca.crt"))?;
            ensure!(access.authority()?.trim() == own.trim(), "it has a CA of its own");
        }
        let pulled =
            Skopeo::with(directory(&place, "skopeo")?, Way::Proxy(access))?.pull(&image)?;
        ensure!(pulled.contains(&image.digest), "{pulled:?}");
        container.runs_as(nginx.map_or(USER.to_owned(), |user| user.to_string()).as_str())?;
        ensure!(cache.join("entrepot/blobs").is_dir(), "{}", container.log()?);
        let warned = container.log()?.contains("delete everything there but entrepot/");
        ensure!(warned == nginx.is_some(), "{}", container.log()?);
        container.stops()?;
    }
    Ok(())
}

/// A CA with an encrypted key, and a file where nginx keeps those of its cache.
fn leave_as_the_other_tool(cache: &Path, certificates: &Path) -> Result<()> {
    fs::create_dir_all(cache.join("ab/cd"))?;
    fs::write(cache.join("ab/cd/0123456789abcdef0123456789abcdef"), "KEY: /v2/x")?;
    let mut openssl = crate::process::command("openssl", certificates)?;
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-days", "1300", "-passout"]);
    openssl.args(["pass:foobar", "-subj", "/CN=DockerMirrorBox CA Root"]);
    run(openssl.args(["-keyout", "ca.key", "-out", "ca.crt"]))?;
    Ok(())
}

fn directory(home: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = home.join(name);
    fs::create_dir(&path)?;
    Ok(path)
}

fn build(dockerd: &Dockerd, home: &Path) -> Result<()> {
    let stand_in = home.join("stand-in.tar");
    write_stand_in(&stand_in)?;
    dockerd.run(["import", &stand_in.to_string_lossy(), "stand-in"])?;
    // The builder that every Docker has.
    run(dockerd.docker()?.env("DOCKER_BUILDKIT", "0").args([
        "build",
        "--build-arg",
        "BUILD_IMAGE=stand-in",
        "--tag",
        "entrepot",
        env!("CARGO_MANIFEST_DIR"),
    ]))?;
    Ok(())
}

/// Packs a root file system for the build stage.
fn write_stand_in(path: &Path) -> Result<()> {
    let entrepot = env!("CARGO_BIN_EXE_entrepot");
    let mut archive = tar::Builder::new(File::create(path)?);
    // A linker leaves holes, and Docker knows no sparse files.
    archive.sparse(false);
    let roots = "/etc/ssl/certs/ca-certificates.crt";
    let mut files = vec![roots.to_owned()];
    for program in BUILD_TOOLS {
        files.push(program.to_owned());
        files.extend(libraries(program)?);
    }
    files.extend(libraries(entrepot)?);
    files.sort();
    files.dedup();
    for file in files {
        archive.append_path_with_name(&file, file.trim_start_matches('/'))?;
    }
    archive.append_path_with_name(entrepot, "entrepot")?;
    let cargo = "#!/bin/sh\nexec install -D /entrepot target/release/entrepot\n";
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(cargo.len().try_into()?);
    archive.append_data(&mut header, "usr/bin/cargo", cargo.as_bytes())?;
    archive.finish()?;
    Ok(())
}

/// The shared libraries that a program links to; none for a script.
fn libraries(program: &str) -> Result<Vec<String>> {
    let printed = Command::new("ldd").arg(program).output()?;
    let printed = String::from_utf8(printed.stdout)?;
    Ok(printed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// A running container of the image.
struct Container<'d> {
    dockerd: &'d Dockerd,
    id: String,
    listen: SocketAddr,
}

impl<'d> Container<'d> {
    fn run(dockerd: &'d Dockerd, registry: &Registry, options: &[&str]) -> Result<Self> {
        let [listen, admin] = free_addresses()?;
        let authority = format!("{}:/authority.pem:ro", registry.authority.display());
        // By name, so that the image has to resolve one.
        let connect_to = connect_to(registry).replace("127.0.0.1", "registry.test");
        let site = [
            "run",
            "--detach",
            "--network=host",
            "--add-host=registry.test:127.0.0.1",
            "--read-only",
            "--health-interval=1s",
            &format!("--volume={authority}"),
            &format!("--env=ENTREPOT_LISTEN={listen}"),
            &format!("--env=ENTREPOT_ADMIN_LISTEN={admin}"),
            &format!("--env=ENTREPOT_UPSTREAM_CONNECT_TO={connect_to}"),
            "--env=ENTREPOT_UPSTREAM_CA_FILES=/authority.pem",
        ];
        let id =
            dockerd.run(site.into_iter().chain(options.iter().copied()).chain(["entrepot"]))?;
        Ok(Self { dockerd, id, listen })
    }

    fn inspect(&self, format: &str) -> Result<String> {
        self.dockerd.run(["inspect", "--format", format, &self.id])
    }

    fn log(&self) -> Result<String> {
        run_for_all_output(self.dockerd.docker()?.args(["logs", &self.id]))
    }

    fn still_runs(&self) -> Result<()> {
        let running = self.inspect("{{.State.Running}}")?;
        ensure!(running == "true", "it has ended:\n{}", self.log()?);
        Ok(())
    }

    fn runs_as(&self, user: &str) -> Result<()> {
        let pid = self.inspect("{{.State.Pid}}")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for key in ["Uid:", "Gid:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let ids: Vec<&str> = line.context("no IDs")?.split_whitespace().collect();
            ensure!(ids == [user; 4], "{key} {ids:?}");
        }
        Ok(())
    }

    /// It ends in its own time, and well.
    fn stops(&self) -> Result<()> {
        self.dockerd.run(["stop", "--time", "60", &self.id])?;
        let code = self.inspect("{{.State.ExitCode}}")?;
        ensure!(code == "0", "exit code {code}:\n{}", self.log()?);
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.dockerd.run(["rm", "--force", "--volumes", &self.id]) {
            eprintln!("{error:#}");
        }
    }
}
