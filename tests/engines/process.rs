//! Starting, watching and stopping the programs of a test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long any one step of a test may take, on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Where Debian keeps each program that is needed here.
const PACKAGES: [(&str, &str); 13] = [
    ("buildah", "buildah"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("curl", "curl"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("dockerd", "docker.io"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("skopeo", "skopeo"),
    ("unshare", "util-linux"),
];

/// A command for `program`, which must be installed, with nothing of our environment but `PATH`,
/// and with `home` as its home and place for temporary files.
pub(crate) fn command(program: &str, home: &Path) -> Result<Command> {
    let path = find(program)?;
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("XDG_RUNTIME_DIR", home)
        .current_dir(home);
    Ok(command)
}

/// The path of a program, which must be installed.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| missing(program))
}

fn missing(program: &str) -> anyhow::Error {
    let package =
        PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
    anyhow!(
        "{program} is not installed: `apt-get install {package}`, \
         or scripts/install-test-tools for all that the tests need"
    )
}

/// Runs a command to its end and returns what it printed on standard output. One that fails, or
/// takes longer than [`PATIENCE`], is an error with all of its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    Ok(finished(command)?.stdout.all().join("\n"))
}

/// As [`run`], with what was printed on standard error too.
pub(crate) fn run_for_all_output(command: &mut Command) -> Result<String> {
    Ok(finished(command)?.log.all().join("\n"))
}

fn finished(command: &mut Command) -> Result<Daemon> {
    let mut child = Daemon::start(command)?;
    let status = child.wait(PATIENCE)?;
    let output = child.finish_log().join("\n");
    ensure!(status.success(), "`{}` failed with {status}:\n{output}", child.name);
    Ok(child)
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program that runs beside the test. It is stopped when dropped.
pub(crate) struct Daemon {
    name: String,
    pid: Pid,
    exit: Receiver<std::io::Result<ExitStatus>>,
    exited: Option<ExitStatus>,
    readers: Vec<JoinHandle<()>>,
    /// What it printed on standard output.
    stdout: Arc<Log>,
    /// What it printed at all.
    log: Arc<Log>,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = shown(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{name}` does not start"))?;
        let log = Arc::new(Log::default());
        let stdout = Arc::new(Log::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(follow(pipe, vec![Arc::clone(&stdout), Arc::clone(&log)]));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(follow(pipe, vec![Arc::clone(&log)]));
        }
        let pid = Pid::from_child(&child);
        let (tell, exit) = channel();
        std::thread::spawn(move || tell.send(child.wait()));
        Ok(Self { name, pid, exit, exited: None, readers, stdout, log })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How many lines it has printed so far.
    pub(crate) fn mark(&self) -> usize {
        self.log.printed().lines.len()
    }

    /// The first line from line `mark` on that is `wanted`, once it is there.
    pub(crate) fn line(
        &self,
        mark: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        self.log.wait(mark, wanted).ok_or_else(|| {
            anyhow!(
                "`{}` did not print {what}; it printed:\n{}",
                self.name,
                self.log.all().join("\n")
            )
        })
    }

    /// Whether it still runs; if not, an error with its last words.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        if let Ok(status) = self.exit.try_recv() {
            self.exited = Some(status?);
        }
        let Some(status) = self.exited else {
            return Ok(());
        };
        let output = self.finish_log().join("\n");
        bail!("`{}` ended with {status}:\n{output}", self.name);
    }

    /// Asks it to end, waits until it has, and returns all that it printed.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        let status = self.end()?;
        ensure!(
            status.success() || status.signal() == Some(Signal::TERM.as_raw()),
            "`{}` ended with {status}:\n{}",
            self.name,
            self.log.all().join("\n")
        );
        Ok(self.finish_log())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Ok(status) = self.exit.try_recv() {
            self.exited = Some(status?);
        }
        if let Some(status) = self.exited {
            return Ok(status);
        }
        kill_process(self.pid, Signal::TERM)?;
        self.wait(PATIENCE)
    }

    fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.exited {
            return Ok(status);
        }
        let status = match self.exit.recv_timeout(patience) {
            Ok(status) => status?,
            Err(RecvTimeoutError::Disconnected) => bail!("`{}` was lost sight of", self.name),
            Err(RecvTimeoutError::Timeout) => {
                kill_process(self.pid, Signal::KILL)?;
                self.exited = Some(self.exit.recv()??);
                bail!(
                    "`{}` had not ended after {patience:?}:\n{}",
                    self.name,
                    self.log.all().join("\n")
                );
            }
        };
        self.exited = Some(status);
        Ok(status)
    }

    fn finish_log(&mut self) -> Vec<String> {
        for reader in self.readers.drain(..) {
            // A reader's panic has been printed; the lines that it read are there.
            drop(reader.join());
        }
        self.log.all()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// The lines that a program printed, as they come.
#[derive(Default)]
struct Log {
    printed: Mutex<Printed>,
    changed: Condvar,
}

#[derive(Default)]
struct Printed {
    lines: Vec<String>,
    /// How many pipes may bring more.
    open: usize,
}

impl Log {
    fn printed(&self) -> MutexGuard<'_, Printed> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<String> {
        self.printed().lines.clone()
    }

    fn push(&self, line: &str) {
        self.printed().lines.push(line.to_owned());
        self.changed.notify_all();
    }

    fn close_one(&self) {
        self.printed().open -= 1;
        self.changed.notify_all();
    }

    /// The first line from line `mark` on that is `wanted`, once it is there; nothing when the
    /// program has closed its output without it, or [`PATIENCE`] is over.
    fn wait(&self, mark: usize, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut printed = self.printed();
        loop {
            if let Some(line) = printed.lines.iter().skip(mark).find(|line| wanted(line)) {
                return Some(line.clone());
            }
            if printed.open == 0 {
                return None;
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.changed.wait_timeout(printed, left);
            printed = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Reads a pipe to its end, line by line, into each of the logs.
fn follow(pipe: impl Read + Send + 'static, logs: Vec<Arc<Log>>) -> JoinHandle<()> {
    for log in &logs {
        log.printed().open += 1;
    }
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            for log in &logs {
                log.push(&line);
            }
        }
        for log in &logs {
            log.close_one();
        }
    })
}
