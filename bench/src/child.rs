//! A server that is started for a measurement, and ended by its process id whatever happens.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::procs::Tree;

/// How long a server may take to listen: one that opens a store of a million objects, too.
const STARTING: Duration = Duration::from_mins(2);
/// How long it may take to end before it is killed.
const ENDING: Duration = Duration::from_secs(30);
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(2);

/// How a server tells where it listens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listens {
    /// It was told.
    At(SocketAddr),
    /// The first line of its standard output says.
    Announced,
}

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) listens: Listens,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts it and waits until it takes connections.
    pub(crate) fn start(launch: &Launch) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(&launch.log)?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).env_clear().envs(launch.environment.clone());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stderr(log.try_clone()?);
        match launch.listens {
            Listens::At(_) => command.stdout(log),
            Listens::Announced => command.stdout(Stdio::piped()),
        };
        let name = launch.program.display();
        let child = command.spawn().with_context(|| name.to_string())?;
        let unknown = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        // From here on it is ended, even if it never listens.
        let mut server = Self { child, address: unknown };
        server.address = match launch.listens {
            Listens::At(address) => address,
            Listens::Announced => server.announced()?,
        };
        server.wait_until_it_listens().with_context(|| {
            let log = std::fs::read_to_string(&launch.log).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(3).collect();
            format!("{name} said last: {}", last.join(" / "))
        })?;
        Ok(server)
    }

    fn announced(&mut self) -> anyhow::Result<SocketAddr> {
        let output = self.child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("{line:?} is no address"))
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended at once: {status}");
            }
            if begun.elapsed() > STARTING {
                bail!("does not listen on {}", self.address);
            }
            thread::sleep(BETWEEN);
        }
        Ok(())
    }

    /// Its processes.
    pub(crate) fn tree(&self) -> Tree {
        Tree(self.child.id())
    }

    fn ended_within(&mut self, time: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < time {
            // An error means that there is nothing to wait for.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(BETWEEN);
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself, which is as well.
            let _ = kill_process(pid, Signal::TERM);
        }
        if !self.ended_within(ENDING) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A port of 127.0.0.1 that is free now.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
