//! What is asked for, how often, and on which connections.

use std::borrow::Cow;
use std::time::Duration;

use crate::image::Object;

/// A request and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// The first and the last byte, of a part.
    pub(crate) range: Option<(u64, u64)>,
    /// How long the answer's body is.
    pub(crate) bytes: u64,
}

impl Request {
    /// For a whole object.
    pub(crate) fn whole(path: String, object: &Object) -> Self {
        Self { path, range: None, bytes: object.size }
    }

    /// For a whole blob.
    pub(crate) fn blob(object: &Object) -> Self {
        Self::whole(object.blob(), object)
    }
}

/// The requests of a job.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// These, one after the other, again and again.
    Cycle(Vec<Request>),
    /// Parts of so many bytes, anywhere in an object.
    Parts { object: Object, bytes: u64 },
}

impl Pattern {
    /// The request of this number, the same for every server.
    pub(crate) fn request(&self, number: u64) -> Cow<'_, Request> {
        match self {
            Self::Cycle(requests) => {
                let at = number % (requests.len() as u64).max(1);
                let request = requests.get(crate::size::length(at));
                request.map_or_else(|| Cow::Owned(Request::nothing()), Cow::Borrowed)
            }
            Self::Parts { object, bytes } => Cow::Owned(part(object, *bytes, number)),
        }
    }
}

impl Request {
    /// What a pattern without requests asks for: nobody has it, so that the job fails.
    fn nothing() -> Self {
        Self { path: "/nothing".to_owned(), range: None, bytes: 0 }
    }
}

fn part(object: &Object, bytes: u64, number: u64) -> Request {
    let from = scatter(number) % object.size.saturating_sub(bytes).max(1);
    let last = (from + bytes).min(object.size) - 1;
    Request { path: object.blob(), range: Some((from, last)), bytes: last - from + 1 }
}

/// A number that looks like chance and is not (the finalizer of `SplitMix64`).
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// When a job is over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// No request begins after this time.
    For(Duration),
    /// So many requests have been made.
    Count(u64),
}

/// How many connections there are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Connections {
    /// Opened before, and kept.
    Held(usize),
    /// At a time; a new one for each request.
    Fresh(usize),
}

/// A piece of work.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) pattern: Pattern,
    pub(crate) limit: Limit,
    pub(crate) connections: Connections,
}

#[cfg(test)]
mod tests {
    use super::Pattern;
    use crate::image::Object;

    #[test]
    fn parts_lie_anywhere_within_the_object() {
        let object = Object { digest: "sha256:00".to_owned(), size: 10_000 };
        let parts = Pattern::Parts { object, bytes: 1000 };
        let mut places = std::collections::HashSet::new();
        for number in 0..100 {
            let (from, last) = parts.request(number).range.unwrap();
            assert!(last < 10_000 && last - from == 999);
            places.insert(from);
        }
        assert!(places.len() > 90);
    }
}
