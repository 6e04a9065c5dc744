//! Addresses inside an answer lead back by the door through which the client came.
//!
//! What a registry names (the next page, an upload's session, a redirect) is resolved against the
//! URL that answered, and written so that the client asks for it here again, and not around the
//! proxy or of another registry (RFC 9110 §10.2.2, RFC 8288 §3.1).

use entrepot_oci::Registry;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::gateway::way::Way;
use crate::upstream::{Target, redirect};

/// Whether `fields` name any.
pub(in crate::gateway) fn are_in(fields: &HeaderMap) -> bool {
    fields.contains_key(header::LOCATION) || fields.contains_key(header::LINK)
}

/// Rewrites what `fields` name, as the registry at `asked` answered from `base` with `status`.
pub(in crate::gateway) fn lead_back(
    way: &Way,
    asked: &Target,
    base: &Target,
    status: StatusCode,
    fields: &mut HeaderMap,
) {
    let leading = Leading { way, asked, base, is_redirect: status.is_redirection() };
    rewrite(fields, &header::LOCATION, |text| leading.led_back(text));
    rewrite(fields, &header::LINK, |text| Some(each_link(text, |link| leading.led_back(link))));
}

/// A `Link` field whose targets are absolute, to be kept for whoever asks by whichever door.
pub(in crate::gateway) fn absolute_links(base: &Target, value: &str) -> String {
    each_link(value, |link| {
        let url = Url::parse(&base.to_string()).ok()?.join(link).ok()?;
        Some(url.to_string())
    })
}

fn rewrite(fields: &mut HeaderMap, name: &HeaderName, rewritten: impl Fn(&str) -> Option<String>) {
    let values: Vec<_> = fields.get_all(name).iter().cloned().collect();
    fields.remove(name);
    for value in values {
        let rewritten = value.to_str().ok().and_then(&rewritten);
        let rewritten = rewritten.and_then(|text| HeaderValue::try_from(text).ok());
        fields.append(name, rewritten.unwrap_or(value));
    }
}

struct Leading<'a> {
    way: &'a Way,
    asked: &'a Target,
    base: &'a Target,
    is_redirect: bool,
}

impl Leading<'_> {
    /// The address as the client should use it; `None` where it is right as it is.
    fn led_back(&self, text: &str) -> Option<String> {
        let is_relative = Url::parse(text) == Err(url::ParseError::RelativeUrlWithoutBase);
        let url = Url::parse(&self.base.to_string()).ok()?.join(text).ok()?;
        let target = redirect::target(self.base, &url).or_else(|error| {
            // Named as plain HTTP, by a registry behind something that ends TLS for it. A redirect
            // says what it means: led back to https it would come round for ever.
            if self.is_redirect {
                return Err(error);
            }
            let mut secure = url.clone();
            secure.set_scheme("https").map_err(|()| redirect::RedirectError::Scheme)?;
            redirect::target(self.base, &secure)
        });
        let target = target.ok()?;
        let host = |target: &Target| (target.authority.host().clone(), target.port());
        // Under another of its names, too, where that is of the API.
        let is_api = target.path().starts_with("/v2/");
        let is_same =
            is_api && Registry::at(&target.authority) == Registry::at(&self.asked.authority);
        if is_same || host(&target) == host(self.asked) {
            let is_path = text.starts_with('/') && !text.starts_with("//");
            let is_right = is_path && self.way.is_plain_door();
            return (!is_right).then(|| self.way.address(&target.path_and_query));
        }
        if let Some(address) = self.way.address_of(&target) {
            return Some(address);
        }
        is_relative.then(|| target.to_string())
    }
}

