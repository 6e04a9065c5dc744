//! Who may use the admin API.
//!
//! Four kinds of strangers are kept out: machines elsewhere (a token, or for looking alone an
//! address that the operator has named); other users of this machine, and whoever has a request
//! forwarded to it (the token; without one the socket, of which the kernel says who is there); web
//! pages in the browser of somebody at this machine (`Origin`, and a media type that no form
//! sends); and names that somebody has pointed here so that a browser takes this listener for his
//! site (`Host`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA256};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};

use entrepot_oci::{Authority, Host};

use super::onlookers::Onlookers;

/// The shortest token: less can be guessed.
pub(crate) const SHORTEST_TOKEN: usize = 16;
/// Fields that whoever passes a request on adds to it.
const FORWARDED: [&str; 12] = [
    "via",
    "forwarded",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-proxyuser-ip",
    "true-client-ip",
    "fastly-client-ip",
    "x-azure-clientip",
    "client-ip",
    "x-remote-addr",
    "x-request-id",
    "proxy-connection",
];
/// How others of them begin.
const FORWARDED_PREFIXES: [&str; 12] = [
    "x-forward",
    "x-real",
    "x-original",
    "x-prox",
    "x-envoy",
    "x-varnish",
    "x-nginx",
    "x-amzn-",
    "x-azure-",
    "x-cloud-",
    "x-arr-",
    "cf-",
];

/// A token that opens the API to other machines: its hash, so that a comparison tells nothing.
#[derive(Clone)]
pub(crate) struct Token(digest::Digest);

impl Token {
    /// The token in `text`, without the white space around it; `None` where it is too short.
    #[must_use]
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.len() >= SHORTEST_TOKEN).then(|| Self(digest::digest(&SHA256, text.as_bytes())))
    }

    fn is(&self, shown: &str) -> bool {
        let shown = digest::digest(&SHA256, shown.as_bytes());
        verify_slices_are_equal(self.0.as_ref(), shown.as_ref()).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// By which door a request came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    /// The listener's address, which tells nothing of who it is.
    Listener {
        /// The client's address.
        client: SocketAddr,
        /// The listener's, as the client reached it.
        own: SocketAddr,
    },
    /// The socket, with the user whom the kernel vouches for.
    Socket {
        /// Whether that user may do what this process may.
        is_trusted: bool,
    },
}

impl Door {
    /// The client's address; one at the socket is on this machine.
    pub(super) fn client(self) -> IpAddr {
        match self {
            Self::Listener { client, .. } => client.ip(),
            Self::Socket { .. } => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// What a request would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Look at figures and names.
    Look,
    /// Change something, or take away what is kept or configured.
    Act,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    pub(super) deed: Deed,
    /// The media type that the body must have, if there is one.
    pub(super) body: Option<&'static str>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    #[error(
        "from other machines the API needs a token: set admin-token-file; to look without one, name \
         {0} in admin-look-from"
    )]
    NoToken(IpAddr),
    #[error("the API needs `Authorization: Bearer` with the token in admin-token-file")]
    Token,
    #[error(
        "something has forwarded this request, so that nobody knows whose it is: the API needs a \
         token for that, set admin-token-file"
    )]
    Forwarded,
    #[error(
        "without a token this address is for looking alone: on the proxy's own machine root and its \
         user have the admin socket, which `entrepot` takes by itself; for others set \
         admin-token-file"
    )]
    Act,
    #[error(
        "the admin socket is for root and the proxy's own user: others need \
         `Authorization: Bearer` with the token in admin-token-file"
    )]
    User,
    #[error("the Host must be this listener's own address or localhost")]
    Host,
    #[error("this API is not for web pages of elsewhere")]
    Origin,
    #[error("a body must be {0}")]
    MediaType(&'static str),
}

impl Denial {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoToken(_)
            | Self::Forwarded
            | Self::Act
            | Self::User
            | Self::Host
            | Self::Origin => StatusCode::FORBIDDEN,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// The rules of one admin listener.
#[derive(Debug)]
pub(crate) struct Guard {
    token: ArcSwapOption<Token>,
    onlookers: ArcSwap<Onlookers>,
}

impl Guard {
    /// With `token` the API is heard from other machines; without one, `onlookers` may look.
    #[must_use]
    pub(crate) fn new(token: Option<Token>, onlookers: Onlookers) -> Self {
        Self {
            token: ArcSwapOption::from_pointee(token),
            onlookers: ArcSwap::from_pointee(onlookers),
        }
    }

    /// This token and no other opens the API from now on, and these may look where there is none.
    pub(crate) fn replace(&self, token: Option<Token>, onlookers: Onlookers) {
        self.onlookers.store(Arc::new(onlookers));
        self.token.store(token.map(Arc::new));
    }

