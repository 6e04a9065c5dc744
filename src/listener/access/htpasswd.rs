//! The file of users: `name:hash` on each line, as htpasswd(1) writes it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr as _;

use bcrypt::HashParts;

/// The highest cost taken: about a second of work, which every new password that somebody tries
/// costs this machine. htpasswd(1) uses 5, and 10 is usual.
const MAX_COST: u32 = 14;

/// The users with the hashes of their passwords.
#[derive(Clone)]
pub(crate) struct Htpasswd {
    users: HashMap<String, String>,
    /// A hash as expensive as any, checked for users that there are not.
    decoy: String,
}

/// The hashes are nobody's business.
impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Htpasswd({} users)", self.users.len())
    }
}

/// A line that is no user: its number, counted from 1, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongLine {
    /// The number.
    pub line: usize,
    /// What was found, and what would be right.
    pub text: String,
}

impl Htpasswd {
    /// Reads the file's text. Empty lines and those that begin with `#` say nothing.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<WrongLine>> {
        let mut users = HashMap::new();
        let mut wrong = Vec::new();
        let mut highest = (0, None);
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        for (line, text) in lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
            let user = match user(text) {
                Ok(user) => user,
                Err(text) => {
                    wrong.push(WrongLine { line, text });
                    continue;
                }
            };
            if user.cost > highest.0 {
                highest = (user.cost, Some(user.hash.to_owned()));
            }
            if users.insert(user.name.to_owned(), user.hash.to_owned()).is_some() {
                wrong.push(WrongLine { line, text: format!("{:?} is there already", user.name) });
            }
        }
        match highest.1 {
            Some(decoy) if wrong.is_empty() => Ok(Self { users, decoy }),
            None if wrong.is_empty() => Err(vec![WrongLine {
                line: 1,
                text: "found no user; expected one a line, as `htpasswd -nB NAME` prints it"
                    .to_owned(),
            }]),
            _ => Err(wrong),
        }
    }

    /// Whether this is that user's password. Takes as long for a user that there is not.
    /// Blocking: it is meant to be slow.
    pub(super) fn is_right(&self, name: &str, password: &[u8]) -> bool {
        let known = self.users.get(name);
        let fits = bcrypt::verify(password, known.unwrap_or(&self.decoy)).unwrap_or(false);
        fits && known.is_some()
    }
}

struct User<'a> {
    name: &'a str,
    hash: &'a str,
    cost: u32,
}

/// A line as a user; the error has no part of the hash.
fn user(line: &str) -> Result<User<'_>, String> {
    const EXPECTED: &str = "expected bcrypt ($2a$, $2b$ or $2y$), as `htpasswd -nB NAME` prints it";
    let Some((name, hash)) = line.split_once(':').filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("found no NAME:HASH; {EXPECTED}"));
    };
    if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
        return Err(format!("{name:?}: found {}; {EXPECTED}", kind(hash)));
    }
    let cost = match HashParts::from_str(hash) {
        Ok(parts) => parts.get_cost(),
        Err(_) => return Err(format!("{name:?}: found a damaged bcrypt hash; {EXPECTED}")),
    };
    if cost > MAX_COST {
        return Err(format!(
            "{name:?}: found bcrypt of cost {cost}; expected at most {MAX_COST}, since every check takes that long"
        ));
    }
    Ok(User { name, hash, cost })
}

/// A hash's kind in words.
fn kind(hash: &str) -> &'static str {
    let kinds = [
        ("$apr1$", "MD5 (apr1)"),
        ("$1$", "MD5"),
        ("$5$", "SHA-256 crypt"),
        ("$6$", "SHA-512 crypt"),
        ("$y$", "yescrypt"),
        ("$argon2", "Argon2"),
        ("$2x$", "a broken form of bcrypt ($2x$)"),
        ("{SHA}", "SHA-1"),
    ];
    let known = kinds.iter().find(|(prefix, _)| hash.starts_with(prefix));
    known.map_or("no hash that is known, or a password in the clear", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        bcrypt::hash("secret", 4).unwrap()
    }

    #[test]
    fn users_are_known_by_name_and_password() {
        let text =
            format!("# people\n\nalice:{}\r\nbob:{}\n", hash(), hash().replace("$2b$", "$2y$"));
        let users = Htpasswd::parse(&text).unwrap();
        for name in ["alice", "bob"] {
            assert!(users.is_right(name, b"secret"), "{name}");
            assert!(!users.is_right(name, b"Secret"), "{name}");
        }
        assert!(!users.is_right("carol", b"secret"), "the decoy is nobody's");
        assert_eq!(format!("{users:?}"), "Htpasswd(2 users)");
    }

    #[test]
    fn what_is_no_bcrypt_is_reported_by_line_and_without_the_hash() {
        let text = format!(
            "ok:{hash}\nold:$apr1$SeCrEt$x\nsha:{{SHA}}SeCrEt=\nplain:SeCrEt\nSeCrEt\n:{hash}\n\
             broken:$2y$04$tooshort\nslow:{slow}\nok:{hash}\n\u{e9}:$2y$04$\u{e9}\n",
            hash = hash(),
            slow = hash().replace("$04$", "$31$"),
        );
        let wrong = Htpasswd::parse(&text).unwrap_err();
        let text: Vec<_> = wrong.iter().map(|w| format!("{}: {}", w.line, w.text)).collect();
        insta::assert_snapshot!(text.join("\n"));
        assert!(!text.join("\n").contains("SeCrEt"));
        assert_eq!(Htpasswd::parse("# nobody\n").unwrap_err().len(), 1);
    }
}
