//! `admin-token-file` and `admin-socket`.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use crate::admin::guard::{SHORTEST_TOKEN, Token};
use crate::admin::socket::{NAME, Place};

const KEY: &str = "admin-token-file";

/// Where the admin socket lies: its own key, else in `cache_dir`.
pub(super) fn socket(reader: &mut Reader, cache_dir: &Path) -> Place {
    match reader.get::<PathBuf>("admin-socket") {
        Some(path) => Place { path, is_chosen: true },
        None => Place { path: cache_dir.join(NAME), is_chosen: false },
    }
}

/// The file that holds the token, and the token in it; blocking.
pub(super) fn token(reader: &mut Reader) -> (Option<PathBuf>, Option<Token>) {
    let path: Option<PathBuf> = reader.get(KEY);
    let path = path.map(|path| reader.beside(KEY, path));
    let token = path.as_ref().and_then(|path| read(reader, path));
    (path, token)
}

fn read(reader: &mut Reader, path: &Path) -> Option<Token> {
    let problem = match std::fs::read_to_string(path) {
        Ok(text) => match Token::new(&text) {
            Some(token) => return Some(token),
            None => format!("expected at least {SHORTEST_TOKEN} characters in it"),
        },
        Err(error) => format!("it can't be read: {error}"),
    };
    let text = format!("{KEY}: {}: {problem}", path.display());
    reader.problem(reader.place(KEY), text);
    None
}