    /// Whether there is a token that could be shown.
    pub(super) fn has_token(&self) -> bool {
        self.token.load().is_some()
    }

    /// Whether a request for the API is heard.
    pub(super) fn check(&self, door: Door, asked: &Asked<'_>) -> Result<(), Denial> {
        let headers = asked.headers;
        let is_authorized = self.authorized(headers)?;
        if !is_authorized {
            self.check_stranger(door, asked)?;
        }
        let host = host(headers).ok_or(Denial::Host)?;
        // Who has the token is no web page, and may know this machine by any name; no page leads
        // to a socket either.
        if let Door::Listener { own, .. } = door
            && !is_authorized
            && !is_own(&host, own.ip())
        {
            return Err(Denial::Host);
        }
        if !is_same_origin(headers, &host) || is_cross_site(headers) {
            return Err(Denial::Origin);
        }
        match asked.body.filter(|_| *asked.method != Method::GET && *asked.method != Method::HEAD) {
            Some(media_type) if !is_of(headers, media_type) => Err(Denial::MediaType(media_type)),
            _ => Ok(()),
        }
    }

    /// Whether a request without the token is heard: at the socket by its user; else, where there
    /// is no token that could be asked for, from this machine or by an onlooker, and for looking
    /// alone. What has only passed through this machine has an end here as well, and need not say
    /// so.
    fn check_stranger(&self, door: Door, asked: &Asked<'_>) -> Result<(), Denial> {
        let is_forwarded = is_forwarded(asked.version, asked.headers);
        match door {
            Door::Socket { is_trusted: false } => Err(Denial::User),
            Door::Listener { .. } if self.has_token() => Err(Denial::Token),
            Door::Listener { client, own } if !self.may_look(client, own) => {
                Err(Denial::NoToken(client.ip().to_canonical()))
            }
            _ if is_forwarded => Err(Denial::Forwarded),
            Door::Listener { .. } if asked.deed == Deed::Act => Err(Denial::Act),
            Door::Socket { .. } | Door::Listener { .. } => Ok(()),
        }
    }

    /// Whether who comes from `client` to this address of the listener may look without a token.
    fn may_look(&self, client: SocketAddr, own: SocketAddr) -> bool {
        // Whoever hands connections on, as a sidecar does, may do so from loopback, but not to it.
        let is_here = [client, own].iter().all(is_loopback);
        is_here || self.onlookers.load().include(client.ip())
    }

    /// Whether the request brings the token; a wrong one is not like none.
    fn authorized(&self, headers: &HeaderMap) -> Result<bool, Denial> {
        let token = self.token.load();
        let Some(token) = token.as_ref() else { return Ok(false) };
        let Some(shown) = headers.get(header::AUTHORIZATION) else { return Ok(false) };
        let shown = shown.to_str().ok().and_then(bearer).ok_or(Denial::Token)?;
        if token.is(shown) { Ok(true) } else { Err(Denial::Token) }
    }
}

/// The token of `Bearer …` (RFC 6750 §2.1; the scheme in any case, RFC 9110 §11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The port does not matter: whoever forwards one to here has another.
fn host(headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    Authority::parse(host.to_str().ok()?, 80).ok()
}

fn is_loopback(end: &SocketAddr) -> bool {
    end.ip().to_canonical().is_loopback()
}

/// Whether something on the way has passed the request on: it says so in one of the fields in use
/// for that, or it speaks HTTP/1.0, as nginx does to what it stands before and no tool here does.
/// One that does neither goes unseen, so that nothing of weight may hang on this.
fn is_forwarded(version: Version, headers: &HeaderMap) -> bool {
    let says_so = |name: &HeaderName| {
        let name = name.as_str();
        FORWARDED.contains(&name) || FORWARDED_PREFIXES.iter().any(|begin| name.starts_with(begin))
    };
    version < Version::HTTP_11 || headers.keys().any(says_so)
}

fn is_own(host: &Authority, own: IpAddr) -> bool {
    match host.host() {
        Host::Ip(ip) => ip.to_canonical() == own.to_canonical() || ip.is_loopback(),
        Host::Name(name) => &**name == "localhost",
    }
}

/// "User agents MUST NOT include" an `Origin` that is a page's lie (RFC 6454 §7.3): one that is
/// there must be this listener's own.
fn is_same_origin(headers: &HeaderMap, host: &Authority) -> bool {
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let authority = origin.and_then(|(scheme, authority)| {
            Authority::parse(authority, if scheme == "https" { 443 } else { 80 }).ok()
        });
        authority.as_ref() == Some(host)
    })
}

/// A browser says so of what a page of elsewhere makes it fetch, even where nobody will read the
/// answer and no `Origin` is sent (W3C, "Fetch Metadata Request Headers").
fn is_cross_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.any(|site| site != "same-origin" && site != "none")
}

