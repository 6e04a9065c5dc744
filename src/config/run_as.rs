//! `run-as`: a user and a group.

use std::fmt;

use super::value::FromValue;

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunAs {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromValue for RunAs {
    const EXPECTED: &'static str = "UID or UID:GID, as numbers";

    fn from_text(text: &str) -> Option<Self> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let id = |text: &str| {
            let is_number = text.bytes().all(|b| b.is_ascii_digit());
            // The highest means "no change" to the system.
            text.parse().ok().filter(|id| is_number && *id != u32::MAX)
        };
        Some(Self { uid: id(uid)?, gid: id(gid)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let read = |text| RunAs::from_text(text).map(|user| (user.uid, user.gid));
        assert_eq!(read("65532"), Some((65532, 65532)));
        assert_eq!(read("1000:100"), Some((1000, 100)));
        for wrong in ["", "root", "1000:", ":1", "-1", "+1", "4294967295", "1:2:3"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
