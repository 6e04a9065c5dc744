//! One value into one type.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use entrepot_oci::{Authority, Host, HostPattern};
use ipnet::IpNet;

use super::source::Value;
use super::units;
use crate::admin::onlookers::Onlooker;
use crate::admin::setup::ProxyAddress;
use crate::gateway::Push;
use crate::listener::policy::Tunnels;
use crate::listener::speaker::Contact;
use crate::log::{Format, Level};
use crate::peers;
use crate::upstream::proxy::ProxyChoice;
use crate::upstream::{ConnectTo, Scheme};

/// A type that configuration can hold.
pub(super) trait FromValue: Sized {
    /// What would be right, after "expected".
    const EXPECTED: &'static str;

    /// Whether a wrong value is not shown, since it may hold a password.
    const IS_SECRET: bool = false;

    fn from_text(text: &str) -> Option<Self>;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Self::from_text(text),
            Value::Number(_) | Value::Boolean(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const IS_SECRET: bool = T::IS_SECRET;

    fn from_text(text: &str) -> Option<Self> {
        T::from_text(text).map(|one| vec![one])
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::List(items) => items.iter().map(T::from_value).collect(),
            single => T::from_value(single).map(|one| vec![one]),
        }
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(flag) => Some(*flag),
            Value::Text(text) => Self::from_text(text),
            Value::Number(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}

impl FromValue for Contact {
    const EXPECTED: &'static str = "one line of at most 100 characters, such as \"ask #platform\"";

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl FromValue for Duration {
    const EXPECTED: &'static str = units::DURATIONS;

    fn from_text(text: &str) -> Option<Self> {
        units::duration(text)
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

impl FromValue for ByteSize {
    const EXPECTED: &'static str = units::SIZES;

    fn from_text(text: &str) -> Option<Self> {
        units::size(text).map(Self)
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(text) | Value::Text(text) => Self::from_text(text),
            Value::Boolean(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}

/// What something costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost(pub(super) f64);

impl FromValue for Cost {
    const EXPECTED: &'static str = "a number such as 0.045, not below 0";

    fn from_text(text: &str) -> Option<Self> {
        const MOST: f64 = 1e6;
        let cost = text.parse().ok().filter(|cost| (0.0..=MOST).contains(cost));
        cost.map(Self)
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) | Value::Number(text) => Self::from_text(text),
            Value::Boolean(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}

/// What money is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Currency(pub(super) String);

impl FromValue for Currency {
    const EXPECTED: &'static str = "a currency such as USD, EUR or \u{20ac}";

    fn from_text(text: &str) -> Option<Self> {
        const LONGEST: usize = 8;
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
        let is_one = (1..=LONGEST).contains(&text.chars().count()) && text.chars().all(is_plain);
        is_one.then(|| Self(text.to_owned()))
    }
}

impl FromValue for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.into())
    }
}

impl FromValue for SocketAddr {
    const EXPECTED: &'static str = "an address with a port, such as 0.0.0.0:3128 or [::]:3128";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromValue for Onlooker {
    const EXPECTED: &'static str =
        "networks such as 172.16.0.0/12, addresses, or gateway for that of this network";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromValue for IpNet {
    const EXPECTED: &'static str = "a network or an address, such as 10.0.0.0/8, fd00::/8 or ::1";

    fn from_text(text: &str) -> Option<Self> {
        let address = || text.parse::<IpAddr>().ok().map(Self::from);
        text.parse().ok().or_else(address)
    }
}

impl FromValue for Host {
    const EXPECTED: &'static str = "a host such as auth.corp.example";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromValue for HostPattern {
    const EXPECTED: &'static str = "a host such as ghcr.io, registry.corp:5000, *.gcr.io or *";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromValue for ConnectTo {
    const EXPECTED: &'static str = "HOST1:PORT1:HOST2:PORT2, as for curl's --connect-to";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromValue for Authority {
    const EXPECTED: &'static str = "a host with a port, such as entrepot-peers.entrepot.svc:3128";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromValue for peers::Username {
    const EXPECTED: &'static str = "a name without a colon";

    fn from_text(text: &str) -> Option<Self> {
        Self::new(text)
    }
}

impl FromValue for ProxyChoice {
    const EXPECTED: &'static str =
        "a URL such as http://user:password@proxy.corp:8080 or https://proxy.corp, or \"direct\"";
    const IS_SECRET: bool = true;

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// An entry of `no-proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoProxyEntry(pub(super) String);

impl FromValue for NoProxyEntry {
    const EXPECTED: &'static str =
        "hosts such as registry.corp, .corp, registry.corp:5000, 10.0.0.1, 10.0.0.0/8 or *";

    fn from_text(text: &str) -> Option<Self> {
        let is_one = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:*[]/".contains(&b))
            && !text.contains("//");
        is_one.then(|| Self(text.to_owned()))
    }
}

impl FromValue for ProxyAddress {
    const EXPECTED: &'static str = "a URL such as http://proxy.corp:3128";

    fn from_text(text: &str) -> Option<Self> {
        Self::from_url(text).ok()
    }
}

impl FromValue for Tunnels {
    const EXPECTED: &'static str = "\"public\", \"any\" or \"none\"";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "public" => Self::Public,
            "any" => Self::Any,
            "none" => Self::None,
            _ => return None,
        })
    }
}

impl FromValue for Push {
    const EXPECTED: &'static str = "\"client\" or \"deny\"";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "client" => Self::Client,
            "deny" => Self::Deny,
            _ => return None,
        })
    }
}

impl FromValue for Format {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "text" => Self::Text,
            "json" => Self::Json,
            _ => return None,
        })
    }
}

impl FromValue for Level {
    const EXPECTED: &'static str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }
}

impl FromValue for Scheme {
    const EXPECTED: &'static str = "\"https\" or \"http\"";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "https" => Self::Https,
            "http" => Self::Http,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_may_be_a_bare_number_in_the_file() {
        let number = |text: &str| ByteSize::from_value(&Value::Number(text.to_owned()));
        assert_eq!(number("1048576"), Some(ByteSize(1 << 20)));
        assert_eq!(number("-1"), None);
    }

    #[test]
    fn a_single_value_is_a_list_of_one() {
        let one = Value::Text("ghcr.io".to_owned());
        assert_eq!(Vec::<HostPattern>::from_value(&one).unwrap().len(), 1);
        let wrong = Value::List(vec![one, Value::Boolean(true)]);
        assert_eq!(Vec::<HostPattern>::from_value(&wrong), None);
    }
}
