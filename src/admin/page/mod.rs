//! The status page at `/` of the admin listener: a document, its style and its script, which shows
//! what the API tells.
//!
//! The page itself holds nothing that is worth a token; its script asks the API as everybody does.

use http::{HeaderValue, Response, header};

use super::pages::{HTML, document};
use crate::gateway::ResponseBody;

/// What a browser may load and do for the page: its own files and this listener's API.
const OWN_ALONE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                         connect-src 'self'; base-uri 'none'; form-action 'none'; \
                         frame-ancestors 'none'";

/// The file at `path`, if it is one of the page's.
pub(super) fn file(path: &str) -> Option<Response<ResponseBody>> {
    let (media_type, body) = match path {
        "/" => (HTML, include_str!("index.html")),
        "/assets/page.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        "/assets/page.js" => ("text/javascript; charset=utf-8", include_str!("page.js")),
        "/assets/icon.svg" => ("image/svg+xml", include_str!("icon.svg")),
        _ => return None,
    };
    let mut response = document(media_type, body);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(OWN_ALONE));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}
