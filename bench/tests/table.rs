//! The program as it is run: it starts what it measures, measures it, and prints a table.

use std::process::Command;

#[test]
fn the_ceiling_is_measured_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("runs.jsonl");
    let output = Command::new(env!("CARGO_BIN_EXE_entrepot-bench"))
        .args(["--targets", "ceiling", "--blocks", "hit,small,manifest,handshake,connections,idle"])
        .args(["--reps", "2", "--seconds", "0.02", "--large", "1", "--large-size", "1MiB"])
        .args(["--connections", "1,20", "--idle", "20", "--unpinned", "--dir"])
        .arg(dir.path())
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let (table, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert!(!table.contains("failed"), "{table}");
    let rows = ["| hit c=16 | GB/s |", "| small c=8 |", "| manifest by tag, c=16 |"];
    for row in rows.iter().chain(&["| handshake c=16 |", "| connections n=20 |", "| idle n=20 |"]) {
        assert!(table.contains(row), "{row}: {table}");
    }
    let lines = std::fs::read_to_string(json).unwrap();
    // Three sizes of hits, small ones, two manifests, handshakes, two counts of connections, idle.
    assert_eq!(lines.lines().count(), 2 * (3 + 1 + 2 + 1 + 2 + 1));
    // Its temporary directory is gone with it.
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_missing_binary_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_entrepot-bench"))
        .args(["--targets", "entrepot", "--entrepot", "/nowhere/entrepot"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("/nowhere/entrepot"), "{told}");
}
