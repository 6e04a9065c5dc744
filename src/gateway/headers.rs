//! Which header fields cross the proxy, and which are ours.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The name under which this proxy signs `Cache-Status`.
pub const PRODUCT: &str = "entrepot";

/// The name under which this process signs `Via`. Each has its own ("a pseudonym", RFC 9110
/// §7.6.3), so that proxies of this kind can be chained while one that meets itself knows it.
static PSEUDONYM: LazyLock<String> =
    LazyLock::new(|| format!("{PRODUCT}-{:016x}", RandomState::new().hash_one(PRODUCT)));

/// Whether a request has been through this process before: a loop.
#[must_use]
pub fn is_own_via(fields: &HeaderMap) -> bool {
    let is_own = |part: &[u8]| part == PSEUDONYM.as_bytes();
    let separates = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    fields.get_all(header::VIA).iter().any(|via| via.as_bytes().split(separates).any(is_own))
}

/// How the proxy calls itself where it does not speak for a client.
const USER_AGENT: &str = concat!("entrepot/", env!("CARGO_PKG_VERSION"));

/// RFC 9110 §7.6.1: fields that are for the next hop alone, beside those that `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What of a client's request fields goes to the registry.
///
/// `Host` and `Content-Length` are made anew from what is really sent; `Expect` was answered here.
pub(super) fn forwarded(from: &HeaderMap) -> HeaderMap {
    let mut fields = end_to_end(from);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        fields.remove(name);
    }
    sign(&mut fields);
    fields
}

/// What of a client's fields goes along with what the proxy itself is at a registry: nothing that a
/// registry could take for a credential, or that would make it do something else.
pub(super) fn for_ourselves(from: &HeaderMap) -> HeaderMap {
    let mut fields = crate::upstream::client::for_strangers(from);
    fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    fields
}

/// As [`forwarded`], for content that is hashed: the bytes must come as they are stored.
pub(super) fn for_content(from: &HeaderMap) -> HeaderMap {
    let mut fields = forwarded(from);
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    fields
}

/// As [`for_content`], for the whole object whatever part the client wants.
pub(super) fn for_whole_content(from: &HeaderMap) -> HeaderMap {
    let mut fields = for_content(from);
    let partial_or_conditional = [
        header::RANGE,
        header::IF_RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ];
    for name in partial_or_conditional {
        fields.remove(name);
    }
    fields
}

/// What of a registry's response fields goes to the client. `Alt-Svc` would lead it around us.
pub(super) fn returned(from: &HeaderMap) -> HeaderMap {
    let mut fields = end_to_end(from);
    fields.remove(header::ALT_SVC);
    sign(&mut fields);
    fields
}

/// Takes away what a registry gives to whom it has let in, to be known by: it is the proxy's own, and
/// opens more than pulls.
pub(super) fn without_session(fields: &mut HeaderMap) {
    for name in ["set-cookie", "set-cookie2", "authentication-info"] {
        fields.remove(name);
    }
}

fn sign(fields: &mut HeaderMap) {
    append(fields, header::VIA, &format!("1.1 {}", *PSEUDONYM));
}

