//! What makes a request unfit to be served, whoever it is for.
//!
//! Each rule is one that hyper leaves to its user, and that the next server on the way might read
//! differently.

use std::borrow::Cow;

use entrepot_oci::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};

use super::framing::FramingFault;
use super::watched::Uncounted;
use crate::upstream::via;

/// The longest request target. Registries' own reach 4 KiB with signatures; "it is RECOMMENDED that
/// all HTTP senders and recipients support, at a minimum, request-line lengths of 8000 octets"
/// (RFC 9112 §3).
const MAX_TARGET: usize = 8 * 1024;
/// The port of a `Host` without one, for checking its form.
const ANY_PORT: u16 = 80;
/// Fields that `Connection` must not name: without them the request would mean something else.
const NEVER_NOMINATED: [HeaderName; 5] = [
    header::HOST,
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::VIA,
];

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// What it is answered.
    pub status: StatusCode,
    /// In words.
    pub reason: Cow<'static, str>,
}

impl Unfit {
    fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into() }
    }

    fn bad(reason: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// "The origin server MUST generate an Allow header field in a 405 response" (RFC 9110
    /// §15.5.6).
    #[must_use]
    pub(crate) fn allowed(&self) -> Option<HeaderValue> {
        const ALLOWED: HeaderValue =
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT");
        (self.status == StatusCode::METHOD_NOT_ALLOWED).then_some(ALLOWED)
    }
}

impl From<Uncounted> for Unfit {
    fn from(uncounted: Uncounted) -> Self {
        match uncounted {
            Uncounted::Fault(fault @ FramingFault::LongLine) => {
                Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, fault.to_string())
            }
            Uncounted::Fault(fault) => Self::new(StatusCode::BAD_REQUEST, fault.to_string()),
            Uncounted::Disagreement => Self::bad("where this request begins is not certain"),
        }
    }
}

/// Whether a request may be served at all.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Unfit> {
    check_method(request.method(), request.headers())?;
    check_target(request.method(), request.uri())?;
    check_host(request)?;
    check_expectation(request.headers())?;
    check_nominated(request.headers())?;
    if is_loop(request) {
        let reason = "this request has been through this proxy already: a loop";
        return Err(Unfit::new(StatusCode::LOOP_DETECTED, reason));
    }
    Ok(())
}

/// Whether a request has been sent by this very process to the host that it is for.
fn is_loop<B>(request: &Request<B>) -> bool {
    let fields = request.headers();
    let host = fields.get(header::HOST).and_then(|host| host.to_str().ok());
    let target = request.uri().authority().map(http::uri::Authority::as_str).or(host);
    let target = target.and_then(|target| Authority::parse(target, ANY_PORT).ok());
    target.is_some_and(|target| via::is_own(fields, target.host()))
}

/// TRACE sends a request back as the last who saw it has got it, with whatever the proxies on the
/// way have put into it (RFC 9110 §9.3.8); TRACK is its other name, and some servers heed no case.
///
/// "A client SHOULD NOT generate content in a GET request […] An origin server SHOULD NOT rely on
/// private agreements to receive content, since participants in HTTP communication are often
/// unaware of intermediaries" (RFC 9110 §9.3.1, and §9.3.2 for HEAD; §9.3.7 has no use for OPTIONS'
/// either). A server that does not look for it takes it for the next request. Programs are known
/// that say with DELETE what is to go: theirs is passed on, on a connection that has no next
/// request.
fn check_method(method: &Method, fields: &HeaderMap) -> Result<(), Unfit> {
    const ECHOES: [&str; 2] = ["TRACE", "TRACK"];
    const WITHOUT_CONTENT: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];
    if ECHOES.iter().any(|echo| method.as_str().eq_ignore_ascii_case(echo)) {
        let reason = "nothing is sent back as it came (TRACE)";
        return Err(Unfit::new(StatusCode::METHOD_NOT_ALLOWED, reason));
    }
    // What a length is has been found out before this is asked.
    let has_content = fields.contains_key(header::TRANSFER_ENCODING)
        || fields.get_all(header::CONTENT_LENGTH).iter().any(|length| {
            !length.as_bytes().iter().all(|digit| *digit == b'0') || length.is_empty()
        });
    if has_content && WITHOUT_CONTENT.contains(method) {
        return Err(Unfit::bad("GET, HEAD and OPTIONS have no body"));
    }
    Ok(())
}

/// "host:port" for CONNECT, a path or a URL for everything else (RFC 9112 §3.2).
fn check_target(method: &Method, uri: &Uri) -> Result<(), Unfit> {
    let resource = uri.path_and_query().map_or("", |resource| resource.as_str());
    // A URI is ASCII (RFC 3986 §2); hyper takes any UTF-8.
    if !resource.is_ascii() {
        return Err(Unfit::bad("the request target is not ASCII"));
    }
    if resource.len() > MAX_TARGET {
        let reason = "the request target is longer than 8 KiB";
        return Err(Unfit::new(StatusCode::URI_TOO_LONG, reason));
    }
    // "A recipient SHOULD treat a reference with userinfo … as an error" (RFC 9110 §4.2.4).
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Unfit::bad("the request target holds a user name"));
    }
    let is_path = uri.path().starts_with('/');
    let is_asterisk = *method == Method::OPTIONS && uri.path() == "*";
    if *method != Method::CONNECT && !is_path && !is_asterisk {
        return Err(Unfit::bad("the request target is neither a path nor a URL"));
    }
    Ok(())
}

