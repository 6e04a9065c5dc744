//! What the bucket has not, as far as it was asked a moment ago.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::layout::RecordKey;

/// How long it is believed that a record is not there.
const BELIEVED: Duration = Duration::from_secs(10);
/// Records of which that is known at a time: names are strangers' choice. Beyond it all are
/// forgotten, which costs a question each.
const MOST: usize = 10_000;

/// Records that are not there.
#[derive(Default)]
pub(super) struct Absences(Mutex<HashMap<RecordKey, Instant>>);

impl Absences {
    /// Whether it is known of a record that it is not there.
    pub(super) fn has(&self, key: &RecordKey) -> bool {
        self.0.lock().get(key).is_some_and(|since| since.elapsed() < BELIEVED)
    }

    /// It was not there when the bucket was asked at `asked`.
    pub(super) fn note(&self, key: &RecordKey, asked: Instant) {
        let mut absent = self.0.lock();
        if absent.len() >= MOST && !absent.contains_key(key) {
            absent.retain(|_, since| since.elapsed() < BELIEVED);
            if absent.len() >= MOST {
                absent.clear();
            }
        }
        absent.insert(key.clone(), asked);
    }

    /// It is there now.
    pub(super) fn forget(&self, key: &RecordKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::{Algorithm, Digest};

    fn key(number: usize) -> RecordKey {
        RecordKey::Pin(Digest::of(Algorithm::Sha256, &number.to_be_bytes()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_absence_is_believed_for_ten_seconds() {
        let absences = Absences::default();
        assert!(!absences.has(&key(0)));
        absences.note(&key(0), Instant::now());
        tokio::time::advance(BELIEVED / 2).await;
        assert!(absences.has(&key(0)));
        tokio::time::advance(BELIEVED / 2).await;
        assert!(!absences.has(&key(0)));
        absences.note(&key(0), Instant::now());
        absences.forget(&key(0));
        assert!(!absences.has(&key(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_and_no_more_are_known() {
        let absences = Absences::default();
        for number in 0..3 * MOST {
            absences.note(&key(number), Instant::now());
            assert!(absences.has(&key(number)));
        }
        assert!(absences.0.lock().len() <= MOST);
    }
}
