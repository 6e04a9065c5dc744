//! A program that is started, watched and stopped.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::PATIENCE;

pub use rustix::process::Signal;

/// A program that runs; it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Mutex<Child>,
    output: Arc<Output>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

/// A program that has run.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed, on both of its outputs.
    pub output: String,
}

/// Runs a program to its end, with nothing in its environment but `PATH` and these variables.
#[track_caller]
#[must_use]
pub fn run(binary: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let process = Process::spawn(binary, &arguments, &environment);
    let status = process.wait_exit();
    Finished { code: status.code(), output: process.complete_output() }
}

impl Process {
    pub(super) fn spawn(
        binary: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Self {
        let mut command = Command::new(binary);
        command.args(arguments).env_clear();
        // The last one is how a coverage build reports.
        for name in ["PATH", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let output = Arc::new(Output::default());
        let readers = vec![
            collect(&output, child.stdout.take().unwrap()),
            collect(&output, child.stderr.take().unwrap()),
        ];
        Self { child: Mutex::new(child), output, readers: Mutex::new(readers) }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.output.lines.lock().unwrap().clone()
    }

    /// Everything a process printed that has ended.
    pub(super) fn complete_output(&self) -> String {
        for reader in self.readers.lock().unwrap().drain(..) {
            drop(reader.join());
        }
        self.lines().join("\n")
    }

    #[track_caller]
    pub(super) fn wait_for_line(&self, parts: &[&str], count: usize) -> String {
        let find = |lines: &[String]| {
            let mut found =
                lines.iter().filter(|line| parts.iter().all(|part| line.contains(part)));
            found.nth(count - 1).cloned()
        };
        let lines = self.output.lines.lock().unwrap();
        let missing = |lines: &mut Vec<String>| find(lines).is_none();
        let (lines, _) = self.output.changed.wait_timeout_while(lines, PATIENCE, missing).unwrap();
        find(&lines)
            .unwrap_or_else(|| panic!("not {count} lines with {parts:?} in:\n{}", lines.join("\n")))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.exit_status().is_some()
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().unwrap()
    }

    #[track_caller]
    pub(super) fn wait_exit(&self) -> ExitStatus {
        // There is no wait with a bound in the standard library.
        const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.exit_status() {
                self.complete_output();
                return status;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        panic!("still running after {PATIENCE:?}:\n{}", self.lines().join("\n"));
    }

    /// Sends a signal; one that has ended gets none, since its number may be another's by now.
    pub(super) fn signal(&self, signal: Signal) {
        let mut child = self.child.lock().unwrap();
        if child.try_wait().unwrap().is_none() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(child.kill());
        drop(child.wait());
    }
}

fn collect(output: &Arc<Output>, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
    let output = Arc::clone(output);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            output.lines.lock().unwrap().push(line);
            output.changed.notify_all();
        }
    })
}
