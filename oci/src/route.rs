//! What a request path asks for.

use super::{Digest, Reference, RepositoryName};

/// A request path of the OCI distribution API, parsed once.
///
/// Whatever is not exactly one of the known forms (a percent escape, a second slash, a query that
/// the form does not have) is [`Route::Api`] or [`Route::Other`]: relayed to the registry as it is,
/// never cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: whether the API is spoken here, and how to authenticate.
    Ping,
    /// `/v2/<name>/blobs/<digest>`.
    Blob {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `/v2/<name>/manifests/<reference>`.
    Manifest {
        /// The repository.
        repository: RepositoryName,
        /// A tag or a digest.
        reference: Reference,
    },
    /// `/v2/<name>/tags/list[?n=…&last=…]`.
    Tags {
        /// The repository.
        repository: RepositoryName,
    },
    /// `/v2/<name>/referrers/<digest>[?artifactType=…]`.
    Referrers {
        /// The repository.
        repository: RepositoryName,
        /// The manifest that is referred to.
        subject: Digest,
    },
    /// `/v2/<name>/blobs/uploads/…`: part of a push.
    Upload {
        /// The repository.
        repository: RepositoryName,
    },
    /// Anything else of the API: below `/v2/`.
    Api,
    /// Anything else.
    Other,
}

impl Route {
    /// Parses the path and query of a request target.
    #[must_use]
    pub fn parse(path: &str, query: Option<&str>) -> Self {
        let Some(rest) = path.strip_prefix("/v2/") else {
            return if path == "/v2" { Self::Ping } else { Self::Other };
        };
        if rest.is_empty() {
            return Self::Ping;
        }
        upload(rest)
            .or_else(|| listing(rest))
            .or_else(|| if only_ns(query) { content(rest) } else { None })
            .unwrap_or(Self::Api)
    }

    /// The path of this content, as it goes over the wire; `None` for what is not content alone
    /// (a listing has a query, an upload a session).
    #[must_use]
    pub fn content_path(&self) -> Option<String> {
        match self {
            Self::Blob { repository, digest } => Some(format!("/v2/{repository}/blobs/{digest}")),
            Self::Manifest { repository, reference } => {
                Some(format!("/v2/{repository}/manifests/{reference}"))
            }
            Self::Ping
            | Self::Tags { .. }
            | Self::Referrers { .. }
            | Self::Upload { .. }
            | Self::Api
            | Self::Other => None,
        }
    }

    /// The repository that the request is about.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Blob { repository, .. }
            | Self::Manifest { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. }
            | Self::Upload { repository } => Some(repository),
            Self::Ping | Self::Api | Self::Other => None,
        }
    }
}

/// Content has no query but the `ns` of "Registry Proxying".
fn only_ns(query: Option<&str>) -> bool {
    query.is_none_or(|query| query.starts_with("ns=") && !query.contains('&'))
}

fn content(rest: &str) -> Option<Route> {
    let (path, last) = rest.rsplit_once('/')?;
    let (name, kind) = path.rsplit_once('/')?;
    let repository = name.parse().ok()?;
    match kind {
        "blobs" => Some(Route::Blob { repository, digest: last.parse().ok()? }),
        "manifests" => Some(Route::Manifest { repository, reference: last.parse().ok()? }),
        _ => None,
    }
}

fn listing(rest: &str) -> Option<Route> {
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some(Route::Tags { repository: name.parse().ok()? });
    }
    let (path, last) = rest.rsplit_once('/')?;
    let name = path.strip_suffix("/referrers")?;
    Some(Route::Referrers { repository: name.parse().ok()?, subject: last.parse().ok()? })
}

fn upload(rest: &str) -> Option<Route> {
    let (name, session) = rest.split_once("/blobs/uploads")?;
    let repository = name.parse().ok()?;
    (session.is_empty() || session.starts_with('/')).then_some(Route::Upload { repository })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn kind(path: &str, query: Option<&str>) -> String {
        match Route::parse(path, query) {
            Route::Ping => "ping".to_owned(),
            Route::Blob { repository, .. } => format!("blob {repository}"),
            Route::Manifest { repository, reference: Reference::Tag(tag) } => {
                format!("tag {repository} {tag}")
            }
            Route::Manifest { repository, .. } => format!("manifest {repository}"),
            Route::Tags { repository } => format!("tags {repository}"),
            Route::Referrers { repository, .. } => format!("referrers {repository}"),
            Route::Upload { repository } => format!("upload {repository}"),
            Route::Api => "api".to_owned(),
            Route::Other => "other".to_owned(),
        }
    }

    #[test]
    fn registry_routes_are_recognised() {
        let d = format!("sha256:{HEX}");
        let cases = [
            ("/v2/".to_owned(), None, "ping"),
            ("/v2".to_owned(), None, "ping"),
            (format!("/v2/a/b/blobs/{d}"), None, "blob a/b"),
            (format!("/v2/a/b/blobs/{d}"), Some("ns=docker.io"), "blob a/b"),
            ("/v2/library/alpine/manifests/3.20".to_owned(), None, "tag library/alpine 3.20"),
            (format!("/v2/a/manifests/{d}"), None, "manifest a"),
            // A repository may be called like a part of the API.
            (format!("/v2/blobs/manifests/blobs/{d}"), None, "blob blobs/manifests"),
            ("/v2/a/tags/list".to_owned(), Some("n=10&last=x"), "tags a"),
            (format!("/v2/a/referrers/{d}"), Some("artifactType=x"), "referrers a"),
            ("/v2/a/blobs/uploads/".to_owned(), Some("mount=x&from=y"), "upload a"),
            ("/v2/a/blobs/uploads/uuid".to_owned(), None, "upload a"),
        ];
        for (path, query, expected) in cases {
            assert_eq!(kind(&path, query), expected, "{path}");
        }
    }

    #[test]
    fn anything_inexact_is_other() {
        let d = format!("sha256:{HEX}");
        let cases = [
            "/".to_owned(),
            "/v1/search".to_owned(),
            "/v2/_catalog".to_owned(),
            "/token".to_owned(),
            format!("/v2//a/blobs/{d}"),
            format!("/v2/a//blobs/{d}"),
            format!("/v2/../a/blobs/{d}"),
            format!("/v2/%61/blobs/{d}"),
            format!("/v2/a/blobs/{d}/"),
            format!("/v2/a/blobs/{}", d.to_uppercase()),
            "/v2/a/blobs/sha256:../../etc/passwd".to_owned(),
            "/v2/a/manifests/latest;.css".to_owned(),
            "/v2/a/manifests/".to_owned(),
            "/v2/A/manifests/latest".to_owned(),
            format!("/v2/a/blobs/{d}%00"),
        ];
        for path in cases {
            let expected = if path.starts_with("/v2/") { "api" } else { "other" };
            assert_eq!(kind(&path, None), expected, "{path}");
        }
        assert_eq!(kind("/v2/a/manifests/latest", Some("x=1")), "api");
        assert_eq!(kind("/v2/a/manifests/latest", Some("ns=a&x=1")), "api");
        assert_eq!(kind("/v2/a/blobs/uploadsx", None), "api");
    }

    #[test]
    fn content_has_its_path_back() {
        for path in [format!("/v2/a/b/blobs/sha256:{HEX}"), "/v2/a/manifests/3.20".to_owned()] {
            assert_eq!(Route::parse(&path, Some("ns=x")).content_path(), Some(path));
        }
        assert_eq!(Route::parse("/v2/a/tags/list", None).content_path(), None);
    }
}
