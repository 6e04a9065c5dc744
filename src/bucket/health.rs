//! When the bucket is asked, and when it is left alone.
//!
//! Nobody waits twice for a bucket that is away: after one question without an answer it is left
//! alone for a while, which doubles, and is then tried by one request at a time. What it refuses is
//! left alone for itself: where nothing may be written there may be much to read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::BucketError;
use crate::metrics::{BucketOperation, Metrics};

/// How long the bucket is left alone after its first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// And no longer than this: one that is back is soon found.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Questions in a row that are left unanswered before the operator is told: one may be chance.
const SILENCES: u32 = 3;
/// How long one request keeps others from trying a bucket that was away.
const TRIAL: Duration = Duration::from_secs(5);
/// How long what is refused is not asked for: somebody has to change something first.
const REFUSED: Duration = Duration::from_mins(1);

/// How the bucket is now, for people.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    /// Whether it can be reached, and lets itself be read.
    pub is_up: bool,
    /// Whether it is of this version and under this replica's key.
    pub is_usable: bool,
    /// Since when that is so.
    pub since: SystemTime,
    /// What is wrong, if anything is.
    pub why: Option<String>,
    /// With which credential it is asked; never a secret.
    pub credentials: String,
    /// Its URL.
    pub place: String,
}

/// Lets questions through, or not; cheap to clone.
#[derive(Clone)]
pub(super) struct Breaker {
    state: Arc<Mutex<State>>,
    metrics: Metrics,
    /// Which bucket, for people.
    place: Arc<str>,
    /// With which credential.
    credentials: Arc<str>,
}

struct State {
    away: Option<Away>,
    refused: [Option<Refusal>; BucketOperation::ALL.len()],
    /// Why nothing in it is of use, if that is so.
    unusable: Option<Arc<str>>,
    since: SystemTime,
    /// As it was last shown.
    was_up: bool,
}

struct Away {
    since: SystemTime,
    until: Instant,
    failures: u32,
    /// Since when a request tries it.
    tried: Option<Instant>,
    reason: Arc<str>,
    /// Whether the operator has been told.
    is_told: bool,
}

struct Refusal {
    until: Instant,
    reason: Arc<str>,
}

/// The right to ask.
pub(super) struct Admission {
    breaker: Breaker,
    operation: BucketOperation,
    is_trial: bool,
}

impl Breaker {
    pub(super) fn new(place: &str, credentials: &str, metrics: Metrics) -> Self {
        let state = State {
            away: None,
            refused: Default::default(),
            unusable: None,
            since: SystemTime::now(),
            was_up: false,
        };
        metrics.bucket().begin();
        let state = Arc::new(Mutex::new(state));
        Self { state, metrics, place: place.into(), credentials: credentials.into() }
    }

    /// The right to ask for this, or why not.
    pub(super) fn admit(&self, operation: BucketOperation) -> Result<Admission, BucketError> {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal(operation)
            && Instant::now() < refusal.until
        {
            return Err(BucketError::LeftAlone(refusal.reason.clone()));
        }
        let is_trial = match &mut state.away {
            None => false,
            Some(away)
                if away.until <= Instant::now()
                    && away.tried.is_none_or(|since| since.elapsed() >= TRIAL) =>
            {
                away.tried = Some(Instant::now());
                true
            }
            Some(away) => return Err(BucketError::LeftAlone(away.reason.clone())),
        };
        Ok(Admission { breaker: self.clone(), operation, is_trial })
    }

    /// Says whether what lies there is of use; if not, why.
    pub(super) fn judge(&self, unusable: Option<&str>) {
        let mut state = self.state.lock();
        if state.unusable.as_deref() != unusable {
            let bucket = &*self.place;
            if let Some(reason) = unusable {
                tracing::error!(bucket, reason, "the bucket is not used");
            } else {
                tracing::info!(bucket, "the bucket is used again");
            }
            state.since = SystemTime::now();
        }
        state.unusable = unusable.map(Arc::from);
        self.metrics.bucket().set_usable(unusable.is_none());
        self.show(&mut state);
    }

    /// Why nothing that lies there is of use, if that is so.
    pub(super) fn verdict(&self) -> Result<(), BucketError> {
        let unusable = self.state.lock().unusable.clone();
        unusable.map_or(Ok(()), |reason| Err(BucketError::Unusable(reason)))
    }