/// A `Link` field with another target in each link for which there is one.
fn each_link(value: &str, rewritten: impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('<') {
        let Some((link, behind)) = after.split_once('>') else { break };
        text.push_str(before);
        text.push('<');
        text.push_str(&rewritten(link).unwrap_or_else(|| link.to_owned()));
        text.push('>');
        rest = behind;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Scheme;

    fn target(url: &str) -> Target {
        let url = Url::parse(url).unwrap();
        let scheme = if url.scheme() == "http" { Scheme::Http } else { Scheme::Https };
        let port = url.port_or_known_default().unwrap();
        let authority =
            entrepot_oci::Authority::new(url.host_str().unwrap().parse().unwrap(), port);
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Target::as_named(scheme, authority, format!("{}{query}", url.path()))
    }

    fn led(way: &Way, base: &str, name: &HeaderName, value: &str) -> String {
        let asked = target("https://ghcr.io/v2/a/b/tags/list");
        let mut fields = HeaderMap::new();
        fields.insert(name, HeaderValue::from_str(value).unwrap());
        lead_back(way, &asked, &target(base), StatusCode::ACCEPTED, &mut fields);
        fields[name].to_str().unwrap().to_owned()
    }

    fn ghcr() -> entrepot_oci::Authority {
        "ghcr.io:443".parse().unwrap()
    }

    #[test]
    fn an_interceptions_client_stays_in_its_tunnel() {
        let way = Way::new(&ghcr(), Scheme::Https);
        let base = "https://ghcr.io/v2/a/b/tags/list";
        let cases = [
            ("/v2/a/b/blobs/uploads/1", "/v2/a/b/blobs/uploads/1"),
            ("https://ghcr.io/v2/a/1?x=y", "https://ghcr.io/v2/a/1?x=y"),
            ("http://ghcr.io:443/v2/a/1", "https://ghcr.io/v2/a/1"),
            ("https://storage.example/x?sig=1", "https://storage.example/x?sig=1"),
        ];
        for (told, expected) in cases {
            assert_eq!(led(&way, base, &header::LOCATION, told), expected, "{told}");
        }
        let elsewhere = "https://eu.gcr.io/v2/x/tags/list";
        let link = "<list?last=1>; rel=\"next\", </y>; rel=\"z\"";
        let expected = "<https://eu.gcr.io/v2/x/tags/list?last=1>; rel=\"next\", <https://eu.gcr.io/y>; rel=\"z\"";
        assert_eq!(led(&way, elsewhere, &header::LINK, link), expected);
        let path = "https://ghcr.io/v2/other/tags/list";
        let expected = "<https://ghcr.io/v2/other/tags/list?last=1>; rel=\"next\"";
        assert_eq!(led(&way, path, &header::LINK, "<list?last=1>; rel=\"next\""), expected);
    }

    #[test]
    fn a_path_of_two_slashes_is_no_host() {
        for way in [
            Way::mirror(&ghcr(), Some("ghcr.io".to_owned()), ""),
            Way::mirror(&ghcr(), None, "ghcr.io/"),
        ] {
            let location = led(&way, "https://ghcr.io/v2/", &header::LOCATION, "/.//evil/x");
            let mirror = Url::parse("http://proxy:3128/v2/").unwrap();
            let reached = mirror.join(&location).unwrap();
            assert_eq!((reached.host_str(), reached.path()), (Some("proxy"), "//evil/x"));
        }
    }

    #[test]
    fn a_mirrors_client_comes_back_to_the_mirror() {
        let base = "https://ghcr.io/v2/a/b/tags/list";
        let next = "</v2/a/b/tags/list?last=1>; rel=\"next\"";
        let absolute = "<https://ghcr.io/v2/a/b/tags/list?last=1>; rel=\"next\"";
        let elsewhere = "<https://eu.gcr.io/v2/a/tags/list?last=1>; rel=\"next\"";
        let by_namespace = Way::mirror(&ghcr(), Some("ghcr.io".to_owned()), "");
        let by_prefix = Way::mirror(&ghcr(), None, "ghcr.io/");
        for link in [next, absolute] {
            let expected = "</v2/a/b/tags/list?last=1&ns=ghcr.io>; rel=\"next\"";
            assert_eq!(led(&by_namespace, base, &header::LINK, link), expected);
            let expected = "</v2/ghcr.io/a/b/tags/list?last=1>; rel=\"next\"";
            assert_eq!(led(&by_prefix, base, &header::LINK, link), expected);
        }
        let expected = "</v2/a/tags/list?last=1&ns=eu.gcr.io>; rel=\"next\"";
        assert_eq!(led(&by_namespace, base, &header::LINK, elsewhere), expected);
        let expected = "</v2/eu.gcr.io/a/tags/list?last=1>; rel=\"next\"";
        assert_eq!(led(&by_prefix, base, &header::LINK, elsewhere), expected);
    }
}
