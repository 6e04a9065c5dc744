//! `Via`: how a proxy that meets itself knows it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use http::header::{self, HeaderMap, HeaderValue};

/// The name under which this process signs. Each has its own ("a pseudonym", RFC 9110 §7.6.3), so
/// that proxies of this kind can be chained.
static PSEUDONYM: LazyLock<String> =
    LazyLock::new(|| format!("entrepot-{:016x}", RandomState::new().hash_one("via")));

/// Signs a message that goes on. Every request that leaves is signed, and what a client's request
/// has been through goes along with whatever is asked on its behalf.
pub(crate) fn sign(fields: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::try_from(format!("1.1 {}", *PSEUDONYM)) {
        fields.append(header::VIA, value);
    }
}

/// Whether a request has been through this process before: a loop.
#[must_use]
pub(crate) fn is_own(fields: &HeaderMap) -> bool {
    let is_own = |part: &[u8]| part == PSEUDONYM.as_bytes();
    let separates = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    fields.get_all(header::VIA).iter().any(|via| via.as_bytes().split(separates).any(is_own))
}

/// What a request has been through, and nothing else of it.
#[must_use]
pub(crate) fn of(fields: &HeaderMap) -> HeaderMap {
    fields.get_all(header::VIA).iter().map(|via| (header::VIA, via.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(values: &[&str]) -> HeaderMap {
        values.iter().map(|via| (header::VIA, HeaderValue::from_str(via).unwrap())).collect()
    }

    #[test]
    fn a_request_that_comes_back_is_known() {
        let mut sent = via(&["1.0 fred, 1.1 entrepot (x)"]);
        sent.insert(header::ACCEPT, HeaderValue::from_static("a"));
        sign(&mut sent);
        assert!(is_own(&sent));
        assert_eq!((of(&sent).len(), is_own(&of(&sent))), (2, true));
        let values: Vec<_> = sent.get_all("via").iter().map(|v| v.to_str().unwrap()).collect();
        assert!(is_own(&via(&[&values.join(",")])));
        assert!(!is_own(&via(&["1.1 entrepot, 1.1 entrepot-0123456789abcdef"])));
    }
}
