//! What a round does, as far as that can be said without asking anybody: times, sizes, sets.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;

use entrepot_oci::{Digest, UnixSeconds};

use crate::bucket::Bounds;

/// What is used is marked so much more often than what is unused is removed.
const MARKS: u64 = 4;
/// How long it is for marks where nothing is removed for its age, but for the bucket's size.
const DEFAULT_IDLE: Duration = Duration::from_hours(90 * 24);
const HOUR: u64 = 60 * 60;
/// Where a bucket is above its bound, it is brought down to so many hundredths of that.
const FULL: u64 = 95;

impl Bounds {
    /// What was used within this time is in use: it is uploaded, and its mark is younger.
    /// `None`: everything that is kept here is uploaded, and nothing needs a mark.
    #[must_use]
    pub(super) fn window(self) -> Option<u64> {
        let idle = match (self.max_idle, self.max_size) {
            (Some(idle), _) => idle,
            (None, Some(_)) => DEFAULT_IDLE,
            (None, None) => return None,
        };
        Some(idle.as_secs() / MARKS)
    }

    /// Whether what was used at `last` is used so rarely that it goes.
    fn is_idle(self, last: UnixSeconds, now: UnixSeconds) -> bool {
        self.max_idle.is_some_and(|idle| now.0.saturating_sub(last.0) > idle.as_secs())
    }

    /// Whether what was used here at `used` counts as in use.
    #[must_use]
    pub(super) fn is_in_use(self, used: UnixSeconds, now: UnixSeconds) -> bool {
        self.window().is_none_or(|window| now.0.saturating_sub(used.0) <= window)
    }
}

/// An object in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct There {
    pub(super) size: u64,
    /// When it or its mark was last written, whichever is later.
    pub(super) last_use: UnixSeconds,
}

/// What is to become of an object in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Stays,
    /// It is used here, and the fleet has not heard of that for long.
    IsMarked,
    /// Nobody has used it for long, and nothing needs it.
    Goes,
}

/// What is to become of one that was last used here at `used`, if ever, and that a pin needs or
/// not.
#[must_use]
pub(super) fn fate(
    there: There,
    used: Option<UnixSeconds>,
    is_needed: bool,
    bounds: Bounds,
    now: UnixSeconds,
) -> Fate {
    let last_use = there.last_use.max(used.unwrap_or_default());
    let is_in_use = used.is_some_and(|used| bounds.is_in_use(used, now));
    if is_in_use && bounds.window().is_some() && !bounds.is_in_use(there.last_use, now) {
        Fate::IsMarked
    } else if !is_needed && bounds.is_idle(last_use, now) {
        Fate::Goes
    } else {
        Fate::Stays
    }
}

/// How much there is, and how much of that was last used in which hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// When what was used least lately was used.
    pub(super) oldest: Option<UnixSeconds>,
    /// Bytes that may go, by the hour of their last use. Some thousand hours.
    by_hour: BTreeMap<u64, u64>,
}

/// Where the bucket is too full: what was last used before this hour goes, and so many bytes of
/// what was used in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    hour: u64,
    in_hour: u64,
}

impl Tally {
    /// An object stays for now.
    pub(super) fn count(&mut self, there: There, is_needed: bool) {
        self.objects = self.objects.saturating_add(1);
        self.bytes = self.bytes.saturating_add(there.size);
        self.oldest = Some(self.oldest.map_or(there.last_use, |oldest| oldest.min(there.last_use)));
        if !is_needed {
            let of_hour = self.by_hour.entry(there.last_use.0 / HOUR).or_default();
            *of_hour = of_hour.saturating_add(there.size);
        }
    }

    /// An object that was counted is gone.
    pub(super) fn discount(&mut self, there: There) {
        self.objects = self.objects.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(there.size);
    }

