//! What is measured: entrepot, the ceiling, and other programs that are found on this machine, each
//! with a configuration of its own in the temporary directory.

mod entrepot;
mod nginx;
mod registry;
mod squid;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};

use crate::certificates::{self, Identity};
use crate::child::{Launch, Listens, Server};
use crate::load::{Target, Way};
use crate::procs::Tree;

pub(crate) use entrepot::{Instance, admin_page};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Entrepot,
    /// The practical limit: TLS and a file.
    Ceiling,
    /// nginx as a server of files over TLS: no cache, no CONNECT.
    Nginx,
    /// squid with ssl-bump.
    Squid,
    /// docker-registry as a pull-through cache: no CONNECT.
    DockerRegistry,
}

impl Kind {
    /// What it is called in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Entrepot => "entrepot",
            Self::Ceiling => "ceiling",
            Self::Nginx => "nginx",
            Self::Squid => "squid",
            Self::DockerRegistry => "docker-registry",
        }
    }

    /// Whether it can lack what the registry has.
    pub(crate) fn caches(self) -> bool {
        match self {
            Self::Entrepot | Self::Squid | Self::DockerRegistry => true,
            Self::Ceiling | Self::Nginx => false,
        }
    }

    /// Whether it serves parts of objects.
    pub(crate) fn serves_ranges(self) -> bool {
        self != Self::Ceiling
    }
}

/// What peers need to know of their surroundings.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Where they keep everything.
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    /// The registry's port.
    pub(crate) port: u16,
    /// The image's directory.
    pub(crate) image: PathBuf,
    /// The binary that is measured.
    pub(crate) entrepot: PathBuf,
}

impl Surroundings {
    /// A new directory for a peer.
    fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }
}

/// How a peer is started and reached.
#[derive(Debug)]
struct Plan {
    launch: Launch,
    way: Way,
    /// Whom its clients trust; it need not be there before the start.
    ca: PathBuf,
}

/// A running peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) target: Arc<Target>,
    plan: Plan,
    port: u16,
    /// Ended before another takes its place.
    server: Option<Server>,
}

impl Peer {
    /// Starts a peer; `None` if it is not installed.
    pub(crate) fn start(kind: Kind, around: &Surroundings) -> anyhow::Result<Option<Self>> {
        let plan = match kind {
            Kind::Entrepot => Some(Instance::new(around, "entrepot")?.plan(around)?),
            Kind::Ceiling => Some(own(around, "serve-ceiling")?),
            Kind::Nginx => nginx::plan(around)?,
            Kind::Squid => squid::plan(around)?,
            Kind::DockerRegistry => registry::plan(around)?,
        };
        plan.map(|plan| Self::run(kind, plan, around.port)).transpose()
    }

    fn run(kind: Kind, plan: Plan, port: u16) -> anyhow::Result<Self> {
        let server = Server::start(&plan.launch)?;
        let target = Arc::new(target(&server, &plan, port)?);
        Ok(Self { kind, target, plan, port, server: Some(server) })
    }

    /// Ends it and starts it again; it keeps what it has on its disk.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        drop(self.server.take());
        let server = Server::start(&self.plan.launch)?;
        self.target = Arc::new(target(&server, &self.plan, self.port)?);
        self.server = Some(server);
        Ok(())
    }

    /// Ends it without a chance to do anything more.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        let pid = self.tree().and_then(|tree| Pid::from_raw(i32::try_from(tree.0).ok()?));
        Ok(kill_process(pid.context("it does not run")?, Signal::KILL)?)
    }

    /// Its processes.
    pub(crate) fn tree(&self) -> Option<Tree> {
        self.server.as_ref().map(Server::tree)
    }
}

fn target(server: &Server, plan: &Plan, port: u16) -> anyhow::Result<Target> {
    let tls = certificates::client(&plan.ca)?;
    Ok(Target { address: server.address, way: plan.way, tls, port })
}

/// The registry that all of them stand in front of.
#[derive(Debug)]
pub(crate) struct Registry {
    server: Server,
    target: Target,
}

impl Registry {
    /// Starts it. `around` has no port yet.
    pub(crate) fn start(around: &Surroundings) -> anyhow::Result<Self> {
        let plan = own(around, "serve-origin")?;
        let server = Server::start(&plan.launch)?;
        let port = server.address.port();
        Ok(Self { target: target(&server, &plan, port)?, server })
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.server.address.port()
    }

    /// How many GETs it has answered: of the object with this digest, or of all.
    pub(crate) fn gets(&self, digest: &str) -> anyhow::Result<u64> {
        Ok(self.page(&format!("/count/{digest}"))?.parse()?)
    }

    /// Limits what it sends, over all connections; 0 is no limit.
    pub(crate) fn limit(&self, bytes_per_second: u64) -> anyhow::Result<()> {
        self.page(&format!("/rate/{bytes_per_second}")).map(drop)
    }

    fn page(&self, path: &str) -> anyhow::Result<String> {
        crate::load::on_cpu(None, async {
            crate::load::Connection::open(&self.target).await?.page(path).await
        })
    }
}

/// This program in another role.
fn own(around: &Surroundings, role: &str) -> anyhow::Result<Plan> {
    let launch = Launch {
        program: std::env::current_exe()?,
        arguments: vec![role.to_owned(), around.image.display().to_string()],
        environment: Vec::new(),
        listens: Listens::Announced,
        log: around.dir.join(format!("{role}.log")),
    };
    Ok(Plan { launch, way: Way::Direct, ca: around.identity.ca.clone() })
}

/// Where a program is, among the directories of `PATH` and those for administrators.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