    /// When the bucket may be tried next; `None`: at any time.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let state = self.state.lock();
        let away = state.away.as_ref().map(|away| away.until);
        let refused = state.refusal(BucketOperation::Get).map(|refusal| refusal.until);
        away.max(refused)
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state.lock();
        let refused = state.refusal(BucketOperation::Get).map(|refusal| &refusal.reason);
        let away = state.away.as_ref().filter(|away| away.is_told).map(|away| &away.reason);
        let others = || state.refused.iter().flatten().map(|refusal| &refusal.reason).next();
        let why = away.or(refused).or(state.unusable.as_ref()).or_else(others);
        Health {
            is_up: state.was_up,
            is_usable: state.unusable.is_none(),
            since: state.away.as_ref().filter(|away| away.is_told).map_or(state.since, |a| a.since),
            why: why.map(ToString::to_string),
            credentials: self.credentials.to_string(),
            place: self.place.to_string(),
        }
    }

    /// Shows what has changed.
    fn show(&self, state: &mut State) {
        let is_up = state.away.as_ref().is_none_or(|away| !away.is_told)
            && state.refusal(BucketOperation::Get).is_none();
        if is_up != state.was_up {
            (state.was_up, state.since) = (is_up, SystemTime::now());
        }
        // Whoever looks at one figure alone is to see that it is of no use.
        self.metrics.bucket().set_up(is_up && state.unusable.is_none());
    }
}

/// What is refused together.
fn class(operation: BucketOperation) -> usize {
    match operation {
        BucketOperation::Head => BucketOperation::Get as usize,
        other => other as usize,
    }
}

impl State {
    fn refusal(&self, operation: BucketOperation) -> Option<&Refusal> {
        self.refused.get(class(operation))?.as_ref()
    }

    fn set_refusal(&mut self, operation: BucketOperation, refusal: Option<Refusal>) {
        if let Some(place) = self.refused.get_mut(class(operation)) {
            *place = refusal;
        }
    }
}

impl Admission {
    /// Notes how the question ended, which is returned.
    pub(super) fn end<T>(self, result: Result<T, BucketError>) -> Result<T, BucketError> {
        let mut state = self.breaker.state.lock();
        match &result {
            Err(
                error @ (BucketError::Unreachable(_)
                | BucketError::Silent(_)
                | BucketError::Broken(_)),
            ) => self.note_away(&mut state, error),
            // It is not the bucket's fault.
            Err(
                BucketError::LeftAlone(_)
                | BucketError::Unusable(_)
                | BucketError::Source(_)
                | BucketError::Record(_),
            ) => {}
            Err(error @ BucketError::Refused(_)) => {
                self.note_back(&mut state);
                self.note_refused(&mut state, error);
            }
            Err(BucketError::Busy(_) | BucketError::Failed(_)) => self.note_back(&mut state),
            Ok(_) => {
                self.note_back(&mut state);
                if state.refusal(self.operation).is_some() {
                    let (bucket, operation) = (&*self.breaker.place, self.operation.label());
                    tracing::info!(bucket, operation, "the bucket does not refuse this any more");
                    state.set_refusal(self.operation, None);
                }
            }
        }
        self.breaker.show(&mut state);
        drop(state);
        result
    }

    fn note_away(&self, state: &mut State, error: &BucketError) {
        let reason: Arc<str> = error.to_string().into();
        let now = Instant::now();
        let away = state.away.get_or_insert_with(|| Away {
            since: SystemTime::now(),
            until: now,
            failures: 0,
            tried: None,
            reason: reason.clone(),
            is_told: false,
        });
        // Questions that were under way when the first failed say nothing new.
        if self.is_trial || away.failures == 0 {
            away.failures = away.failures.saturating_add(1);
            let doubled = FIRST_PAUSE * 2u32.saturating_pow((away.failures - 1).min(8));
            (away.until, away.tried) = (now + doubled.min(LONGEST_PAUSE), None);
        }
        if !away.is_told && (error.is_unreachable() || away.failures >= SILENCES) {
            let bucket = &*self.breaker.place;
            tracing::warn!(bucket, error = &*reason, "the bucket is away: pulls go on without it");
            away.is_told = true;
        }
        away.reason = reason;
    }

    fn note_back(&self, state: &mut State) {
        if let Some(away) = state.away.take()
            && away.is_told
        {
            let lasting = away.since.elapsed().unwrap_or_default().as_secs();
            let bucket = &*self.breaker.place;
            tracing::info!(bucket, after_secs = lasting, "the bucket answers again");
        }
    }