    /// What has to go so that it is within `max_size`.
    #[must_use]
    pub(super) fn excess(&self, max_size: Option<u64>) -> Option<Excess> {
        let max_size = max_size.filter(|most| self.bytes > *most)?;
        let most = u128::from(max_size) * u128::from(FULL) / 100;
        let mut rest = self.bytes.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX));
        for (hour, bytes) in &self.by_hour {
            if *bytes >= rest {
                return Some(Excess { hour: *hour, in_hour: rest });
            }
            rest = rest.saturating_sub(*bytes);
        }
        // All that may go.
        Some(Excess { hour: u64::MAX, in_hour: 0 })
    }
}

impl Excess {
    /// Whether this object goes; of the last hour only as many as have to.
    pub(super) fn takes(&mut self, there: There) -> bool {
        match (there.last_use.0 / HOUR).cmp(&self.hour) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal if self.in_hour > 0 => {
                self.in_hour = self.in_hour.saturating_sub(there.size);
                true
            }
            _ => false,
        }
    }

    /// Whether what was last used then would go again, if it came back.
    #[must_use]
    pub(super) fn would_take(self, last_use: UnixSeconds) -> bool {
        last_use.0 / HOUR <= self.hour
    }
}

/// When objects were last used here for the sake of documents that need them, where that is later
/// than their own last use. Small and bounded: two objects in many millions may be taken for one,
/// which then stays longer.
#[derive(Debug, Default)]
pub(super) struct UsedWith {
    hours: HashMap<u64, u32>,
}

impl UsedWith {
    /// More objects than any disk's documents name.
    const MOST: usize = 4_000_000;

    /// A document that was last used at `used` needs it.
    pub(super) fn note(&mut self, digest: &Digest, used: UnixSeconds) {
        let (name, hour) = (short(digest), u32::try_from(used.0 / HOUR).unwrap_or(u32::MAX));
        if let Some(known) = self.hours.get_mut(&name) {
            *known = hour.max(*known);
        } else if self.hours.len() < Self::MOST {
            self.hours.insert(name, hour);
        }
    }

    /// When it was last used with a document, to the hour.
    #[must_use]
    pub(super) fn of(&self, digest: &Digest) -> Option<UnixSeconds> {
        self.hours.get(&short(digest)).map(|hour| UnixSeconds(u64::from(*hour) * HOUR))
    }
}

