//! `/api/v1/`: JSON for tools. `docs/api/openapi.json` describes it.
//!
//! - `verify`: hash everything that is kept
//! - `explain`: what a pull would meet now
//! - `pull`: bring an image in
//! - `lines`: work that is told of while it goes on
//! - `reports`: what there is to know, as documents
//! - `watching`: what a person who watches wants to see
//! - `savings`: what the cache was worth
//! - `pulls`: who pulls what
//! - `images`: what is kept, as images
//! - `reload`: reading the configuration again
//! - `archives`: images out of the store, and into it
//! - `bucket`: what replicas have in common

mod archives;
mod bucket;
mod explain;
mod images;
pub(super) mod lines;
mod pull;
pub(super) mod pulls;
mod reload;
pub(super) mod reports;
pub(super) mod savings;
mod verify;
pub(super) mod watching;

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::Value;

pub(crate) use pull::Room;
pub(crate) use verify::OneAtATime;

use super::AdminServices;
use super::body::AdminBody;
use super::events;
use super::guard::Deed;
use super::pages::refused;
use super::verdict;
use crate::gateway::ResponseBody;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Status,
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
    Savings,
    Pulls,
    Clients,
    Peers,
    Events,
    Verify,
    Pull,
    Explain,
    Images,
    Image,
    RemoveImage,
    RemoveImages,
    Reload,
    PinImage,
    UnpinImage,
    Export,
    Import,
    Bucket,
    SyncBucket,
}

impl Endpoint {
    /// Whether it only shows figures and names, or does more than that.
    fn deed(self) -> Deed {
        match self {
            Self::Status
            | Self::Stats
            | Self::Blobs
            | Self::Fetches
            | Self::About
            | Self::Registries
            | Self::Requests
            | Self::Errors
            | Self::Repositories
            | Self::History
            | Self::Savings
            | Self::Pulls
            | Self::Clients
            | Self::Peers
            | Self::Events
            | Self::Explain
            | Self::Images
            | Self::Image
            | Self::Bucket => Deed::Look,
            Self::Config
            | Self::Verify
            | Self::Pull
            | Self::RemoveImage
            | Self::RemoveImages
            | Self::Reload
            | Self::PinImage
            | Self::UnpinImage
            | Self::Export
            | Self::Import
            | Self::SyncBucket => Deed::Act,
        }
    }
}

/// What stands in a path for the full name of an image, slashes and all.
const NAME: &str = "{name}";

/// Every endpoint: its method, its path. Of two paths that fit, the first is meant.
pub(super) const ENDPOINTS: &[(Method, &str, Endpoint)] = &[
    (Method::GET, "/api/v1/status", Endpoint::Status),
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
    (Method::GET, "/api/v1/savings", Endpoint::Savings),
    (Method::GET, "/api/v1/pulls", Endpoint::Pulls),
    (Method::GET, "/api/v1/clients", Endpoint::Clients),
    (Method::GET, "/api/v1/peers", Endpoint::Peers),
    (Method::GET, "/api/v1/events", Endpoint::Events),
    (Method::POST, "/api/v1/verify", Endpoint::Verify),
    (Method::POST, "/api/v1/pull", Endpoint::Pull),
    (Method::GET, "/api/v1/explain", Endpoint::Explain),
    (Method::GET, "/api/v1/images", Endpoint::Images),
    (Method::DELETE, "/api/v1/images", Endpoint::RemoveImages),
    (Method::PUT, "/api/v1/images/{name}/pin", Endpoint::PinImage),
    (Method::DELETE, "/api/v1/images/{name}/pin", Endpoint::UnpinImage),
    (Method::GET, "/api/v1/images/{name}", Endpoint::Image),
    (Method::DELETE, "/api/v1/images/{name}", Endpoint::RemoveImage),
    (Method::GET, "/api/v1/export", Endpoint::Export),
    (Method::POST, IMPORT, Endpoint::Import),
    (Method::POST, "/api/v1/reload", Endpoint::Reload),
    (Method::GET, "/api/v1/bucket", Endpoint::Bucket),
    (Method::POST, "/api/v1/bucket/sync", Endpoint::SyncBucket),
];

/// Where an archive is sent to.
const IMPORT: &str = "/api/v1/import";

/// The media type that a body for this path must have.
pub(super) fn media_type(path: &str) -> &'static str {
    if path == IMPORT { archives::MEDIA_TYPE } else { "application/json" }
}

/// What a request would do. One that there is not does nothing: it may be told so.
pub(super) fn deed(method: &Method, path: &str) -> Deed {
    let asked = template(path).and_then(|(template, _)| {
        let mut of_path = ENDPOINTS.iter().filter(|(_, known, _)| *known == template);
        of_path.find(|(known, _, _)| known == method)
    });
    asked.map_or(Deed::Look, |(_, _, endpoint)| endpoint.deed())
}

/// The path that `path` is one of, and the name that stands in it.
fn template(path: &str) -> Option<(&'static str, &str)> {
    ENDPOINTS.iter().find_map(|(_, template, _)| Some((*template, named(template, path)?)))
}