fn end_to_end(from: &HeaderMap) -> HeaderMap {
    let nominated = nominated(from);
    from.iter()
        .filter(|(name, _)| {
            !HOP_BY_HOP.contains(&name.as_str()) && !nominated.iter().any(|n| n == *name)
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The fields that `Connection` names, but for those whose loss would change what is asked.
fn nominated(from: &HeaderMap) -> Vec<HeaderName> {
    let kept = [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH, header::VIA];
    from.get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| !kept.contains(name))
        .collect()
}

/// Appends a field; the values here are our own words, which always make a field value.
pub(super) fn append(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.append(name, value);
    }
}

/// `Cache-Status` (RFC 9211).
pub(super) fn cache_status(fields: &mut HeaderMap, status: &str) {
    if let Ok(status) = HeaderValue::try_from(format!("{PRODUCT}; {status}")) {
        fields.append(HeaderName::from_static("cache-status"), status);
    }
}

/// Adds a reason to our own `Cache-Status`, as its `detail` (RFC 9211 §2.8): a string, in which '"' and
/// '\\' are escaped (RFC 8941 §3.3.3).
pub(super) fn explain(fields: &mut HeaderMap, reason: &str) {
    const LONGEST: usize = 500;
    let name = HeaderName::from_static("cache-status");
    let mut values = fields.get_all(&name).iter();
    // With others' words before ours it is not clear whose detail would be read.
    let (Some(only), None) = (values.next(), values.next()) else { return };
    let Ok(status) = only.to_str() else { return };
    let (status, known) = match status.split_once("; detail=") {
        Some((status, known)) => (status, format!("{known}: ")),
        None => (status, String::new()),
    };
    let words = reason.chars().filter(|c| (' '..='~').contains(c)).take(LONGEST);
    let words = words.collect::<String>().replace('\\', r"\\").replace('"', "\\\"");
    if let Ok(value) = HeaderValue::try_from(format!("{status}; detail=\"{known}{words}\"")) {
        fields.insert(name, value);
    }
}

/// A text field's value, if it has exactly one and it is text.
pub(super) fn text(fields: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    fields.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(*name, HeaderValue::from_static(value));
            map
        })
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let request = map(&[
            ("host", "ghcr.io"),
            ("connection", "close, X-Secret, Authorization"),
            ("x-secret", "1"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("accept", "a"),
            ("accept", "b"),
        ]);
        let sent = forwarded(&request);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "authorization", "via"]);
        assert_eq!(sent.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn content_is_asked_for_unencoded_and_whole() {
        let request = map(&[
            ("accept-encoding", "zstd, gzip"),
            ("range", "bytes=0-1"),
            ("if-none-match", "x"),
        ]);
        let part = for_content(&request);
        assert_eq!(part["accept-encoding"], "identity");
        assert_eq!(part["range"], "bytes=0-1");
        let whole = for_whole_content(&request);
        assert!(!whole.contains_key("range") && !whole.contains_key("if-none-match"));
    }

    #[test]
    fn a_reason_is_a_quoted_detail() {
        let explained = |status: &'static str, reason: &str| {
            let mut fields = map(&[("cache-status", status)]);
            explain(&mut fields, reason);
            fields["cache-status"].to_str().unwrap().to_owned()
        };
        let fresh = explained("entrepot; hit", "within tag-ttl");
        assert_eq!(fresh, r#"entrepot; hit; detail="within tag-ttl""#);
        let stale = explained("entrepot; hit; detail=stale", "a \"b\"\\ \u{e9}\r\n");
        assert_eq!(stale, r#"entrepot; hit; detail="stale: a \"b\"\\ ""#);
        let mut foreign = map(&[("cache-status", "cdn; hit"), ("cache-status", "entrepot; hit")]);
        explain(&mut foreign, "x");
        assert_eq!(foreign.get_all("cache-status").iter().count(), 2);
    }

    #[test]
    fn a_request_that_comes_back_is_known_by_its_via() {
        let sent = forwarded(&map(&[("via", "1.0 fred, 1.1 entrepot (x)")]));
        assert!(is_own_via(&sent));
        let mut joined = HeaderMap::new();
        let values: Vec<_> = sent.get_all("via").iter().map(|v| v.to_str().unwrap()).collect();
        append(&mut joined, header::VIA, &values.join(","));
        assert!(is_own_via(&joined), "{joined:?}");
        assert!(!is_own_via(&map(&[("via", "1.1 entrepot, 1.1 entrepot-0123456789abcdef")])));
    }

    #[test]
    fn an_alternative_service_is_not_passed_on() {
        let response = returned(&map(&[("alt-svc", "h3=\":443\""), ("warning", "299 - \"x\"")]));
        assert!(!response.contains_key("alt-svc"));
        assert!(response.contains_key("warning"));
    }
}
