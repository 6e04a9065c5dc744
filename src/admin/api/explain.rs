//! `GET /api/v1/explain`: what a pull of an image would meet now, in fields and in words.

use std::time::Duration;

use entrepot_cache::Presence;
use entrepot_oci::ImageName;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::AdminServices;
use super::super::verdict::{self, Trouble};
use crate::gateway::{Expected, Explanation, ObjectState, TagState};

/// The document, or why the question is none.
pub(super) async fn explain(services: &AdminServices, query: &str) -> Result<Value, String> {
    let mut parts = form_urlencoded::parse(query.as_bytes());
    let image: ImageName = match (parts.next(), parts.next()) {
        (Some((name, value)), None) if name == "image" => {
            value.parse().map_err(|error| format!("image: {error}"))?
        }
        _ => return Err("the query must be image=NAME".to_owned()),
    };
    let is_intercepted = services.facts.policy.intercepts(&image.authority);
    let mut known = services.gateway.explain(&image).await;
    // What an image can do without is no part of it unless it is here.
    let all: Vec<_> = known.objects.iter().map(|one| one.digest).collect();
    let foreign = services.images.foreign_among(&all).await;
    known.objects.retain(|one| one.presence != Presence::Absent || !foreign.contains(&one.digest));
    let troubles = verdict::troubles(services);
    let its_own = |one: &&Trouble| one.registry.as_deref() == Some(image.registry.as_str());
    Ok(document(&image, is_intercepted, &known, troubles.iter().find(its_own)))
}

/// What is wrong with the registry, and what a pull meets by that.
fn with_advice(trouble: &Trouble) -> String {
    let advice = match trouble.state {
        "credentials-refused" => {
            ": what is public is asked for without them, what is kept is served as it is; renew them"
        }
        "slow" => ": what is kept is not waited for (stale-after)",
        _ => "",
    };
    format!("{}{advice}", trouble.words)
}

fn document(
    image: &ImageName,
    is_intercepted: bool,
    known: &Explanation,
    trouble: Option<&Trouble>,
) -> Value {
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    let tag = known.tag.as_ref().map(|tag| {
        json!({
            "digest": tag.digest.to_string(),
            "media_type": tag.media_type.as_ref().map(ToString::to_string),
            "age_secs": tag.age.as_secs(),
            "ttl_secs": tag.ttl.as_secs(),
            "is_fresh": is_fresh(tag),
        })
    });
    let objects: Vec<_> = known.objects.iter().map(object).collect();
    let quota = known.quota.as_ref().map(|quota| {
        json!({
            "remaining": quota.remaining,
            "limit": quota.limit,
            "window_secs": quota.window_secs,
            "source": quota.source,
        })
    });
    json!({
        "image": image.to_string(),
        "registry": image.registry.as_str(),
        "registry_state": trouble.map(|trouble| trouble.state),
        "repository": image.repository.as_str(),
        "reference": image.reference.to_string(),
        "is_intercepted": is_intercepted,
        "outcome": if is_intercepted { outcome(known.outcome) } else { "passed_by" },
        "tag": tag,
        "objects": objects,
        "identity": known.identity,
        "granted_secs": seconds(known.granted),
        "served_secs_ago": seconds(known.served),
        "imported_secs_ago": seconds(known.imported),
        "trouble": known.trouble,
        "quota": quota,
        "words": words(image, is_intercepted, known, trouble),
    })
}

fn object(object: &ObjectState) -> Value {
    let state = match object.presence {
        Presence::Kept => "kept",
        Presence::InFlight => "coming",
        Presence::Absent => "missing",
    };
    let digest = object.digest.to_string();
    json!({ "digest": digest, "state": state, "belongs": object.belongs })
}

fn outcome(expected: Expected) -> &'static str {
    match expected {
        Expected::Hit => "hit",
        Expected::Revalidated => "revalidated",
        Expected::Fetched => "fetched",
        Expected::Stale => "stale",
        Expected::Fails => "fails",
    }
}

fn is_fresh(tag: &TagState) -> bool {
    tag.age < tag.ttl
}

/// The explanation for people, the conclusion first.
fn words(
    image: &ImageName,
    is_intercepted: bool,
    known: &Explanation,
    trouble: Option<&Trouble>,
) -> Vec<String> {
    let registry = &image.registry;
    if !is_intercepted {
        return vec![format!(
            "{registry} is not in intercept: what passes to it is not looked at, and nothing of it is \
             kept; add it to intercept-also"
        )];
    }
    let mut words = vec![conclusion(image, known)];
    words.extend(trouble.map(with_advice));
    words.extend(known.tag.as_ref().map(|tag| {
        let (age, ttl) = (tag.age.as_secs(), tag.ttl.as_secs());
        let then = if is_fresh(tag) { "it is fresh" } else { "the registry would be asked again" };
        format!("{registry} said {age} s ago that it is {}; tag-ttl is {ttl} s: {then}", tag.digest)
    }));
    words.extend(stock(&known.objects));
    words.push(match (&known.granted, known.served) {
        (Some(left), _) => format!(
            "this proxy may serve {} without asking for {} s more",
            image.repository,
            left.as_secs()
        ),
        (None, Some(ago)) => {
            format!("{registry} last served this proxy there {} s ago", ago.as_secs())
        }
        (None, None) => format!("{registry} has not served {} to this proxy", image.repository),
    });
    words.extend(known.imported.map(|ago| {
        let ago = ago.as_secs();
        format!("it was imported {ago} s ago: while {registry} can't be asked, anybody may pull it")
    }));
    words.push(match &known.identity {
        Some(origin) => format!("it is there with credentials ({origin})"),
        None => "it is there as nobody: no credentials are configured".to_owned(),
    });
    words.extend(known.quota.as_ref().map(|quota| {
        let of = quota.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
        format!("{registry} has {}{of} pulls left for it, as told last", quota.remaining)
    }));
    words
}

fn conclusion(image: &ImageName, known: &Explanation) -> String {
    let registry = &image.registry;
    let trouble = known.trouble.as_deref().unwrap_or_default();
    match known.outcome {
        Expected::Hit => format!("{image} would come from the store, and {registry} not be asked"),
        Expected::Revalidated => {
            format!(
                "{registry} would be asked (HEAD), and {image} come from the store if it agrees"
            )
        }
        Expected::Fetched => format!("{image} would be fetched from {registry}"),
        Expected::Stale => {
            format!("{image} would come from the store, marked stale, because {trouble}")
        }
        Expected::Fails => format!(
            "a pull of {image} would fail: nothing here may be served in its place, and {trouble}"
        ),
    }
}

fn stock(objects: &[ObjectState]) -> Option<String> {
    let kept = objects.iter().filter(|one| one.presence == Presence::Kept).count();
    let strange =
        objects.iter().filter(|one| one.presence == Presence::Kept && !one.belongs).count();
    let all = objects.len();
    let rest = if strange == 0 {
        String::new()
    } else {
        format!("; of {strange} of them the registry would be asked whether they belong there")
    };
    (all > 0)
        .then(|| format!("of {all} objects that are known to belong to it, {kept} are kept{rest}"))
}
