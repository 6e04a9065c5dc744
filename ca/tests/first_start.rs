//! The first start: many at once end with one CA, and its files are the owner's only, whatever the
//! umask.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "it is told by its environment what to be")]

mod common;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use common::Fixture;
use entrepot_ca::{Authority, Options, Origin};
use rustix::fs::Mode;

/// Where a child process of these tests opens its authority.
const DIRECTORY: &str = "ENTREPOT_CA_TEST_DIRECTORY";
const UMASK: &str = "ENTREPOT_CA_TEST_UMASK";

#[test]
fn many_threads_make_one_authority() {
    for _ in 0..5 {
        let fixture = Fixture::new();
        let authorities: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = (0..16).map(|_| scope.spawn(|| fixture.open())).collect();
            starting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let fingerprints: HashSet<_> = authorities.iter().map(Authority::fingerprint).collect();
        assert_eq!(fingerprints.len(), 1);
        let made = authorities.iter().filter(|ca| ca.origin() == Origin::Created).count();
        assert_eq!(made, 1);
    }
}

#[test]
fn many_processes_make_one_authority() {
    let fixture = Fixture::new();
    let directory = fixture.path("new/ca");
    let children: Vec<_> = (0..8).map(|_| child(&directory, "022").spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let opened: HashSet<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "opened"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let ca = Authority::load(&directory, &fixture.options).unwrap();
    assert_eq!(opened, HashSet::from([ca.fingerprint().to_string()]));
}

#[test]
fn files_are_the_owners_only_under_any_umask() {
    for umask in ["000", "022", "777"] {
        let fixture = Fixture::new();
        let directory = fixture.path("ca");
        let status = child(&directory, umask).status().unwrap();
        assert!(status.success(), "umask {umask}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&directory), 0o700, "umask {umask}");
        assert_eq!(mode(&directory.join("ca.key")), 0o600, "umask {umask}");
        assert_eq!(mode(&directory.join("ca.crt")), 0o644, "umask {umask}");
    }
}

/// This test binary again, running only `opened_by_a_process_of_its_own`.
fn child(directory: &Path, umask: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "opened_by_a_process_of_its_own", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(UMASK, umask)
        .stdout(Stdio::piped());
    command
}

/// As a child it opens the directory that its parent names and leaves the fingerprint there; by
/// itself, one of its own.
#[test]
fn opened_by_a_process_of_its_own() {
    let (Some(directory), Ok(umask)) = (env::var_os(DIRECTORY), env::var(UMASK)) else {
        Fixture::new().open();
        return;
    };
    rustix::process::umask(Mode::from_raw_mode(u32::from_str_radix(&umask, 8).unwrap()));
    let ca = Authority::open(Path::new(&directory), &Options::default()).unwrap();
    let file = format!("{}.opened", std::process::id());
    fs::write(Path::new(&directory).join(file), ca.fingerprint().to_string()).unwrap();
}
