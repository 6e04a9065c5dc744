//! From an authority to a TCP connection, and to what is made of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use entrepot_oci::{Authority, Host};
use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::connect_to::ConnectTo;
use super::error::DialError;
use super::reach::{AddressRule, OwnListeners, PrivateNetworks, is_loopback_name};
use super::resolve::Resolver;
use super::setbacks::Setbacks;
use crate::memory::UNSENT;

/// How long an address may be silent before the next is tried beside it (RFC 8305 §5 recommends
/// 250 ms as the "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long an address that was reached may go on without a handshake before the next is tried
/// beside it: a registry on the other side of the world takes less than a second. A quarter of the
/// whole time where that is short.
const OPENING_DELAY: Duration = Duration::from_secs(2);
/// Addresses tried of one name: a registry has a handful, and a hundred are an attack.
const MAX_ADDRESSES: usize = 16;

/// Makes TCP connections.
#[derive(Debug, Clone)]
pub(crate) struct TcpDialer {
    /// Replacements, the first that fits wins.
    pub connect_to: Vec<ConnectTo>,
    /// Whether IPv6 addresses are used.
    pub ipv6: bool,
    /// For the whole way from the name to the connection, and to what is made of it.
    pub timeout: Duration,
    /// Who turns names into addresses.
    pub resolver: Resolver,
    /// What counts as private here.
    pub private: PrivateNetworks,
    /// Where no connection may go.
    pub own: OwnListeners,
    /// Whether nothing is sent at all, not even to a name server.
    pub offline: bool,
    /// Which addresses have failed lately.
    pub setbacks: Setbacks,
}

/// Until when a connection must have come about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// The moment.
    pub at: Instant,
    /// How long that was in the beginning.
    pub after: Duration,
}

impl Deadline {
    /// So long from now.
    pub(super) fn after(after: Duration) -> Self {
        Self { at: Instant::now() + after, after }
    }
}

