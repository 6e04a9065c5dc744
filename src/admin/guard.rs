//! Who may use the admin API.
//!
//! Three kinds of strangers are kept out: machines elsewhere (a token), web pages in the browser of
//! somebody at this machine (`Origin`, and a media type that no form sends), and names that
//! somebody has pointed here so that a browser takes this listener for his site (`Host`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA256};
use http::{HeaderMap, Method, StatusCode, header};

use entrepot_oci::{Authority, Host};

/// The shortest token: less can be guessed.
pub(crate) const SHORTEST_TOKEN: usize = 16;

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

/// Where a request came from and to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The client's address.
    pub(super) client: SocketAddr,
    /// The listener's, as the client reached it.
    pub(super) own: SocketAddr,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    #[error("from other machines the API needs a token: set admin-token-file")]
    NoToken,
    #[error("from other machines the API needs `Authorization: Bearer` with the token")]
    Token,
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
            Self::NoToken | Self::Host | Self::Origin => StatusCode::FORBIDDEN,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// The rules of one admin listener.
#[derive(Debug)]
pub(crate) struct Guard {
    token: ArcSwapOption<Token>,
}

impl Guard {
    /// With `token` the API is heard from other machines.
    #[must_use]
    pub(crate) fn new(token: Option<Token>) -> Self {
        Self { token: ArcSwapOption::from_pointee(token) }
    }

    /// This token and no other opens the API from now on.
    pub(crate) fn replace_token(&self, token: Option<Token>) {
        self.token.store(token.map(Arc::new));
    }

    /// Whether a request for the API is heard; `body` is the media type that its body must have, if
    /// it has one.
    pub(super) fn check(
        &self,
        ends: Ends,
        method: &Method,
        headers: &HeaderMap,
        body: Option<&'static str>,
    ) -> Result<(), Denial> {
        let is_authorized = self.authorized(headers)?;
        // Whoever hands connections on, as a sidecar does, may do so from loopback, but not to it.
        let is_here =
            [ends.client, ends.own].iter().all(|end| end.ip().to_canonical().is_loopback());
        if !is_authorized && !is_here {
            let has_token = self.token.load().is_some();
            return Err(if has_token { Denial::Token } else { Denial::NoToken });
        }
        let host = host(headers).ok_or(Denial::Host)?;
        // Who has the token is no web page, and may know this machine by any name.
        if !is_authorized && !is_own(&host, ends.own.ip()) {
            return Err(Denial::Host);
        }
        if !is_same_origin(headers, &host) || is_cross_site(headers) {
            return Err(Denial::Origin);
        }
        match body.filter(|_| *method != Method::GET && *method != Method::HEAD) {
            Some(media_type) if !is_of(headers, media_type) => Err(Denial::MediaType(media_type)),
            _ => Ok(()),
        }
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

    fn check(token: bool, client: &str, fields: &[(&str, &str)]) -> Result<(), Denial> {
        let guard = Guard::new(Token::new(SECRET).filter(|_| token));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let own = if client.starts_with("127") { "127.0.0.1:3129" } else { "10.0.0.1:3129" };
        let client = SocketAddr::new(client.parse().unwrap(), 40_000);
        let ends = Ends { client, own: own.parse().unwrap() };
        let has_body = fields.iter().any(|(name, _)| *name == "content-length");
        let body = has_body.then_some("application/json");
        guard.check(ends, &Method::POST, &headers, body)
    }

    #[test]
    fn other_machines_need_the_token() {
        let (here, there) = (("host", "127.0.0.1:3129"), ("host", "proxy.corp:3129"));
        let right = ("authorization", "bearer 0123456789abcdef");
        let wrong = ("authorization", "Bearer 0123456789abcdeF");
        let basic = ("authorization", "Basic 0123456789abcdef");
        assert_eq!(check(false, "127.0.0.1", &[here]), Ok(()));
        assert_eq!(check(true, "127.0.0.1", &[here]), Ok(()));
        assert_eq!(check(true, "127.0.0.1", &[here, wrong]), Err(Denial::Token));
        assert_eq!(check(false, "10.0.0.7", &[there]), Err(Denial::NoToken));
        assert_eq!(check(true, "10.0.0.7", &[there]), Err(Denial::Token));
        assert_eq!(check(true, "10.0.0.7", &[there, basic]), Err(Denial::Token));
        assert_eq!(check(true, "10.0.0.7", &[there, wrong]), Err(Denial::Token));
        assert_eq!(check(true, "10.0.0.7", &[there, right]), Ok(()));
        let guard = Guard::new(None);
        let ends = Ends {
            client: "127.0.0.6:40000".parse().unwrap(),
            own: "10.0.0.1:3129".parse().unwrap(),
        };
        let mut headers = HeaderMap::new();
        headers.append("host", "10.0.0.1:3129".parse().unwrap());
        assert_eq!(guard.check(ends, &Method::GET, &headers, None), Err(Denial::NoToken));
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
