//! What was measured on what: figures without that mean nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::procs;

/// A line on the machine, and one on the programs.
pub(crate) fn describe(entrepot: &Path, targets: &[&str]) -> String {
    let system = rustix::system::uname();
    let version = |target: &&str| match *target {
        "entrepot" => Some(told(Command::new(entrepot).arg("--version"))),
        "nginx" => Some(told(Command::new("nginx").arg("-v"))),
        "squid" => Some(told(Command::new("squid").arg("-v"))),
        "docker-registry" => Some(told(Command::new("docker-registry").arg("--version"))),
        _ => None,
    };
    // Without it no run can be told to have been disturbed.
    let blind = match procs::busy_secs() {
        Some(_) => "",
        None => ", which does not tell what other programs use",
    };
    let versions: Vec<_> = targets.iter().filter_map(version).collect();
    format!(
        "{}, {} CPUs, {} {}{blind}\n\n{}\n",
        cpu(),
        procs::cpus().len(),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        versions.join("; ")
    )
}

fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(": ")).map(|(_, name)| name);
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// The first line that a program says, on either of its outputs.
fn told(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return String::new() };
    let bytes = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}
