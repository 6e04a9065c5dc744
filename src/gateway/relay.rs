//! Everything that is only passed on: what a client with a credential asks of the API itself,
//! pushes, whatever is no content.

use entrepot_oci::Route;
use http::{HeaderValue, Method, Response, header};

use super::answer::passed::passed_on;
use super::answer::provenance::Forward;
use super::answer::served::Served;
use super::exchange::{Asked, Common};
use crate::registry::fields::forwarded;
use crate::registry::identity::{Identity, has_own_token};
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::{Upstream, UpstreamError};

/// Sends the request to the registry and its answer to the client. Redirects are the client's.
///
/// What the API is only asked is asked under the shared identity where the client has none of its
/// own; everything else goes with the client's own credential or without any.
pub(super) async fn serve(
    common: &Common,
    asked: Asked,
    body: RequestBody,
) -> Result<Served, UpstreamError> {
    let is_reading = matches!(asked.method, Method::GET | Method::HEAD);
    let is_api = !matches!(asked.route, Route::Other);
    let client = asked.client(&common.registries);
    if client.identity == Identity::Shared && is_reading && is_api {
        let (target, headers) = (asked.target(), forwarded(&asked.headers));
        let answer = client.once(asked.method, &target, &headers).await?;
        return Ok(passed_on(answer.response, Forward::Bypass));
    }
    let response = send(common.registries.upstream(), asked, body).await?;
    Ok(passed_on(response, Forward::Bypass))
}

/// Sends a request to a host that is no registry, and its answer back.
pub(super) async fn unseen(
    common: &Common,
    asked: Asked,
    body: RequestBody,
) -> Result<Served, UpstreamError> {
    let response = send(common.registries.upstream().for_strangers(), asked, body).await?;
    Ok(passed_on(response, Forward::Bypass))
}

/// Sends a request on as it came, but for the fields that end here; a token of our own means
/// nothing to anybody else.
async fn send(
    upstream: &Upstream,
    asked: Asked,
    body: RequestBody,
) -> Result<Response<IdleBody>, UpstreamError> {
    let mut headers = forwarded(&asked.headers);
    if has_own_token(&asked.headers) {
        headers.remove(header::AUTHORIZATION);
    }
    let has_content = matches!(asked.method, Method::POST | Method::PUT | Method::PATCH);
    if has_content && body.is_end_stream() {
        // Some registries answer 411 to an upload's empty requests without it.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    let target = asked.target();
    upstream.send(asked.method, &target, headers, body).await
}
