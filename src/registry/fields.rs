//! Which header fields go to a registry, and which come back.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::upstream::fields::{CONDITIONS, for_strangers};
use crate::upstream::via;

/// How the proxy calls itself where it does not speak for a client.
const USER_AGENT: &str = concat!("entrepot/", env!("CARGO_PKG_VERSION"));

/// The name under which this proxy signs `Cache-Status`.
pub(crate) const PRODUCT: &str = "entrepot";

/// RFC 9110 §7.6.1: fields that are for the next hop alone, beside those that `Connection` names.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "entrepot-hop",
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
pub(crate) fn forwarded(from: &HeaderMap) -> HeaderMap {
    let mut fields = end_to_end(from);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        fields.remove(name);
    }
    fields
}

/// What of a client's fields goes along with what the proxy itself is at a registry: nothing that a
/// registry could take for a credential, or that would make it do something else.
pub(crate) fn for_ourselves(from: &HeaderMap) -> HeaderMap {
    let mut fields = for_strangers(from);
    fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    fields
}

/// As [`forwarded`], for content that is hashed: the bytes must come as they are stored.
pub(crate) fn for_content(from: &HeaderMap) -> HeaderMap {
    let mut fields = forwarded(from);
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    fields
}

/// As [`for_content`], for the whole object whatever part the client wants.
pub(crate) fn for_whole_content(from: &HeaderMap) -> HeaderMap {
    let mut fields = for_content(from);
    for name in CONDITIONS.into_iter().chain([header::RANGE]) {
        fields.remove(name);
    }
    fields
}

/// What of a registry's response fields goes to the client. `Alt-Svc` would lead it around us.
pub(crate) fn returned(from: &HeaderMap) -> HeaderMap {
    let mut fields = end_to_end(from);
    fields.remove(header::ALT_SVC);
    drop_false_status(&mut fields);
    via::sign_answer(&mut fields);
    fields
}

/// Leaves of `Cache-Status` what caches before a registry say of themselves ("each cache appends",
/// RFC 9211 §2), without what could be taken for our own word: a member with our name, in whatever
/// form, and a line that is no list, in which ours might be read as a part of somebody's string.
fn drop_false_status(fields: &mut HeaderMap) {
    let name = HeaderName::from_static("cache-status");
    let lines: Vec<_> = fields.get_all(&name).iter().cloned().collect();
    fields.remove(&name);
    for line in lines {
        let Some(members) = line.to_str().ok().and_then(members) else { continue };
        let others = members.iter().filter(|one| !one.to_ascii_lowercase().contains(PRODUCT));
        let others = others.copied().collect::<Vec<_>>().join(", ");
        if !others.is_empty() {
            append(fields, name.clone(), &others);
        }
    }
}

/// The members of a list (RFC 9651 §3.1), as they are written; none where a string has no end.
fn members(line: &str) -> Option<Vec<&str>> {
    let (mut members, mut begin, mut rest) = (Vec::new(), 0, line.char_indices());
    let mut is_quoted = false;
    while let Some((at, c)) = rest.next() {
        match c {
            '\\' if is_quoted => drop(rest.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                members.push(line.get(begin..at)?.trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    members.push(line.get(begin..)?.trim());
    members.retain(|member| !member.is_empty());
    (!is_quoted).then_some(members)
}

/// Takes away what a registry gives to whom it has let in, to be known by: it is the proxy's own,
/// and opens more than pulls.
pub(crate) fn without_session(fields: &mut HeaderMap) {
    for name in ["set-cookie", "set-cookie2", "authentication-info"] {
        fields.remove(name);
    }
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
        // By bytes: what is no name, in whatever characters, takes nothing from those beside it.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !kept.contains(name))
        .collect()
}

/// Appends a field; the values here are our own words, which always make a field value.
pub(crate) fn append(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.append(name, value);
    }
}

/// A text field's value, if it has exactly one and it is text.
pub(crate) fn text(fields: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    fields.get(name).and_then(|value| value.to_str().ok())
}

/// A test's header fields.
#[cfg(test)]
pub(crate) fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.append(*name, HeaderValue::from_static(value));
        map
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(names, ["accept", "authorization"]);
        assert_eq!(sent.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn what_replicas_say_to_each_other_ends_here() {
        let request = map(&[("entrepot-hop", "1")]);
        assert!(request.contains_key(crate::peers::HOP) && forwarded(&request).is_empty());
    }

    #[test]
    fn what_connection_names_ends_here_whatever_else_it_holds() {
        let mut request = map(&[("x-secret", "1"), ("x-other", "2")]);
        let value = HeaderValue::from_bytes(b"X-Secret, \xff, x-other").unwrap();
        request.insert(header::CONNECTION, value);
        for sent in [forwarded(&request), returned(&request)] {
            assert!(!sent.contains_key("x-secret") && !sent.contains_key("x-other"), "{sent:?}");
        }
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
    fn nobody_else_says_what_was_kept_here() {
        let told = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("cache-status", *line)).collect();
            let fields = returned(&map(&lines));
            let told = fields.get_all("cache-status").iter();
            told.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for ours in [
            "entrepot; hit",
            "Entrepot;hit",
            "\"entrepot\"; hit",
            "entrepot",
            " , entrepot ; hit; ttl=9 ,",
            "cdn; detail=\", entrepot; hit",
            "cdn; detail=\"\\\", entrepot; hit",
            "cdn; detail=\"x, entrepot; hit\"",
        ] {
            assert!(told(&[ours]).is_empty(), "{ours}: {:?}", told(&[ours]));
        }
        assert_eq!(told(&["a; hit, entrepot; hit, b; fwd=miss"]), ["a; hit, b; fwd=miss"]);
        assert_eq!(told(&["a; hit", "entrepot; hit", "b"]), ["a; hit", "b"]);
        assert_eq!(told(&["cdn; detail=\"x, y\"; hit"]), ["cdn; detail=\"x, y\"; hit"]);
    }

    #[test]
    fn an_alternative_service_is_not_passed_on() {
        let response = returned(&map(&[("alt-svc", "h3=\":443\""), ("warning", "299 - \"x\"")]));
        assert!(!response.contains_key("alt-svc"));
        assert!(response.contains_key("warning"));
    }
}
