//! The proxy's own pages on its listener: what this is, its CA certificate, set-up scripts.

use bytes::Bytes;
use entrepot_oci::{ErrorCode, ErrorDocument};
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::front::Front;
use super::sample::Sample;
use super::setup::{self, Client, ProxyAddress, Script, SetupError};
use crate::gateway::{ResponseBody, error_response};
use crate::listener::speaker::Speaker;
use crate::listener::{PageRequest, Pages};
use crate::metrics::{Metrics, Serving};
use crate::peers;

/// The media type of a CA certificate, by which browsers offer to install it.
const CA_MEDIA_TYPE: &str = "application/x-x509-ca-cert";
const TEXT: &str = "text/plain; charset=utf-8";
const SHELL: &str = "text/x-shellscript; charset=utf-8";
/// The media type of a page.
pub(super) const HTML: &str = "text/html; charset=utf-8";
/// What a browser may load for the page: nothing but the style that stands in it.
const NO_SCRIPTS: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// The pages, and what they show.
#[derive(Debug, Clone)]
pub(crate) struct ProxyPages {
    /// The certificate that clients must trust.
    pub ca_pem: String,
    /// Its SHA-256.
    pub ca_fingerprint: String,
    /// `external-url`; without it, clients are told the address that they used.
    pub external_url: Option<ProxyAddress>,
    /// What clients were served.
    pub metrics: Metrics,
    /// The image with which clients try the proxy.
    pub sample: Sample,
    /// Whom to ask.
    pub speaker: Speaker,
}

impl Pages for ProxyPages {
    fn page(&self, request: &PageRequest<'_>) -> Response<ResponseBody> {
        if !matches!(*request.method, Method::GET | Method::HEAD) {
            return only_get();
        }
        match request.path {
            "/" => self.with_address(request, |address| self.front(address, request)),
            "/ca.crt" => document(CA_MEDIA_TYPE, self.ca_pem.clone()),
            "/healthz" => well(),
            "/check" | "/setup/check" => {
                self.with_address(request, |address| self.script(request, address, setup::check))
            }
            "/check/image" => {
                self.sample.refresh();
                text(format!("{}\n", self.sample))
            }
            "/check/served" => self.served(request),
            path => match path.strip_prefix("/setup/").and_then(Client::named) {
                Some(client) => self.with_address(request, |address| {
                    self.script(request, address, |script| setup::script(client, script))
                }),
                None => not_found(path),
            },
        }
    }
}

/// Tells that the proxy is well, and which replica it is.
fn well() -> Response<ResponseBody> {
    let mut response = text("ok\n".to_owned());
    if let Ok(id) = HeaderValue::try_from(peers::own_id()) {
        response.headers_mut().insert(peers::ID, id);
    }
    response
}

impl ProxyPages {
    fn with_address(
        &self,
        request: &PageRequest<'_>,
        page: impl FnOnce(&ProxyAddress) -> Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        if let Some(address) = &self.external_url {
            return page(address);
        }
        match ProxyAddress::from_host_header(request.host.unwrap_or_default()) {
            Ok(address) => page(&address),
            Err(_) => bad_request("the Host must be host[:port]; or set external-url in the proxy"),
        }
    }

    fn front(&self, address: &ProxyAddress, request: &PageRequest<'_>) -> Response<ResponseBody> {
        let last = self.metrics.servings(request.client).into_iter().next();
        let front = Front {
            address,
            fingerprint: &self.ca_fingerprint,
            client: request.client,
            last: last.map(|serving| {
                let ago = serving.last.elapsed().unwrap_or_default();
                (serving, ago)
            }),
            contact: self.speaker.contact(),
        };
        let mut response = if is_browser(request.accept) {
            document(HTML, front.html())
        } else {
            text(front.text())
        };
        let fields = response.headers_mut();
        fields.insert(header::VARY, HeaderValue::from_static("Accept"));
        fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(NO_SCRIPTS));
        response
    }

    /// A script, which a browser shows.
    fn script(
        &self,
        request: &PageRequest<'_>,
        address: &ProxyAddress,
        script: impl FnOnce(&Script<'_>) -> Result<String, SetupError>,
    ) -> Response<ResponseBody> {
        let query = match SetupQuery::parse(request.query) {
            Ok(query) => query,
            Err(reason) => return bad_request(&reason),
        };
        let made = script;
        let script = Script {
            address,
            fingerprint: &self.ca_fingerprint,
            undo: query.undo,
            expected_fingerprint: query.fingerprint,
        };
        match made(&script) {
            Ok(script) => {
                let media_type = if is_browser(request.accept) { TEXT } else { SHELL };
                let mut response = document(media_type, script);
                response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
                response
            }
            Err(error @ SetupError::FingerprintMismatch { .. }) => {
                refused(StatusCode::CONFLICT, &error.to_string())
            }
            Err(error) => bad_request(&error.to_string()),
        }
    }
}

