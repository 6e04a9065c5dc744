//! Who may use the proxy: by address, and by name and password.
//!
//! A user of the proxy is nobody at a registry: what is known here decides about nothing but
//! whether a request is taken at all, and the credential ends here.
//!
//! - `htpasswd`: the file of users, parsed
//! - `passwords`: checking a password without being a burden or a help to those who guess
//! - `turns`: what is done one at a time, the newest first

pub(crate) mod htpasswd;
pub(super) mod passwords;
mod turns;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use http::{HeaderMap, header};
use ipnet::IpNet;
use tokio_util::task::TaskTracker;

pub(crate) use htpasswd::Htpasswd;
pub(super) use passwords::Denial;

use passwords::{Credential, Passwords};

/// `[access]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessOptions {
    /// `clients`: whoever is in none of these is turned away; none at all: nobody is.
    pub clients: Vec<IpNet>,
    /// `htpasswd`: whoever is not in it may only see the pages by which clients are set up.
    pub users: Option<Htpasswd>,
    /// `proxy-protocol-from`: whose connections begin with a PROXY header, which says for whom they
    /// are.
    pub announcers: Vec<IpNet>,
}

/// The rules at work.
pub(super) struct AccessCheck {
    clients: Vec<IpNet>,
    announcers: Vec<IpNet>,
    passwords: Option<Passwords>,
}

impl AccessCheck {
    /// Fails where the system has no random numbers.
    pub(super) fn new(options: AccessOptions, tasks: TaskTracker) -> Result<Self, Unspecified> {
        let passwords = options.users.map(|users| Passwords::new(users, tasks)).transpose()?;
        let AccessOptions { clients, announcers, .. } = options;
        Ok(Self { clients, announcers, passwords })
    }

    /// Whether a connection from `address` says first for which client it is.
    pub(super) fn is_announced_by(&self, address: IpAddr) -> bool {
        self.announcers.iter().any(|network| network.contains(&address))
    }

    /// Whether a client at this address is heard at all.
    pub(super) fn admits(&self, client: IpAddr) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|network| network.contains(&client))
    }

    /// Which of the proxy's users a request to it comes from; none where it asks for none.
    ///
    /// Cancel safe; a check that has begun goes on, so that hanging up does not shorten it.
    pub(super) async fn check(
        &self,
        client: IpAddr,
        fields: &HeaderMap,
    ) -> Result<Option<Arc<str>>, Denial> {
        self.check_field(client, fields, header::PROXY_AUTHORIZATION).await
    }

    /// As [`AccessCheck::check`], for a request that takes the proxy for the origin and knows no
    /// `Proxy-Authorization`.
    pub(super) async fn check_direct(
        &self,
        client: IpAddr,
        fields: &HeaderMap,
    ) -> Result<Option<Arc<str>>, Denial> {
        self.check_field(client, fields, header::AUTHORIZATION).await
    }

    async fn check_field(
        &self,
        client: IpAddr,
        fields: &HeaderMap,
        name: header::HeaderName,
    ) -> Result<Option<Arc<str>>, Denial> {
        let Some(passwords) = &self.passwords else { return Ok(None) };
        let mut values = fields.get_all(name).iter();
        let credential = match (values.next(), values.next()) {
            (Some(value), None) => Credential::parse(value).ok_or(Denial::Missing)?,
            _ => return Err(Denial::Missing),
        };
        let user = Arc::from(&*String::from_utf8_lossy(credential.name()));
        passwords.check(one_client(client), credential).await?;
        Ok(Some(user))
    }
}

/// Whose connections and requests are counted together: a client of IPv6 may have a whole /56 to
/// itself, which is what providers give to a household.
pub(super) fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 72)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_heard_if_one_network_has_it() {
        let access = |clients: &[&str]| {
            let clients = clients.iter().map(|network| network.parse().unwrap()).collect();
            AccessCheck::new(
                AccessOptions { clients, ..AccessOptions::default() },
                TaskTracker::new(),
            )
            .unwrap()
        };
        let ip = |text: &str| text.parse().unwrap();
        assert!(access(&[]).admits(ip("8.8.8.8")));
        let some = access(&["10.0.0.0/8", "fd00::/8"]);
        assert!(some.admits(ip("10.255.0.1")) && some.admits(ip("fd12::1")));
        assert!(!some.admits(ip("11.0.0.1")) && !some.admits(ip("::1")));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_client() {
        let one = |text: &str| one_client(text.parse().unwrap());
        assert_eq!(one("2001:db8::1:2:3:4"), one("2001:db8::5"));
        assert_eq!(one("2001:db8::1"), one("2001:db8:0:ff::1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:100::1"));
        assert_eq!(one("::ffff:10.0.0.1"), one("10.0.0.1"));
        assert_ne!(one("10.0.0.1"), one("10.0.0.2"));
    }
}
