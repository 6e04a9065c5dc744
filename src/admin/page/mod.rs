//! The status page at `/` of the admin listener: a document, its style and its script, which shows
//! what the API tells.
//!
//! - `page.js`: the sums, the stream of events, what can be clicked
//! - `troubles.js`: what is wrong
//! - `registries.js`, `pulls.js`, `images.js`, `charts.js`: a part of the page each
//! - `api.js`: the way to the API
//! - `dom.js`, `words.js`: elements; numbers and times as people read them
//!
//! The page itself holds nothing that is worth a token; its script asks the API as everybody does.

use http::{HeaderValue, Response, header};

use super::pages::{HTML, document};
use crate::gateway::ResponseBody;

const SCRIPT: &str = "text/javascript; charset=utf-8";
/// What a browser may load and do for the page: its own files and this listener's API.
const OWN_ALONE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                         connect-src 'self'; base-uri 'none'; form-action 'none'; \
                         frame-ancestors 'none'";

/// The file at `path`, if it is one of the page's.
pub(super) fn file(path: &str) -> Option<Response<ResponseBody>> {
    let (media_type, body) = match path {
        "/" => (HTML, include_str!("index.html")),
        "/assets/page.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        "/assets/page.js" => (SCRIPT, include_str!("page.js")),
        "/assets/api.js" => (SCRIPT, include_str!("api.js")),
        "/assets/charts.js" => (SCRIPT, include_str!("charts.js")),
        "/assets/dom.js" => (SCRIPT, include_str!("dom.js")),
        "/assets/images.js" => (SCRIPT, include_str!("images.js")),
        "/assets/pulls.js" => (SCRIPT, include_str!("pulls.js")),
        "/assets/registries.js" => (SCRIPT, include_str!("registries.js")),
        "/assets/troubles.js" => (SCRIPT, include_str!("troubles.js")),
        "/assets/words.js" => (SCRIPT, include_str!("words.js")),
        "/assets/icon.svg" => ("image/svg+xml", include_str!("icon.svg")),
        _ => return None,
    };
    let mut response = document(media_type, body);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(OWN_ALONE));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}