/// No form of a web page sends any of the media types that are asked for here.
fn is_of(headers: &HeaderMap, wanted: &str) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(media_type), None) = (types.next(), types.next()) else { return false };
    let media_type = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn door(client: &str) -> Door {
        let own = if client.starts_with("127") { "127.0.0.1:3129" } else { "10.0.0.1:3129" };
        let client = SocketAddr::new(client.parse().unwrap(), 40_000);
        Door::Listener { client, own: own.parse().unwrap() }
    }

    fn ask(
        token: bool,
        door: Door,
        deed: Deed,
        version: Version,
        fields: &[(&str, &str)],
    ) -> Result<(), Denial> {
        let guard = Guard::new(Token::new(SECRET).filter(|_| token), Onlookers::default());
        ask_of(&guard, door, deed, version, fields)
    }

    fn ask_of(
        guard: &Guard,
        door: Door,
        deed: Deed,
        version: Version,
        fields: &[(&str, &str)],
    ) -> Result<(), Denial> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let has_body = fields.iter().any(|(name, _)| *name == "content-length");
        let body = has_body.then_some("application/json");
        let (method, headers) = (&Method::POST, &headers);
        guard.check(door, &Asked { method, version, headers, deed, body })
    }

    fn check(token: bool, client: &str, fields: &[(&str, &str)]) -> Result<(), Denial> {
        ask(token, door(client), Deed::Look, Version::HTTP_11, fields)
    }

    #[test]
    fn whoever_is_not_known_needs_the_token() {
        let (here, there) = (("host", "127.0.0.1:3129"), ("host", "proxy.corp:3129"));
        let right = ("authorization", "bearer 0123456789abcdef");
        let wrong = ("authorization", "Bearer 0123456789abcdeF");
        let basic = ("authorization", "Basic 0123456789abcdef");
        assert_eq!(check(false, "127.0.0.1", &[here]), Ok(()));
        assert_eq!(check(true, "127.0.0.1", &[here]), Err(Denial::Token), "not here either");
        assert_eq!(check(true, "127.0.0.1", &[here, right]), Ok(()));
        assert_eq!(check(true, "127.0.0.1", &[here, wrong]), Err(Denial::Token));
        let unknown = Err(Denial::NoToken([10, 0, 0, 7].into()));
        assert_eq!(check(false, "10.0.0.7", &[there]), unknown);
        assert_eq!(check(true, "10.0.0.7", &[there]), Err(Denial::Token));
        assert_eq!(check(true, "10.0.0.7", &[there, basic]), Err(Denial::Token));
        assert_eq!(check(true, "10.0.0.7", &[there, wrong]), Err(Denial::Token));
        assert_eq!(check(true, "10.0.0.7", &[there, right]), Ok(()));
        let (client, own) = ("127.0.0.6:40000", "10.0.0.1:3129");
        let handed_on =
            Door::Listener { client: client.parse().unwrap(), own: own.parse().unwrap() };
        let asked = ask(false, handed_on, Deed::Look, Version::HTTP_11, &[("host", own)]);
        assert_eq!(asked, Err(Denial::NoToken([127, 0, 0, 6].into())));
    }

    #[test]
    fn without_a_token_this_machine_may_look_and_the_sockets_users_may_act() {
        let (host, right) = (("host", "localhost"), ("authorization", "Bearer 0123456789abcdef"));
        let act = |token, door, fields: &[(&str, &str)]| {
            ask(token, door, Deed::Act, Version::HTTP_11, fields)
        };
        let here = door("127.0.0.1");
        assert_eq!(act(false, here, &[host]), Err(Denial::Act));
        assert_eq!(act(true, here, &[host]), Err(Denial::Token));
        assert_eq!(act(true, here, &[host, right]), Ok(()));
        let [trusted, other] = [true, false].map(|is_trusted| Door::Socket { is_trusted });
        for token in [false, true] {
            assert_eq!(act(token, trusted, &[host]), Ok(()));
            assert_eq!(act(token, trusted, &[("host", "entrepot")]), Ok(()), "by whatever name");
            assert_eq!(act(token, other, &[host]), Err(Denial::User));
        }
        assert_eq!(act(true, other, &[host, right]), Ok(()));
        assert_eq!(ask(false, other, Deed::Look, Version::HTTP_11, &[host]), Err(Denial::User));
    }

    #[test]
    fn onlookers_may_look_where_there_is_no_token_and_do_nothing() {
        let guard = |token: Option<&str>| {
            let entries = ["10.0.0.0/24".parse().unwrap()];
            Guard::new(token.and_then(Token::new), Onlookers::of(&entries))
        };
        let (open, closed) = (guard(None), guard(Some(SECRET)));
        let look = |guard, client, fields: &[(&str, &str)]| {
            ask_of(guard, door(client), Deed::Look, Version::HTTP_11, fields)
        };
        for host in ["127.0.0.1:3129", "localhost:3129", "10.0.0.1:3129"] {
            assert_eq!(look(&open, "10.0.0.7", &[("host", host)]), Ok(()), "{host}");
            let unknown = Err(Denial::NoToken([10, 0, 1, 7].into()));
            assert_eq!(look(&open, "10.0.1.7", &[("host", host)]), unknown);
            assert_eq!(look(&closed, "10.0.0.7", &[("host", host)]), Err(Denial::Token));
            let act =
                ask_of(&open, door("10.0.0.7"), Deed::Act, Version::HTTP_11, &[("host", host)]);
            assert_eq!(act, Err(Denial::Act), "{host}");
        }
        // What keeps web pages out of this machine's listener keeps them out of that as well.
        let here = ("host", "localhost:3129");
        for (field, denial) in [
            (("origin", "http://evil.example"), Denial::Origin),
            (("sec-fetch-site", "cross-site"), Denial::Origin),
            (("x-forwarded-for", "10.0.0.7"), Denial::Forwarded),
        ] {
            assert_eq!(look(&open, "10.0.0.7", &[here, field]), Err(denial), "{field:?}");
        }
        for led in ["evil.example:3129", "proxy.corp", "10.0.0.2"] {
            assert_eq!(look(&open, "10.0.0.7", &[("host", led)]), Err(Denial::Host), "{led}");
        }
        open.replace(None, Onlookers::default());
        let unknown = Err(Denial::NoToken([10, 0, 0, 7].into()));
        assert_eq!(look(&open, "10.0.0.7", &[here]), unknown, "no more");
    }

    #[test]
    fn what_was_forwarded_needs_the_token() {
        let host = ("host", "127.0.0.1:3129");
        let right = ("authorization", "Bearer 0123456789abcdef");
        for name in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "forwarded",
            "via",
            "x-real-ip",
            "cf-connecting-ip",
            "true-client-ip",
        ] {
            let fields = [host, (name, "127.0.0.1")];
            for door in [door("127.0.0.1"), Door::Socket { is_trusted: true }] {
                let asked = ask(false, door, Deed::Look, Version::HTTP_11, &fields);
                assert_eq!(asked, Err(Denial::Forwarded), "{name} {door:?}");
            }
            assert_eq!(check(true, "127.0.0.1", &[&fields[..], &[right]].concat()), Ok(()));
        }
        let old = ask(false, door("127.0.0.1"), Deed::Look, Version::HTTP_10, &[host]);
        assert_eq!(old, Err(Denial::Forwarded), "as nginx sends it");
    }

    #[test]
    fn a_name_that_is_led_here_is_not_heard() {
        let check = |host: &str| check(false, "127.0.0.1", &[("host", host)]);
        for own in ["127.0.0.1:3129", "localhost:3129", "LOCALHOST", "[::1]:3129", "localhost:9"] {
            assert_eq!(check(own), Ok(()), "{own}");
        }
        let others =
            ["evil.example", "127.0.0.1.evil.example:3129", "10.0.0.1", "a b", "", "0.0.0.0"];
        for other in others {
            assert_eq!(check(other), Err(Denial::Host), "{other}");
        }
    }

    #[test]
    fn web_pages_of_elsewhere_are_not_heard() {
        let check = |fields: &[(&str, &str)]| {
            let fields = [&[("host", "localhost:3129")], fields].concat();
            check(false, "127.0.0.1", &fields)
        };
        assert_eq!(check(&[("origin", "http://localhost:3129")]), Ok(()));
        for (site, expected) in [
            ("same-origin", Ok(())),
            ("none", Ok(())),
            ("cross-site", Err(Denial::Origin)),
            ("same-site", Err(Denial::Origin)),
        ] {
            assert_eq!(check(&[("sec-fetch-site", site)]), expected, "{site}");
        }
        for origin in
            ["null", "http://evil.example", "http://localhost:8000", "https://localhost", ""]
        {
            assert_eq!(check(&[("origin", origin)]), Err(Denial::Origin), "{origin}");
        }
        let body = ("content-length", "2");
        let typed = |media_type| check(&[body, ("content-type", media_type)]);
        let refused = Err(Denial::MediaType("application/json"));
        assert_eq!(check(&[body]), refused);
        assert_eq!(typed("text/plain"), refused);
        assert_eq!(typed("application/x-www-form-urlencoded"), refused);
        assert_eq!(typed("Application/JSON; charset=utf-8"), Ok(()));
    }

    #[test]
    fn a_token_that_can_be_guessed_is_none() {
        assert!(Token::new("0123456789abcde\n").is_none());
        assert!(Token::new(&format!(" {SECRET}\n")).is_some());
    }
}