fn short(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Which names were listed, in memory that does not grow: it may say of a few that were not that
/// they were, of others in each round, and never the other way round.
#[derive(Debug)]
pub(super) struct Listed {
    words: Vec<u64>,
    keys: RandomState,
}

impl Listed {
    /// 4 MiB: of a million names, one in some thousands that are not there seems to be.
    const WORDS: usize = 512 * 1024;
    const HASHES: usize = 4;

    pub(super) fn new() -> Self {
        Self { words: vec![0; Self::WORDS], keys: RandomState::new() }
    }

    pub(super) fn add(&mut self, name: &impl Hash) {
        for (word, bit) in self.places(name) {
            self.words.get_mut(word).into_iter().for_each(|word| *word |= bit);
        }
    }

    #[must_use]
    pub(super) fn has(&self, name: &impl Hash) -> bool {
        self.places(name)
            .into_iter()
            .all(|(word, bit)| self.words.get(word).is_some_and(|word| word & bit != 0))
    }

    fn places(&self, name: &impl Hash) -> [(usize, u64); Self::HASHES] {
        let mut hash = self.keys.hash_one(name);
        std::array::from_fn(|_| {
            let word = usize::try_from(hash >> 32).unwrap_or_default() % Self::WORDS;
            let bit = 1 << (hash & 63);
            // Another one of as much chance.
            hash = self.keys.hash_one(hash);
            (word, bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;
    use proptest::prelude::*;

    const DAY: u64 = 24 * HOUR;
    const NOW: UnixSeconds = UnixSeconds(1_000 * DAY);

    fn days_ago(days: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 - days * DAY)
    }

    fn bounds(idle_days: Option<u64>, max_size: Option<u64>) -> Bounds {
        let max_idle = idle_days.map(|days| Duration::from_secs(days * DAY));
        Bounds { max_idle, max_size }
    }

    fn of(last: u64, used: Option<u64>, is_needed: bool, bounds: Bounds) -> Fate {
        let there = There { size: 1, last_use: days_ago(last) };
        fate(there, used.map(days_ago), is_needed, bounds, NOW)
    }

    #[test]
    fn what_is_idle_goes_and_what_is_used_or_pinned_stays() {
        let ninety = bounds(Some(90), None);
        assert_eq!(of(89, None, false, ninety), Fate::Stays);
        assert_eq!(of(91, None, false, ninety), Fate::Goes);
        assert_eq!(of(91, None, true, ninety), Fate::Stays, "a pin needs it");
        assert_eq!(of(91, Some(1), false, ninety), Fate::IsMarked);
        assert_eq!(of(91, Some(30), false, ninety), Fate::Stays, "it is not so long ago here");
        assert_eq!(of(10, Some(1), false, ninety), Fate::Stays, "the fleet knows");
        assert_eq!(of(23, Some(1), false, ninety), Fate::IsMarked);
        assert_eq!(of(5_000_000 / DAY, None, false, bounds(None, None)), Fate::Stays);
        assert_eq!(of(999, Some(1), false, bounds(None, None)), Fate::Stays, "no marks for nobody");
        assert_eq!(of(999, Some(1), false, bounds(None, Some(1))), Fate::IsMarked);
        assert_eq!(of(999, None, false, bounds(None, Some(1))), Fate::Stays);
    }

    #[test]
    fn a_window_of_nothing_is_no_trouble() {
        let none = bounds(Some(0), None);
        assert_eq!(of(0, None, false, none), Fate::Stays);
        assert_eq!(of(1, None, false, none), Fate::Goes);
    }

    proptest! {
        #[test]
        fn above_its_bound_a_bucket_loses_what_was_used_least_lately(
            objects in prop::collection::vec((0_u64..400, 1_u64..100, any::<bool>()), 0..60),
            max_size in 0_u64..4_000,
        ) {
            let all: Vec<_> = objects
                .into_iter()
                .map(|(hours, size, is_needed)| {
                    (There { size, last_use: UnixSeconds(hours * HOUR / 3) }, is_needed)
                })
                .collect();
            let mut tally = Tally::default();
            for (there, is_needed) in &all {
                tally.count(*there, *is_needed);
            }
            let Some(mut excess) = tally.excess(Some(max_size)) else {
                prop_assert!(tally.bytes <= max_size);
                return Ok(());
            };
            prop_assert!(tally.bytes > max_size);
            let mut left = tally.clone();
            let (mut gone, mut kept) = (Vec::new(), Vec::new());
            for (there, is_needed) in all {
                if !is_needed && excess.takes(there) {
                    left.discount(there);
                    gone.push(there);
                } else if !is_needed {
                    kept.push(there);
                }
            }
            // No more than has to, and the oldest, to the hour.
            prop_assert!(left.bytes <= max_size * 95 / 100 || kept.is_empty());
            let hour = |there: &There| there.last_use.0 / HOUR;
            if let (Some(latest), Some(oldest)) =
                (gone.iter().map(hour).max(), kept.iter().map(hour).min())
            {
                prop_assert!(latest <= oldest);
            }
        }

        #[test]
        fn nothing_that_was_listed_is_missed(names in prop::collection::vec(any::<u64>(), 0..2_000)) {
            let mut listed = Listed::new();
            for name in &names {
                listed.add(name);
            }
            prop_assert!(names.iter().all(|name| listed.has(name)));
            let wrong = (0..1_000_u64).filter(|name| !names.contains(name) && listed.has(name));
            prop_assert!(wrong.count() < 3);
        }
    }

    #[test]
    fn what_documents_need_is_used_when_they_are() {
        let digest = |n: u8| Digest::of(Algorithm::Sha256, &[n]);
        let mut used = UsedWith::default();
        used.note(&digest(1), days_ago(3));
        used.note(&digest(1), days_ago(9));
        assert_eq!(used.of(&digest(1)), Some(days_ago(3)));
        assert_eq!(used.of(&digest(2)), None);
    }
}
