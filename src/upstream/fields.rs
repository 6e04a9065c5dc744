//! Which of a request's header fields are known to open nothing.

use http::header::{self, HeaderMap, HeaderName};

/// What makes a request conditional (RFC 9110 §13.1).
pub(crate) const CONDITIONS: [HeaderName; 5] = [
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// What storage, or anybody who does not know the client, needs to know of a request. Credentials
/// have many names; what is not known to be none does not leave the registry's host.
#[must_use]
pub(crate) fn for_strangers(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| is_no_credential(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What goes along with the operator's certificate: no field by which a registry would take a
/// request for another than it is (`X-HTTP-Method-Override`, `X-Original-URL`).
#[must_use]
pub(crate) fn beside_certificate(headers: &HeaderMap) -> HeaderMap {
    let mut fields = for_strangers(headers);
    for value in headers.get_all(header::AUTHORIZATION) {
        fields.append(header::AUTHORIZATION, value.clone());
    }
    fields
}

/// Whether a request's field is known to open nothing.
#[must_use]
pub(crate) fn is_no_credential(name: &HeaderName) -> bool {
    const KNOWN: [HeaderName; 5] =
        [header::ACCEPT, header::ACCEPT_ENCODING, header::RANGE, header::USER_AGENT, header::VIA];
    KNOWN.contains(name) || CONDITIONS.contains(name)
}