/// The answer to a request that may be answered.
pub(super) async fn answer(
    services: &Arc<AdminServices>,
    request: Request<Incoming>,
) -> Response<AdminBody> {
    let (head, body) = request.into_parts();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let Some((template, name)) = template(path) else {
        return refused(StatusCode::NOT_FOUND, "there is no such path in this API").map(Into::into);
    };
    let of_path = ENDPOINTS.iter().filter(|(_, known, _)| *known == template);
    let Some((_, _, endpoint)) = of_path.clone().find(|(method, _, _)| *method == head.method)
    else {
        let methods: Vec<_> = of_path.map(|(method, _, _)| method.as_str()).collect();
        return wrong_method(&methods).map(Into::into);
    };
    match endpoint {
        Endpoint::Status => json(&verdict::document(services)),
        Endpoint::Stats => json(&reports::stats(services)),
        Endpoint::Fetches => json(&reports::fetches(services)),
        Endpoint::Config => json(&services.config.load()),
        Endpoint::About => json(&watching::about(services)),
        Endpoint::Registries => json(&watching::registries(services)),
        Endpoint::Errors => json(&watching::errors(services)),
        Endpoint::Repositories => json(&watching::repositories(services)),
        Endpoint::History => json(&watching::history(services)),
        Endpoint::Savings => json(&savings::savings(services)),
        Endpoint::Clients => json(&pulls::clients(services)),
        Endpoint::Pulls => queried(pulls::pulls(services, query)),
        Endpoint::Blobs => queried(reports::blobs(services, query)),
        Endpoint::Requests => queried(watching::requests(services, query)),
        Endpoint::Peers => json(&reports::peers(services)),
        Endpoint::Events => events::stream(services),
        Endpoint::Verify => verify::start(services),
        Endpoint::Explain => match explain::explain(services, query).await {
            Ok(document) => json(&document),
            Err(reason) => refused(StatusCode::BAD_REQUEST, &reason).map(Into::into),
        },
        Endpoint::Pull => pull::start(services, query),
        Endpoint::Images => told(images::list(services, query).await),
        Endpoint::Image => told(images::find(services, name).await),
        Endpoint::RemoveImages => told(images::remove_all(services, query).await),
        Endpoint::Reload => reload::reload(services).await,
        Endpoint::RemoveImage => told(images::remove(services, name).await),
        Endpoint::PinImage => told(images::pin(services, name).await),
        Endpoint::UnpinImage => told(images::unpin(services, name).await),
        Endpoint::Export => archives::export(services, query).await.unwrap_or_else(Into::into),
        Endpoint::Bucket => told(bucket::show(services)),
        Endpoint::SyncBucket => bucket::sync(services),
        Endpoint::Import => archives::import(services, query, body).unwrap_or_else(Into::into),
    }
}

/// The answer to a request with a query, which may be a wrong one.
fn queried(document: Result<Value, impl AsRef<str>>) -> Response<AdminBody> {
    match document {
        Ok(document) => json(&document),
        Err(reason) => refused(StatusCode::BAD_REQUEST, reason.as_ref()).map(Into::into),
    }
}

/// What stands in `path` where `template` has a name, if the rest is the same.
fn named<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    match template.split_once(NAME) {
        Some((before, behind)) => {
            let name = path.strip_prefix(before)?.strip_suffix(behind)?;
            Some(name).filter(|name| !name.is_empty())
        }
        None => (template == path).then_some(""),
    }
}

fn told(answer: Result<Value, ApiRefusal>) -> Response<AdminBody> {
    answer.map_or_else(Into::into, |document| json(&document))
}

/// Why something is not done.
#[derive(Debug)]
struct ApiRefusal {
    status: StatusCode,
    reason: String,
}

impl From<ApiRefusal> for Response<AdminBody> {
    fn from(ApiRefusal { status, reason }: ApiRefusal) -> Self {
        refused(status, &reason).map(Into::into)
    }
}

fn json(document: &Value) -> Response<AdminBody> {
    let body = ResponseBody::full(format!("{document}\n"));
    let mut response = Response::new(AdminBody::Whole(body));
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn wrong_method(known: &[&str]) -> Response<ResponseBody> {
    let methods = known.join(", ");
    let reason = format!("this path takes {methods} alone");
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, &reason);
    if let Ok(methods) = HeaderValue::try_from(methods) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn whatever_changes_something_or_hands_it_out_is_a_deed() {
        for (method, path, endpoint) in ENDPOINTS {
            let path = path.replace(NAME, "ghcr.io/org/app:1");
            assert_eq!(deed(method, &path), endpoint.deed(), "{method} {path}");
            if *method != Method::GET {
                assert_eq!(endpoint.deed(), Deed::Act, "{method} {path}");
            }
        }
        for path in ["/api/v1/export", "/api/v1/config"] {
            assert_eq!(deed(&Method::GET, path), Deed::Act, "{path}");
        }
        assert_eq!(deed(&Method::POST, "/api/v1/nothing"), Deed::Look, "there is no such path");
    }

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
