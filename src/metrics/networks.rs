//! Tallies by network of clients, for so many networks and no more.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use super::tally::{Sums, Tally};

/// Networks that are told apart: a site has some dozens. Beyond them the one that was served least
/// of those without a connection goes into the rest.
const MOST: usize = 256;
/// What counts as one network of IPv4.
const PREFIX_V4: u8 = 24;
/// And of IPv6: what counts as one client elsewhere, which providers give to a household.
const PREFIX_V6: u8 = 56;
/// What all others are called.
const OTHER: &str = "other";
/// What images are fetched for that operators bring in ahead of time.
const OPERATOR: &str = "operator";

/// A network of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Network {
    /// These addresses.
    Of(IpNet),
    /// The operator, who pulls ahead.
    Operator,
    /// All that are not told apart.
    Other,
}

impl Network {
    /// Whose request it is; `None`: the operator's.
    fn at(client: Option<IpAddr>) -> Self {
        let Some(client) = client.map(|client| client.to_canonical()) else {
            return Self::Operator;
        };
        let prefix = if client.is_ipv4() { PREFIX_V4 } else { PREFIX_V6 };
        IpNet::new(client, prefix).map_or(Self::Other, |network| Self::Of(network.trunc()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(network) => network.fmt(f),
            Self::Operator => f.write_str(OPERATOR),
            Self::Other => f.write_str(OTHER),
        }
    }
}

/// No network.
#[derive(Debug)]
pub(crate) struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        match text {
            OPERATOR => Ok(Self::Operator),
            OTHER => Ok(Self::Other),
            _ => text.parse().map(Self::Of).map_err(|_| NoNetwork),
        }
    }
}

/// All networks. One short lock a connection, and one a question to a registry.
#[derive(Debug, Default)]
pub(super) struct Networks {
    known: Mutex<HashMap<Network, Arc<Tally>>>,
    other: Arc<Tally>,
}

impl Networks {
    /// Where is counted what this client is served; what is fetched for the operator, for none.
    pub(super) fn of(&self, client: Option<IpAddr>) -> Arc<Tally> {
        let network = Network::at(client);
        if network == Network::Other {
            return self.other.clone();
        }
        let mut known = self.known.lock();
        if let Some(tally) = known.get(&network) {
            return tally.clone();
        }
        if known.len() >= MOST && !self.has_made_room(&mut known) {
            return self.other.clone();
        }
        known.entry(network).or_default().clone()
    }

    /// Whether one of those that nobody counts in now could go into the rest.
    fn has_made_room(&self, known: &mut HashMap<Network, Arc<Tally>>) -> bool {
        // With the lock held nobody takes a handle of one that has no other.
        let idle = known.iter().filter(|(network, tally)| {
            **network != Network::Operator && Arc::strong_count(tally) == 1
        });
        let least = idle.min_by_key(|(_, tally)| tally.sums().served_bytes);
        let Some(least) = least.map(|(network, _)| *network) else { return false };
        if let Some(tally) = known.remove(&least) {
            self.other.add(&tally.sums());
        }
        true
    }

    /// What was counted before the start is counted on.
    pub(super) fn go_on_from(&self, before: impl Iterator<Item = (Network, Sums)>) {
        let mut known = self.known.lock();
        for (network, sums) in before {
            if network == Network::Other || known.len() >= MOST {
                self.other.add(&sums);
            } else {
                known.entry(network).or_insert_with(|| Arc::new(Tally::from(&sums)));
            }
        }
    }

    /// Every network, and the rest.
    pub(super) fn sums(&self) -> Vec<(Network, Sums)> {
        let known = self.known.lock();
        let known = known.iter().map(|(network, tally)| (*network, tally.sums()));
        known.chain([(Network::Other, self.other.sums())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn clients_of_one_network_count_together() {
        let name = |text: &str| Network::at(Some(ip(text))).to_string();
        assert_eq!(name("10.0.0.7"), "10.0.0.0/24");
        assert_eq!(name("::ffff:10.0.0.7"), "10.0.0.0/24");
        assert_eq!(name("2001:db8:0:1ff::5"), "2001:db8:0:100::/56");
        assert_eq!(Network::at(None).to_string(), "operator");
        for text in ["10.0.0.0/24", "2001:db8:0:100::/56", "operator", "other"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert!("x".parse::<Network>().is_err());
    }

    #[test]
    fn what_was_served_least_makes_room_and_nothing_is_lost() {
        let networks = Networks::default();
        let before = Sums { served_bytes: 5, ..Sums::default() };
        networks.go_on_from([(Network::at(Some(ip("10.9.9.9"))), before)].into_iter());
        let busy: Vec<_> = (0..MOST - 1)
            .map(|number| {
                let tally = networks.of(Some(ip(&format!("10.0.{number}.1"))));
                tally.served(1);
                tally
            })
            .collect();
        networks.of(Some(ip("172.16.0.1"))).served(1);
        let sums = networks.sums();
        assert_eq!(sums.len(), MOST + 1);
        let (last, rest) = sums.last().unwrap();
        assert_eq!((*last, rest.served_bytes), (Network::Other, 5), "only that one was idle");
        drop(busy);
        for number in 0..10 * MOST {
            networks.of(Some(ip(&format!("11.{}.{}.1", number / 250, number % 250)))).served(1);
        }
        let sums = networks.sums();
        assert_eq!(sums.len(), MOST + 1);
        let all: u64 = sums.iter().map(|(_, sums)| sums.served_bytes).sum();
        assert_eq!(all, 5 + MOST as u64 + 10 * MOST as u64);
    }
}
