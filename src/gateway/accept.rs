//! What clients take, and what tells their requests apart by that.

use entrepot_oci::{Algorithm, Digest, MediaType};
use http::{HeaderMap, header};

/// A longer `Accept` is known by its digest.
const LONGEST_ACCEPT: usize = 500;

/// What a client says that it takes, to the byte: registries differ on what letters, blanks and
/// order mean in it, and one client's odd spelling must not decide what others are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Accept(String);

impl Accept {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields: Vec<_> = headers.get_all(header::ACCEPT).iter().collect();
        if let [] = *fields {
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
    use http::HeaderValue;

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
