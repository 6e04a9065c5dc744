//! `/api/v1/`: JSON for tools. `docs/api/openapi.json` describes it.
//!
//! - `verify`: hash everything that is kept
//! - `explain`: what a pull would meet now
//! - `pull`: bring an image in
//! - `lines`: work that is told of while it goes on
//! - `reports`: what there is to know, as documents
//! - `watching`: what a person who watches wants to see

mod explain;
pub(super) mod lines;
mod pull;
pub(super) mod reports;
mod verify;
pub(super) mod watching;

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

pub use pull::Room;
pub use verify::Turn;

use super::Services;
use super::body::AdminBody;
use super::events;
use super::pages::refused;
use crate::gateway::ResponseBody;

/// What each path of the API is, by its one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Stats,
    Blobs,
    Fetches,
    Config,
    About,
    Registries,
    Requests,
    Errors,
    Repositories,
    History,
    Events,
    Verify,
    Pull,
    Explain,
}

/// Every endpoint: its method, its path.
pub(super) const ENDPOINTS: &[(Method, &str, Endpoint)] = &[
    (Method::GET, "/api/v1/stats", Endpoint::Stats),
    (Method::GET, "/api/v1/blobs", Endpoint::Blobs),
    (Method::GET, "/api/v1/fetches", Endpoint::Fetches),
    (Method::GET, "/api/v1/config", Endpoint::Config),
    (Method::GET, "/api/v1/about", Endpoint::About),
    (Method::GET, "/api/v1/registries", Endpoint::Registries),
    (Method::GET, "/api/v1/requests", Endpoint::Requests),
    (Method::GET, "/api/v1/errors", Endpoint::Errors),
    (Method::GET, "/api/v1/repositories", Endpoint::Repositories),
    (Method::GET, "/api/v1/history", Endpoint::History),
    (Method::GET, "/api/v1/events", Endpoint::Events),
    (Method::POST, "/api/v1/verify", Endpoint::Verify),
    (Method::POST, "/api/v1/pull", Endpoint::Pull),
    (Method::GET, "/api/v1/explain", Endpoint::Explain),
];

/// The answer to a request that may be answered.
pub(super) async fn answer(
    services: &Arc<Services>,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Response<AdminBody> {
    let mut of_path = ENDPOINTS.iter().filter(|(_, known, _)| *known == path);
    let Some((wanted, _, endpoint)) = of_path.next() else {
        return refused(StatusCode::NOT_FOUND, "there is no such path in this API").map(Into::into);
    };
    if method != wanted {
        return wrong_method(wanted).map(Into::into);
    }
    match endpoint {
        Endpoint::Stats => json(&reports::stats(services)),
        Endpoint::Fetches => json(&reports::fetches(services)),
        Endpoint::Config => json(&services.config.load()),
        Endpoint::About => json(&watching::about(services)),
        Endpoint::Registries => json(&watching::registries(services)),
        Endpoint::Errors => json(&watching::errors(services)),
        Endpoint::Repositories => json(&watching::repositories(services)),
        Endpoint::History => json(&watching::history(services)),
        Endpoint::Blobs => queried(reports::blobs(services, query.unwrap_or_default())),
        Endpoint::Requests => queried(watching::requests(services, query.unwrap_or_default())),
        Endpoint::Events => events::stream(services),
        Endpoint::Verify => verify::start(services),
        Endpoint::Explain => match explain::explain(services, query.unwrap_or_default()).await {
            Ok(document) => json(&document),
            Err(reason) => refused(StatusCode::BAD_REQUEST, &reason).map(Into::into),
        },
        Endpoint::Pull => pull::start(services, query.unwrap_or_default()),
    }
}

/// The answer to a request with a query, which may be a wrong one.
fn queried(document: Result<Value, &'static str>) -> Response<AdminBody> {
    match document {
        Ok(document) => json(&document),
        Err(reason) => refused(StatusCode::BAD_REQUEST, reason).map(Into::into),
    }
}

fn json(document: &Value) -> Response<AdminBody> {
    let body = ResponseBody::full(format!("{document}\n"));
    let mut response = Response::new(AdminBody::Whole(body));
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn wrong_method(wanted: &Method) -> Response<ResponseBody> {
    let reason = format!("this path takes {wanted} alone");
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, &reason);
    let allow = if *wanted == Method::POST { "POST" } else { "GET" };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_description_names_every_endpoint_and_no_other() {
        let text = include_str!("../../../docs/api/openapi.json");
        let document: Value = serde_json::from_str(text).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let known: BTreeSet<_> = ENDPOINTS
            .iter()
            .map(|(method, path, _)| (method.to_string(), (*path).to_owned()))
            .collect();
        assert_eq!(described, known);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
