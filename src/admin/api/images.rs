//! What is kept, as images: list, remove, pin.

use std::sync::Arc;
use std::time::SystemTime;

use entrepot_oci::{ImageName, UnixSeconds};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use url::form_urlencoded;

use super::super::AdminServices;
use super::ApiRefusal;
use crate::images::{
    Extent, Image, ImageError, MOST, Query, Reached, Selection, Which, is_explicit,
};
use crate::words::chain;

/// A page of images.
pub(super) async fn list(services: &AdminServices, query: &str) -> Result<Value, ApiRefusal> {
    let query = parse(query).map_err(bad)?;
    services.gateway.write_uses().await;
    let page = services.images.list(&query).await.map_err(refusal)?;
    let next = page.next.map(|name| name.to_string());
    Ok(json!({ "images": page.images, "next": next }))
}

/// One image.
pub(super) async fn find(services: &AdminServices, name: &str) -> Result<Value, ApiRefusal> {
    services.gateway.write_uses().await;
    let image = services.images.find(&full_name(name)?).await.map_err(refusal)?;
    Ok(json!(image))
}

/// Removes one, with what nothing else needs; to its end, though the client leaves meanwhile.
pub(super) async fn remove(services: &Arc<AdminServices>, name: &str) -> Result<Value, ApiRefusal> {
    let name = full_name(name)?;
    let (services, wanted) = (services.clone(), name.clone());
    let removing = services.tasks.clone().spawn(async move {
        let removed = match &services.shared {
            Some(shared) => shared.fleet.remove(&services.images, &wanted).await,
            None => services.images.remove(&wanted).await.map(|(removed, _)| removed),
        };
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

/// Removes all that are meant but what is pinned; to its end, though the client leaves meanwhile.
pub(super) async fn remove_all(
    services: &Arc<AdminServices>,
    query: &str,
) -> Result<Value, ApiRefusal> {
    let (which, extent) = parse_removal(query, SystemTime::now()).map_err(bad)?;
    let asked = services.clone();
    let removing = services.tasks.clone().spawn(async move {
        let removal = match &asked.shared {
            Some(shared) => shared.fleet.remove_all(&asked.images, &which, extent).await,
            None => asked.images.remove_all(&which, extent).await.map(|(removal, _)| removal),
        };
        for repository in removal.iter().flat_map(|removal| &removal.images).filter_map(full) {
            asked.gateway.forget_records(&repository.registry, &repository.repository);
        }
        removal
    });
    let removal = removing.await.map_err(|error| ApiRefusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        reason: error.to_string(),
    })?;
    let removal = removal.map_err(refusal)?;
    if extent == Extent::Done {
        for image in &removal.images {
            tracing::info!(image = image.name, "an image was removed");
        }
        let (objects, bytes) = (removal.objects, removal.bytes);
        tracing::info!(images = removal.images.len(), objects, bytes, "images were removed");
    }
    Ok(json!(removal))
}

fn full(image: &Image) -> Option<ImageName> {
    image.name.parse().ok()
}

/// `name=NAME` any number of times, `unused_secs=NUMBER`, at least one of the two, and
/// `dry_run=true`.
fn parse_removal(query: &str, now: SystemTime) -> Result<(Which, Extent), String> {
    let mut which = Which { selections: Vec::new(), unused_since: None };
    let mut extent = Extent::Done;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "name" => {
                let selection = value.parse::<Selection>();
                which.selections.push(selection.map_err(|error| format!("name: {error}"))?);
            }
            "unused_secs" => {
                let secs: u64 =
                    value.parse().map_err(|_| "unused_secs: expected a whole number")?;
                let since = UnixSeconds(UnixSeconds::from(now).0.saturating_sub(secs));
                which.unused_since = Some(since);
            }
            "dry_run" if value == "true" => extent = Extent::DryRun,
            _ => {
                let keys = "name=NAME, unused_secs=NUMBER and dry_run=true";
                return Err(format!("the query may hold {keys} alone"));
            }
        }
    }
    if which.selections.is_empty() {
        // Nobody is to remove everything by forgetting something.
        which.unused_since.ok_or("name=NAME or unused_secs=NUMBER is missing")?;
        which.selections.push(Selection::All);
    }
    Ok((which, extent))
}

/// Keeps one from being evicted; to its end, though the client leaves meanwhile.
pub(super) async fn pin(services: &Arc<AdminServices>, name: &str) -> Result<Value, ApiRefusal> {
    let name = full_name(name)?;
    let (asked, wanted) = (services.clone(), name.clone());
    let pinning = services.tasks.spawn(async move {
        let pinned = asked.images.pin(&wanted).await?;
        Ok(match &asked.shared {
            Some(shared) => Some(shared.fleet.pinned(pinned).await),
            None => None,
        })
    });
    changed(services, &name, pinning).await
}

/// Takes that back.
pub(super) async fn unpin(services: &Arc<AdminServices>, name: &str) -> Result<Value, ApiRefusal> {
    let name = full_name(name)?;
    let (asked, wanted) = (services.clone(), name.clone());
    let unpinning = services.tasks.spawn(async move {
        let unpinned = asked.images.unpin(&wanted).await?;
        let mut reached = None;
        if let Some(shared) = &asked.shared {
            for digest in unpinned {
                reached = Some(shared.fleet.unpinned(digest).await);
            }
        }
        Ok(reached)
    });
    changed(services, &name, unpinning).await
}

/// The image as it is after a change, with how far that has come.
async fn changed(
    services: &AdminServices,
    name: &ImageName,
    changing: JoinHandle<Result<Option<Reached>, ImageError>>,
) -> Result<Value, ApiRefusal> {
    let fleet = changing.await.map_err(|error| ApiRefusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        reason: error.to_string(),
    })?;
    let fleet = fleet.map_err(refusal)?;
    let mut told = json!(services.images.find(name).await.map_err(refusal)?);
    if let Some(fields) = told.as_object_mut() {
        fields.insert("fleet".to_owned(), json!(fleet));
    }
    Ok(told)
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

    #[test]
    fn a_removal_says_what_is_meant() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        let parse = |query| parse_removal(query, now);
        let (which, extent) = parse("name=ghcr.io/org/&name=alp*&unused_secs=60").unwrap();
        assert_eq!((which.selections.len(), extent), (2, Extent::Done));
        assert_eq!(which.unused_since, Some(UnixSeconds(940)));
        let (which, extent) = parse("unused_secs=5000&dry_run=true").unwrap();
        assert_eq!((which.selections, extent), (vec![Selection::All], Extent::DryRun));
        assert_eq!(which.unused_since, Some(UnixSeconds(0)));
        for wrong in ["", "dry_run=true", "name=A", "unused_secs=x", "dry_run=no&name=a", "x=1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
