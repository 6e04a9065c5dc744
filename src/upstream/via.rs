//! `Via`: how a proxy that meets itself knows it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use entrepot_oci::Host;
use http::header::{self, HeaderMap, HeaderValue};

/// Makes the names under which this process signs requests.
static NAMES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The name under which this process signs requests to `host`. Each process has its own ("a
/// pseudonym", RFC 9110 §7.6.3), so that proxies of this kind can be chained; and each host sees
/// another, which no client does: who knew one could have the requests of others refused as loops.
fn pseudonym(host: &Host) -> String {
    format!("entrepot-{:016x}", NAMES.hash_one(host))
}

/// The name under which this process is known among replicas. It is none under which it signs
/// requests: everybody may ask for it.
pub(crate) fn own_id() -> String {
    format!("entrepot-{:016x}", NAMES.hash_one("which replica this is"))
}

/// Signs a request that goes to `host`. Every request that leaves is signed, and what a client's
/// request has been through goes along with whatever is asked on its behalf.
pub(crate) fn sign(fields: &mut HeaderMap, host: &Host) {
    if let Ok(value) = HeaderValue::try_from(format!("1.1 {}", pseudonym(host))) {
        fields.append(header::VIA, value);
    }
}

/// Signs an answer that goes back.
pub(crate) fn sign_answer(fields: &mut HeaderMap) {
    fields.append(header::VIA, HeaderValue::from_static("1.1 entrepot"));
}

/// Whether a request for `host` has been through this process before: a loop.
#[must_use]
pub(crate) fn is_own(fields: &HeaderMap, host: &Host) -> bool {
    if !fields.contains_key(header::VIA) {
        return false;
    }
    let own = pseudonym(host);
    let is_own = |part: &[u8]| part == own.as_bytes();
    let separates = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    fields.get_all(header::VIA).iter().any(|via| via.as_bytes().split(separates).any(is_own))
}

/// What a request has been through, and nothing else of it.
#[must_use]
pub(crate) fn of(fields: &HeaderMap) -> HeaderMap {
    fields.get_all(header::VIA).iter().map(|via| (header::VIA, via.clone())).collect()
}

/// How long a request that has been [through](of) proxies waits for what is asked on behalf of
/// another.
///
/// Two proxies that lead to each other and are asked for the same at one moment would wait for each
/// other: each for its own client's question, which waits at the other one. `Via` does not tell,
/// since two requests meet. Who asks for himself in time is told of the loop; where there is none
/// the registry is asked once more, by a proxy behind which another has asked meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a request with these fields waits for another's question, which others do for `usual`.
#[must_use]
pub(crate) fn patience(fields: &HeaderMap, usual: Duration) -> Duration {
    if fields.contains_key(header::VIA) { usual.min(PATIENCE) } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(values: &[&str]) -> HeaderMap {
        values.iter().map(|via| (header::VIA, HeaderValue::from_str(via).unwrap())).collect()
    }

    #[test]
    fn what_everybody_may_know_signs_nothing() {
        let host: Host = "ghcr.io".parse().unwrap();
        assert_eq!(own_id(), own_id());
        assert_ne!(own_id(), pseudonym(&host));
        assert!(!is_own(&via(&[&format!("1.1 {}", own_id())]), &host));
    }

    #[test]
    fn a_request_that_comes_back_is_known() {
        let mut sent = via(&["1.0 fred, 1.1 entrepot (x)"]);
        sent.insert(header::ACCEPT, HeaderValue::from_static("a"));
        let [ghcr, quay]: [Host; 2] = ["ghcr.io", "quay.io"].map(|host| host.parse().unwrap());
        sign(&mut sent, &ghcr);
        assert!(is_own(&sent, &ghcr));
        assert_eq!((of(&sent).len(), is_own(&of(&sent), &ghcr)), (2, true));
        let values: Vec<_> = sent.get_all("via").iter().map(|v| v.to_str().unwrap()).collect();
        assert!(is_own(&via(&[&values.join(",")]), &ghcr));
        assert!(!is_own(&via(&["1.1 entrepot, 1.1 entrepot-0123456789abcdef"]), &ghcr));
        assert!(!is_own(&sent, &quay), "who has seen it there can't use it elsewhere");
        let mut answer = HeaderMap::new();
        sign_answer(&mut answer);
        assert!(!is_own(&answer, &ghcr));
    }

    #[test]
    fn who_has_been_through_a_proxy_does_not_wait_long_for_another() {
        let usual = Duration::from_secs(30);
        assert_eq!(patience(&via(&[]), usual), usual);
        assert_eq!(patience(&via(&["1.1 entrepot-0123456789abcdef"]), usual), PATIENCE);
        assert_eq!(patience(&via(&["1.1 corp"]), Duration::from_secs(1)), Duration::from_secs(1));
    }
}
