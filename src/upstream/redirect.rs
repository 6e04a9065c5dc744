//! Where a redirect leads, and whether it is followed.

use std::borrow::Cow;

use entrepot_oci::{Authority, Route};
use http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use url::Url;

use super::client::{Scheme, Target};

/// Redirects followed for one request. Registries need one, some two; curl's and Go's limits are
/// higher, but a longer chain than this has only ever been a loop.
pub(crate) const MAX_HOPS: usize = 5;

/// The longest `Location` that is followed: signed URLs with a session's token in them have some
/// 2 KiB.
const LONGEST_LOCATION: usize = 16 * 1024;

/// A redirect that is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedirectError {
    /// No `Location`, or one that is not a URL, or leads nowhere else.
    #[error("its Location is missing, empty, too long, or not a URL")]
    Location,
    /// From `https` to `http`, or to another scheme altogether.
    #[error("it leads away from https")]
    Scheme,
    /// User name or password in the URL.
    #[error("it carries credentials in its URL")]
    Credentials,
    /// A host that is none, or port 0.
    #[error("it names no valid host")]
    Host,
    /// More than [`MAX_HOPS`].
    #[error("more than {MAX_HOPS} redirects in a row")]
    TooMany,
}

/// What kind of place a redirect leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Another path on the same host: credentials stay.
    SameHost(Target),
    /// Storage elsewhere, behind a signed URL: no credential goes there.
    Storage(Target),
    /// A registry API path on another host, which has its own rules on who may read it.
    OtherRegistry(Target, Route),
}

