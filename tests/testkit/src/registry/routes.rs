//! The distribution API.

use bytes::Bytes;
use serde_json::json;

use super::{Site, access, cdn, error};
use crate::http::{Request, Response};
use crate::image::{Blob, INDEX, digest_of};

pub(super) fn respond(site: &Site, request: &Request) -> Response {
    let response = route(site, request);
    response.header("Docker-Distribution-Api-Version", "registry/2.0")
}

fn route(site: &Site, request: &Request) -> Response {
    let Some(rest) = request.path().strip_prefix("/v2/") else {
        return error(404, "NOT_FOUND", "no such page");
    };
    if rest.is_empty() {
        let welcome = || Response::new(200).header("Content-Type", "application/json").body("{}");
        return access::refusal(site, request, None).unwrap_or_else(welcome);
    }
    let Some(resource) = Resource::parse(rest) else {
        return error(404, "NAME_UNKNOWN", "no such resource");
    };
    access::refusal(site, request, Some(resource.repository))
        .unwrap_or_else(|| resource.respond(site, request))
}

/// Something of a repository.
struct Resource<'a> {
    repository: &'a str,
    kind: &'a str,
    name: &'a str,
}

impl<'a> Resource<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        ["/blobs/uploads/", "/blobs/", "/manifests/", "/tags/", "/referrers/"].iter().find_map(
            |kind| {
                let at = path.find(kind)?;
                let (repository, name) = (&path[..at], &path[at + kind.len()..]);
                Some(Self { repository, kind: &path[at..at + kind.len()], name })
            },
        )
    }

    fn respond(&self, site: &Site, request: &Request) -> Response {
        match (self.kind, request.method.as_str()) {
            ("/blobs/", "GET" | "HEAD") => self.blob(site, request),
            ("/manifests/", "GET" | "HEAD") => self.manifest(site, request),
            ("/manifests/", "DELETE") => self.delete_manifest(site),
            ("/blobs/", "DELETE") => self.delete_blob(site),
            ("/manifests/", "PUT") => self.put_manifest(site, request),
            ("/tags/", "GET") => self.tags(site),
            ("/referrers/", "GET") => self.referrers(site),
            ("/blobs/uploads/", "POST") => self.start_upload(site, request),
            ("/blobs/uploads/", "PATCH") => self.append(site, request),
            ("/blobs/uploads/", "PUT") => self.finish_upload(site, request),
            _ => error(405, "UNSUPPORTED", "the operation is unsupported"),
        }
    }

    fn blob(&self, site: &Site, request: &Request) -> Response {
        let Some(bytes) = site.content.lock().unwrap().blob(self.repository, self.name) else {
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let redirect = (request.method == "GET").then(|| cdn::redirect(site, self.name)).flatten();
        redirect.unwrap_or_else(|| object(request, &bytes, self.name, "application/octet-stream"))
    }

    fn manifest(&self, site: &Site, request: &Request) -> Response {
        match site.content.lock().unwrap().manifest(self.repository, self.name) {
            Some(manifest) => {
                object(request, &manifest.bytes, &manifest.digest, &manifest.media_type)
            }
            None => error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn put_manifest(&self, site: &Site, request: &Request) -> Response {
        let media_type = request.headers.get("content-type").unwrap_or_default();
        let manifest = Blob::new(media_type, request.body.clone());
        let mut content = site.content.lock().unwrap();
        content.add_manifest(self.repository, &manifest);
        if !self.name.starts_with("sha256:") {
            content.tag(self.repository, self.name, &manifest.digest);
        }
        self.created("manifests", &manifest.digest)
    }

    fn delete_manifest(&self, site: &Site) -> Response {
        let mut content = site.content.lock().unwrap();
        if content.remove_manifest(self.repository, self.name) {
            Response::new(202)
        } else {
            error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        }
    }

    fn delete_blob(&self, site: &Site) -> Response {
        if site.content.lock().unwrap().remove_blob(self.repository, self.name) {
            Response::new(202)
        } else {
            error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        }
    }

    fn created(&self, kind: &str, digest: &str) -> Response {
        Response::new(201)
            .header("Location", format!("/v2/{}/{kind}/{digest}", self.repository))
            .header("Docker-Content-Digest", digest)
    }

    fn tags(&self, site: &Site) -> Response {
        match site.content.lock().unwrap().tags(self.repository) {
            Some(tags) => {
                json_response("application/json", &json!({ "name": self.repository, "tags": tags }))
            }
            None => error(404, "NAME_UNKNOWN", "repository name not known to registry"),
        }
    }

    fn referrers(&self, site: &Site) -> Response {
        let referrers = site.content.lock().unwrap().referrers(self.repository, self.name);
        let manifests: Vec<_> = referrers.iter().map(Blob::descriptor).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        json_response(INDEX, &index)
    }

    fn start_upload(&self, site: &Site, request: &Request) -> Response {
        let mut content = site.content.lock().unwrap();
        if let Some(digest) = request.query("mount").first()
            && let Some(bytes) = content.blob_anywhere(digest)
        {
            content.add_blob(self.repository, &Blob::new("", bytes));
            return self.created("blobs", digest);
        }
        if let Some(digest) = request.query("digest").first() {
            drop(content);
            return self.store(site, digest, request.body.clone());
        }
        let id = content.start_upload();
        self.accepted(&id, 0)
    }

    fn append(&self, site: &Site, request: &Request) -> Response {
        match site.content.lock().unwrap().append(self.name, &request.body) {
            Some(length) => self.accepted(self.name, length),
            None => error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload"),
        }
    }

    fn accepted(&self, id: &str, length: usize) -> Response {
        Response::new(202)
            .header("Location", format!("/v2/{}/blobs/uploads/{id}", self.repository))
            .header("Range", format!("0-{}", length.saturating_sub(1)))
            .header("Docker-Upload-UUID", id)
    }

    fn finish_upload(&self, site: &Site, request: &Request) -> Response {
        let digest = request.query("digest").first().cloned().unwrap_or_default();
        let Some(mut bytes) = site.content.lock().unwrap().finish_upload(self.name) else {
            return error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload");
        };
        bytes.extend_from_slice(&request.body);
        self.store(site, &digest, bytes.into())
    }

    fn store(&self, site: &Site, digest: &str, bytes: Bytes) -> Response {
        if digest_of(&bytes) != digest {
            return error(400, "DIGEST_INVALID", "the digest does not match the content");
        }
        site.content.lock().unwrap().add_blob(self.repository, &Blob::new("", bytes));
        self.created("blobs", digest)
    }
}

fn json_response(media_type: &str, document: &serde_json::Value) -> Response {
    Response::new(200).header("Content-Type", media_type).body(document.to_string())
}

/// An object with its digest, or the part of it that was asked for.
pub(super) fn object(request: &Request, bytes: &Bytes, digest: &str, kind: &str) -> Response {
    let etag = format!("\"{digest}\"");
    let described = |status| {
        Response::new(status)
            .header("Content-Type", kind)
            .header("Docker-Content-Digest", digest)
            .header("ETag", &etag)
            .header("Accept-Ranges", "bytes")
    };
    if request.headers.get("if-none-match") == Some(&etag) {
        return described(304);
    }
    let range = request.headers.get("range").filter(|_| request.method == "GET");
    match range.map(|range| part(range, bytes.len())) {
        None => described(200).body(bytes.clone()),
        Some(None) => error(416, "RANGE_INVALID", "range not satisfiable")
            .header("Content-Range", format!("bytes */{}", bytes.len())),
        Some(Some((first, last))) => described(206)
            .header("Content-Range", format!("bytes {first}-{last}/{}", bytes.len()))
            .body(bytes.slice(first..=last)),
    }
}

/// The first and the last byte of a single range; none if there are no such bytes.
fn part(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last.min(length.checked_sub(1)?)),
        (Ok(first), Err(_)) => (first, length.checked_sub(1)?),
        (Err(_), Ok(suffix)) => (length.saturating_sub(suffix), length.checked_sub(1)?),
        (Err(_), Err(_)) => return None,
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn ranges_are_what_http_means_by_them() {
        let cases = [
            ("bytes=0-0", Some((0, 0))),
            ("bytes=2-", Some((2, 9))),
            ("bytes=-3", Some((7, 9))),
            ("bytes=-30", Some((0, 9))),
            ("bytes=5-100", Some((5, 9))),
            ("bytes=10-", None),
            ("bytes=x", None),
        ];
        for (range, expected) in cases {
            assert_eq!(part(range, 10), expected, "{range}");
        }
    }
}
