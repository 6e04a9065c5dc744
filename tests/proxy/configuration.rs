//! A proxy that can't do what it is told says why and does not start.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use entrepot_testkit::Proxy;
use entrepot_testkit::proxy::{Finished, run};
use tempfile::TempDir;

use crate::BINARY;

/// Runs `entrepot serve` with this configuration, which must not work.
#[track_caller]
fn refused(directory: &TempDir, config: &str, arguments: &[&str]) -> String {
    let file = directory.path().join("entrepot.toml");
    fs::write(&file, config).unwrap();
    let path = file.display().to_string();
    let arguments = [&["serve", "--config", path.as_str()], arguments].concat();
    let Finished { code, output } = run(Path::new(BINARY), &arguments, &[]);
    assert!(matches!(code, Some(1..)), "{code:?}: {output}");
    output
}

/// A configuration that would work, with lines added.
fn with_free_ports(directory: &TempDir, lines: &str) -> String {
    let data = directory.path().join("data");
    format!(
        "listen = [\"127.0.0.1:0\"]\nadmin-listen = \"127.0.0.1:0\"\ndata-dir = \"{}\"\n{lines}",
        data.display()
    )
}

#[track_caller]
fn assert_line_with(output: &str, parts: &[&str]) {
    let found = output.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(found, "no line with {parts:?} in:\n{output}");
}

#[test]
fn every_error_is_told_at_once_with_its_line_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let config = "listen = [\"nonsense\"]\n\
                  tunnel = \"sometimes\"\n\
                  push = 3\n\
                  [upstream]\n\
                  connect-timeout = \"soon\"\n\
                  connect-to = [\"a:b\"]\n";
    let output = refused(&directory, config, &[]);
    assert_line_with(&output, &["entrepot.toml:1", "listen", "nonsense"]);
    assert_line_with(&output, &["entrepot.toml:2", "tunnel", "sometimes"]);
    assert_line_with(&output, &["entrepot.toml:3", "push", "3"]);
    assert_line_with(&output, &["entrepot.toml:5", "connect-timeout", "soon"]);
    assert_line_with(&output, &["entrepot.toml:6", "connect-to", "a:b"]);
}

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    let config = "tunel = \"none\"\n[upstream]\nca-file = [\"x\"]\n[[registry]]\nhosst = \"x\"\n";
    let output = refused(&directory, config, &[]);
    assert_line_with(&output, &["entrepot.toml:1", "tunel", "did you mean", "tunnel"]);
    assert_line_with(&output, &["entrepot.toml:3", "ca-file", "did you mean", "ca-files"]);
    assert_line_with(&output, &["entrepot.toml:5", "hosst", "did you mean", "host"]);
}

#[test]
fn text_that_is_no_toml_is_told_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let output = refused(&directory, "listen = [\n\npush = ", &[]);
    assert_line_with(&output, &["entrepot.toml:3"]);
}

#[test]
fn an_unknown_flag_is_an_error_with_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    let output = refused(&directory, "", &["--lisen", "127.0.0.1:0"]);
    assert!(output.contains("--lisen") && output.contains("--listen"), "{output}");
}

#[test]
fn an_unknown_variable_is_an_error_with_a_suggestion() {
    let environment = [("ENTREPOT_LISEN", "127.0.0.1:0")];
    let Finished { code, output } = run(Path::new(BINARY), &["serve"], &environment);
    assert!(matches!(code, Some(1..)), "{code:?}: {output}");
    assert_line_with(&output, &["ENTREPOT_LISEN", "did you mean", "ENTREPOT_LISTEN"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let arguments = ["serve", "--config", "/nonexistent/entrepot.toml"];
    let Finished { code, output } = run(Path::new(BINARY), &arguments, &[]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("/nonexistent/entrepot.toml"), "{output}");
}

#[test]
fn a_busy_port_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let config = with_free_ports(&directory, "");
    let output = refused(&directory, &config, &["--listen", &address]);
    assert!(output.contains(&address) && output.contains("in use"), "{output}");
    let output = refused(&directory, &config, &["--admin-listen", &address]);
    assert!(output.contains(&address) && output.contains("--admin-listen"), "{output}");
}

#[test]
fn a_data_directory_that_can_not_be_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let inside = file.join("data").display().to_string();
    let config = with_free_ports(&directory, "");
    let output = refused(&directory, &config, &["--data-dir", &inside]);
    assert!(output.contains(&inside), "{output}");
}

#[test]
fn a_store_of_another_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::write(cache.join("VERSION"), "entrepot store 999\n").unwrap();
    fs::write(cache.join("precious"), "1").unwrap();
    let config = with_free_ports(&directory, "");
    let path = cache.display().to_string();
    let output = refused(&directory, &config, &["--cache-dir", &path]);
    assert!(output.contains(&path) && output.contains("999"), "{output}");
    assert_eq!(fs::read_to_string(cache.join("precious")).unwrap(), "1");
    assert_eq!(fs::read_to_string(cache.join("VERSION")).unwrap(), "entrepot store 999\n");
}

#[test]
fn a_directory_of_somebody_elses_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let photos = directory.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("holiday.jpg"), "1").unwrap();
    let config = with_free_ports(&directory, "");
    let path = photos.display().to_string();
    let output = refused(&directory, &config, &["--cache-dir", &path]);
    assert!(output.contains(&path), "{output}");
    let left: Vec<_> = fs::read_dir(&photos).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["holiday.jpg"]);
}

#[test]
fn a_store_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::builder(BINARY).start();
    let config = with_free_ports(&directory, "");
    let data = proxy.data_dir().display().to_string();
    let output = refused(&directory, &config, &["--data-dir", &data]);
    assert!(output.contains(&data), "{output}");
    assert_eq!(proxy.client().get("/healthz").unwrap().status, 200);
}
