//! What two replicas know of one thing, made one.
//!
//! Records are written without asking whether another replica writes the same one: each rule here
//! gives the same result in whichever order replicas come, and however often, and none opens what
//! was closed.

use entrepot_cache::ContentRecord;
use entrepot_oci::{Digest, UnixSeconds};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Variants of one tag that a record has at most, as on disk.
const MOST_VARIANTS: usize = 16;
/// A shared record that is older than this is put again with what is known now.
const STALE_TAG: u64 = 60 * 60;
const STALE_CONTENT: u64 = 24 * 60 * 60;
/// As `STALE_TAG`, for when the shared identity was last served: it matters for outages alone.
const STALE_ACCESS: u64 = 24 * 60 * 60;
/// So much later than a refusal must somebody have been served to be served again unasked: the
/// clocks of two replicas may differ.
const CLOCKS: u64 = 60;

/// `_contents`: that a registry has an object, as on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedContent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) recorded: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imported: Option<UnixSeconds>,
}

impl From<&ContentRecord> for SharedContent {
    fn from(record: &ContentRecord) -> Self {
        Self {
            media_type: record.media_type.as_deref().map(str::to_owned),
            recorded: record.recorded.into(),
            imported: record.imported.map(UnixSeconds::from),
        }
    }
}

impl SharedContent {
    /// What both say: an object was last confirmed when either saw that. Where they call it
    /// differently one of the names stays, always the same.
    #[must_use]
    pub(crate) fn merged(self, other: Self) -> Self {
        Self {
            media_type: self.media_type.max(other.media_type),
            recorded: self.recorded.max(other.recorded),
            imported: self.imported.max(other.imported),
        }
    }

    /// Whether it is worth writing in place of what is there.
    #[must_use]
    pub(crate) fn is_news_to(&self, there: &Self) -> bool {
        self.media_type != there.media_type
            || self.imported != there.imported
            || self.recorded.0 > there.recorded.0.saturating_add(STALE_CONTENT)
    }
}

/// `_access`: when the shared identity was last served, and who that was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SharedAccess {
    pub(crate) served: UnixSeconds,
    #[serde(default)]
    pub(crate) who: String,
}

impl SharedAccess {
    /// The later one.
    #[must_use]
    pub(crate) fn merged(self, other: Self) -> Self {
        self.max(other)
    }

    /// Whether it is worth writing in place of what is there. One that lies in the future counts as
    /// none to whoever reads it, and so it does here.
    #[must_use]
    pub(crate) fn is_news_to(&self, there: &Self, now: UnixSeconds) -> bool {
        there.served > now
            || self.served.0 > there.served.0.saturating_add(STALE_ACCESS)
            || (self.who != there.who && self.served > there.served)
    }
}

/// `_refused`: when the registry last refused the shared identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SharedRefusal {
    pub(crate) refused: UnixSeconds,
}

impl SharedRefusal {
    /// The later one.
    #[cfg(test)]
    pub(crate) fn merged(self, other: Self) -> Self {
        self.max(other)
    }

    /// Whether what was served at `served` was so after this, whichever replica's clock is wrong.
    #[must_use]
    pub(crate) fn is_over_by(self, served: UnixSeconds) -> bool {
        served.0 > self.refused.0.saturating_add(CLOCKS)
    }
}

/// For how long the shared identity `who` has been served no more, if what replicas have seen opens
/// anything to it at all. What lies in the future counts as none.
#[must_use]
pub(crate) fn open_since(
    seen: impl IntoIterator<Item = SharedAccess>,
    refusal: Option<SharedRefusal>,
    who: &str,
    now: UnixSeconds,
) -> Option<Duration> {
    let seen = seen.into_iter().filter(|access| access.who == who && access.served <= now);
    let SharedAccess { served, .. } = seen.reduce(SharedAccess::merged)?;
    let is_open = refusal.is_none_or(|refusal| refusal.is_over_by(served));
    is_open.then(|| Duration::from_secs(now.0.saturating_sub(served.0)))
}

