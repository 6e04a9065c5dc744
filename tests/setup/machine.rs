//! A machine to set up: this one, seen through a private mount namespace whose changes vanish.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use entrepot::setup::{Client, ProxyAddress, Script, script};

use crate::proxy::{Proxy, certificate_authority};

/// How the machine keeps its trusted certificates.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    /// With the real `update-ca-certificates` of this machine.
    Debian,
    RedHat,
    Suse,
    Arch,
    /// A trust store that the script does not know.
    None,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::RedHat => "red-hat",
            Self::Suse => "suse",
            Self::Arch => "arch",
            Self::None => "none",
        }
    }
}

/// One script piped into a shell.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    script: String,
    prepare: String,
    environment: Vec<String>,
    arguments: Vec<String>,
    runner: String,
}

impl Step {
    pub(crate) fn shell(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            prepare: String::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            runner: String::new(),
        }
    }

    pub(crate) fn set_up(proxy: &Proxy) -> Self {
        Self::set_up_of(Client::Systemd, proxy)
    }

    pub(crate) fn undo(proxy: &Proxy) -> Self {
        Self::undo_of(Client::Systemd, proxy)
    }

    pub(crate) fn set_up_of(client: Client, proxy: &Proxy) -> Self {
        Self::shell(&rendered(client, &proxy.url(), &proxy.fingerprint, false))
    }

    pub(crate) fn undo_of(client: Client, proxy: &Proxy) -> Self {
        Self::shell(&rendered(client, &proxy.url(), &proxy.fingerprint, true))
    }

    /// Shell code that changes the machine before the step.
    pub(crate) fn after(mut self, prepare: &str) -> Self {
        prepare.clone_into(&mut self.prepare);
        self
    }

    /// `NAME=value`, without blanks.
    pub(crate) fn with_env(mut self, assignment: &str) -> Self {
        self.environment.push(assignment.to_owned());
        self
    }

    pub(crate) fn with_args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// A command that starts the shell.
    pub(crate) fn under(mut self, runner: &str) -> Self {
        runner.clone_into(&mut self.runner);
        self
    }

    fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in [
            ("script", self.script.clone()),
            ("prepare", self.prepare.clone()),
            ("environment", self.environment.join("\n")),
            ("arguments", self.arguments.join("\n")),
            ("runner", self.runner.clone()),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
    }
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The calls of the stubs, one a line.
    pub(crate) commands: String,
    pub(crate) before: String,
    pub(crate) after: String,
}

impl Outcome {
    fn read(dir: &Path) -> Self {
        let read = |name: &str| {
            let bytes = fs::read(dir.join(name)).unwrap();
            String::from_utf8_lossy(&bytes).trim_end().to_owned()
        };
        Self {
            status: read("status"),
            stdout: read("stdout"),
            stderr: read("stderr"),
            commands: read("commands"),
            before: read("before"),
            after: read("after"),
        }
    }

    /// What a person saw, and what was run.
    pub(crate) fn told(&self) -> String {
        let mut text = format!("exit {}\n", self.status);
        for (name, content) in
            [("stdout", &self.stdout), ("stderr", &self.stderr), ("commands", &self.commands)]
        {
            if !content.is_empty() {
                writeln!(text, "--- {name}\n{content}").unwrap();
            }
        }
        text
    }

    #[track_caller]
    pub(crate) fn assert_changed_nothing(&self) {
        assert_same_tree(&self.before, &self.after);
    }
}

/// Compares two trees, and shows only where they differ.
#[track_caller]
pub(crate) fn assert_same_tree(left: &str, right: &str) {
    let only_in = |one: &str, other: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    if left != right {
        let (gone, new) = (only_in(left, right), only_in(right, left));
        panic!("the trees differ\ngone: {gone:#?}\nnew: {new:#?}");
    }
}

/// Runs the steps one after the other on a fresh machine.
pub(crate) fn run(family: Family, steps: &[Step]) -> Vec<Outcome> {
    let dir = tempfile::Builder::new().prefix("setup-").tempdir().unwrap();
    let step_dir = |index: usize| dir.path().join(format!("steps/{index:02}"));
    for (index, step) in steps.iter().enumerate() {
        step.write(&step_dir(index));
    }
    fs::write(dir.path().join("driver.sh"), include_str!("driver.sh")).unwrap();
    fs::write(dir.path().join("other-ca.pem"), certificate_authority().pem()).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh"])
        .arg(dir.path().join("driver.sh"))
        .arg(dir.path())
        .arg(family.name())
        .output()
        .expect("`unshare` is needed: install util-linux");
    assert!(
        output.status.success(),
        "no machine to set up (this needs root, mount namespaces, overlayfs, and the packages \
         ca-certificates, openssl, curl, wget, dash, bash and util-linux): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (0..steps.len()).map(|index| Outcome::read(&step_dir(index))).collect()
}

/// The script as the proxy at `url` serves it.
pub(crate) fn rendered(client: Client, url: &str, fingerprint: &str, undo: bool) -> String {
    let address = ProxyAddress::from_url(url).unwrap();
    let asked = Script { address: &address, fingerprint, undo, expected_fingerprint: None };
    script(client, &asked).unwrap()
}
