//! Under whose rights a request is made.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use http::{HeaderMap, HeaderValue, header};

/// How our own tokens begin. They open nothing that a request without any would not open: who
/// makes one up has what everybody has.
const OWN_TOKEN: &str = "entrepot-";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    /// The proxy itself: its configured credentials there, or nobody. What it may pull is open to
    /// every client.
    Shared,
    /// A client with a credential of its own.
    Client(Fingerprint),
}

/// What tells credentials apart without being one: a keyed hash, with a key of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 16]);

/// Tells who asks.
pub(super) struct Identifier {
    key: hmac::Key,
}

impl Identifier {
    /// With a new key.
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        // It can only fail where the system has no randomness, and TLS would not work there.
        let _ = SystemRandom::new().fill(&mut key);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }

    /// Who asks with these fields.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Identity {
        let mut credentials = headers.get_all(header::AUTHORIZATION).iter().peekable();
        match credentials.peek() {
            None => return Identity::Shared,
            Some(only) if is_own_token(only) => return Identity::Shared,
            Some(_) => {}
        }
        let mut context = hmac::Context::with_key(&self.key);
        for credential in credentials {
            context.update(&(credential.len() as u64).to_be_bytes());
            context.update(credential.as_bytes());
        }
        let tag = context.sign();
        let mut fingerprint = [0; 16];
        fingerprint.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Identity::Client(Fingerprint(fingerprint))
    }
}

/// Whether a request has a token that this proxy gave out.
pub(super) fn has_own_token(headers: &HeaderMap) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(is_own_token)
}

fn is_own_token(value: &HeaderValue) -> bool {
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
    });
    token.is_some_and(|token| token.starts_with(OWN_TOKEN))
}

/// A new token of our own.
pub(super) fn own_token() -> String {
    let mut random = [0; 16];
    let _ = SystemRandom::new().fill(&mut random);
    format!("{OWN_TOKEN}{:032x}", u128::from_be_bytes(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        values.iter().fold(HeaderMap::new(), |mut map, value| {
            map.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            map
        })
    }

    #[test]
    fn credentials_are_told_apart() {
        let identifier = Identifier::new();
        let of = |values: &[&str]| identifier.identify(&with(values));
        assert_eq!(of(&[]), Identity::Shared);
        assert_eq!(of(&["Bearer a"]), of(&["Bearer a"]));
        let different = [&["Bearer a"][..], &["Bearer b"], &["Basic a"], &["Bearer a", "x"], &[""]];
        for (n, one) in different.iter().enumerate() {
            assert_ne!(of(one), Identity::Shared);
            assert!(different.iter().skip(n + 1).all(|other| of(one) != of(other)), "{one:?}");
        }
        assert_ne!(of(&["Bearer a"]), Identifier::new().identify(&with(&["Bearer a"])));
    }

    #[test]
    fn our_own_tokens_are_the_shared_identity() {
        let identifier = Identifier::new();
        let token = own_token();
        assert_ne!(token, own_token());
        for value in [format!("Bearer {token}"), format!("bearer  {token}")] {
            assert_eq!(identifier.identify(&with(&[&value])), Identity::Shared);
            assert!(has_own_token(&with(&[&value])));
        }
        assert!(!has_own_token(&with(&[&format!("Basic {token}")])));
        assert!(!has_own_token(&HeaderMap::new()));
    }
}