/// `_tags/<tag>`: what a tag stands for, as on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedTag {
    #[serde(default)]
    pub(crate) variants: Vec<SharedVariant>,
}

/// What it stands for to clients that take certain media types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SharedVariant {
    // First: the later one is the greater.
    pub(crate) asked: UnixSeconds,
    pub(crate) digest: String,
    pub(crate) accept: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
}

impl SharedTag {
    /// The later word on each variant; those that were asked about last, if there are too many.
    #[must_use]
    pub(crate) fn merged(self, other: Self) -> Self {
        let mut all = [self.variants, other.variants].concat();
        all.sort_unstable_by(|one, other| other.cmp(one));
        let mut variants: Vec<SharedVariant> = Vec::new();
        for variant in all {
            if variants.iter().all(|known| known.accept != variant.accept) {
                variants.push(variant);
            }
        }
        variants.truncate(MOST_VARIANTS);
        Self { variants }
    }

    /// Without what was said up to then.
    #[must_use]
    pub(crate) fn after(mut self, then: UnixSeconds) -> Self {
        self.variants.retain(|variant| variant.asked > then);
        self
    }

    /// Only what it says to clients to whom `other` says something.
    #[must_use]
    pub(crate) fn of_clients_of(mut self, other: &Self) -> Self {
        let is_known = |accept: &str| other.variants.iter().any(|known| known.accept == accept);
        self.variants.retain(|variant| is_known(&variant.accept));
        self
    }

