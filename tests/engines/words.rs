//! What engines print where a pull fails: that a proxy is speaking and which, what is wrong and
//! with whom, and whom to ask.
//!
//! Each puts together what it prints from other parts of an answer: the status line of a CONNECT or
//! of a HEAD, the message of an error document. What counts is what a person reads in the end.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use entrepot_testkit::fault::Reply;
use entrepot_testkit::{Gate, Hangup, Request, Response, Server, TestCa};

use crate::buildah::Buildah;
use crate::containerd::Containerd;
use crate::dockerd::Dockerd;
use crate::engine::{Engine, Login};
use crate::images;
use crate::podman::Podman;
use crate::site::{Proxy, free_addresses};
use crate::skopeo::Skopeo;
use crate::way::Way;

/// What every error of the proxy's own begins with, by its configuration.
const SPEAKER: &str = "entrepot at proxy.corp (ask #platform)";

/// A registry where a pull fails, and what has to be printed of it.
struct Case {
    host: &'static str,
    cause: &'static [&'static str],
    /// Whether the words are the registry's own, which the proxy passes on.
    is_relayed: bool,
}

const fn case(host: &'static str, cause: &'static [&'static str]) -> Case {
    Case { host, cause, is_relayed: false }
}

const CASES: [Case; 10] = [
    case("nosuch.invalid", &["nosuch.invalid does not resolve"]),
    case("refused.test", &["no connection to refused.test:443", "Connection refused"]),
    case("silent.test", &["silent.test:443", "sent no answer within 1 s"]),
    case("untrusted.test", &["the certificate of untrusted.test:443 is refused", "ca-files"]),
    case("drops.test", &["drops.test:443", "it closed the connection"]),
    case("resets.test", &["resets.test:443", "it reset the connection"]),
    case(
        "limited.test",
        &["limited.test: the pull quota of this proxy", "100 pulls within 6 h", "[[registry]]"],
    ),
    case("credentials.test", &["credentials.test", "this proxy's own credentials"]),
    case("other.test", &["other.test:443 is refused"]),
    Case { host: "missing.test", cause: &["missing.test"], is_relayed: true },
];

/// A proxy with each of the registries behind it, which are gone with this.
struct World {
    proxy: Proxy,
    _servers: Vec<Server>,
    home: tempfile::TempDir,
}

impl World {
    fn start() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let (ca, foreign) = (TestCa::new("trusted"), TestCa::new("foreign"));
        let [_, closed] = free_addresses()?;
        let mut servers = Vec::new();
        let mut led = vec![("refused.test", closed)];
        let mut serve = |host: &'static str, server: Server| {
            led.push((host, server.address()));
            servers.push(server);
        };
        let leaf = |host| ca.leaf(&[host]);
        let gate = Gate::new();
        serve(
            "silent.test",
            Server::https(leaf("silent.test"), move |_: &Request| {
                gate.pass();
                Response::new(500)
            }),
        );
        let untrusted = foreign.leaf(&["untrusted.test"]);
        serve("untrusted.test", Server::https(untrusted, |_: &Request| Response::new(200)));
        for (host, hangup) in [("drops.test", Hangup::Fin), ("resets.test", Hangup::Rst)] {
            serve(host, Server::https(leaf(host), move |_: &Request| Reply::none(hangup)));
        }
        serve("limited.test", Server::https(leaf("limited.test"), limited));
        serve(
            "credentials.test",
            Server::https(leaf("credentials.test"), |_: &Request| {
                Response::new(401)
                    .header("WWW-Authenticate", "Basic realm=\"credentials.test\"")
                    .header("Content-Type", "application/json")
                    .body(error("UNAUTHORIZED", "authentication required"))
            }),
        );
        serve("missing.test", Server::https(leaf("missing.test"), missing));
        let proxy = Proxy::configured(&home.path().join("proxy"), &settings(&led, &ca))?;
        Ok(Self { proxy, _servers: servers, home })
    }

    fn directory(&self, name: &str) -> Result<std::path::PathBuf> {
        let path = self.home.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Has an engine pull from each of the registries.
fn check(engine: &impl Engine) -> Result<()> {
    let mut wrong = Vec::new();
    for Case { host, cause, is_relayed } in &CASES {
        let image = format!("{host}/library/words:1");
        let printed = match engine.pull_as(&image, None) {
            Ok(()) => "nothing: it succeeded".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        eprintln!("{host}: {printed}\n");
        let words: Vec<_> = [SPEAKER].into_iter().filter(|_| !is_relayed).collect();
        let lacking: Vec<_> =
            words.iter().chain(*cause).filter(|part| !printed.contains(**part)).collect();
        if !lacking.is_empty() {
            wrong.push(format!("{host}: {lacking:?} is not in: {printed}"));
        }
        for unwanted in ["os error", "close_notify", "SendRequest", "for 0 s"] {
            if printed.contains(unwanted) {
                wrong.push(format!("{host}: {unwanted:?} is in: {printed}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn settings(led: &[(&str, SocketAddr)], ca: &TestCa) -> String {
    let connect_to: Vec<_> =
        led.iter().map(|(host, address)| format!("\"{host}:443:{address}\"")).collect();
    let hosts = led.iter().map(|(host, _)| format!("\"{host}\""));
    let hosts: Vec<_> = hosts.chain(["\"nosuch.invalid\"".to_owned()]).collect();
    format!(
        "external-url = \"http://proxy.corp:3128\"\n\
         contact = \"ask #platform\"\n\
         intercept = [{}]\n\
         tunnel = \"none\"\n\
         [upstream]\n\
         header-timeout = \"1s\"\n\
         connect-to = [{}]\n\
         ca-files = [\"{}\"]\n\
         [[registry]]\n\
         host = \"credentials.test\"\n\
         username = \"proxy\"\n\
         password = \"expired\"\n",
        hosts.join(", "),
        connect_to.join(", "),
        ca.pem_file().display(),
    )
}

fn error(code: &str, message: &str) -> String {
    format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#)
}

/// A registry whose quota is used up.
fn limited(request: &Request) -> Response {
    if request.path() == "/v2/" {
        return Response::new(200).header("Content-Type", "application/json").body("{}");
    }
    Response::new(429)
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", "0;w=21600")
        .header("docker-ratelimit-source", "192.0.2.1")
        .header("Retry-After", "60")
        .header("Content-Type", "application/json")
        .body(error("TOOMANYREQUESTS", "You have reached your pull rate limit."))
}

/// A registry that has no image.
fn missing(request: &Request) -> Response {
    if request.path() == "/v2/" {
        return Response::new(200).header("Content-Type", "application/json").body("{}");
    }
    Response::new(404)
        .header("Docker-Distribution-Api-Version", "registry/2.0")
        .header("Content-Type", "application/json")
        .body(error("MANIFEST_UNKNOWN", "manifest unknown"))
}

#[test]
fn dockerd_prints_who_speaks_and_what_is_wrong() -> Result<()> {
    let world = World::start()?;
    check(&Dockerd::start(world.directory("dockerd")?, Some(&world.proxy.access()))?)
}

#[test]
fn podman_prints_who_speaks_and_what_is_wrong() -> Result<()> {
    let world = World::start()?;
    let way = Way::Proxy(world.proxy.access());
    check(&Podman { home: world.directory("podman")?, way })
}

#[test]
fn buildah_prints_who_speaks_and_what_is_wrong() -> Result<()> {
    let world = World::start()?;
    let way = Way::Proxy(world.proxy.access());
    check(&Buildah { home: world.directory("buildah")?, way })
}

#[test]
fn skopeo_prints_who_speaks_and_what_is_wrong() -> Result<()> {
    let world = World::start()?;
    check(&Skopeo::with(world.directory("skopeo")?, Way::Proxy(world.proxy.access()))?)
}

#[test]
fn containerd_prints_who_speaks_and_what_is_wrong() -> Result<()> {
    let world = World::start()?;
    let way = Way::Proxy(world.proxy.access());
    check(&Containerd::start(world.directory("containerd")?, way)?)
}

/// What can't be asked is not taken for a yes: a login fails, and so does a push. Docker prints
/// why; the programs made of containers/image print a token server's status and no words of it.
#[test]
fn nobody_is_logged_in_at_a_registry_that_cannot_be_reached() -> Result<()> {
    let world = World::start()?;
    let way = || Way::Proxy(world.proxy.access());
    let login = Login { name: "alice".to_owned(), password: "secret".to_owned() };
    let dockerd = Dockerd::start(world.directory("dockerd")?, Some(&world.proxy.access()))?;
    let podman = Podman { home: world.directory("podman")?, way: way() };
    let skopeo = Skopeo::with(world.directory("skopeo")?, way())?;
    let layouts = world.directory("layouts")?;
    let image = images::create(&layouts, "library/words", &[("amd64", &[3_000])])?;
    let host = "refused.test";
    let name = format!("{host}/library/words:1");
    let told = [
        ("docker login", dockerd.log_in(host, &login).err()),
        ("podman login", podman.log_in(host, &login).err()),
        ("skopeo login", skopeo.log_in(host, &login).err()),
        ("skopeo copy", skopeo.push(&image, &name).err()),
    ];
    for (what, error) in told {
        let printed = error.map(|error| format!("{error:#}")).unwrap_or_default();
        eprintln!("{what}: {printed}\n");
        ensure!(!printed.is_empty(), "{what} succeeded");
        ensure!(printed.contains("503") || printed.contains("502"), "{what}: {printed}");
        if what.starts_with("docker") {
            ensure!(printed.contains(SPEAKER), "{what}: {printed}");
            ensure!(printed.contains("Connection refused"), "{what}: {printed}");
        }
    }
    Ok(())
}

/// A login of the client's own does not keep it from the words either.
#[test]
fn a_pull_with_a_login_prints_the_same_words() -> Result<()> {
    let world = World::start()?;
    let skopeo = Skopeo::with(world.directory("skopeo")?, Way::Proxy(world.proxy.access()))?;
    let login = Login { name: "alice".to_owned(), password: "secret".to_owned() };
    let Err(error) = skopeo.pull_as("refused.test/library/words:1", Some(&login)) else {
        anyhow::bail!("it succeeded");
    };
    let printed = format!("{error:#}");
    ensure!(printed.contains(SPEAKER) && printed.contains("Connection refused"), "{printed}");
    Ok(())
}
