//! Hosts that could not be reached: not asked again for some seconds, then by one request at a
//! time.
//!
//! A pull of an image asks dozens of times. Without this each would wait for the same silence. But
//! a question that a registry never answers is easily found, and whoever asks it must not keep
//! others from asking theirs: a host is away when it leaves the easiest one unanswered, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::Authority;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::UpstreamError;

/// How long a host is left alone after its first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// And no longer than this: a registry that is back is soon found.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Questions in a row that a host leaves unanswered before it counts as unreachable: one may be
/// hard.
const SILENCES: u32 = 3;
/// How long one request keeps others from trying a host that was unreachable.
const TRIAL: Duration = Duration::from_secs(5);
/// How long a host that is not asked any more counts as unreachable once it might be tried again.
const STILL: Duration = Duration::from_mins(1);
/// Hosts remembered at a time. Beyond it the oldest failure is forgotten: it costs one more try.
const MOST: usize = 1000;

/// The hosts that can't be reached now; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Breakers(Arc<Mutex<Hosts>>);

#[derive(Default)]
struct Hosts {
    broken: HashMap<Authority, Broken>,
    /// Hosts that have left questions unanswered, and how many since their last answer.
    silent: HashMap<Authority, u32>,
}

struct Broken {
    /// When it failed first.
    since: Instant,
    until: Instant,
    failures: u32,
    /// Since when a request tries it.
    tried: Option<Instant>,
    reason: Arc<UpstreamError>,
}

/// One host that can't be reached, for people.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    /// Which.
    pub authority: Authority,
    /// For how long.
    pub lasting: Duration,
    /// How long until it is tried again; none if that is due.
    pub next_try: Duration,
    /// Why, as the last failure said.
    pub reason: String,
}

/// The right to send a request.
pub(super) struct Admission {
    breakers: Breakers,
    authority: Authority,
    is_trial: bool,
}

impl Breakers {
    /// The right to ask `authority`, or what is known of its failure.
    pub(super) fn admit(&self, authority: &Authority) -> Result<Admission, UpstreamError> {
        let mut hosts = self.0.lock();
        let is_trial = match hosts.broken.get_mut(authority) {
            None => false,
            Some(entry)
                if entry.until <= Instant::now()
                    && entry.tried.is_none_or(|since| since.elapsed() >= TRIAL) =>
            {
                entry.tried = Some(Instant::now());
                true
            }
            Some(entry) => {
                return Err(UpstreamError::Unreachable {
                    authority: authority.clone(),
                    lasting: entry.since.elapsed(),
                    reason: entry.reason.clone(),
                });
            }
        };
        Ok(Admission { breakers: self.clone(), authority: authority.clone(), is_trial })
    }

    /// What can't be reached now, as far as somebody has lately tried.
    pub(super) fn outages(&self) -> Vec<Outage> {
        let now = Instant::now();
        let outage = |(authority, broken): (&Authority, &Broken)| Outage {
            authority: authority.clone(),
            lasting: broken.since.elapsed(),
            next_try: broken.until.saturating_duration_since(now),
            reason: broken.reason.to_string(),
        };
        let hosts = self.0.lock();
        hosts.broken.iter().filter(|(_, one)| now < one.until + STILL).map(outage).collect()
    }
}

impl Admission {
    /// Notes how the request ended: with an answer, whatever it says, or with a failure.
    ///
    /// Returns the failure, to be shown.
    pub(super) fn end<T>(self, result: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        match result {
            Err(error) if error.is_silence() && !self.note_silence() => Err(error),
            Err(error) if error.is_unreachable() => {
                let error = Arc::new(error);
                self.note(error.clone());
                Err(UpstreamError::Shared(error))
            }
            other => {
                let mut hosts = self.breakers.0.lock();
                hosts.broken.remove(&self.authority);
                hosts.silent.remove(&self.authority);
                other
            }
        }
    }

    /// Whether one more question that is left unanswered would be one too many.
    pub(super) fn is_in_doubt(&self) -> bool {
        let hosts = self.breakers.0.lock();
        let silences = hosts.silent.get(&self.authority).copied().unwrap_or_default();
        hosts.broken.contains_key(&self.authority) || silences.saturating_add(1) >= SILENCES
    }

    /// Counts a question that was left unanswered. Whether that is one too many.
    fn note_silence(&self) -> bool {
        let mut hosts = self.breakers.0.lock();
        if hosts.silent.len() >= MOST && !hosts.silent.contains_key(&self.authority) {
            hosts.silent.clear();
        }
        let is_broken = hosts.broken.contains_key(&self.authority);
        let silences = hosts.silent.entry(self.authority.clone()).or_default();
        *silences = silences.saturating_add(1);
        is_broken || *silences >= SILENCES
    }

