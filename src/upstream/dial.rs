//! From an authority to a TCP connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use entrepot_oci::Authority;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;

use super::connect_to::ConnectTo;
use super::error::DialError;
use super::reach::{AddressRule, OwnListeners};
use super::resolve::Resolver;

/// How long an address may be silent before the next is tried beside it (RFC 8305 §5 recommends
/// 250 ms as the "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses tried of one name: a registry has a handful, and a hundred are an attack.
const MAX_ADDRESSES: usize = 16;

/// Makes TCP connections.
#[derive(Debug, Clone)]
pub(crate) struct TcpDialer {
    /// Replacements, the first that fits wins.
    pub connect_to: Vec<ConnectTo>,
    /// Whether IPv6 addresses are used.
    pub ipv6: bool,
    /// For the whole way from the name to the connection.
    pub timeout: Duration,
    /// Who turns names into addresses.
    pub resolver: Resolver,
    /// Where no connection may go.
    pub own: OwnListeners,
    /// Whether nothing is sent at all, not even to a name server.
    pub offline: bool,
}

impl TcpDialer {
    /// Connects to `authority`, or to where `connect-to` leads it. `rule` is decided on the
    /// address that is dialled; what `connect-to` names may be any.
    pub(crate) async fn connect(
        &self,
        authority: &Authority,
        rule: AddressRule,
    ) -> Result<TcpStream, DialError> {
        match self.replacement(authority) {
            Some(destination) => self.in_time(authority, &destination, AddressRule::Any).await,
            None => self.dial(authority, rule).await,
        }
    }

    /// Where `connect-to` leads a connection for `authority`, if anywhere.
    pub(super) fn replacement(&self, authority: &Authority) -> Option<Authority> {
        self.connect_to.iter().find_map(|entry| entry.apply(authority))
    }

    /// Connects to `authority`, whatever `connect-to` says.
    pub(super) async fn dial(
        &self,
        authority: &Authority,
        rule: AddressRule,
    ) -> Result<TcpStream, DialError> {
        self.in_time(authority, authority, rule).await
    }

    async fn in_time(
        &self,
        authority: &Authority,
        destination: &Authority,
        rule: AddressRule,
    ) -> Result<TcpStream, DialError> {
        let connecting = self.connect_now(authority, destination, rule);
        tokio::time::timeout(self.timeout, connecting).await.unwrap_or_else(|_| {
            Err(DialError::Timeout { authority: authority.clone(), after: self.timeout })
        })
    }

    /// Connects to `destination`, and calls it `authority` in errors.
    async fn connect_now(
        &self,
        authority: &Authority,
        destination: &Authority,
        rule: AddressRule,
    ) -> Result<TcpStream, DialError> {
        if self.offline {
            return Err(DialError::Offline { authority: authority.clone() });
        }
        let host = || destination.host().to_string();
        let found = self
            .resolver
            .addresses(destination.host(), destination.port())
            .await
            .map_err(|source| DialError::Resolve { host: host(), source })?;
        let usable: Vec<_> = found.into_iter().filter(|a| self.ipv6 || a.is_ipv4()).collect();
        if usable.is_empty() {
            return Err(DialError::NoAddress { host: host() });
        }
        // One private address among public ones is as suspect as all of them being private.
        if let Some(private) = usable.iter().find(|a| !rule.allows(a.ip())) {
            let address = private.ip();
            return Err(DialError::NotPublic { authority: authority.clone(), address });
        }
        if let Some(own) = usable.iter().find(|address| self.own.contain(**address)) {
            return Err(DialError::Own { authority: authority.clone(), address: *own });
        }
        race(interleaved(usable)).await.map_err(|(address, source)| DialError::Connect {
            authority: authority.clone(),
            address,
            source,
        })
    }
}

