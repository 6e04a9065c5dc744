//! What this proxy is called: by which names clients may take it for an origin.
//!
//! A page of the Web can have a name of its own lead here (DNS rebinding): its visitors' browsers
//! then take this proxy for the page's own site, and let it read what the proxy answers. What gives
//! them away is the name, which is the page's: nobody else's.

use entrepot_oci::host::{HTTP_PORT, HTTPS_PORT};
use entrepot_oci::{Authority, Host, HostPattern};
use http::{HeaderMap, header};

/// The names of a proxy.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxyNames {
    /// Its machine's and `external-url`'s.
    pub own: Vec<Host>,
    /// `mirror-names`; ports say nothing here.
    pub mirror: Vec<HostPattern>,
}

/// Why a request can't have come from an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    /// It is meant for a name that is somebody else's.
    #[error(
        "this mirror is not known as {0}: name it by its address, by external-url, or add the name \
         to mirror-names (a web page could have led any other name here)"
    )]
    Name(String),
    /// It says for no name at all.
    #[error("a request to the mirror needs a Host")]
    Nameless,
    /// A web page brought it about.
    #[error("the mirror is for container engines, and not for web pages (Origin, Sec-Fetch-Site)")]
    Page,
}

impl ProxyNames {
    /// Those that it shows certificates for: of patterns there is none.
    pub(super) fn certified(&self) -> Vec<Host> {
        let exact = self.mirror.iter().filter_map(HostPattern::exact);
        self.own.iter().cloned().chain(exact.map(|name| name.host().clone())).collect()
    }

    /// Whether a request with these fields comes from who means this proxy, rather than from a web
    /// page in somebody's browser.
    pub(super) fn check(&self, fields: &HeaderMap) -> Result<(), Foreign> {
        let mut sites = fields.get_all("sec-fetch-site").iter();
        // Browsers add these, and no engine does; "none" is what a person types.
        if fields.contains_key(header::ORIGIN) || sites.any(|site| site != "none") {
            return Err(Foreign::Page);
        }
        let host = fields.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.and_then(|host| Authority::parse(host, HTTP_PORT).ok());
        let host = host.ok_or(Foreign::Nameless)?;
        if self.has(host.host()) { Ok(()) } else { Err(Foreign::Name(host.host().to_string())) }
    }

    /// Addresses can't be led anywhere, and names of one part are nobody's in public.
    fn has(&self, host: &Host) -> bool {
        let Host::Name(name) = host else { return true };
        let at = Authority::new(host.clone(), HTTPS_PORT);
        !name.contains('.')
            || self.own.contains(host)
            || self.mirror.iter().any(|pattern| pattern.at_port(HTTPS_PORT).matches(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fields::map;

    fn names() -> ProxyNames {
        let mirror = ["mirror.corp:3128", "*.*.svc.cluster.local"];
        ProxyNames {
            own: vec!["proxy.corp".parse().unwrap()],
            mirror: mirror.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn only_its_own_names_lead_to_a_mirror() {
        let check = |host| names().check(&map(&[("host", host)]));
        for own in [
            "10.0.0.7:3128",
            "[fd00::7]:3128",
            "localhost:3128",
            "cache",
            "proxy.corp:3128",
            "PROXY.corp",
            "mirror.corp",
            "mirror.corp:80",
            "entrepot.cache.svc.cluster.local:3128",
        ] {
            assert_eq!(check(own), Ok(()), "{own}");
        }
        for other in [
            "rebound.evil.example:3128",
            "10.0.0.7.evil.example",
            "x.proxy.corp",
            "proxy.corp.evil.example",
            "docker.io",
            "a.b.c.svc.cluster.local",
        ] {
            let host = other.split(':').next().unwrap();
            assert_eq!(check(other), Err(Foreign::Name(host.to_owned())), "{other}");
        }
        assert_eq!(names().check(&map(&[])), Err(Foreign::Nameless));
        let every = ProxyNames { mirror: vec!["*".parse().unwrap()], ..names() };
        assert_eq!(every.check(&map(&[("host", "rebound.evil.example")])), Ok(()));
    }

    #[test]
    fn web_pages_get_nothing_from_a_mirror() {
        let check = |name, value| names().check(&map(&[("host", "10.0.0.7"), (name, value)]));
        for origin in ["http://evil.example", "http://10.0.0.7", "null", ""] {
            assert_eq!(check("origin", origin), Err(Foreign::Page), "{origin}");
        }
        for site in ["cross-site", "same-site", "same-origin", "NONE", ""] {
            assert_eq!(check("sec-fetch-site", site), Err(Foreign::Page), "{site}");
        }
        assert_eq!(check("sec-fetch-site", "none"), Ok(()));
    }
}
