//! What clients take, and what tells their requests apart by that.

use entrepot_oci::{Algorithm, Digest, MediaType};
use http::{HeaderMap, HeaderValue, header};

/// A longer `Accept` is known by its digest.
const LONGEST_ACCEPT: usize = 500;

/// Writes what a client takes as others do who mean the same by RFC 9110 §5.6.1, §8.3.1 and
/// §12.5.1: in one field, media types in lower case, blanks as engines set them, and in one order,
/// since weights alone say what is preferred, and dockerd takes another order for every request.
/// The registry is sent that, so that nobody's spelling brings about an answer that others would be
/// given. What is no text is left as it is, and is nobody else's.
pub(super) fn normalise(headers: &mut HeaderMap) {
    let fields: Option<Vec<_>> =
        headers.get_all(header::ACCEPT).iter().map(|field| field.to_str().ok()).collect();
    let Some(fields) = fields.filter(|fields| !fields.is_empty()) else { return };
    let ranges = fields.iter().flat_map(|field| field.split(',')).map(str::trim);
    let mut ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).map(normalised).collect();
    // A comma within quotes parts nothing.
    if !ranges.iter().any(|range| range.contains('"')) {
        // Whoever goes by the order all the same finds what takes anything at the end, as engines
        // have it.
        ranges.sort_by_key(|range| (range.contains('*'), range.clone()));
        ranges.dedup();
    }
    if let Ok(value) = HeaderValue::try_from(ranges.join(", ")) {
        headers.insert(header::ACCEPT, value);
    }
}

fn normalised(range: &str) -> String {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    parts.fold(media_type, |range, parameter| range + ";" + parameter)
}

/// What a registry is told that a client takes, to the byte: registries differ on what letters,
/// blanks and order mean in it, and one client's odd spelling must not decide what others are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Accept(String);

impl Accept {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields: Vec<_> = headers.get_all(header::ACCEPT).iter().collect();
        if fields.is_empty() {
            return Self(String::new());
        }
        let length: usize = fields.iter().map(|field| field.len()).sum();
        let texts: Option<Vec<_>> = fields.iter().map(|field| field.to_str().ok()).collect();
        // No field has a line feed in it.
        match texts {
            Some(texts) if length <= LONGEST_ACCEPT => Self(texts.join("\n")),
            _ => {
                let bytes: Vec<_> = fields.iter().map(|field| field.as_bytes()).collect();
                Self(Digest::of(Algorithm::Sha256, &bytes.join(&b'\n')).to_string())
            }
        }
    }

    /// As it is on record.
    pub(super) fn recorded(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// To put it on record.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a client takes this media type (RFC 9110 §12.5.1, without weights: none sends 0).
pub(super) fn accepts(headers: &HeaderMap, media_type: &MediaType) -> bool {
    let fields = headers.get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let mut ranges = fields.flat_map(|field| field.split(',')).peekable();
    if ranges.peek().is_none() {
        return true;
    }
    ranges.any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range == "*/*"
            || range == "application/*"
            || range.eq_ignore_ascii_case(media_type.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(fields: &[&str]) -> Accept {
        let headers = fields.iter().fold(HeaderMap::new(), |mut headers, field| {
            let bytes: Vec<_> = field.chars().map(|c| u8::try_from(c).unwrap()).collect();
            headers.append(header::ACCEPT, HeaderValue::from_bytes(&bytes).unwrap());
            headers
        });
        Accept::of(&headers)
    }

    #[test]
    fn what_a_registry_might_read_differently_is_something_else() {
        assert_eq!(accept(&["a/b, c/d"]), accept(&["a/b, c/d"]));
        assert_eq!(accept(&[]), Accept(String::new()));
        let spellings = [
            vec!["a/b, c/d"],
            vec!["c/d, a/b"],
            vec!["a/b,c/d"],
            vec!["a/b", "c/d"],
            vec!["A/B, c/d"],
            vec!["a/b, c/d;q=0.5"],
            vec!["a/b, c/d, x/\u{ff}"],
            vec!["a/b, c/d, x/\u{fe}"],
            vec!["a/b, c/d", "x/\u{ff}"],
            vec!["a/b"],
            vec![""],
        ];
        let mut different: Vec<_> = spellings.iter().map(|fields| accept(fields).0).collect();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), spellings.len(), "{different:?}");
        let long = "a/b,".repeat(LONGEST_ACCEPT);
        assert!(accept(&[&long]).0.len() < 100);
    }

    #[test]
    fn what_means_the_same_is_written_alike() {
        let cases: [(&[&str], &str); 9] = [
            (&["c/d, */*, a/b"], "a/b, c/d, */*"),
            (&["c/d", "a/b", "c/d"], "a/b, c/d"),
            (&["c/d;x=\"1,0\", a/b"], "c/d;x=\"1, 0\", a/b"),
            (&["a/b, c/d"], "a/b, c/d"),
            (&["A/b,C/D"], "a/b, c/d"),
            (&["a/b", " c/d\t,"], "a/b, c/d"),
            (&["c/d ; Q=0.5;x=Y, a/b"], "a/b, c/d;Q=0.5;x=Y"),
            (&["a /b"], "a /b"),
            (&[","], ""),
        ];
        for (fields, expected) in cases {
            let mut headers = fields.iter().fold(HeaderMap::new(), |mut headers, field| {
                headers.append(header::ACCEPT, HeaderValue::from_str(field).unwrap());
                headers
            });
            normalise(&mut headers);
            let written: Vec<_> = headers.get_all(header::ACCEPT).iter().collect();
            assert_eq!(written, [expected], "{fields:?}");
        }
        let mut none = HeaderMap::new();
        normalise(&mut none);
        assert!(none.is_empty());
        let mut odd = HeaderMap::new();
        odd.append(header::ACCEPT, HeaderValue::from_static("A/B"));
        odd.append(header::ACCEPT, HeaderValue::from_bytes(b"x/\xff").unwrap());
        let before = odd.clone();
        normalise(&mut odd);
        assert_eq!(odd, before);
    }

    #[test]
    fn a_media_type_is_accepted_as_the_client_says() {
        let index = MediaType::of_manifest("application/vnd.oci.image.index.v1+json").unwrap();
        let cases = [
            (vec![], true),
            (vec!["application/vnd.oci.image.index.v1+json"], true),
            (vec!["text/html", "a/b, Application/vnd.oci.image.index.v1+json;q=0.5"], true),
            (vec!["*/*"], true),
            (vec!["application/*"], true),
            (vec!["application/vnd.oci.image.manifest.v1+json"], false),
        ];
        for (fields, expected) in cases {
            let headers = fields.iter().fold(HeaderMap::new(), |mut headers, field| {
                headers.append(header::ACCEPT, HeaderValue::from_static(field));
                headers
            });
            assert_eq!(accepts(&headers, &index), expected, "{fields:?}");
        }
    }
}
