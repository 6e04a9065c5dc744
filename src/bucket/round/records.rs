//! Forgetting what leads to nothing, as on disk.

use std::collections::HashMap;
use std::time::Duration;

use entrepot_oci::{Digest, Registry, RepositoryName};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{AT_ONCE, RoundError, Step, Walk};
use crate::bucket::layout::{Entry, Prefix, RecordKey};
use crate::bucket::merge::SharedTag;
use crate::bucket::{Bucket, BucketError};

/// What leads to an object that is gone is forgotten after this time.
const OF_GONE: Duration = Duration::from_hours(7 * 24);
/// What else there is of a repository of which nothing is left.
const OF_REST: Duration = Duration::from_hours(30 * 24);
/// So much is forgotten in one round at most, and so many places are looked at.
const MOST: usize = 200_000;
/// How often it is told how far it is.
const TOLD: u64 = 1_000;

type Place = (Registry, Option<RepositoryName>);

/// What there is of one repository, or of a registry.
#[derive(Default)]
struct Left {
    /// Whether anything leads to an object, or may.
    leads_on: bool,
    /// What opens nothing by itself, and is old.
    rest: Vec<RecordKey>,
}

impl Walk<'_> {
    /// Looks at every record there is, and removes those that have led nowhere for long.
    pub(super) async fn look_at_records(&mut self) -> Result<(), RoundError> {
        let mut places: HashMap<Place, Left> = HashMap::new();
        let mut doubtful: Vec<RecordKey> = Vec::new();
        let mut seen = 0;
        let bucket = &self.of.bucket;
        let mut listed = std::pin::pin!(bucket.list(&Prefix::Repositories, None));
        while let Some(item) = listed.next().await {
            let item = item?;
            let Ok(Entry::Record(key)) = item.name.parse() else { continue };
            self.records.add(&key);
            seen += 1;
            if seen % TOLD == 0 {
                self.progress(Step::Records, seen, None);
            }
            let age = self.age(item.modified);
            let Some(place) = place(&key) else { continue };
            if places.len() >= MOST && !places.contains_key(&place) {
                continue;
            }
            let is_doubtful = match &key {
                RecordKey::Content(_, _, digest) => age > OF_GONE && !self.objects.has(digest),
                RecordKey::Tag(..) => age > OF_GONE,
                _ => {
                    let left = places.entry(place).or_default();
                    if age > OF_REST {
                        left.rest.push(key);
                    } else {
                        left.leads_on = true;
                    }
                    continue;
                }
            };
            if is_doubtful && doubtful.len() < MOST {
                places.entry(place).or_default();
                doubtful.push(key);
            } else {
                places.entry(place).or_default().leads_on = true;
            }
        }
        self.progress(Step::Records, seen, Some(seen));
        self.doubt(doubtful, &mut places).await?;
        self.sweep(places).await?;
        Ok(())
    }

    /// Removes those that lead nowhere; where others are, something is left.
    async fn doubt(
        &mut self,
        doubtful: Vec<RecordKey>,
        places: &mut HashMap<Place, Left>,
    ) -> Result<(), BucketError> {
        let leading = stream::iter(doubtful.into_iter().map(|key| {
            let bucket = self.of.bucket.clone();
            async move {
                let led = leads_to(&bucket, &key).await?;
                Ok::<_, BucketError>((key, led))
            }
        }));
        let leading: Vec<_> = leading.buffer_unordered(AT_ONCE).try_collect().await?;
        // Many tags lead to objects that have just been listed.
        let (leading_on, rest): (Vec<_>, Vec<_>) = leading
            .into_iter()
            .partition(|(_, led)| led.iter().any(|digest| self.objects.has(digest)));
        for (key, _) in &leading_on {
            note_that_it_leads_on(places, key);
        }
        let removing = stream::iter(rest.into_iter().map(|(key, led)| {
            let bucket = self.of.bucket.clone();
            async move {
                let is_removed = remove_unless_there(&bucket, &key, &led).await?;
                Ok::<_, BucketError>((key, is_removed))
            }
        }));
        let mut removing = removing.buffer_unordered(AT_ONCE);
        while let Some((key, is_removed)) = removing.try_next().await? {
            if is_removed {
                self.report.removed_records += 1;
            } else {
                note_that_it_leads_on(places, &key);
            }
        }
        Ok(())
    }

    /// Removes the rest of repositories of which nothing is left, and of registries without any.
    async fn sweep(&mut self, mut places: HashMap<Place, Left>) -> Result<(), BucketError> {
        if places.len() >= MOST {
            // What was not looked at may be a repository of any of them.
            places.retain(|(_, repository), _| repository.is_some());
        }
        let in_use: Vec<Registry> = places
            .iter()
            .filter(|((_, repository), left)| repository.is_some() && left.leads_on)
            .map(|((registry, _), _)| registry.clone())
            .collect();
        for registry in in_use {
            if let Some(left) = places.get_mut(&(registry, None)) {
                left.leads_on = true;
            }
        }
        for (_, left) in places {
            if left.leads_on {
                continue;
            }
            for key in &left.rest {
                self.of.bucket.remove_record(key).await?;
                self.report.removed_records += 1;
            }
        }
        Ok(())
    }
}

fn note_that_it_leads_on(places: &mut HashMap<Place, Left>, key: &RecordKey) {
    if let Some(place) = place(key) {
        places.entry(place).or_default().leads_on = true;
    }
}

/// The objects that a record leads to; one that is forged leads nowhere.
async fn leads_to(bucket: &Bucket, key: &RecordKey) -> Result<Vec<Digest>, BucketError> {
    Ok(match key {
        RecordKey::Content(_, _, digest) => vec![*digest],
        RecordKey::Tag(..) => {
            let tag: SharedTag = bucket.record_behind(key).await?.unwrap_or_default();
            tag.digests().collect()
        }
        _ => Vec::new(),
    })
}

/// Removes a record, unless one of the objects that it leads to is there: it may have just come.
async fn remove_unless_there(
    bucket: &Bucket,
    key: &RecordKey,
    led: &[Digest],
) -> Result<bool, BucketError> {
    for digest in led {
        if bucket.has(digest).await? {
            return Ok(false);
        }
    }
    bucket.remove_record(key).await?;
    Ok(true)
}

/// Whose record it is.
fn place(key: &RecordKey) -> Option<Place> {
    match key {
        RecordKey::Content(registry, repository, _) => Some((registry.clone(), repository.clone())),
        RecordKey::Access(registry, repository)
        | RecordKey::Refused(registry, repository)
        | RecordKey::Import(registry, repository)
        | RecordKey::Tag(registry, repository, _) => {
            Some((registry.clone(), Some(repository.clone())))
        }
        RecordKey::Challenge(registry) => Some((registry.clone(), None)),
        RecordKey::Pin(_) | RecordKey::Note(_) => None,
    }
}