    /// All that it leads to.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.variants.iter().filter_map(|variant| variant.digest.parse().ok())
    }

    /// Whether it is worth writing in place of what is there: a tag's meaning has changed for some
    /// client, or what is there is old.
    #[must_use]
    pub(crate) fn is_news_to(&self, there: &Self) -> bool {
        let is_told = |variant: &SharedVariant| {
            there.variants.iter().any(|known| {
                known.accept == variant.accept
                    && known.digest == variant.digest
                    && variant.asked.0 <= known.asked.0.saturating_add(STALE_TAG)
            })
        };
        !self.variants.iter().all(is_told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds() -> impl Strategy<Value = UnixSeconds> {
        prop_oneof![0_u64..6, 90_000_u64..90_006, Just(u64::MAX)].prop_map(UnixSeconds)
    }

    fn contents() -> impl Strategy<Value = SharedContent> {
        (prop::option::of("[ab]"), seconds(), prop::option::of(seconds())).prop_map(
            |(media_type, recorded, imported)| SharedContent { media_type, recorded, imported },
        )
    }

    fn accesses() -> impl Strategy<Value = SharedAccess> {
        (seconds(), "[ab]?").prop_map(|(served, who)| SharedAccess { served, who })
    }

    fn refusals() -> impl Strategy<Value = SharedRefusal> {
        seconds().prop_map(|refused| SharedRefusal { refused })
    }

    fn tags() -> impl Strategy<Value = SharedTag> {
        let variant = (seconds(), "[xy]", "[a-d]", prop::option::of(0_u64..3));
        let variant = variant.prop_map(|(asked, digest, accept, size)| SharedVariant {
            asked,
            digest,
            accept,
            media_type: None,
            size,
        });
        // As merging leaves them: what else writes records keeps to that, too.
        prop::collection::vec(variant, 0..6)
            .prop_map(|variants| SharedTag { variants }.merged(SharedTag::default()))
    }

    proptest! {
        #[test]
        fn it_does_not_matter_who_comes_first_or_how_often(
            (a, b, c) in (contents(), contents(), contents()),
            (d, e, f) in (accesses(), accesses(), accesses()),
            (g, h, i) in (refusals(), refusals(), refusals()),
            (k, l, m) in (tags(), tags(), tags()),
        ) {
            macro_rules! check {
                ($a:ident, $b:ident, $c:ident) => {
                    prop_assert_eq!($a.clone().merged($b.clone()), $b.clone().merged($a.clone()));
                    prop_assert_eq!($a.clone().merged($a.clone()), $a.clone());
                    prop_assert_eq!(
                        $a.clone().merged($b.clone()).merged($c.clone()),
                        $a.clone().merged($b.clone().merged($c.clone()))
                    );
                };
            }
            check!(a, b, c);
            check!(d, e, f);
            check!(g, h, i);
            check!(k, l, m);
        }

        #[test]
        fn no_merge_opens_what_was_closed(
            (a, b) in (accesses(), accesses()),
            (r, s) in (refusals(), refusals()),
            who in "[ab]?",
            now in seconds(),
        ) {
            let open = |access: &SharedAccess, refusal: Option<SharedRefusal>| {
                open_since(Some(access.clone()), refusal, &who, now)
            };
            let (both, refused) = (a.clone().merged(b.clone()), r.merged(s));
            if open(&both, Some(refused)).is_some() {
                let was_open = open(&a, Some(refused)).or(open(&b, Some(refused)));
                prop_assert!(was_open.is_some());
                prop_assert!(open(&both, Some(r)).is_some() && open(&both, None).is_some());
            }
        }

        #[test]
        fn a_tag_stands_for_nothing_that_neither_replica_has_heard(a in tags(), b in tags()) {
            let merged = a.clone().merged(b.clone());
            for variant in &merged.variants {
                prop_assert!(a.variants.contains(variant) || b.variants.contains(variant));
                let same = |one: &&SharedVariant| one.accept == variant.accept;
                let all = a.variants.iter().chain(&b.variants).filter(same);
                prop_assert_eq!(all.map(|one| one.asked).max(), Some(variant.asked));
            }
            // What was merged has nothing new to tell.
            prop_assert!(!merged.is_news_to(&merged));
        }
    }

    #[test]
    fn a_record_is_the_one_on_disk() {
        let text = r#"{"variants":[{"accept":"a/a","digest":"x","asked":5}]}"#;
        let tag: SharedTag = serde_json::from_str(text).unwrap();
        assert_eq!(tag.variants[0].asked, UnixSeconds(5));
        assert_eq!(tag.clone().after(UnixSeconds(5)), SharedTag::default());
        assert_eq!(tag.clone().after(UnixSeconds(4)), tag);
    }

    #[test]
    fn a_clock_that_is_wrong_closes_nothing() {
        let served = |at| SharedAccess { served: UnixSeconds(at), who: "a".to_owned() };
        let open = |seen: &[u64]| {
            open_since(seen.iter().map(|at| served(*at)), None, "a", UnixSeconds(100))
        };
        assert_eq!(open(&[70, 200, 60]), Some(Duration::from_secs(30)));
        assert_eq!(open(&[200]), None);
        assert_eq!(open(&[]), None);
    }

    #[test]
    fn only_news_is_written() {
        let at = |asked, digest: &str| SharedTag {
            variants: vec![SharedVariant {
                asked: UnixSeconds(asked),
                digest: digest.to_owned(),
                accept: String::new(),
                media_type: None,
                size: None,
            }],
        };
        assert!(!at(5, "x").is_news_to(&at(1, "x")));
        assert!(at(5, "y").is_news_to(&at(1, "x")), "it stands for something else");
        assert!(at(3_700, "x").is_news_to(&at(1, "x")), "an hour later");
        assert!(at(5, "x").is_news_to(&SharedTag::default()));
        let served = |at, who: &str| SharedAccess { served: UnixSeconds(at), who: who.to_owned() };
        let now = UnixSeconds(100_000);
        assert!(!served(80_000, "a").is_news_to(&served(1, "a"), now));
        assert!(served(90_000, "a").is_news_to(&served(1, "a"), now));
        assert!(served(80_000, "b").is_news_to(&served(1, "a"), now));
        assert!(served(80_000, "a").is_news_to(&served(200_000, "a"), now), "a wrong clock");
    }
}
