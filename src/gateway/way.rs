//! By which door a client came, and how it comes back by it.

use entrepot_oci::Authority;
use entrepot_oci::host::HTTPS_PORT;

use crate::upstream::{Scheme, Target};

/// Which way a client came.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// The host that it asked, which need not be the one that is asked for it.
    authority: Authority,
    scheme: Scheme,
    /// How it names registries, if it came to the mirror.
    mirror: Option<MirrorDoor>,
}

#[derive(Debug, Clone)]
struct MirrorDoor {
    /// The value of `ns`, if that names the registry.
    namespace: Option<String>,
    /// What stands before the repository in the path, with its slash.
    prefix: String,
}

impl Way {
    /// By interception, to `authority`.
    pub(crate) fn new(authority: &Authority, scheme: Scheme) -> Self {
        Self { authority: authority.clone(), scheme, mirror: None }
    }

    /// The way of a request with this target to the registry at `authority`.
    pub(crate) fn of(authority: &Authority, uri: &http::Uri) -> Self {
        if uri.scheme() != Some(&http::uri::Scheme::HTTP) {
            return Self::new(authority, Scheme::Https);
        }
        // The registry may be known under another port than plain HTTP's.
        let named = uri.authority().map(|named| Authority::parse(named.as_str(), 80));
        let named = named.and_then(Result::ok);
        Self::new(named.as_ref().unwrap_or(authority), Scheme::Http)
    }

    /// By the mirror, to the registry at `authority`, which the request names so.
    pub(crate) fn mirror(authority: &Authority, namespace: Option<String>, prefix: &str) -> Self {
        let mirror = Some(MirrorDoor { namespace, prefix: prefix.to_owned() });
        Self { mirror, ..Self::new(authority, Scheme::Https) }
    }

    /// Whether a path of the registry means the same to the client.
    pub(super) fn is_plain_door(&self) -> bool {
        self.mirror.is_none()
    }

    /// The URL of a path of our own as the client reaches it.
    pub(super) fn url(&self, path: &str) -> String {
        let host = self.authority.to_host_field(self.scheme.default_port());
        format!("{}://{host}{path}", self.scheme.as_str())
    }

    /// The same registry's path and query, as the client reaches them.
    pub(crate) fn address(&self, path_and_query: &str) -> String {
        let Some(mirror) = &self.mirror else { return self.url(path_and_query) };
        mirrored(path_and_query, mirror.namespace.as_deref(), &mirror.prefix)
    }

    /// What is at another registry, as the client reaches it, where that is not by its own URL.
    pub(super) fn address_of(&self, target: &Target) -> Option<String> {
        let mirror = self.mirror.as_ref().filter(|_| target.path().starts_with("/v2/"))?;
        let name = target.authority.to_host_field(HTTPS_PORT);
        Some(match &mirror.namespace {
            Some(_) => mirrored(&target.path_and_query, Some(&name), ""),
            None => mirrored(&target.path_and_query, None, &format!("{name}/")),
        })
    }
}

fn mirrored(path_and_query: &str, namespace: Option<&str>, prefix: &str) -> String {
    let path = match path_and_query.strip_prefix("/v2/") {
        Some(rest) => format!("/v2/{prefix}{rest}"),
        // Two slashes would begin a host (RFC 3986 §4.2); a dot in between is taken out again.
        None if path_and_query.starts_with("//") => format!("/.{path_and_query}"),
        None => path_and_query.to_owned(),
    };
    let Some(namespace) = namespace else { return path };
    let separator = if path.contains('?') { '&' } else { '?' };
    let namespace = url::form_urlencoded::byte_serialize(namespace.as_bytes());
    format!("{path}{separator}ns={}", namespace.collect::<String>())
}