    fn note(&self, reason: Arc<UpstreamError>) {
        let broken = &mut self.breakers.0.lock().broken;
        let now = Instant::now();
        if broken.len() >= MOST && !broken.contains_key(&self.authority) {
            let oldest = broken.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(oldest) = oldest.map(|(authority, _)| authority.clone()) {
                broken.remove(&oldest);
            }
        }
        let entry = broken.entry(self.authority.clone()).or_insert_with(|| {
            tracing::warn!(authority = %self.authority, error = %reason, "unreachable");
            Broken { since: now, until: now, failures: 0, tried: None, reason: reason.clone() }
        });
        // Requests that were under way when the first failed say nothing new.
        if self.is_trial || entry.failures == 0 {
            entry.failures += 1;
            let doubled = FIRST_PAUSE * 2u32.saturating_pow((entry.failures - 1).min(8));
            entry.until = now + doubled.min(LONGEST_PAUSE);
        }
        entry.reason = reason;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.is_trial
            && let Some(entry) = self.breakers.0.lock().broken.get_mut(&self.authority)
        {
            entry.tried = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::DialError;

    fn host() -> Authority {
        "ghcr.io:443".parse().unwrap()
    }

    fn failure() -> Result<(), UpstreamError> {
        let after = Duration::from_secs(1);
        Err(DialError::Timeout { authority: host(), after }.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_hard_question_is_not_a_host_that_is_away() {
        let breakers = Breakers::default();
        let after = Duration::from_secs(1);
        let silence = || Err::<(), _>(UpstreamError::HeaderTimeout { authority: host(), after });
        for _ in 0..3 {
            for _ in 1..SILENCES {
                breakers.admit(&host()).unwrap().end(silence()).unwrap_err();
            }
            breakers.admit(&host()).unwrap().end(Ok(())).unwrap();
        }
        for _ in 0..SILENCES {
            breakers.admit(&host()).unwrap().end(silence()).unwrap_err();
        }
        assert!(breakers.admit(&host()).is_err(), "three in a row");
        tokio::time::advance(FIRST_PAUSE).await;
        breakers.admit(&host()).unwrap().end(silence()).unwrap_err();
        assert!(breakers.admit(&host()).is_err(), "and the trial as well");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_left_alone_and_then_tried_by_one() {
        let breakers = Breakers::default();
        let admit = || breakers.admit(&host());
        admit().unwrap().end(failure()).unwrap_err();
        let Err(UpstreamError::Unreachable { lasting, .. }) = admit() else { panic!("admitted") };
        assert_eq!(lasting, Duration::ZERO);
        assert_eq!(breakers.outages().len(), 1);

        tokio::time::advance(FIRST_PAUSE).await;
        assert_eq!(breakers.outages().len(), 1);
        tokio::time::advance(STILL).await;
        assert!(breakers.outages().is_empty(), "nobody knows any more");
        let trial = admit().unwrap();
        assert!(admit().is_err(), "one at a time");
        tokio::time::advance(TRIAL).await;
        drop(admit().unwrap());
        drop(trial);
        let trial = admit().unwrap();
        trial.end(failure()).unwrap_err();
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(admit().is_err(), "the pause has doubled");
        tokio::time::advance(FIRST_PAUSE).await;
        admit().unwrap().end(Ok(())).unwrap();
        assert!(breakers.outages().is_empty());
        let (one, other) = (admit(), admit());
        assert!(one.is_ok() && other.is_ok(), "as if nothing had been");
    }

    #[tokio::test(start_paused = true)]
    async fn other_hosts_and_other_failures_are_none_of_it() {
        let breakers = Breakers::default();
        breakers.admit(&host()).unwrap().end(failure()).unwrap_err();
        assert!(breakers.admit(&"quay.io:443".parse().unwrap()).is_ok());
        let other = "quay.io:443".parse().unwrap();
        let broken = UpstreamError::Exchange { authority: other, reason: "reset".to_owned() };
        let other = "quay.io:443".parse().unwrap();
        breakers.admit(&other).unwrap().end(Err::<(), _>(broken)).unwrap_err();
        assert!(breakers.admit(&other).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn many_failures_at_once_count_once() {
        let breakers = Breakers::default();
        let admissions: Vec<_> = (0..20).map(|_| breakers.admit(&host()).unwrap()).collect();
        for admission in admissions {
            admission.end(failure()).unwrap_err();
        }
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(breakers.admit(&host()).is_ok());
    }
}
