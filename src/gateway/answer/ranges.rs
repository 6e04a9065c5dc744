//! Which part of an object is asked for (RFC 9110 §14).

/// The most ranges that are answered one by one; a request for more gets the whole object, since
/// no client that reads an image lazily needs more at once.
const MAX_RANGES: usize = 16;

/// From the first to the last byte, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSpan {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte.
    pub last: u64,
}

impl ByteSpan {
    /// How many bytes it has, at least 1.
    #[must_use]
    pub fn count(self) -> u64 {
        self.last - self.first + 1
    }

    /// As `Content-Range` says it of an object of `length` bytes.
    #[must_use]
    pub fn content_range(self, length: u64) -> String {
        format!("bytes {}-{}/{length}", self.first, self.last)
    }
}

/// The part of an object that an answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// All of it: 200.
    Whole,
    /// One span: 206.
    One(ByteSpan),
    /// Several, in the order asked for: 206 with `multipart/byteranges`.
    Several(Vec<ByteSpan>),
    /// Nothing of it can be sent: 416.
    Unsatisfiable,
}

/// One byte range, not yet held against a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// `bytes=5-9` or `bytes=5-`.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, where one was given.
        last: Option<u64>,
    },
    /// `bytes=-5`: the last so many bytes.
    Suffix(u64),
}

/// A `Range` field's byte ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteRanges(Vec<ByteRange>);

impl ByteRanges {
    /// Reads a `Range` value; `None` where it is to be ignored and the whole object sent: another
    /// unit, a broken form ("An origin server MUST ignore a Range header field that contains a
    /// range unit it does not understand"; the same is usual for what can't be parsed), or more
    /// than sixteen ranges.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, set) = value.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") || set.split(',').count() > MAX_RANGES {
            return None;
        }
        set.split(',').map(|range| one(range.trim())).collect::<Option<Vec<_>>>().map(Self)
    }

    /// The offset of the earliest byte wanted, where that can be said without the length.
    #[must_use]
    pub fn earliest(&self) -> Option<u64> {
        let offset = |range: &ByteRange| match range {
            ByteRange::From { first, .. } => Some(*first),
            ByteRange::Suffix(_) => None,
        };
        self.0.iter().map(offset).collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// The part of an object of `length` bytes that these ranges mean.
    ///
    /// Ranges beyond the end are left out as long as one is within. Ranges that together are longer
    /// than the object get the object: they overlap, and would only multiply the traffic.
    #[must_use]
    pub fn of(&self, length: u64) -> Selected {
        let spans: Vec<_> = self.0.iter().filter_map(|range| range.of(length)).collect();
        let total = spans.iter().map(|span| u128::from(span.count())).sum::<u128>();
        match spans.as_slice() {
            [] => Selected::Unsatisfiable,
            [span] => Selected::One(*span),
            _ if total > u128::from(length) => Selected::Whole,
            _ => Selected::Several(spans),
        }
    }
}

impl ByteRange {
    fn of(self, length: u64) -> Option<ByteSpan> {
        let end = length.checked_sub(1)?;
        match self {
            Self::Suffix(0) => None,
            Self::Suffix(count) => {
                Some(ByteSpan { first: length.saturating_sub(count), last: end })
            }
            Self::From { first, .. } if first > end => None,
            Self::From { first, last } => {
                Some(ByteSpan { first, last: last.map_or(end, |last| last.min(end)) })
            }
        }
    }
}

fn one(range: &str) -> Option<ByteRange> {
    match range.split_once('-')? {
        ("", suffix) => number(suffix).map(ByteRange::Suffix),
        (first, "") => number(first).map(|first| ByteRange::From { first, last: None }),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::From { first, last: Some(last) })
        }
    }
}

/// Digits alone; too large a number stands for "to the end", as no object is that long.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_ten(value: &str) -> Option<Selected> {
        ByteRanges::parse(value).map(|ranges| ranges.of(10))
    }

    fn span(first: u64, last: u64) -> ByteSpan {
        ByteSpan { first, last }
    }

    #[test]
    fn single_ranges_are_understood() {
        let cases = [
            ("bytes=0-0", Selected::One(span(0, 0))),
            ("bytes=2-5", Selected::One(span(2, 5))),
            ("bytes=2-", Selected::One(span(2, 9))),
            ("bytes=2-100", Selected::One(span(2, 9))),
            ("bytes=-3", Selected::One(span(7, 9))),
            ("bytes=-30", Selected::One(span(0, 9))),
            ("BYTES=0-", Selected::One(span(0, 9))),
            ("bytes=0-99999999999999999999999", Selected::One(span(0, 9))),
            ("bytes=10-", Selected::Unsatisfiable),
            ("bytes=-0", Selected::Unsatisfiable),
        ];
        for (value, expected) in cases {
            assert_eq!(of_ten(value), Some(expected), "{value}");
        }
        for empty in ["bytes=0-", "bytes=-1"] {
            assert_eq!(ByteRanges::parse(empty).unwrap().of(0), Selected::Unsatisfiable);
        }
    }

    #[test]
    fn several_ranges_are_understood() {
        let cases = [
            ("bytes=0-1,4-5", Selected::Several(vec![span(0, 1), span(4, 5)])),
            ("bytes=8-, 0-1", Selected::Several(vec![span(8, 9), span(0, 1)])),
            ("bytes=0-1,-1", Selected::Several(vec![span(0, 1), span(9, 9)])),
            ("bytes=0-1,20-30", Selected::One(span(0, 1))),
            ("bytes=20-30,40-", Selected::Unsatisfiable),
            ("bytes=0-9,0-9", Selected::Whole),
        ];
        for (value, expected) in cases {
            assert_eq!(of_ten(value), Some(expected), "{value}");
        }
        let many = |count| format!("bytes={}", vec!["0-0"; count].join(","));
        assert!(matches!(of_ten(&many(2)), Some(Selected::Several(_))));
        assert!(ByteRanges::parse(&many(MAX_RANGES)).is_some());
        assert_eq!(ByteRanges::parse(&many(MAX_RANGES + 1)), None);
    }

    #[test]
    fn what_is_no_byte_range_is_ignored() {
        let ignored = [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "items=0-1",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=0-1,",
            "bytes=0-1,x",
        ];
        for ignored in ignored {
            assert_eq!(ByteRanges::parse(ignored), None, "{ignored:?}");
        }
    }

    #[test]
    fn the_earliest_byte_is_known_unless_it_counts_from_the_end() {
        let earliest = |value| ByteRanges::parse(value).unwrap().earliest();
        assert_eq!(earliest("bytes=7-8,3-"), Some(3));
        assert_eq!(earliest("bytes=7-8,-3"), None);
    }

    proptest! {
        #[test]
        fn every_span_is_within_the_object(
            value in "bytes=[0-9]{0,4}-[0-9]{0,4}(,[0-9]{0,4}-[0-9]{0,4}){0,3}",
            length in 0u64..10_000,
        ) {
            let spans = match ByteRanges::parse(&value).map(|ranges| ranges.of(length)) {
                Some(Selected::One(span)) => vec![span],
                Some(Selected::Several(spans)) => spans,
                Some(Selected::Whole | Selected::Unsatisfiable) | None => Vec::new(),
            };
            for span in spans {
                prop_assert!(span.first <= span.last && span.last < length);
            }
        }
    }
}
