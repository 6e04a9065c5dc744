//! `[peers]`.

use std::path::{Path, PathBuf};

use entrepot_oci::Authority;

use super::reader::Reader;
use crate::peers::{Options, Username};
use crate::upstream::proxy::Credential;

const NAMES: &str = "peers.names";
const USERNAME: &str = "peers.username";
const PASSWORD_FILE: &str = "peers.password-file";

/// The other replicas, and as whom they are asked; reads the password: blocking.
pub(super) fn options(reader: &mut Reader) -> Options {
    let names: Vec<Authority> = reader.get(NAMES).unwrap_or_default();
    let username: Option<Username> = reader.get(USERNAME);
    let path: Option<PathBuf> = reader.get(PASSWORD_FILE);
    let path = path.map(|path| reader.beside(PASSWORD_FILE, path));
    let credential = match (username, path) {
        (Some(username), Some(path)) => credential(reader, &username, &path),
        (Some(_), None) => {
            problem(reader, USERNAME, "found without peers.password-file; expected both");
            None
        }
        (None, Some(_)) => {
            problem(reader, PASSWORD_FILE, "found without peers.username; expected both");
            None
        }
        (None, None) => None,
    };
    if names.is_empty() {
        for key in [USERNAME, PASSWORD_FILE] {
            if reader.is_given(key) {
                reader.note(format!("{key} has no effect: peers.names leads to no replica"));
            }
        }
    }
    Options { names, credential }
}

fn credential(reader: &mut Reader, username: &Username, path: &Path) -> Option<Credential> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let problem = format!("{} can't be read: {error}", path.display());
            self::problem(reader, PASSWORD_FILE, &problem);
            return None;
        }
    };
    // As `[[registry]] password-file` is read: the line break of editors is not meant.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        let problem = format!("{} is empty; expected a password", path.display());
        self::problem(reader, PASSWORD_FILE, &problem);
        return None;
    }
    username.with(password)
}

fn problem(reader: &mut Reader, key: &str, text: &str) {
    let place = reader.place(key);
    reader.problem(place, format!("{key}: {text}"));
}
