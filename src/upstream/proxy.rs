//! Forward proxies on the way out: which destination is reached through which.
//!
//! A proxy's credential is a secret: it is sent to that proxy and never shown.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_oci::{Authority, Host, HostPattern};
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::client::Scheme;

/// Not a proxy's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected http://[user:password@]host[:port] or https://…")]
pub(crate) struct ProxyUrlError;

/// The value of `Proxy-Authorization` for one proxy.
#[derive(Clone)]
pub(crate) struct Credential(HeaderValue);

impl Credential {
    /// RFC 7617.
    pub(crate) fn basic(username: &str, password: &str) -> Option<Self> {
        let pair = STANDARD.encode(format!("{username}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

/// Says that it is one, never which.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// A proxy that an operator has named.
#[derive(Clone)]
pub(crate) struct ForwardProxy {
    scheme: Scheme,
    authority: Authority,
    credential: Option<Credential>,
    named_by: String,
}

impl ForwardProxy {
    /// The proxy at this place, which is spoken to as it is.
    #[must_use]
    pub(crate) fn plain(authority: Authority, credential: Option<Credential>) -> Self {
        Self { scheme: Scheme::Http, authority, credential, named_by: String::new() }
    }

    /// Remembers which key or variable names it, for the operator, who must act on its refusal.
    #[must_use]
    pub(crate) fn named_by(self, setting: impl Into<String>) -> Self {
        Self { named_by: setting.into(), ..self }
    }

    /// Whether it is spoken to by TLS.
    #[must_use]
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Its URL, without a credential.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.authority)
    }

    /// Which key or variable has named it.
    #[must_use]
    pub(crate) fn setting(&self) -> &str {
        &self.named_by
    }

    /// The value of `Proxy-Authorization`, marked as sensitive.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        self.credential.as_ref().map(|credential| credential.0.clone())
    }
}

/// Its place and who named it; never its credential.
impl fmt::Display for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.authority, self.named_by)
    }
}

impl fmt::Debug for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForwardProxy({self})")
    }
}

impl FromStr for ForwardProxy {
    type Err = ProxyUrlError;

    /// Parses `http://user:password@host:port`; without a scheme `http` is meant, as everywhere.
    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|_| ProxyUrlError)?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(ProxyUrlError),
        };
        let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
        let host: Option<Host> = url.host_str().and_then(|host| host.parse().ok());
        let port = url.port().unwrap_or(scheme.default_port());
        match host {
            Some(host) if port != 0 && !has_more => {
                let authority = Authority::new(host, port);
                Ok(Self { scheme, authority, credential: basic(&url), named_by: String::new() })
            }
            _ => Err(ProxyUrlError),
        }
    }
}

/// RFC 7617, from the URL's user name and password with their percent-encoding undone.
fn basic(url: &Url) -> Option<Credential> {
    let anywhere = Uri::from_static("https://any.invalid");
    let intercept = Matcher::builder().all(url.as_str()).build().intercept(&anywhere)?;
    intercept.basic_auth().cloned().map(Credential)
}

/// What an operator wants of the way to some destinations.
#[derive(Debug, Clone)]
pub(crate) enum ProxyChoice {
    /// No proxy.
    Direct,
    /// This one.
    Through(ForwardProxy),
}

impl ProxyChoice {
    /// See [`ForwardProxy::named_by`].
    #[must_use]
    pub(crate) fn named_by(self, setting: impl Into<String>) -> Self {
        match self {
            Self::Direct => Self::Direct,
            Self::Through(proxy) => Self::Through(proxy.named_by(setting)),
        }
    }

    fn proxy(&self) -> Option<&ForwardProxy> {
        match self {
            Self::Direct => None,
            Self::Through(proxy) => Some(proxy),
        }
    }
}

impl FromStr for ProxyChoice {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        if text == "direct" { Ok(Self::Direct) } else { text.parse().map(Self::Through) }
    }
}

/// Destinations that are reached without a proxy: `NO_PROXY`, as Go's programs (so the engines)
/// read it: a domain means its subdomains as well, addresses and networks mean destinations that
/// are given as an address, and `host:port` means that port alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct NoProxy(Arc<Vec<(Option<u16>, Matcher)>>);

impl NoProxy {
    /// The list of these entries.
    #[must_use]
    pub(crate) fn new<'a>(entries: impl IntoIterator<Item = &'a str>) -> Self {
        let matcher = |entry: &str| {
            let (host, port) = split_port(entry);
            // `*.corp` is `.corp` to Go, and `*` means addresses too; neither to the library.
            let host = match host.strip_prefix('*') {
                Some("") => "*,0.0.0.0/0,::/0",
                Some(domain) => domain,
                None => host,
            };
            let stands_for_any = "http://any.invalid";
            (port, Matcher::builder().all(stands_for_any).no(host).build())
        };
        let entries = entries.into_iter().map(str::trim).filter(|entry| !entry.is_empty());
        Self(Arc::new(entries.map(matcher).collect()))
    }

    fn contains(&self, authority: &Authority) -> bool {
        let Ok(uri) = Uri::try_from(format!("https://{authority}")) else { return false };
        self.0.iter().any(|(port, matcher)| {
            port.is_none_or(|port| port == authority.port()) && matcher.intercept(&uri).is_none()
        })
    }
}

/// Splits the port off `host:port` and `[::1]:port`; an IPv6 address alone has none.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host.trim_start_matches('[').trim_end_matches(']'), Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry.trim_start_matches('[').trim_end_matches(']'), None),
    }
}