/// Why nothing was made of a TCP connection.
#[derive(Debug)]
pub(super) enum Unopened<E> {
    /// This address is of no use; another of the same name may be.
    Address(E),
    /// The host's word, which it would give at any other address.
    Host(E),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection<E> {
    /// Nobody was reached.
    Dial(DialError),
    /// Somebody was, and nothing came of it.
    Opening(E),
}

/// How a race of addresses was lost.
enum Lost<E> {
    Late,
    Refused(SocketAddr, io::Error),
    Opening(E),
}

impl TcpDialer {
    /// One that goes where it is told.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            connect_to: Vec::new(),
            ipv6: true,
            timeout: Duration::from_secs(5),
            resolver: Resolver::default(),
            private: PrivateNetworks::default(),
            own: OwnListeners::default(),
            offline: false,
            setbacks: Setbacks::default(),
        }
    }

    /// Connects to `authority`, or to where `connect-to` leads it. `rule` is decided on the
    /// address that is dialled; what `connect-to` names may be any.
    pub(crate) async fn connect(
        &self,
        authority: &Authority,
        rule: AddressRule,
    ) -> Result<TcpStream, DialError> {
        let opening = |stream, _| std::future::ready(Ok(stream));
        self.open(authority, rule, opening).await.map_err(of_dialling)
    }

    /// [`TcpDialer::connect`], and makes of the connection what `opening` does. An address that it
    /// fails at is as good as one that can't be reached: the next is tried, within the same time.
    pub(super) async fn open<S, E, F: Future<Output = Result<S, Unopened<E>>>>(
        &self,
        authority: &Authority,
        rule: AddressRule,
        opening: impl Fn(TcpStream, Deadline) -> F,
    ) -> Result<S, NoConnection<E>> {
        match self.replacement(authority) {
            Some(destination) => {
                self.open_at(authority, &destination, AddressRule::Any, opening).await
            }
            None => self.open_at(authority, authority, rule, opening).await,
        }
    }

    /// Where `connect-to` leads a connection for `authority`, if anywhere.
    pub(super) fn replacement(&self, authority: &Authority) -> Option<Authority> {
        self.connect_to.iter().find_map(|entry| entry.apply(authority))
    }

    /// Opens a connection to `destination`, whatever `connect-to` says, and calls it `authority` in
    /// errors.
    pub(super) async fn open_at<S, E, F: Future<Output = Result<S, Unopened<E>>>>(
        &self,
        authority: &Authority,
        destination: &Authority,
        rule: AddressRule,
        opening: impl Fn(TcpStream, Deadline) -> F,
    ) -> Result<S, NoConnection<E>> {
        let deadline = Deadline::after(self.timeout);
        let late = || DialError::Timeout { authority: authority.clone(), after: self.timeout };
        let places = self.places(authority, destination, rule);
        let places = tokio::time::timeout_at(deadline.at, places).await;
        let places = places.unwrap_or_else(|_| Err(late())).map_err(NoConnection::Dial)?;
        self.race(places, deadline, opening).await.map_err(|lost| match lost {
            Lost::Late => NoConnection::Dial(late()),
            Lost::Refused(address, source) => {
                let authority = authority.clone();
                NoConnection::Dial(DialError::Connect { authority, address, source })
            }
            Lost::Opening(error) => NoConnection::Opening(error),
        })
    }

    /// The addresses to be tried, in this order.
    async fn places(
        &self,
        authority: &Authority,
        destination: &Authority,
        rule: AddressRule,
    ) -> Result<VecDeque<SocketAddr>, DialError> {
        if self.offline {
            return Err(DialError::Offline { authority: authority.clone() });
        }
        let usable = self.usable(authority, destination, rule).await.map_err(|error| {
            let host = destination.host();
            let is_secret = rule == AddressRule::Stranger
                && matches!(host, Host::Name(_))
                && !is_loopback_name(host);
            if is_secret {
                tracing::info!(%authority, reason = %error, "a name is of no use to a stranger");
                DialError::NotFound { authority: authority.clone() }
            } else {
                error
            }
        })?;
        if usable.iter().any(|address| self.own.contain(*address)) {
            return Err(DialError::Own { authority: authority.clone() });
        }
        let (failed, well): (Vec<_>, Vec<_>) =
            usable.into_iter().partition(|address| self.setbacks.has(*address));
        let mut places = interleaved(well);
        places.extend(interleaved(failed));
        places.truncate(MAX_ADDRESSES);
        Ok(places)
    }

    /// The addresses of `destination`, if all of them may be dialled.
    async fn usable(
        &self,
        authority: &Authority,
        destination: &Authority,
        rule: AddressRule,
    ) -> Result<Vec<SocketAddr>, DialError> {
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
        if let Some(private) = usable.iter().find(|a| !self.private.allow(rule, a.ip())) {
            let address = private.ip();
            tracing::info!(%authority, %address, "an address that is not public is not dialled");
            return Err(refused(authority, rule));
        }
        Ok(usable)
    }

    /// One address after another: the next begins when the one before fails or is silent too long.
    /// The first that is reached is opened, and those that are slower to reach wait for their turn.
    async fn race<S, E, F: Future<Output = Result<S, Unopened<E>>>>(
        &self,
        mut waiting: VecDeque<SocketAddr>,
        deadline: Deadline,
        opening: impl Fn(TcpStream, Deadline) -> F,
    ) -> Result<S, Lost<E>> {
        let (mut knocking, mut opened) = (FuturesUnordered::new(), FuturesUnordered::new());
        // Whom `knocking` is about; and those that have not failed, in the order of their turns.
        let (mut doors, mut tried): (Vec<SocketAddr>, Vec<SocketAddr>) = Default::default();
        let mut last = Lost::Late;
        let mut next_at = Instant::now();
        loop {
            let is_idle = knocking.is_empty() && opened.is_empty();
            if is_idle || Instant::now() >= next_at {
                match waiting.pop_front() {
                    Some(address) => {
                        knocking.push(attempt(address));
                        doors.push(address);
                        tried.retain(|other| *other != address);
                        tried.push(address);
                        next_at = Instant::now() + ATTEMPT_DELAY;
                    }
                    None if is_idle => return Err(last),
                    None => {}
                }
            }
            let (address, failure) = tokio::select! {
                Some((address, reached)) = knocking.next() => match reached {
                    Ok(stream) => {
                        waiting.extend(doors.drain(..).filter(|slower| *slower != address));
                        knocking.clear();
                        let opening = opening(stream, deadline);
                        opened.push(async move { (address, opening.await) });
                        next_at = Instant::now() + OPENING_DELAY.min(self.timeout / 4);
                        continue;
                    }
                    Err(error) => (address, Lost::Refused(address, error)),
                },
                Some((address, result)) = opened.next() => match result {
                    Ok(stream) => {
                        self.won(address, &tried);
                        return Ok(stream);
                    }
                    Err(Unopened::Host(error)) => return Err(Lost::Opening(error)),
                    Err(Unopened::Address(error)) => (address, Lost::Opening(error)),
                },
                () = sleep_until(next_at), if !waiting.is_empty() => continue,
                // What is being opened knows the time by itself, and has the better words.
                () = sleep_until(deadline.at), if opened.is_empty() => return Err(last),
            };
            self.setbacks.note(address);
            doors.retain(|other| *other != address);
            tried.retain(|other| *other != address);
            (last, next_at) = (failure, Instant::now());
        }
    }

    /// Those that were tried before the one that has won go after it from now on.
    fn won(&self, address: SocketAddr, tried: &[SocketAddr]) {
        self.setbacks.forget(address);
        for overtaken in tried.iter().take_while(|other| **other != address) {
            self.setbacks.note(*overtaken);
        }
    }
}

