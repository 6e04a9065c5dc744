//! `Location` and `Link`: what leads to the registry leads to it by the client's own door and to
//! the same path there; whatever else is left as it is, or leads to what it meant.

#![no_main]

use entrepot::fuzzing::gateway::{Door, absolute_links, lead_back};
use entrepot_fuzz::{fields, parts};
use entrepot_oci::{Host, Registry};
use http::{HeaderMap, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use url::Url;

/// What a client of the mirror asks.
const MIRROR: &str = "http://mirror.example:3128/v2/x/tags/list";

fuzz_target!(|text: &str| {
    // Plain HTTP on TLS's port is how a registry is called that is named without a port.
    if text.contains(":443") && text.contains("http:") {
        return;
    }
    let Some([door, asked, base, status, rest]) = parts(text) else { return };
    let door = match door.split_once('=') {
        Some(("ns", name)) => Door::Namespace(name.to_owned()),
        Some(("path", prefix)) => Door::Path(prefix.to_owned()),
        _ => Door::Own,
    };
    let status = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.unwrap_or(StatusCode::OK);
    let before = fields(rest);
    let mut after = before.clone();
    if !lead_back(&door, asked, base, status, &mut after) {
        return;
    }
    let judge = Judge { door, asked: written(asked), base: written(base) };
    for name in [header::LOCATION, header::LINK] {
        let (before, after) = (values(&before, &name), values(&after, &name));
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            if name == header::LOCATION {
                judge.address(before, after);
            } else {
                judge.links(before, after);
            }
        }
    }
    for kept in values(&before, &header::LINK) {
        let absolute = absolute_links(base, &kept).unwrap();
        assert_eq!(absolute_links(base, &absolute).as_deref(), Some(absolute.as_str()), "{kept}");
    }
});

fn values(fields: &HeaderMap, name: &header::HeaderName) -> Vec<String> {
    let values = fields.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
}

/// A URL as a target has it: without credentials and fragment.
fn written(url: &str) -> Url {
    let mut url = Url::parse(url).unwrap();
    url.set_fragment(None);
    if url.scheme() != "http" {
        url.set_scheme("https").unwrap();
    }
    url
}

struct Judge {
    door: Door,
    asked: Url,
    base: Url,
}

impl Judge {
    fn links(&self, before: &str, after: &str) {
        let targets = |mut rest: &str| {
            let mut found = Vec::new();
            while let Some((link, behind)) =
                rest.split_once('<').and_then(|(_, after)| after.split_once('>'))
            {
                found.push(link.to_owned());
                rest = behind;
            }
            found
        };
        let (before, after) = (targets(before), targets(after));
        assert_eq!(before.len(), after.len(), "{before:?} {after:?}");
        before.iter().zip(&after).for_each(|(before, after)| self.address(before, after));
    }

    fn address(&self, before: &str, after: &str) {
        // What is no address of the web is nobody's.
        let Ok(meant) = self.base.join(before) else { return assert_eq!(before, after) };
        // A scheme without a host means one thing to some and another to others.
        let is_odd = before.contains('\\')
            || before.split_once(':').is_some_and(|(scheme, rest)| {
                !scheme.contains(['/', '?', '#']) && !rest.starts_with("//")
            })
            || before.contains("///");
        let is_host = meant.host_str().is_some_and(|host| host.parse::<Host>().is_ok());
        let is_plain = matches!(meant.scheme(), "http" | "https")
            && meant.username().is_empty()
            && meant.password().is_none()
            && meant.port() != Some(0);
        if is_odd || !is_host || !is_plain {
            return;
        }
        let client =
            if self.door == Door::Own { self.asked.clone() } else { Url::parse(MIRROR).unwrap() };
        let got = client.join(after).expect("an address that was one is one");
        let same_place = |one: &Url, other: &Url| {
            one.host_str() == other.host_str()
                && one.port_or_known_default() == other.port_or_known_default()
        };
        let whole = |url: &Url| (url.path().to_owned(), url.query().map(str::to_owned));
        if same_place(&got, &client) && got.scheme() == client.scheme() {
            if self.door == Door::Own {
                return assert_eq!(whole(&got), whole(&meant), "{before} {after}");
            }
            // By the mirror alone, to a path below the API.
            assert!(
                got.path().starts_with("/v2/") || same_place(&meant, &self.asked) || meant == got,
                "{before} {after}"
            );
            return;
        }
        let registry = |url: &Url| {
            let port = url.port_or_known_default().unwrap();
            let host = url.host_str().unwrap().parse().unwrap();
            Registry::at(&entrepot_oci::Authority::new(host, port))
        };
        let is_downgrade = self.base.scheme() == "https" && meant.scheme() == "http";
        let is_refused = is_downgrade && meant.port().is_some();
        if same_place(&meant, &self.asked) && !is_downgrade {
            panic!("{before} means the registry and leads to {got}");
        }
        if meant.path().starts_with("/v2/")
            && registry(&meant) == registry(&self.asked)
            && !is_downgrade
        {
            panic!("{before} means the registry and leads to {got}");
        }
        let mut left = meant.clone();
        left.set_fragment(None);
        let mut right = got.clone();
        right.set_fragment(None);
        assert!(
            left == right || is_refused || is_downgrade,
            "{before} became {after}: {left} {right}"
        );
    }
}
