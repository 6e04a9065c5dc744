//! Under whose rights a request is made.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::upstream::fields::is_no_credential;

/// How our own tokens begin. They open nothing that a request without any would not open: who
/// makes one up has what everybody has.
const OWN_TOKEN: &str = "entrepot-";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// The proxy itself: by its configured credentials there, or anonymous. What it may pull is
    /// open to every client.
    Shared,
    /// A client with a credential of its own.
    Client(Fingerprint),
}

/// What tells credentials apart without being one: a keyed hash, with a key of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 16]);

/// Tells who asks.
pub(crate) struct Identifier {
    key: hmac::Key,
}

impl Identifier {
    /// With a new key.
    pub(crate) fn new() -> Self {
        let mut key = [0; 32];
        // It can only fail where the system has no randomness, and TLS would not work there.
        let _ = SystemRandom::new().fill(&mut key);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }

    /// Who asks with these fields.
    ///
    /// Beside `Authorization` whatever goes to the registry with it counts that is not known to
    /// open nothing there: who has the one and not the other is somebody else.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Identity {
        match headers.get(header::AUTHORIZATION) {
            None => return Identity::Shared,
            Some(first) if is_own_token(first) => return Identity::Shared,
            Some(_) => {}
        }
        let mut names: Vec<_> = headers.keys().filter(|name| !is_harmless(name)).collect();
        names.sort_unstable_by_key(|name| name.as_str());
        let mut context = hmac::Context::with_key(&self.key);
        let mut update = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        for name in names {
            update(name.as_str().as_bytes());
            headers.get_all(name).iter().for_each(|value| update(value.as_bytes()));
        }
        let tag = context.sign();
        let mut fingerprint = [0; 16];
        fingerprint.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Identity::Client(Fingerprint(fingerprint))
    }
}

/// Whether a request with a credential says more by which a registry might answer it otherwise than
/// others: nothing follows from the answer for anybody else.
pub(crate) fn is_peculiar(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name != header::AUTHORIZATION && !is_harmless(name))
}

/// Whether a field is known to make nobody of a client that it is not without: what describes a
/// message, what ends here, and the marks by which requests are traced, which are others each time.
/// Nothing can be said of a field's name that is not known: gateways before registries have given
/// users many (`X-Remote-User`, `X-JFrog-Art-Api`, `X-Forwarded-For`).
fn is_harmless(name: &HeaderName) -> bool {
    const HARMLESS: [&str; 32] = [
        "accept-charset",
        "accept-language",
        "b3",
        "cache-control",
        "connection",
        "content-encoding",
        "content-language",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "entrepot-hop",
        "expect",
        "host",
        "keep-alive",
        "max-forwards",
        "pragma",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "uber-trace-id",
        "upgrade",
        "upgrade-insecure-requests",
        "x-amzn-trace-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        // containerd's and Docker's, and what engines are asked to say of themselves.
        "x-meta-source-client",
        "x-request-id",
    ];
    is_no_credential(name)
        || HARMLESS.contains(&name.as_str())
        || name.as_str().starts_with("x-b3-")
}

/// Whether a request has a token that this proxy gave out.
pub(crate) fn has_own_token(headers: &HeaderMap) -> bool {
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
pub(crate) fn own_token() -> String {
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
    fn whatever_may_open_something_beside_a_credential_tells_people_apart() {
        let identifier = Identifier::new();
        let of = |fields: &[(&'static str, &'static str)]| {
            let mut headers = with(&["Basic Og=="]);
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            identifier.identify(&headers)
        };
        let nobody = of(&[]);
        for name in [
            "cookie",
            "x-jfrog-art-api",
            "private-token",
            "x-api-key",
            "x-auth-user",
            "x-remote-user",
            "remote-user",
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
            "x-user",
            "from",
            "referer",
            "x-original-url",
        ] {
            assert_ne!(of(&[(name, "a")]), nobody, "{name}");
            assert_ne!(of(&[(name, "a")]), of(&[(name, "b")]), "{name}");
        }
        let harmless = [("accept", "a"), ("traceparent", "b"), ("proxy-authorization", "c")];
        assert_eq!(of(&harmless), nobody);
        let engines = [("user-agent", "a"), ("host", "b"), ("x-request-id", "c"), ("x-b3-id", "d")];
        assert_eq!(of(&engines), nobody);
        let (one, other) = (("cookie", "a"), ("x-token", "b"));
        assert_eq!(of(&[one, other]), of(&[other, one]));
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
