//! How far all the images of a pull are, taken together.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::output::lasting;
use crate::log::bytes;

/// Over how long the speed is measured.
const WINDOW: Duration = Duration::from_secs(5);

/// What has come, and what is known to be coming.
#[derive(Debug)]
pub(super) struct Total {
    started: Instant,
    /// Images that are wanted.
    wanted: usize,
    here: usize,
    failed: Vec<String>,
    /// What each blob has, and what it will have: one that several images need counts once.
    blobs: HashMap<String, (u64, u64)>,
    /// All the images that are here, and what of them came now.
    kept_bytes: u64,
    fetched_bytes: u64,
    /// What had come at some moments within the window.
    seen: Vec<(Instant, u64)>,
}

impl Total {
    pub(super) fn new(wanted: usize, now: Instant) -> Self {
        Self {
            started: now,
            wanted,
            here: 0,
            failed: Vec::new(),
            blobs: HashMap::new(),
            kept_bytes: 0,
            fetched_bytes: 0,
            seen: vec![(now, 0)],
        }
    }

    /// Whether there is more than one image.
    pub(super) fn is_of_several(&self) -> bool {
        self.wanted > 1
    }

    /// A blob that is coming, or is here already.
    pub(super) fn expect(&mut self, digest: &str, total: u64) {
        self.blobs.entry(digest.to_owned()).or_insert((0, total));
    }

    /// So much of it has come now.
    pub(super) fn advance(&mut self, digest: &str, bytes: u64, now: Instant) {
        if let Some((come, _)) = self.blobs.get_mut(digest) {
            *come = (*come).max(bytes);
        }
        let come = self.come();
        self.seen.retain(|(at, _)| now.duration_since(*at) <= WINDOW);
        self.seen.push((now, come));
    }

    /// It was here before: nothing of it has to come.
    pub(super) fn was_kept(&mut self, digest: &str) {
        // For another image it may have come just now.
        if self.blobs.get(digest).is_some_and(|(come, _)| *come == 0) {
            self.blobs.remove(digest);
        }
    }

    pub(super) fn image_is_here(&mut self, bytes: u64, fetched: u64) {
        self.here += 1;
        self.kept_bytes += bytes;
        self.fetched_bytes += fetched;
    }

    pub(super) fn image_failed(&mut self, image: String) {
        self.failed.push(image);
    }

    pub(super) fn come(&self) -> u64 {
        self.blobs.values().map(|(come, _)| come).sum()
    }

    pub(super) fn expected(&self) -> u64 {
        self.blobs.values().map(|(_, total)| total).sum()
    }

    /// Bytes a second, over the last moments.
    fn speed(&self, now: Instant) -> Option<u64> {
        let (since, before) = self.seen.first()?;
        let millis = u64::try_from(now.duration_since(*since).as_millis()).ok()?;
        let come = self.come().saturating_sub(*before);
        come.saturating_mul(1000).checked_div(millis).filter(|speed| *speed > 0)
    }

    /// `2 of 5 images, 45.0 MB of 138 MB, 12 MB/s, 8s left`.
    pub(super) fn line(&self, now: Instant) -> String {
        let (come, expected) = (self.come(), self.expected());
        let speed = self.speed(now).filter(|_| come < expected);
        let left = speed.map(|speed| {
            let secs = (expected - come).div_ceil(speed);
            format!(", {}/s, {} left", bytes(speed), lasting(secs))
        });
        let images = if self.is_of_several() {
            let done = self.here + self.failed.len();
            format!("{done} of {} images, ", self.wanted)
        } else {
            String::new()
        };
        format!("{images}{} of {}{}", bytes(come), bytes(expected), left.unwrap_or_default())
    }

    /// As JSON, where there is more than one image.
    pub(super) fn document(&self) -> Option<Value> {
        self.is_of_several().then(|| {
            json!({ "total": {
                "images": self.wanted,
                "here": self.here,
                "failed": self.failed,
                "bytes": self.kept_bytes,
                "fetched_bytes": self.fetched_bytes,
            } })
        })
    }

    /// What has come of it all, where there is more than one image.
    pub(super) fn conclusion(&self, now: Instant) -> Option<String> {
        if !self.is_of_several() {
            return None;
        }
        let secs = now.duration_since(self.started).as_secs();
        let (all, fetched) = (bytes(self.kept_bytes), bytes(self.fetched_bytes));
        let sum = format!("{all}, of which {fetched} came now, in {}", lasting(secs));
        Some(match self.failed.as_slice() {
            [] => format!("{} images are here: {sum}", self.here),
            failed => format!(
                "{} of {} images are here ({sum}), {} failed: {}",
                self.here,
                self.wanted,
                failed.len(),
                failed.join(", ")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_and_time_left_follow_what_comes() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut total = Total::new(2, start);
        total.expect("a", 100_000_000);
        total.expect("b", 50_000_000);
        total.expect("a", 100_000_000);
        assert_eq!(total.line(start), "0 of 2 images, 0 B of 150.0 MB");
        total.advance("a", 20_000_000, at(2));
        assert_eq!(total.line(at(2)), "0 of 2 images, 20.0 MB of 150.0 MB, 10.0 MB/s, 13s left");
        total.advance("a", 10_000_000, at(2));
        assert_eq!(total.come(), 20_000_000, "what has come does not go");
        total.was_kept("b");
        total.image_is_here(50_000_000, 0);
        total.advance("a", 100_000_000, at(3));
        assert_eq!(total.line(at(3)), "1 of 2 images, 100.0 MB of 100.0 MB");
        total.image_is_here(100_000_000, 100_000_000);
        assert_eq!(
            total.conclusion(at(3)).unwrap(),
            "2 images are here: 150.0 MB, of which 100.0 MB came now, in 3s"
        );
    }

    #[test]
    fn what_failed_is_named_at_the_end() {
        let now = Instant::now();
        let mut total = Total::new(3, now);
        total.image_is_here(10, 10);
        total.image_failed("docker.io/library/a:1".to_owned());
        total.image_failed("docker.io/library/b:1".to_owned());
        assert_eq!(
            total.conclusion(now).unwrap(),
            "1 of 3 images are here (10 B, of which 10 B came now, in 0s), 2 failed: \
             docker.io/library/a:1, docker.io/library/b:1"
        );
        let mut one = Total::new(1, now);
        one.image_is_here(1, 1);
        assert_eq!(one.conclusion(now), None);
    }
}
