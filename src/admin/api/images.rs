//! What is kept, as images: list, remove, pin.

use std::sync::Arc;

use entrepot_oci::ImageName;
use http::StatusCode;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::AdminServices;
use super::ApiRefusal;
use crate::images::{ImageError, MOST, Query, Selection, is_explicit};
use crate::words::chain;

/// A page of images.
pub(super) async fn list(services: &AdminServices, query: &str) -> Result<Value, ApiRefusal> {
    let query = parse(query).map_err(bad)?;
    let page = services.images.list(&query).await.map_err(refusal)?;
    let next = page.next.map(|name| name.to_string());
    Ok(json!({ "images": page.images, "next": next }))
}

/// One image.
pub(super) async fn find(services: &AdminServices, name: &str) -> Result<Value, ApiRefusal> {
    let image = services.images.find(&full_name(name)?).await.map_err(refusal)?;
    Ok(json!(image))
}

/// Removes one, with what nothing else needs; to its end, though the client leaves meanwhile.
pub(super) async fn remove(services: &Arc<AdminServices>, name: &str) -> Result<Value, ApiRefusal> {
    let name = full_name(name)?;
    let (services, wanted) = (services.clone(), name.clone());
    let removing = services.tasks.clone().spawn(async move {
        let removed = services.images.remove(&wanted).await;
        // Whatever came of it, the records may have changed.
        services.gateway.forget_records(&wanted.registry, &wanted.repository);
        removed
    });
    let removed = removing.await.map_err(|error| ApiRefusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        reason: error.to_string(),
    })?;
    let removed = removed.map_err(refusal)?;
    tracing::info!(image = %name, removed.objects, removed.bytes, "an image was removed");
    Ok(json!(removed))
}

/// Keeps one from being evicted.
pub(super) async fn pin(services: &AdminServices, name: &str) -> Result<Value, ApiRefusal> {
    let name = full_name(name)?;
    services.images.pin(&name).await.map_err(refusal)?;
    Ok(json!(services.images.find(&name).await.map_err(refusal)?))
}

/// Takes that back.
pub(super) async fn unpin(services: &AdminServices, name: &str) -> Result<Value, ApiRefusal> {
    let name = full_name(name)?;
    services.images.unpin(&name).await.map_err(refusal)?;
    Ok(json!(services.images.find(&name).await.map_err(refusal)?))
}

/// The name in a path. It has a tag or a digest: what is removed should be said, and so `/pin`
/// behind it can be no part of it.
pub(super) fn full_name(text: &str) -> Result<ImageName, ApiRefusal> {
    // A path may hold all of these as they are, and some escape them all the same.
    let escapes = [("%2F", "/"), ("%2f", "/"), ("%3A", ":"), ("%3a", ":"), ("%40", "@")];
    let text = escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    if !is_explicit(&text) {
        return Err(bad(format!("{text:?}: name a tag or a digest")));
    }
    text.parse().map_err(|error: entrepot_oci::ImageNameError| bad(error.to_string()))
}

fn parse(query: &str) -> Result<Query, String> {
    let mut parsed = Query::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "registry" => parsed.registry = Some(value.into_owned()),
            "name" => {
                let selection = value.parse::<Selection>();
                parsed.selection = selection.map_err(|error| format!("name: {error}"))?;
            }
            "after" => {
                let name = value.parse::<ImageName>();
                parsed.after = Some(name.map_err(|error| format!("after: {error}"))?);
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                parsed.limit = limit.ok_or("limit: expected a number from 1 to 1000")?;
            }
            _ => {
                let keys = "registry=HOST, name=NAME, after=NAME and limit=NUMBER";
                return Err(format!("the query may hold {keys} alone"));
            }
        }
    }
    Ok(parsed)
}

pub(super) fn bad(reason: impl Into<String>) -> ApiRefusal {
    ApiRefusal { status: StatusCode::BAD_REQUEST, reason: reason.into() }
}

pub(super) fn refusal(error: ImageError) -> ApiRefusal {
    let status = match &error {
        ImageError::Unknown(_) => StatusCode::NOT_FOUND,
        ImageError::Pinned(_) | ImageError::Part { .. } => StatusCode::CONFLICT,
        ImageError::Loading => StatusCode::SERVICE_UNAVAILABLE,
        ImageError::Store(_) | ImageError::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiRefusal { status, reason: chain(anyhow::Error::new(error).as_ref()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_path_says_which_image() {
        let name = |text| full_name(text).map(|name| name.to_string());
        let alpine = "docker.io/library/alpine:3.20";
        for text in [alpine, "alpine:3.20", "docker.io%2Flibrary%2falpine%3A3.20"] {
            assert_eq!(name(text).unwrap(), alpine);
        }
        for wrong in ["alpine", "docker.io/library/alpine", "a/../b:1", "ghcr.io/org/pin", "a:b:c"]
        {
            assert_eq!(name(wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn pages_are_asked_for_in_one_way() {
        assert_eq!(parse(""), Ok(Query::default()));
        let query = parse("registry=ghcr.io&name=ghcr.io%2Forg/&limit=5&after=alpine:3").unwrap();
        assert_eq!(query.registry.as_deref(), Some("ghcr.io"));
        assert_eq!(query.selection, Selection::Below("ghcr.io/org/".to_owned()));
        assert_eq!((query.limit, query.after), (5, "alpine:3".parse().ok()));
        for wrong in ["limit=0", "limit=1001", "name=A", "after=", "page=2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
