//! Secrets that are recognised wherever they turn up.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Proxy;

/// Part of every password, token and signature that this kit makes.
pub const CANARY: &str = "cAnArYsEcReT";

/// Fails if a canary stands in what the proxy wrote to its output, or anywhere in its directories.
#[track_caller]
pub fn assert_no_canary(proxy: &Proxy) {
    for line in proxy.log() {
        assert!(!contains_canary(line.as_bytes()), "a secret is in the log: {line}");
    }
    assert_no_canary_under(&proxy.data_dir());
}

/// Fails if a canary stands in the name or the contents of a file below `directory`.
#[track_caller]
pub fn assert_no_canary_under(directory: &Path) {
    for path in files_under(directory) {
        let name = path.as_os_str().as_encoded_bytes();
        let contents = fs::read(&path).unwrap_or_default();
        let clean = !contains_canary(name) && !contains_canary(&contents);
        assert!(clean, "a secret is in {}", path.display());
    }
}

/// Every file below a directory; one that vanishes meanwhile is none.
#[must_use]
pub fn files_under(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}

/// Whether a canary stands there, as it is or in Base64.
#[must_use]
pub fn contains_canary(bytes: &[u8]) -> bool {
    let forms = (0..3).map(base64_form).chain([CANARY.to_owned()]);
    forms.into_iter().any(|form| bytes.windows(form.len()).any(|at| at == form.as_bytes()))
}

/// The part of a canary's Base64 that is the same whatever stands around it, when it begins
/// `offset` bytes into a group of three.
fn base64_form(offset: usize) -> String {
    let padded = [&vec![0; offset], CANARY.as_bytes()].concat();
    let encoded = STANDARD.encode(&padded);
    let first_whole = (offset * 8).div_ceil(6);
    let last_whole = padded.len() * 8 / 6;
    encoded[first_whole..last_whole].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_in_every_disguise() {
        for user in ["a", "bo", "eve"] {
            let basic = STANDARD.encode(format!("{user}:{CANARY}-password"));
            assert!(contains_canary(basic.as_bytes()), "{basic}");
            assert!(contains_canary(format!("x{CANARY}y").as_bytes()));
        }
        assert!(!contains_canary(STANDARD.encode("alice:password").as_bytes()));
    }
}
