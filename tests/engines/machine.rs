//! A machine to set up: this one, seen through a mount namespace whose changes vanish with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::{Daemon, command, find, run};
use crate::site::Access;

/// It is gone when this is dropped; whatever runs in it has to end before.
pub(crate) struct Machine {
    home: PathBuf,
    // What keeps the namespace.
    holder: Daemon,
}

impl Machine {
    pub(crate) fn start(home: PathBuf) -> Result<Self> {
        let script = home.join("machine.sh");
        std::fs::write(&script, include_str!("machine.sh"))?;
        let mut holder = command("unshare", &home)?;
        holder.args(["--mount", "--propagation", "private", "sh"]).arg(script).arg(&home);
        let holder = Daemon::start(&mut holder)?;
        holder.line(0, "that it is ready", |line| line == "ready")?;
        Ok(Self { home, holder })
    }

    /// A command for `program` on this machine, with `home` as its home.
    pub(crate) fn command(&self, program: &str, home: &Path) -> Result<Command> {
        let mut command = command("nsenter", home)?;
        let path = std::env::var("PATH")?;
        command
            .env("PATH", format!("{}:{path}", self.home.join("bin").display()))
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.pid()))
            .arg("--")
            .arg(find(program)?);
        Ok(command)
    }

    pub(crate) fn shell(&self, line: &str) -> Result<String> {
        run(self.command("sh", &self.home)?.args(["-euc", line]))
    }

    /// Pipes a set-up script of the proxy into a shell, as a person does: `podman?undo`, and what
    /// follows `sh -s --`. Returns what it said.
    pub(crate) fn pipe(&self, proxy: &Access, script: &str, arguments: &str) -> Result<String> {
        let url = format!("http://{}/setup/{script}", proxy.mirror());
        self.shell(&format!(
            "curl -q -fsS --noproxy '*' '{url}' >$HOME/script; sh -s -- {arguments} <$HOME/script"
        ))
    }

    /// Every file of what can be set up, with mode, owner and content; but not the content of
    /// Java's store of certificates, which its own hook writes anew each time others change.
    pub(crate) fn files(&self) -> Result<BTreeSet<String>> {
        let told = self.shell(
            "find /etc /usr/local/share -printf '%p %y %m %u %l\\n'
             find /etc /usr/local/share -type f -not -path /etc/ssl/certs/java/cacerts \\
                 -exec sha256sum {} +",
        )?;
        Ok(told.lines().map(str::to_owned).collect())
    }

    /// The environment that systemd gives to a unit by the drop-in that a script has made.
    pub(crate) fn environment_of(&self, unit: &str) -> Result<Vec<(String, String)>> {
        let dropin = format!("/etc/systemd/system/{unit}.d/zz-entrepot.conf");
        let text = self.shell(&format!("if [ -e {dropin} ]; then cat {dropin}; fi"))?;
        let variables = text.lines().filter_map(|line| {
            let assignment = line.strip_prefix("Environment=\"")?.strip_suffix('"')?;
            let (name, value) = assignment.split_once('=')?;
            Some((name.to_owned(), value.replace("%%", "%")))
        });
        Ok(variables.collect())
    }
}

/// What a set-up has made is gone, and what was there before is there, whatever engines have added.
pub(crate) fn ensure_undone(
    before: &BTreeSet<String>,
    set_up: &BTreeSet<String>,
    after: &BTreeSet<String>,
) -> Result<()> {
    ensure!(set_up != before, "the set-up has changed nothing");
    let left: Vec<_> = set_up.difference(before).filter(|line| after.contains(*line)).collect();
    let lost: Vec<_> = before.difference(after).collect();
    ensure!(left.is_empty() && lost.is_empty(), "left: {left:#?}\nlost: {lost:#?}");
    Ok(())
}