/// The resolver's order, with the families taking turns (RFC 8305 §4).
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut order = VecDeque::new();
    while order.len() < MAX_ADDRESSES && (!first.is_empty() || !second.is_empty()) {
        order.extend(first.pop_front());
        order.extend(second.pop_front());
    }
    order
}

/// One address after another: the next begins when the one before fails or is silent too long,
/// and the first connection wins.
async fn race(mut waiting: VecDeque<SocketAddr>) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let mut attempts = FuturesUnordered::new();
    let mut last = None;
    loop {
        match waiting.pop_front() {
            Some(address) => attempts.push(attempt(address)),
            None if attempts.is_empty() => break,
            None => {}
        }
        let delay = async {
            if waiting.is_empty() {
                std::future::pending::<()>().await;
            } else {
                tokio::time::sleep(ATTEMPT_DELAY).await;
            }
        };
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(failure) => last = Some(failure),
            },
            () = delay => {}
        }
    }
    let none = || (SocketAddr::from(([0, 0, 0, 0], 0)), io::Error::other("no address"));
    Err(last.unwrap_or_else(none))
}

async fn attempt(address: SocketAddr) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let connected = TcpStream::connect(address).await.map_err(|error| (address, error))?;
    // Small writes must not wait for acknowledgements of earlier ones (Nagle's algorithm).
    connected.set_nodelay(true).map_err(|error| (address, error))?;
    Ok(connected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn dialer(table: Vec<(&str, Vec<&str>)>) -> TcpDialer {
        let table = table
            .into_iter()
            .map(|(name, ips)| {
                (name.to_owned(), ips.iter().map(|ip| ip.parse().unwrap()).collect())
            })
            .collect();
        TcpDialer {
            connect_to: Vec::new(),
            ipv6: true,
            timeout: Duration::from_secs(5),
            resolver: Resolver::Table(table),
            own: OwnListeners::default(),
            offline: false,
        }
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody listens on 127.0.0.2 at that port.
        let dialer = dialer(vec![("two.test", vec!["127.0.0.2", "127.0.0.1"])]);
        let authority = Authority::new("two.test".parse().unwrap(), port);
        let stream = dialer.connect(&authority, AddressRule::Any).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_private_address_is_refused_before_it_is_dialled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = dialer(vec![("rebind.test", vec!["8.8.8.8", "127.0.0.1"])]);
        let authority = Authority::new("rebind.test".parse().unwrap(), port);
        let refused = dialer.connect(&authority, AddressRule::Public).await;
        assert!(matches!(refused, Err(DialError::NotPublic { .. })));
        let none = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(none.is_err(), "nothing may have connected");
    }

    #[tokio::test]
    async fn nobody_is_led_to_our_own_listeners() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let mut dialer = dialer(vec![("self.test", vec!["127.0.0.2", "127.0.0.1"])]);
        dialer.connect_to = vec![format!("hub.test:443:{own}").parse().unwrap()];
        dialer.own.set(vec![own]);
        let by_name = Authority::new("self.test".parse().unwrap(), own.port());
        for authority in
            [by_name, own.to_string().parse().unwrap(), "hub.test:443".parse().unwrap()]
        {
            let refused = dialer.connect(&authority, AddressRule::Any).await;
            assert!(matches!(refused, Err(DialError::Own { .. })), "{authority}");
        }
        let none = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(none.is_err(), "nothing may have connected");
    }

    #[tokio::test]
    async fn connect_to_may_lead_to_a_private_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut dialer = dialer(Vec::new());
        dialer.connect_to = vec![format!("hub.test:443:127.0.0.1:{port}").parse().unwrap()];
        let authority = "hub.test:443".parse().unwrap();
        assert!(dialer.connect(&authority, AddressRule::Public).await.is_ok());
    }

    #[tokio::test]
    async fn failures_say_what_failed() {
        let dialer = dialer(vec![("v6.test", vec!["::1"])]);
        let nowhere = dialer.connect(&"none.test:443".parse().unwrap(), AddressRule::Any).await;
        assert!(nowhere.unwrap_err().to_string().contains("none.test does not resolve"));
        let only_v4 = TcpDialer { ipv6: false, ..dialer };
        let no_v6 = only_v4.connect(&"v6.test:443".parse().unwrap(), AddressRule::Any).await;
        assert!(matches!(no_v6, Err(DialError::NoAddress { .. })));
    }

    /// A place that is silent: its backlog is full, so that the kernel drops who knocks.
    struct BlackHole {
        _listener: socket2::Socket,
        _waiting: Vec<std::net::TcpStream>,
    }

    /// A listener on 127.0.0.1, and a black hole at the same port of 127.0.0.2.
    async fn beside_a_black_hole() -> (TcpListener, BlackHole) {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let silent = SocketAddr::from(([127, 0, 0, 2], listener.local_addr().unwrap().port()));
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            // Somebody else may have that port there: then another is tried.
            if socket.bind(&silent.into()).is_err() {
                continue;
            }
            socket.listen(0).unwrap();
            let knock =
                || std::net::TcpStream::connect_timeout(&silent, Duration::from_millis(100)).ok();
            let waiting = std::iter::from_fn(knock).collect();
            return (listener, BlackHole { _listener: socket, _waiting: waiting });
        }
    }

    #[tokio::test]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let (listener, _silent) = beside_a_black_hole().await;
        let port = listener.local_addr().unwrap().port();
        let dialer = dialer(vec![("two.test", vec!["127.0.0.2", "127.0.0.1"])]);
        let authority = Authority::new("two.test".parse().unwrap(), port);
        let began = std::time::Instant::now();
        let stream = dialer.connect(&authority, AddressRule::Any).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
        let took = began.elapsed();
        assert!((ATTEMPT_DELAY..Duration::from_secs(3)).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn silence_everywhere_ends_with_the_timeout() {
        let (listener, _silent) = beside_a_black_hole().await;
        let port = listener.local_addr().unwrap().port();
        let mut dialer = dialer(vec![("dark.test", vec!["127.0.0.2"; 100])]);
        dialer.timeout = Duration::from_secs(1);
        let authority = Authority::new("dark.test".parse().unwrap(), port);
        let failed = dialer.connect(&authority, AddressRule::Any).await.unwrap_err();
        assert!(matches!(failed, DialError::Timeout { .. }), "{failed}");
    }

    #[tokio::test]
    async fn of_a_hundred_addresses_sixteen_are_tried() {
        // Nobody listens on port 1 there.
        let ips: Vec<_> = (1..=100).map(|last| format!("127.0.9.{last}")).collect();
        let ips = ips.iter().map(String::as_str).collect();
        let dialer = dialer(vec![("many.test", ips)]);
        let authority = "many.test:1".parse().unwrap();
        match dialer.connect(&authority, AddressRule::Any).await.unwrap_err() {
            DialError::Connect { address, .. } => {
                assert_eq!(address.ip().to_string(), "127.0.9.16", "the last that was tried");
            }
            other => panic!("{other}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_name_server_ends_with_the_timeout() {
        let mut dialer = dialer(Vec::new());
        dialer.resolver = Resolver::Silent;
        let began = tokio::time::Instant::now();
        let authority = "silent.test:443".parse().unwrap();
        let failed = dialer.connect(&authority, AddressRule::Any).await.unwrap_err();
        assert!(matches!(failed, DialError::Timeout { .. }), "{failed}");
        assert_eq!(began.elapsed(), dialer.timeout);
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let order = interleaved(vec![
            parse("[2001::1]:1"),
            parse("[2001::2]:1"),
            parse("1.1.1.1:1"),
            parse("1.1.1.2:1"),
        ]);
        let families: Vec<_> = order.iter().map(SocketAddr::is_ipv6).collect();
        assert_eq!(families, [true, false, true, false]);
    }
}