/// What is said of an address that may not be dialled.
pub(super) fn refused(authority: &Authority, rule: AddressRule) -> DialError {
    let authority = authority.clone();
    match rule {
        AddressRule::AnyService => DialError::Metadata { authority },
        AddressRule::Any | AddressRule::Public | AddressRule::Stranger => {
            DialError::NotPublic { authority }
        }
    }
}

/// Where nothing is made of a connection but the connection.
pub(super) fn of_dialling(failed: NoConnection<Infallible>) -> DialError {
    match failed {
        NoConnection::Dial(error) => error,
        NoConnection::Opening(never) => match never {},
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

async fn attempt(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    // Small writes must not wait for acknowledgements of earlier ones (Nagle's algorithm).
    let connected = TcpStream::connect(address).await;
    let set = |stream: TcpStream| {
        stream.set_nodelay(true)?;
        // Else the kernel takes megabytes for a host that does not read; it is spoken to all the
        // same where that can't be had.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Ok(stream)
    };
    (address, connected.and_then(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

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
            private: PrivateNetworks::default(),
            own: OwnListeners::default(),
            offline: false,
            setbacks: Setbacks::default(),
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

    /// What the network has of names, and where they lead, is not told to who only asks.
    #[tokio::test]
    async fn a_strangers_name_is_unknown_or_private_in_the_same_words() {
        let table = vec![("private.test", vec!["10.9.8.7"]), ("v6.test", vec!["2600::1"])];
        let dialer = TcpDialer { ipv6: false, ..dialer(table) };
        let told = |name: &str| {
            let (dialer, name) = (dialer.clone(), name.to_owned());
            async move {
                let authority = Authority::new(name.parse().unwrap(), 443);
                let refused = dialer.connect(&authority, AddressRule::Stranger).await.unwrap_err();
                (refused.to_string().replace(&name, "NAME"), refused.is_timeout())
            }
        };
        let unknown = told("unknown.test").await;
        assert_eq!(told("private.test").await, unknown);
        assert_eq!(told("v6.test").await, unknown);
        assert!(!unknown.0.contains("10.9"), "{}", unknown.0);
        // Who has an address already is told nothing new.
        assert_ne!(told("10.9.8.7").await, unknown);
        let private = Authority::new("private.test".parse().unwrap(), 443);
        for rule in [AddressRule::Public, AddressRule::Stranger] {
            let refused = dialer.connect(&private, rule).await.unwrap_err();
            assert!(!refused.to_string().contains("10.9.8.7"), "{refused}");
        }
    }

    #[tokio::test]
    async fn an_operators_own_networks_are_not_dialled_either() {
        let mut dialer = dialer(vec![("own.test", vec!["8.8.8.8"])]);
        dialer.private = PrivateNetworks(vec!["8.8.8.0/24".parse().unwrap()]);
        let authority = "own.test:443".parse().unwrap();
        let refused = dialer.connect(&authority, AddressRule::Public).await;
        assert!(matches!(refused, Err(DialError::NotPublic { .. })));
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

    /// Opens a connection by the first byte that comes on it.
    async fn greeting(mut stream: TcpStream, deadline: Deadline) -> Result<u8, Unopened<String>> {
        use tokio::io::AsyncReadExt as _;
        let address = stream.peer_addr().unwrap().ip();
        match tokio::time::timeout_at(deadline.at, stream.read_u8()).await {
            Ok(Ok(b'!')) => Err(Unopened::Host(format!("{address} does not want us"))),
            Ok(Ok(byte)) => Ok(byte),
            Ok(Err(error)) => Err(Unopened::Address(format!("{address}: {error}"))),
            Err(_) => Err(Unopened::Address(format!("{address} is silent"))),
        }
    }

    /// Says this byte to all who come; without one it is silent, or closes the connection at once.
    async fn host(listener: TcpListener, word: Result<u8, bool>) {
        use tokio::io::AsyncWriteExt as _;
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            match word {
                Ok(byte) => stream.write_all(&[byte]).await.unwrap(),
                Err(is_silent) if is_silent => kept.push(stream),
                Err(_) => {}
            }
        }
    }

    /// Two addresses of "two.test", 127.0.0.2 before 127.0.0.1, whose hosts say these words.
    async fn two(words: [Result<u8, bool>; 2]) -> (TcpDialer, Authority) {
        let (first, second) = loop {
            let first = TcpListener::bind("127.0.0.2:0").await.unwrap();
            let port = first.local_addr().unwrap().port();
            // Somebody else may have that port there: then another is tried.
            if let Ok(second) = TcpListener::bind(("127.0.0.1", port)).await {
                break (first, second);
            }
        };
        let port = first.local_addr().unwrap().port();
        let authority = Authority::new("two.test".parse().unwrap(), port);
        let tasks = TaskTracker::new();
        tasks.spawn(host(first, words[0]));
        tasks.spawn(host(second, words[1]));
        (dialer(vec![("two.test", vec!["127.0.0.2", "127.0.0.1"])]), authority)
    }

    #[tokio::test]
    async fn an_address_at_which_nothing_opens_is_passed_over_and_goes_last() {
        for is_silent in [false, true] {
            let (mut dialer, authority) = two([Err(is_silent), Ok(b'x')]).await;
            dialer.timeout = Duration::from_secs(8);
            let first: SocketAddr = format!("127.0.0.2:{}", authority.port()).parse().unwrap();
            let began = Instant::now();
            let opened = dialer.open(&authority, AddressRule::Any, greeting).await;
            assert_eq!(opened.unwrap(), b'x');
            assert_eq!(began.elapsed() >= OPENING_DELAY, is_silent, "{:?}", began.elapsed());
            assert!(dialer.setbacks.has(first));
            // From now on the other is first, and nothing is lost.
            let began = Instant::now();
            let stream = dialer.connect(&authority, AddressRule::Any).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
            dialer.open(&authority, AddressRule::Any, greeting).await.unwrap();
            assert!(began.elapsed() < OPENING_DELAY);
        }
    }

    #[tokio::test]
    async fn the_word_of_a_host_is_that_of_all_its_addresses() {
        let (dialer, authority) = two([Ok(b'!'), Ok(b'x')]).await;
        match dialer.open(&authority, AddressRule::Any, greeting).await {
            Err(NoConnection::Opening(words)) => {
                assert_eq!(words, "127.0.0.2 does not want us");
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn where_nothing_opens_anywhere_the_time_is_the_same() {
        for is_silent in [false, true] {
            let (mut dialer, authority) = two([Err(is_silent); 2]).await;
            dialer.timeout = Duration::from_secs(1);
            let began = Instant::now();
            match dialer.open(&authority, AddressRule::Any, greeting).await {
                Err(NoConnection::Opening(words)) => {
                    assert_eq!(words.contains("is silent"), is_silent, "{words}");
                }
                other => panic!("{other:?}"),
            }
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    }

    #[tokio::test]
    async fn an_address_that_is_the_only_one_is_tried_whatever_it_did() {
        let (mut dialer, authority) = two([Err(false), Ok(b'x')]).await;
        dialer.resolver =
            Resolver::Table([("two.test".to_owned(), vec!["127.0.0.2".parse().unwrap()])].into());
        for _ in 0..2 {
            let failed = dialer.open(&authority, AddressRule::Any, greeting).await;
            assert!(matches!(failed, Err(NoConnection::Opening(_))));
        }
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