    fn note_refused(&self, state: &mut State, error: &BucketError) {
        let reason: Arc<str> = error.to_string().into();
        let is_news = state.refusal(self.operation).is_none();
        if is_news {
            let Breaker { place, credentials, .. } = &self.breaker;
            tracing::error!(
                bucket = &**place,
                operation = self.operation.label(),
                credential = &**credentials,
                error = &*reason,
                "the bucket refuses: pulls go on without it"
            );
        }
        let until = Instant::now() + REFUSED;
        state.set_refusal(self.operation, Some(Refusal { until, reason }));
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.is_trial
            && let Some(away) = &mut self.breaker.state.lock().away
        {
            away.tried = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new("s3://b", "none", Metrics::default())
    }

    fn ask(breaker: &Breaker, result: Result<(), BucketError>) -> Result<(), BucketError> {
        breaker.admit(BucketOperation::Get)?.end(result)
    }

    fn away() -> Result<(), BucketError> {
        Err(BucketError::Unreachable("x".to_owned()))
    }

    fn is_left_alone(result: &Result<(), BucketError>) -> bool {
        matches!(result, Err(BucketError::LeftAlone(_)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_is_away_is_tried_by_one_at_a_time_and_ever_more_rarely() {
        let breaker = breaker();
        ask(&breaker, Ok(())).unwrap();
        assert!(breaker.health().is_up);
        ask(&breaker, away()).unwrap_err();
        assert!(!breaker.health().is_up);
        for pause in [2, 4, 8, 16, 30, 30] {
            assert!(is_left_alone(&ask(&breaker, Ok(()))));
            tokio::time::advance(Duration::from_millis(pause * 1000 - 1)).await;
            assert!(is_left_alone(&ask(&breaker, Ok(()))), "{pause}");
            tokio::time::advance(Duration::from_millis(1)).await;
            let trial = breaker.admit(BucketOperation::Get).unwrap();
            assert!(is_left_alone(&ask(&breaker, Ok(()))), "somebody tries it");
            trial.end(away()).unwrap_err();
        }
        tokio::time::advance(LONGEST_PAUSE).await;
        drop(breaker.admit(BucketOperation::Get).unwrap());
        ask(&breaker, Ok(())).unwrap();
        let health = breaker.health();
        assert!(health.is_up && health.why.is_none());
        ask(&breaker, Ok(())).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_silence_is_enough_to_be_left_alone_and_three_to_be_told_of() {
        let breaker = breaker();
        ask(&breaker, Ok(())).unwrap();
        let silence = || Err(BucketError::Silent(Duration::from_secs(3)));
        for said in [true, true, false] {
            ask(&breaker, silence()).unwrap_err();
            assert!(is_left_alone(&ask(&breaker, Ok(()))));
            assert_eq!(breaker.health().is_up, said);
            tokio::time::advance(LONGEST_PAUSE).await;
        }
        ask(&breaker, Ok(())).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_fail_at_once_are_one_failure() {
        let breaker = breaker();
        let all: Vec<_> = (0..20).map(|_| breaker.admit(BucketOperation::Get).unwrap()).collect();
        for one in all {
            one.end(away()).unwrap_err();
        }
        tokio::time::advance(FIRST_PAUSE).await;
        ask(&breaker, Ok(())).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_left_alone_for_itself() {
        let breaker = breaker();
        let put = || breaker.admit(BucketOperation::Put);
        let refused = || Err::<(), _>(BucketError::Refused("403".to_owned()));
        ask(&breaker, Ok(())).unwrap();
        put().unwrap().end(refused()).unwrap_err();
        assert!(matches!(put(), Err(BucketError::LeftAlone(_))));
        ask(&breaker, Ok(())).unwrap();
        let health = breaker.health();
        assert!(health.is_up, "it can be read");
        assert!(health.why.unwrap().contains("403"));
        tokio::time::advance(REFUSED).await;
        put().unwrap().end(Ok(())).unwrap();
        assert!(breaker.health().why.is_none());

        breaker.admit(BucketOperation::Head).unwrap().end(refused()).unwrap_err();
        assert!(is_left_alone(&ask(&breaker, Ok(()))), "reading is reading");
        assert!(!breaker.health().is_up);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_busy_or_unwell_is_asked_on() {
        let breaker = breaker();
        for _ in 0..10 {
            ask(&breaker, Err(BucketError::Busy("503".to_owned()))).unwrap_err();
            ask(&breaker, Err(BucketError::Failed("500".to_owned()))).unwrap_err();
        }
        assert!(breaker.health().is_up);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_of_no_use_says_why() {
        let breaker = breaker();
        breaker.judge(Some("another key"));
        let error = breaker.verdict().unwrap_err();
        assert_eq!(error.to_string(), "another key");
        assert!(!breaker.health().is_usable);
        breaker.judge(None);
        breaker.verdict().unwrap();
    }
}