/// Reads a response's redirect; `Ok(None)` where it is none.
pub(crate) fn hop(
    from: &Target,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Hop>, RedirectError> {
    if !is_redirect(status) {
        return Ok(None);
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let is_usable = |location: &&str| (1..=LONGEST_LOCATION).contains(&location.len());
    let location = location.filter(is_usable).ok_or(RedirectError::Location)?;
    let base = Url::parse(&from.to_string()).map_err(|_| RedirectError::Location)?;
    let url = base.join(location).map_err(|_| RedirectError::Location)?;
    let to = target(from, &url)?;
    Ok(Some(if to.is_beside(from) {
        Hop::SameHost(to)
    } else if is_registry_path(url.path()) {
        let route = Route::parse(url.path(), url.query());
        Hop::OtherRegistry(to, route)
    } else {
        Hop::Storage(to)
    }))
}

/// RFC 9110 §15.4.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn is_registry_path(path: &str) -> bool {
    let kinds = ["/blobs/", "/manifests/", "/tags/list", "/referrers/"];
    path.starts_with("/v2/") && kinds.iter().any(|kind| path.contains(kind))
}

/// Whether the path that a redirect leads to has the path in it that was asked for, however often
/// it is escaped: a login page is told so where to lead back to, and storage has no use for it.
pub(crate) fn repeats(path: &str, asked: &str) -> bool {
    /// How often something is escaped at most.
    const ESCAPES: usize = 4;
    let Some(asked) = asked.strip_prefix("/v2/") else { return false };
    let is_in = |path: &str| path.to_ascii_lowercase().contains(&asked.to_ascii_lowercase());
    let mut path = path.to_owned();
    for _ in 0..ESCAPES {
        if is_in(&path) {
            return true;
        }
        match percent_decode_str(&path).decode_utf8_lossy() {
            Cow::Borrowed(_) => return false,
            Cow::Owned(decoded) => path = decoded,
        }
    }
    is_in(&path)
}

/// A URL that `from` names, as something to ask; TLS is not given up on the way.
pub(crate) fn target(from: &Target, url: &Url) -> Result<Target, RedirectError> {
    let scheme = match (from.scheme, url.scheme()) {
        (_, "https") => Scheme::Https,
        (Scheme::Http, "http") => Scheme::Http,
        _ => return Err(RedirectError::Scheme),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RedirectError::Credentials);
    }
    let host = url.host_str().and_then(|host| host.parse().ok()).ok_or(RedirectError::Host)?;
    let port = url.port().unwrap_or(scheme.default_port());
    if port == 0 {
        return Err(RedirectError::Host);
    }
    let authority = Authority::new(host, port);
    // The registry itself, by the port that it is spoken to.
    let is_own = scheme == from.scheme
        && authority.host() == from.authority.host()
        && authority.port() == from.port();
    let path_and_query = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Ok(if is_own {
        from.at(path_and_query)
    } else {
        Target::as_named(scheme, authority, path_and_query)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ghcr(path: &str) -> Target {
        Target::of_registry(Scheme::Https, "ghcr.io:443".parse().unwrap(), path)
    }

    fn from(location: &str) -> Result<Option<Hop>, RedirectError> {
        let from = ghcr("/v2/a/blobs/x");
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
        hop(&from, StatusCode::TEMPORARY_REDIRECT, &headers)
    }

    #[test]
    fn the_signed_query_is_kept_as_it_is() {
        let Ok(Some(Hop::Storage(to))) = from("https://cdn.example/x?sig=a%2Fb+c&e=1") else {
            panic!("storage expected");
        };
        assert_eq!(to.path_and_query, "/x?sig=a%2Fb+c&e=1");
        assert_eq!(to.authority.to_string(), "cdn.example:443");
    }

    #[test]
    fn relative_locations_stay_on_the_host() {
        let Ok(Some(Hop::SameHost(to))) = from("/artifacts-downloads/x?y") else {
            panic!("same host expected");
        };
        assert_eq!(to.to_string(), "https://ghcr.io/artifacts-downloads/x?y");
        assert!(matches!(from("https://GHCR.io:443/z"), Ok(Some(Hop::SameHost(_)))));
        assert!(matches!(from("https://ghcr.io:444/z"), Ok(Some(Hop::Storage(_)))));
    }

    /// A registry of plain HTTP that has no port in its name is asked at 80, and what it says of
    /// 443 is about another place.
    #[test]
    fn another_port_of_a_plain_registry_is_another_host() {
        let authority = "registry.corp:443".parse().unwrap();
        let from = Target::of_registry(Scheme::Http, authority, "/v2/a/blobs/x");
        assert_eq!(from.to_string(), "http://registry.corp/v2/a/blobs/x");
        let hop = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
            hop(&from, StatusCode::TEMPORARY_REDIRECT, &headers).unwrap().unwrap()
        };
        for same in ["/y", "http://registry.corp/y", "http://registry.corp:80/y"] {
            let expected = from.at("/y");
            assert_eq!(hop(same), Hop::SameHost(expected), "{same}");
        }
        for (other, place) in [
            ("http://registry.corp:443/y", "http://registry.corp:443/y"),
            ("https://registry.corp/y", "https://registry.corp/y"),
        ] {
            match hop(other) {
                Hop::Storage(to) => assert_eq!(to.to_string(), place),
                wrong => panic!("{wrong:?}"),
            }
        }
    }

    #[test]
    fn a_registry_path_elsewhere_is_another_registry() {
        let hop = from("https://quay.io/v2/a/blobs/x");
        assert!(matches!(hop, Ok(Some(Hop::OtherRegistry(to, _))) if to.path() == "/v2/a/blobs/x"));
        assert!(matches!(from("https://quay.io/v2x/a"), Ok(Some(Hop::Storage(_)))));
    }

    #[test]
    fn a_page_that_is_told_where_to_lead_back_to_is_known() {
        let asked = "/v2/app/blobs/sha256:abc";
        for page in [
            "/sso/https%3A/v2/app/blobs/sha256:abc",
            "/login/app/blobs/sha256%3Aabc",
            "/login/app%2Fblobs%2Fsha256%3AABC",
            "/a/app%252Fblobs%252Fsha256%253Aabc/b",
            "/v2/app/blobs/sha256:abc",
        ] {
            assert!(repeats(page, asked), "{page}");
        }
        for storage in [
            "/docker/registry/v2/blobs/sha256/ab/abc/data",
            "/ghcr1/blobs/sha256:abc",
            "/uploads/abc%20d",
            "",
        ] {
            assert!(!repeats(storage, asked), "{storage}");
        }
        assert!(!repeats("/x", "/"));
    }

    #[test]
    fn unsafe_redirects_are_refused() {
        assert_eq!(from("http://cdn.example/x"), Err(RedirectError::Scheme));
        assert_eq!(from("ftp://cdn.example/x"), Err(RedirectError::Scheme));
        assert_eq!(from("https://user@cdn.example/x"), Err(RedirectError::Credentials));
        assert_eq!(from("https://:pw@cdn.example/x"), Err(RedirectError::Credentials));
        assert_eq!(from("https://"), Err(RedirectError::Location));
        assert_eq!(from(""), Err(RedirectError::Location), "the same again, for ever");
        let long = format!("https://cdn.example/{}", "x".repeat(LONGEST_LOCATION));
        assert_eq!(from(&long), Err(RedirectError::Location));
        assert_eq!(from("https://cdn.example:0/x"), Err(RedirectError::Host));
    }

    #[test]
    fn other_statuses_are_no_redirects() {
        let target = ghcr("/");
        for status in [StatusCode::OK, StatusCode::NOT_MODIFIED, StatusCode::MULTIPLE_CHOICES] {
            assert_eq!(hop(&target, status, &HeaderMap::new()), Ok(None));
        }
        let missing = hop(&target, StatusCode::FOUND, &HeaderMap::new());
        assert_eq!(missing, Err(RedirectError::Location));
    }
}
