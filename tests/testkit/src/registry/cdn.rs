//! Redirects to signed URLs, and the server behind them.

use super::{Site, error, routes};
use crate::canary::CANARY;
use crate::http::{Request, Response};

/// Where a registry sends those who want a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirects {
    /// Nowhere: it delivers the bytes itself.
    None,
    /// To the CDN.
    Cdn,
    /// To the CDN, which redirects so many times more before it delivers.
    Chain(usize),
    /// To the CDN, which redirects for ever.
    Loop,
    /// To this URL, whatever the blob.
    To(String),
}

/// The answer to a `GET` of a blob that is to be fetched elsewhere.
pub(super) fn redirect(site: &Site, digest: &str) -> Option<Response> {
    let location = match site.redirects.lock().unwrap().clone() {
        Redirects::None => return None,
        Redirects::Cdn => signed(site, &format!("/blobs/{digest}")),
        Redirects::Chain(hops) => signed(site, &format!("/hop/{hops}/{digest}")),
        Redirects::Loop => signed(site, &format!("/loop/{digest}")),
        Redirects::To(url) => url,
    };
    Some(temporary(&location))
}

fn temporary(location: &str) -> Response {
    Response::new(307).header("Location", location)
}

/// A URL at the CDN that is good until signatures expire.
fn signed(site: &Site, path: &str) -> String {
    let mut signatures = site.signatures.lock().unwrap();
    let signature = format!("{CANARY}-signature-{}", site.log.all().len());
    let url = format!("https://{}{path}?X-Amz-Signature={signature}", site.hosts.cdn);
    signatures.push(signature);
    url
}

/// As S3 does, it takes a credential beside a signature for a mistake.
pub(super) fn respond(site: &Site, request: &Request) -> Response {
    if request.headers.get("authorization").is_some() {
        return error(400, "InvalidArgument", "only one auth mechanism allowed");
    }
    let signature = request.query("X-Amz-Signature").first().cloned().unwrap_or_default();
    if !site.signatures.lock().unwrap().contains(&signature) {
        return error(403, "AccessDenied", "the signature is not valid");
    }
    let path: Vec<_> = request.path().split('/').skip(1).collect();
    match path.as_slice() {
        ["blobs", digest] => blob(site, request, digest),
        ["hop", "1", digest] => temporary(&signed(site, &format!("/blobs/{digest}"))),
        ["hop", hops, digest] => {
            let left = hops.parse::<usize>().unwrap_or(1).saturating_sub(1);
            temporary(&signed(site, &format!("/hop/{left}/{digest}")))
        }
        ["loop", digest] => temporary(&signed(site, &format!("/loop/{digest}"))),
        _ => error(404, "NoSuchKey", "the specified key does not exist"),
    }
}

fn blob(site: &Site, request: &Request, digest: &str) -> Response {
    let bytes = site.content.lock().unwrap().blob_anywhere(digest);
    let Some(bytes) = bytes else {
        return error(404, "NoSuchKey", "the specified key does not exist");
    };
    let mut response = routes::object(request, &bytes, digest, "application/octet-stream");
    response.headers.remove("docker-content-digest");
    response
}
