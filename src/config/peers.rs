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
        (Some(_), None) if !reader.is_given(PASSWORD_FILE) => {
            problem(reader, USERNAME, "found without peers.password-file; expected both");
            None
        }
        (None, Some(_)) if !reader.is_given(USERNAME) => {
            problem(reader, PASSWORD_FILE, "found without peers.username; expected both");
            None
        }
        // What is wrong with one of them is told already.
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::super::{Settings, Sources};

    /// The notes on a configuration with these lines in `[peers]`, or what is wrong with it.
    fn notes(lines: &str) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("entrepot.toml");
        std::fs::write(&file, format!("data-dir = \"/d\"\n[peers]\n{lines}\n")).unwrap();
        std::fs::write(directory.path().join("password"), "s3cret\n").unwrap();
        std::fs::write(directory.path().join("empty"), "\n").unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        let loaded = Settings::load(&sources);
        let here = directory.path().display().to_string();
        let settings = loaded.map_err(|error| error.to_string().replace(&here, "."))?;
        assert_eq!(settings.peers.credential.is_some(), lines.contains("password"));
        assert!(!format!("{:?}", settings.peers).contains("s3cret"));
        assert!(!settings.shown.to_string().contains("s3cret"));
        Ok(settings.notes)
    }

    #[test]
    fn replicas_are_named_with_a_port_and_asked_as_somebody_or_nobody() {
        let named = "names = [\"peers.svc:3128\", \"10.1.0.4:3128\", \"[fd00::4]:3128\"]";
        let user = "username = \"fleet\"\npassword-file = \"password\"";
        assert_eq!(notes(named), Ok(Vec::new()));
        assert_eq!(notes(&format!("{named}\n{user}")), Ok(Vec::new()));
        let told = notes(user).unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("peers.username has no effect"), "{told:?}");
    }

    #[test]
    fn what_could_not_work_is_told() {
        let named = "names = [\"peers.svc:3128\"]\n";
        for (lines, words) in [
            ("names = [\"peers.svc\"]", "expected a host with a port"),
            ("names = [\"http://peers.svc:3128\"]", "expected a host with a port"),
            ("username = \"fleet\"", "peers.username: found without peers.password-file"),
            ("password-file = \"password\"", "found without peers.username"),
            ("username = \"a:b\"\npassword-file = \"password\"", "a name without a colon"),
            ("username = \"a\"\npassword-file = \"nowhere\"", "./nowhere can't be read"),
            ("username = \"a\"\npassword-file = \"empty\"", "./empty is empty"),
        ] {
            let error =
                notes(&format!("{named}{lines}").replace(&format!("{named}names"), "names"));
            let error = error.unwrap_err();
            assert!(error.contains(words), "{lines}: {error}");
        }
    }
}