/// Every rule on proxies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    /// Each `[[registry]]` entry, with what it says of a proxy; the first that fits counts, and
    /// nothing else if it says something.
    pub registries: Vec<(HostPattern, Option<ProxyChoice>)>,
    /// For TLS and for tunnels.
    pub https: Option<ForwardProxy>,
    /// For plain HTTP.
    pub http: Option<ForwardProxy>,
    /// What neither of those two is used for.
    pub exempt: NoProxy,
}

impl Proxies {
    /// The proxy on the way to a destination, if any.
    #[must_use]
    pub(crate) fn on_the_way_to(
        &self,
        scheme: Scheme,
        authority: &Authority,
    ) -> Option<&ForwardProxy> {
        let entry = self.registries.iter().find(|(host, _)| host.matches(authority));
        if let Some((_, Some(choice))) = entry {
            return choice.proxy();
        }
        let usual = match scheme {
            Scheme::Https => &self.https,
            Scheme::Http => &self.http,
        };
        usual.as_ref().filter(|_| !self.exempt.contains(authority))
    }

    /// Every proxy that is named.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ForwardProxy> {
        let own = self.registries.iter().filter_map(|(_, choice)| choice.as_ref()?.proxy());
        own.chain(&self.https).chain(&self.http)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(text: &str) -> ForwardProxy {
        text.parse().unwrap()
    }

    #[test]
    fn urls_of_proxies_are_read() {
        let place = |text| (proxy(text).scheme(), proxy(text).authority().to_string());
        assert_eq!(place("http://corp:8080"), (Scheme::Http, "corp:8080".to_owned()));
        assert_eq!(place("corp:8080"), (Scheme::Http, "corp:8080".to_owned()));
        assert_eq!(place("http://corp/"), (Scheme::Http, "corp:80".to_owned()));
        assert_eq!(place("https://u:p@10.0.0.1"), (Scheme::Https, "10.0.0.1:443".to_owned()));
        assert_eq!(place("http://[::1]:1"), (Scheme::Http, "[::1]:1".to_owned()));
        for bad in ["", "http://", "socks5://corp:1080", "http://corp:0", "http://corp/path", "a b"]
        {
            assert!(bad.parse::<ForwardProxy>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let with = proxy("http://Aladdin:open%3Ase%40me@corp:8080").named_by("upstream.proxy");
        let value = with.authorization().unwrap();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuOnNlQG1l");
        assert!(value.is_sensitive());
        assert_eq!(with.to_string(), "corp:8080 (upstream.proxy)");
        assert!(!format!("{:?}", ProxyChoice::Through(with)).contains("open"));
        assert!(proxy("http://corp:8080").authorization().is_none());
    }

    #[test]
    fn exemptions_are_those_of_the_engines() {
        let list = NoProxy::new([
            ".corp",
            " lab.example ",
            "*.test",
            "10.0.0.0/8",
            "192.0.2.1",
            "[2001:db8::1]",
            "fd00::/8",
            "one.port:5000",
            "",
        ]);
        let contains = |text: &str| list.contains(&text.parse().unwrap());
        for inside in [
            "registry.corp:443",
            "LAB.example:5000",
            "a.lab.example:443",
            "a.test:443",
            "10.1.2.3:443",
            "192.0.2.1:80",
            "[2001:db8::1]:443",
            "[fd12::1]:443",
            "one.port:5000",
        ] {
            assert!(contains(inside), "{inside}");
        }
        for outside in [
            "ghcr.io:443",
            "notlab.example:443",
            "11.0.0.1:443",
            "one.port:443",
            "corp.example:443",
            "192.0.2.10:443",
        ] {
            assert!(!contains(outside), "{outside}");
        }
        for anything in ["ghcr.io:443", "10.0.0.1:443", "[::1]:443"] {
            assert!(NoProxy::new(["*"]).contains(&anything.parse().unwrap()));
        }
        assert!(!NoProxy::default().contains(&"ghcr.io:443".parse().unwrap()));
    }

    #[test]
    fn a_registrys_own_word_counts_first() {
        let own = |host: &str, choice: Option<&str>| {
            (host.parse().unwrap(), choice.map(|choice| choice.parse().unwrap()))
        };
        let proxies = Proxies {
            registries: vec![
                own("direct.corp", Some("direct")),
                own("own.corp", Some("http://own:1")),
                own("silent.corp", None),
                own("*.corp", Some("http://late:1")),
            ],
            https: Some(proxy("http://tls:1")),
            http: Some(proxy("http://plain:1")),
            exempt: NoProxy::new([".corp"]),
        };
        let way = |scheme, host: &str| {
            let authority = format!("{host}:443").parse().unwrap();
            proxies.on_the_way_to(scheme, &authority).map(|proxy| proxy.authority().to_string())
        };
        assert_eq!(way(Scheme::Https, "direct.corp"), None);
        assert_eq!(way(Scheme::Https, "own.corp").unwrap(), "own:1");
        assert_eq!(way(Scheme::Https, "silent.corp"), None, "exempt, and its entry is the first");
        assert_eq!(way(Scheme::Http, "other.corp").unwrap(), "late:1");
        assert_eq!(way(Scheme::Https, "ghcr.io").unwrap(), "tls:1");
        assert_eq!(way(Scheme::Http, "ghcr.io").unwrap(), "plain:1");
        assert_eq!(proxies.all().count(), 4);
    }
}
