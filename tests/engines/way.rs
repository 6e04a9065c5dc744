//! How an engine comes to the registry.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::Result;

use crate::machine::Machine;
use crate::process::command;
use crate::site::Access;

pub(crate) enum Way {
    /// It is told on its command line, or by files that it reads.
    Told,
    /// Its environment names the proxy.
    Proxy(Access),
    /// This `containers.conf` names the proxy.
    Settings(Access, PathBuf),
    /// This `registries.conf` names the mirror.
    Mirror(PathBuf),
    /// As a set-up script has left this machine, with what systemd would add to the environment.
    SetUp(Rc<Machine>, Vec<(String, String)>),
}

impl Way {
    /// A command for `program` that goes this way.
    pub(crate) fn command(&self, program: &str, home: &Path) -> Result<Command> {
        if let Self::SetUp(machine, environment) = self {
            let mut command = machine.command(program, home)?;
            command.envs(environment.iter().cloned());
            return Ok(command);
        }
        let mut command = command(program, home)?;
        match self {
            Self::Told | Self::SetUp(..) => {}
            Self::Proxy(proxy) => {
                proxy.client(&mut command);
            }
            Self::Settings(proxy, settings) => {
                proxy.trusting(&mut command).env("CONTAINERS_CONF", settings);
            }
            Self::Mirror(registries) => {
                command.env("CONTAINERS_REGISTRIES_CONF", registries);
            }
        }
        Ok(command)
    }
}