/// "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
/// lacks a Host header field and to any request message that contains more than one Host header
/// field line or a Host header field with an invalid field value" (RFC 9112 §3.2). Old clients send
/// CONNECT without one: its target is all that there is to say.
fn check_host<B>(request: &Request<B>) -> Result<(), Unfit> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let may_lack = request.version() == Version::HTTP_10 || request.method() == Method::CONNECT;
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if may_lack => return Ok(()),
        _ => return Err(Unfit::bad("a request needs exactly one Host")),
    };
    let valid = host.to_str().is_ok_and(|host| Authority::parse(host, ANY_PORT).is_ok());
    if valid { Ok(()) } else { Err(Unfit::bad("the Host is not host[:port]")) }
}

/// "A server that receives an Expect field value containing a member other than 100-continue MAY
/// respond with a 417" (RFC 9110 §10.1.1). 100 itself is hyper's to answer, when the body is read.
fn check_expectation(fields: &HeaderMap) -> Result<(), Unfit> {
    let mut expectations = fields.get_all(header::EXPECT).iter();
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => {
            let reason = "the only expectation that is met here is 100-continue";
            Err(Unfit::new(StatusCode::EXPECTATION_FAILED, reason))
        }
    }
}

/// "A sender MUST NOT send a connection option corresponding to a header field that is intended for
/// all recipients of the content" (RFC 9110 §7.6.1).
fn check_nominated(fields: &HeaderMap) -> Result<(), Unfit> {
    let values = fields.get_all(header::CONNECTION).iter();
    let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names_one = |option: &[u8]| {
        let option = option.trim_ascii();
        NEVER_NOMINATED.iter().any(|name| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    if options.any(names_one) {
        return Err(Unfit::bad("Connection names a field that is not for this hop alone"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap()).map_or_else(|unfit| unfit.status.as_u16(), |()| 200)
    }

    #[test]
    fn targets_have_one_form_each() {
        let host = [("host", "a")];
        let long = format!("/{}", "a".repeat(MAX_TARGET));
        let cases = [
            ("GET", "/", 200),
            ("GET", "http://a/x", 200),
            ("GET", "http://u@a/x", 400),
            ("GET", "http://u:p@a/x", 400),
            ("GET", "a:80", 400),
            ("GET", "*", 400),
            ("OPTIONS", "*", 200),
            ("CONNECT", "a:443", 200),
            ("CONNECT", "u@a:443", 400),
            ("GET", &long[..MAX_TARGET], 200),
            ("GET", &long, 414),
        ];
        for (method, target, expected) in cases {
            let shown = target.get(..20).unwrap_or(target);
            assert_eq!(status(method, target, &host), expected, "{method} {shown}");
        }
    }

    #[test]
    fn nothing_is_sent_back_as_it_came() {
        for method in ["TRACE", "TRACK", "trace", "Track"] {
            for target in ["/", "http://a/", "a:443"] {
                assert_eq!(status(method, target, &[("host", "a")]), 405, "{method} {target}");
            }
        }
    }

    #[test]
    fn what_needs_no_body_has_none() {
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH", "PROPFIND"] {
            let may_have_one = !["GET", "HEAD", "OPTIONS"].contains(&method);
            let expected = if may_have_one { 200 } else { 400 };
            for field in
                [("content-length", "1"), ("content-length", ""), ("transfer-encoding", "chunked")]
            {
                assert_eq!(status(method, "/", &[("host", "a"), field]), expected, "{field:?}");
            }
            for none in ["0", "00"] {
                let fields = [("host", "a"), ("content-length", none)];
                assert_eq!(status(method, "/", &fields), 200, "{method} {none}");
            }
        }
    }

    #[test]
    fn fields_that_two_servers_might_read_differently_are_refused() {
        let cases: [(&[(&str, &str)], u16); 15] = [
            (&[], 400),
            (&[("host", "a"), ("host", "a")], 400),
            (&[("host", "")], 400),
            (&[("host", "a, b")], 400),
            (&[("host", "u@a")], 400),
            (&[("host", "a:x")], 400),
            (&[("host", "[::1]:80")], 200),
            (&[("host", "a"), ("expect", "100-Continue")], 200),
            (&[("host", "a"), ("expect", "101-continue")], 417),
            (&[("host", "a"), ("expect", "100-continue, x")], 417),
            (&[("host", "a"), ("expect", "100-continue"), ("expect", "x")], 417),
            (&[("host", "a"), ("connection", "close, x-mine")], 200),
            (&[("host", "a"), ("connection", "close"), ("connection", "x, HOST")], 400),
            (&[("host", "a"), ("connection", "authorization")], 400),
            (&[("host", "a"), ("via", "1.1 other, 1.0 entrepot")], 200),
        ];
        for (fields, expected) in cases {
            assert_eq!(status("GET", "/", fields), expected, "{fields:?}");
        }
    }
}
