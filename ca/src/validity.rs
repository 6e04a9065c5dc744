//! A certificate's validity: two instants, both inclusive (RFC 5280 §4.1.2.5).

use std::fmt;

use time::{Duration, OffsetDateTime};

/// The span in which a certificate may be used, to the second, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

/// Where an instant lies in relation to a [`Validity`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Moment {
    Before,
    Within,
    After,
}

impl Validity {
    /// A span of `length` that starts at `not_before`.
    pub(crate) fn starting(not_before: OffsetDateTime, length: Duration) -> Self {
        let not_after = not_before.saturating_add(length);
        Self { not_before, not_after }
    }

    /// What the two spans have in common. Disjoint spans give one that ends before it starts: no
    /// moment is within it.
    pub(crate) fn intersect(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    pub(crate) fn place(&self, now: OffsetDateTime) -> Moment {
        if now < self.not_before {
            Moment::Before
        } else if now > self.not_after {
            Moment::After
        } else {
            Moment::Within
        }
    }

    /// The middle of the span.
    pub(crate) fn half_life(&self) -> OffsetDateTime {
        self.not_before + (self.not_after - self.not_before) / 2
    }
}

/// `2026-11-21 03:22 UTC to 2036-11-18 03:22 UTC`.
impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", minute(self.not_before), minute(self.not_after))
    }
}

/// An instant as operators read it, to the minute.
pub(crate) fn minute(instant: OffsetDateTime) -> String {
    format!("{} {:02}:{:02} UTC", instant.date(), instant.hour(), instant.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(day)
    }

    #[test]
    fn both_ends_are_within() {
        let week = Validity::starting(at(10), Duration::days(7));
        assert_eq!(week.place(at(10) - Duration::SECOND), Moment::Before);
        assert_eq!(week.place(at(10)), Moment::Within);
        assert_eq!(week.place(at(17)), Moment::Within);
        assert_eq!(week.place(at(17) + Duration::SECOND), Moment::After);
        assert_eq!(week.half_life(), at(13) + Duration::hours(12));
    }

    #[test]
    fn a_span_is_cut_to_the_other() {
        let week = Validity::starting(at(10), Duration::days(7));
        let cut = week.intersect(Validity::starting(at(12), Duration::days(100)));
        assert_eq!((cut.not_before, cut.not_after), (at(12), at(17)));
        assert_eq!(week.to_string(), "1970-01-11 00:00 UTC to 1970-01-18 00:00 UTC");
    }
}
