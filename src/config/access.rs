//! `[access]` with the file of users that it names, and who says which client is meant.

use std::path::{Path, PathBuf};

use super::error::Position;
use super::reader::Reader;
use crate::listener::access::{AccessOptions, Htpasswd};

/// The options; what is wrong in the file of users is reported by its own lines. Blocking.
pub(super) fn options(reader: &mut Reader) -> AccessOptions {
    let path: Option<PathBuf> = reader.get("access.htpasswd");
    let path = path.map(|path| reader.beside("access.htpasswd", path));
    let users = path.and_then(|path| users(reader, &path));
    let mut networks = |key| reader.get(key).unwrap_or_default();
    let (clients, announcers) = (networks("access.clients"), networks("proxy-protocol-from"));
    AccessOptions { clients, users, announcers }
}

fn users(reader: &mut Reader, path: &Path) -> Option<Htpasswd> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let place = reader.place("access.htpasswd");
            let text = format!("access.htpasswd: {} can't be read: {error}", path.display());
            reader.problem(place, text);
            return None;
        }
    };
    match Htpasswd::parse(&text) {
        Ok(users) => Some(users),
        Err(wrong) => {
            for wrong in wrong {
                reader.problem(Some(Position::File(path.to_owned(), wrong.line)), wrong.text);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, Sources};

    fn load(users: &str, clients: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("entrepot.toml");
        let access = format!("[access]\nclients = {clients}\nhtpasswd = \"users\"\n");
        std::fs::write(&file, format!("data-dir = \"/d\"\n{access}")).unwrap();
        std::fs::write(directory.path().join("users"), users).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        let here = directory.path().display().to_string();
        Settings::load(&sources).map_err(|error| error.to_string().replace(&here, "."))
    }

    #[test]
    fn users_are_read_from_beside_the_configuration() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let settings = load(&format!("alice:{hash}"), "[\"10.0.0.0/8\", \"::1\"]").unwrap();
        let access = settings.listener.access;
        assert_eq!(format!("{:?}", access.users.unwrap()), "Htpasswd(1 users)");
        let clients: Vec<_> = access.clients.iter().map(ToString::to_string).collect();
        assert_eq!(clients, ["10.0.0.0/8", "::1/128"]);
    }

    #[test]
    fn a_wrong_user_is_reported_with_its_own_line() {
        let error = load("\nalice:$apr1$x$y\nbob:SeCrEt\n", "[\"10.0.0.0/33\"]").unwrap_err();
        assert!(!error.contains("SeCrEt"), "{error}");
        insta::assert_snapshot!(error);
    }
}
