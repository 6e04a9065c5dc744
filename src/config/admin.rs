//! `admin-token-file`, `admin-look-from` and `admin-socket`.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use crate::admin::guard::{SHORTEST_TOKEN, Token};
use crate::admin::onlookers::Onlooker;
use crate::admin::socket::{NAME, Place};

const KEY: &str = "admin-token-file";

/// Where the admin socket lies: its own key, else in `cache_dir`.
pub(super) fn socket(reader: &mut Reader, cache_dir: &Path) -> Place {
    match reader.get::<PathBuf>("admin-socket") {
        Some(path) => Place { path, is_chosen: true },
        None => Place { path: cache_dir.join(NAME), is_chosen: false },
    }
}

/// Who may look without the token.
pub(super) fn onlookers(reader: &mut Reader) -> Vec<Onlooker> {
    let onlookers: Vec<_> = reader.get("admin-look-from").unwrap_or_default();
    if !onlookers.is_empty() && reader.place(KEY).is_some() {
        reader.note(
            "admin-look-from has no effect: there is an admin-token-file, and the token is asked of \
             everybody",
        );
    }
    onlookers
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

#[cfg(test)]
mod tests {
    use super::super::{Settings, Sources};

    /// The notes on a configuration with these lines, or what is wrong with it.
    fn notes(lines: &str) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("entrepot.toml");
        std::fs::write(&file, format!("data-dir = \"/d\"\n{lines}")).unwrap();
        std::fs::write(directory.path().join("token"), "0123456789abcdef").unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        let settings = Settings::load(&sources).map_err(|error| error.to_string())?;
        Ok(settings.notes)
    }

    #[test]
    fn onlookers_are_of_no_use_beside_a_token() {
        let look = "admin-look-from = [\"gateway\", \"10.0.0.0/8\", \"::1\"]\n";
        assert_eq!(notes(look).unwrap(), [""; 0]);
        let told = notes(&format!("{look}admin-token-file = \"token\"")).unwrap();
        assert!(
            told.len() == 1 && told[0].starts_with("admin-look-from has no effect"),
            "{told:?}"
        );
        let wrong = notes("admin-look-from = [\"10.0.0.0/33\"]").unwrap_err();
        assert!(wrong.contains("gateway"), "{wrong}");
    }
}
