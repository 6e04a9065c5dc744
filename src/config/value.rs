//! One value into one type.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use entrepot_oci::{Host, HostPattern};
use ipnet::IpNet;

use super::source::Value;
use crate::admin::setup::ProxyAddress;
use crate::gateway::Push;
use crate::listener::policy::Tunnels;
use crate::listener::speaker::Contact;
use crate::log::{Format, Level};
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
            Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Table(_) => None,
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
            Value::Integer(_) | Value::List(_) | Value::Table(_) => None,
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
    const EXPECTED: &'static str = "a duration such as 500ms, 30s, 10m, 1h or 60d";

    fn from_text(text: &str) -> Option<Self> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(unit_at);
        let number: u64 = number.parse().ok()?;
        let seconds = match unit {
            "ms" => return Some(Self::from_millis(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        number.checked_mul(seconds).map(Self::from_secs)
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

impl FromValue for ByteSize {
    const EXPECTED: &'static str = "a size such as 500MB, 32GiB or 2TiB";

    fn from_text(text: &str) -> Option<Self> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(unit_at);
        let factor = match unit {
            "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
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
    fn durations_have_units() {
        let read = Duration::from_text;
        assert_eq!(read("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(read("0s"), Some(Duration::ZERO));
        assert_eq!(read("10m"), Some(Duration::from_mins(10)));
        assert_eq!(read("60d"), Some(Duration::from_hours(60 * 24)));
        for wrong in ["", "10", "s", "-1s", "1.5h", "1 s", "99999999999999999999s", "1w"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let read = |text| ByteSize::from_text(text).map(|size| size.0);
        assert_eq!(read("0B"), Some(0));
        assert_eq!(read("500MB"), Some(500_000_000));
        assert_eq!(read("32GiB"), Some(32 << 30));
        for wrong in ["", "32", "GiB", "32 GiB", "1.5GiB", "32gib", "-1B", "99999999999TiB"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_single_value_is_a_list_of_one() {
        let one = Value::Text("ghcr.io".to_owned());
        assert_eq!(Vec::<HostPattern>::from_value(&one).unwrap().len(), 1);
        let wrong = Value::List(vec![one, Value::Boolean(true)]);
        assert_eq!(Vec::<HostPattern>::from_value(&wrong), None);
    }
}
