//! Which images are kept of those that somebody names, wherever they are kept.

use entrepot_oci::ImageName;
use http::Method;
use serde::Deserialize;
use url::form_urlencoded;

use super::api::Api;
use super::site::Site;
use crate::images::{Image, Images, MOST, Query, Selection, SelectionError};

/// A selection, and how it was typed.
#[derive(Debug, Clone)]
pub(super) struct SelectionArg {
    pub(super) typed: String,
    pub(super) selection: Selection,
}

impl std::str::FromStr for SelectionArg {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { typed: text.to_owned(), selection: text.parse()? })
    }
}

/// All images of a selection, page by page; without one all there are.
pub(super) async fn all(site: &Site, name: Option<&SelectionArg>) -> anyhow::Result<Vec<Image>> {
    let selection = name.map_or(Selection::All, |name| name.selection.clone());
    let mut query = Query { selection, limit: MOST, ..Query::default() };
    let mut images = Vec::new();
    loop {
        let (page, next) = match site {
            Site::Stopped(store) => {
                let page = Images::of(store).list(&query).await?;
                (page.images, page.next)
            }
            Site::Running(api) => page_of(api, &query, name).await?,
        };
        images.extend(page);
        match next {
            Some(next) => query.after = Some(next),
            None => return Ok(images),
        }
    }
}

async fn page_of(
    api: &Api,
    query: &Query,
    name: Option<&SelectionArg>,
) -> anyhow::Result<(Vec<Image>, Option<ImageName>)> {
    let mut fields = form_urlencoded::Serializer::new(String::new());
    fields.append_pair("limit", &query.limit.to_string());
    if let Some(name) = name {
        fields.append_pair("name", &name.typed);
    }
    if let Some(after) = &query.after {
        fields.append_pair("after", &after.to_string());
    }
    let page = api.ask(Method::GET, &format!("/api/v1/images?{}", fields.finish())).await?;
    let ListedPage { images, next } = serde_json::from_value(page)?;
    Ok((images, next.as_deref().map(str::parse).transpose()?))
}

/// A page, as a running proxy tells it.
#[derive(Deserialize)]
struct ListedPage {
    images: Vec<Image>,
    next: Option<String>,
}