impl ProxyPages {
    /// What this client was served of a repository since the start, as lines for a shell; of other
    /// clients nothing is told here.
    fn served(&self, request: &PageRequest<'_>) -> Response<ResponseBody> {
        let query = request.query.unwrap_or_default();
        let Some(name) = query.strip_prefix("repository=").filter(|name| !name.contains('&'))
        else {
            return bad_request("the query has to be repository=REGISTRY/NAME");
        };
        let servings = self.metrics.servings(request.client);
        let is_it = |one: &&Serving| {
            name.strip_prefix(one.registry.as_str())
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| rest == one.repository)
        };
        let found = servings.iter().find(is_it);
        let count = |of: fn(&Serving) -> u64| found.map_or(0, of);
        text(format!(
            "client={}\nmanifests={}\nblobs={}\nhits={}\nbytes={}\n",
            request.client.to_canonical(),
            count(|one| one.manifests),
            count(|one| one.blobs),
            count(|one| one.hits),
            count(|one| one.bytes),
        ))
    }
}

fn is_browser(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// What may follow `/setup/<client>?`.
#[derive(Debug, PartialEq, Eq, Default)]
struct SetupQuery<'a> {
    undo: bool,
    fingerprint: Option<&'a str>,
}

impl<'a> SetupQuery<'a> {
    fn parse(query: Option<&'a str>) -> Result<Self, String> {
        let mut parsed = Self::default();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None | Some((_, "" | "1")) if part.split('=').next() == Some("undo") => {
                    parsed.undo = true;
                }
                Some(("fp", value)) => parsed.fingerprint = Some(value),
                _ => return Err("the query may hold undo and fp=SHA256 alone".to_owned()),
            }
        }
        Ok(parsed)
    }
}

/// A document that is made anew each time.
pub(super) fn document(media_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page of plain text.
pub(super) fn text(body: String) -> Response<ResponseBody> {
    document(TEXT, body)
}

/// What is answered to anything but GET and HEAD.
pub(super) fn only_get() -> Response<ResponseBody> {
    let document = ErrorDocument::new(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Unsupported,
        "this page can only be read",
    );
    let mut response = error_response(&document);
    let fields = response.headers_mut();
    fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    // There may be a body, which nobody here reads.
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What is answered for a path that is no page.
pub(super) fn not_found(path: &str) -> Response<ResponseBody> {
    let message = if path.starts_with("/v2/") {
        "no registry answers here: it is the proxy's own listener that is a mirror"
    } else {
        "there is no such page; / says what there is"
    };
    error_response(&ErrorDocument::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message))
}

fn bad_request(reason: &str) -> Response<ResponseBody> {
    refused(StatusCode::BAD_REQUEST, reason)
}

pub(super) fn refused(status: StatusCode, reason: &str) -> Response<ResponseBody> {
    error_response(&ErrorDocument::new(status, ErrorCode::Unsupported, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    fn pages() -> ProxyPages {
        let ca_fingerprint = vec!["AB"; 32].join(":");
        ProxyPages {
            ca_pem: "PEM\n".to_owned(),
            ca_fingerprint,
            external_url: None,
            metrics: Metrics::default(),
            sample: Sample::default(),
            speaker: Speaker::new("proxy.corp", None),
        }
    }

    fn get(path: &str, query: Option<&str>, host: Option<&str>) -> Response<ResponseBody> {
        let method = &Method::GET;
        pages().page(&PageRequest { method, path, query, host, accept: None, client: CLIENT })
    }

    fn body(response: Response<ResponseBody>) -> String {
        match response.into_body() {
            ResponseBody::Full(Some(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => panic!("a document expected"),
        }
    }

    #[test]
    fn the_page_is_html_for_those_who_ask_for_it() {
        for (accept, expected) in
            [(None, TEXT), (Some("*/*"), TEXT), (Some("text/html,*/*;q=0.8"), HTML)]
        {
            let host = Some("proxy.corp:3128");
            let (method, path, query) = (&Method::GET, "/", None);
            let asked = PageRequest { method, path, query, host, accept, client: CLIENT };
            let response = pages().page(&asked);
            assert_eq!(response.headers()[header::CONTENT_TYPE], expected, "{accept:?}");
            assert!(body(response).contains("http://proxy.corp:3128/setup/systemd?fp=abab"));
        }
    }

    #[test]
    fn the_certificate_has_its_media_type() {
        let response = get("/ca.crt", None, None);
        assert_eq!(response.headers()[header::CONTENT_TYPE], CA_MEDIA_TYPE);
        assert_eq!(body(response), "PEM\n");
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        for host in [None, Some(""), Some("a b"), Some("$(id)"), Some("a';id;'")] {
            assert_eq!(get("/setup/systemd", None, host).status(), StatusCode::BAD_REQUEST);
            assert_eq!(get("/", None, host).status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn setup_takes_undo_and_a_fingerprint() {
        let host = Some("proxy:3128");
        let status = |query: &str| get("/setup/systemd", Some(query), host).status();
        assert_eq!(status("undo"), StatusCode::OK);
        assert_eq!(status("undo=1"), StatusCode::OK);
        assert_eq!(status(&format!("fp={}", "ab".repeat(32))), StatusCode::OK);
        assert_eq!(status(&format!("fp={}", "cd".repeat(32))), StatusCode::CONFLICT);
        assert_eq!(status("fp=x"), StatusCode::BAD_REQUEST);
        assert_eq!(status("x=1"), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn nothing_can_be_changed_here() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let (query, host, accept) = (None, None, None);
            let request =
                PageRequest { method: &method, path: "/", query, host, accept, client: CLIENT };
            let response = pages().page(&request);
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        }
    }
}
