//! Listening sockets and the accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use entrepot_oci::{Host, HostPattern};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::access::{self, AccessCheck};
use super::places::{Place, PlaceCount, Places, Whose};
use super::seldom::Seldom;
use super::stream::{ClientStream, Opening, Rewound, TcpClient};
use super::tls::{HANDSHAKE_TIMEOUT, TlsSettings};
use super::{
    ListenerOptions, ListenerServices, Peer, ProxyNames, Shared, http, proxy, proxy_protocol,
};
use crate::memory::{Account, UNSENT};

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: i32 = 4096;
/// The pause after a failed accept (too many open files): others end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection without a place may take to ask what it may ask, and to hear the answer.
const GUEST_TIME: Duration = Duration::from_secs(2);

/// The listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// A listening socket could not be had.
    #[error("can't listen on {address}: {source}{}", hint(.source))]
    Socket {
        /// Where.
        address: SocketAddr,
        /// The system's own words.
        source: io::Error,
    },
    /// Passwords are remembered under a random key.
    #[error("the system has no random numbers")]
    Random,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another process listens there (`ss -ltnp` names it); end it, or choose another address with --listen"
        }
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need a privilege; choose another with --listen"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine does not have that address",
        _ => "",
    }
}

/// The proxy's listening sockets.
pub(crate) struct Listener {
    sockets: Vec<TcpListener>,
    shared: Arc<Shared>,
}

impl Listener {
    /// Binds every address; within a tokio runtime.
    ///
    /// A machine without IPv6 loses its wildcard IPv6 address without an error, so that the
    /// default works there.
    pub(crate) fn bind(
        options: ListenerOptions,
        services: ListenerServices,
    ) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for address in &options.addresses {
            match bind(*address) {
                Ok(socket) => sockets.push(socket),
                Err(error) if is_without_ipv6(*address, &error) && options.addresses.len() > 1 => {
                    tracing::info!(%address, "this machine has no IPv6: not listening there");
                }
                Err(source) => {
                    return Err(BindError::Socket { address: *address, source });
                }
            }
        }
        let names = options.names;
        let tls = TlsSettings::new(services.certificates.clone(), names.certified());
        let names = ArcSwap::from_pointee(names);
        let access = AccessCheck::new(options.access, services.tasks.clone())
            .map_err(|_| BindError::Random)?;
        let access = ArcSwap::from_pointee(access);
        let ListenerOptions { policy, tunnel_silence, .. } = options;
        let (turned_away, unannounced) = (Seldom::default(), Seldom::default());
        let shared = Shared {
            services,
            policy,
            access,
            names,
            tls,
            tunnel_silence,
            turned_away,
            unannounced,
        };
        let shared = Arc::new(shared);
        Ok(Self { sockets, shared })
    }

    /// The addresses really bound.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Who may use the proxy, to be changed while it runs.
    #[must_use]
    pub(crate) fn access_rules(&self) -> AccessRules {
        AccessRules(self.shared.clone())
    }

    /// Accepts clients until the shutdown begins. Connections run on, as tasks of the tracker.
    pub(crate) async fn run(self) {
        // Each takes memory, too, beside what draws from the budget.
        let most = self.shared.services.memory.shares.connections();
        let count = PlaceCount::within(super::files_at_most()).no_more_than(most);
        tracing::debug!(most = count.most(), "places for connections");
        let seats = Seats { places: Places::new(count), guests: Places::new(count.guests()) };
        let mut loops = tokio::task::JoinSet::new();
        for socket in self.sockets {
            loops.spawn(accept_all(socket, self.shared.clone(), seats.clone()));
        }
        loops.join_all().await;
    }
}

/// Who may use a listener's proxy.
#[derive(Clone)]
pub(crate) struct AccessRules(Arc<Shared>);

impl AccessRules {
    /// These rules hold for every connection and every request to the proxy from now on, which has
    /// these names as well; tunnels that are open stay open. Right passwords are checked again.
    pub(crate) fn replace(
        &self,
        options: access::AccessOptions,
        mirror_names: Vec<HostPattern>,
    ) -> Result<(), BindError> {
        let tasks = self.0.services.tasks.clone();
        let access = AccessCheck::new(options, tasks).map_err(|_| BindError::Random)?;
        self.0.access.store(Arc::new(access));
        let names = ProxyNames { own: self.0.names.load().own.clone(), mirror: mirror_names };
        self.0.tls.rename(names.certified());
        self.0.names.store(Arc::new(names));
        Ok(())
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The IPv4 wildcard is a listener of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let unsupported =
        matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
            || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    address.is_ipv6() && address.ip().is_unspecified() && unsupported
}

/// The places of all sockets, and those of guests.
#[derive(Clone)]
struct Seats {
    places: Places,
    guests: Places,
}

/// What a connection has been given.
enum Seat {
    /// A place.
    Place(Arc<Place>),
    /// None: it may ask whether the proxy is well, and is told everything else later.
    Guest(Arc<Place>),
}

impl Seats {
    /// A place, or one among the guests, for a connection that has come.
    fn take(&self, whose: Whose) -> Option<Seat> {
        let place = self.places.take(whose).map(|place| Seat::Place(Arc::new(place)));
        place.or_else(|| self.guest(whose))
    }

    fn guest(&self, whose: Whose) -> Option<Seat> {
        self.guests.take(whose).map(|place| Seat::Guest(Arc::new(place)))
    }
}

async fn accept_all(socket: TcpListener, shared: Arc<Shared>, seats: Seats) {
    let shutdown = shared.services.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                seats.places.free_one();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let client = canonical(client);
        let is_announced = shared.access.load().is_announced_by(client.ip());
        let whose = if is_announced { Whose::Untold } else { Whose::at(client.ip()) };
        // Without any it is closed: the guests' places are all at work.
        let Some(seat) = seats.take(whose) else { continue };
        let arrival = Arrival { shared: shared.clone(), seats: seats.clone(), stream, client };
        shared.services.tasks.spawn(arrival.welcome(whose, seat));
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection that has come.
struct Arrival {
    shared: Arc<Shared>,
    seats: Seats,
    stream: TcpStream,
    client: SocketAddr,
}

impl Arrival {
    /// Serves the connection, as long as its place is its own.
    async fn welcome(mut self, whose: Whose, seat: Seat) {
        let mut ahead = Bytes::new();
        let mut seat = seat;
        if whose == Whose::Untold {
            let place = seat.place().clone();
            let introduced = tokio::select! {
                introduced = self.introduced() => introduced,
                () = place.given_up() => None,
            };
            let Some(read) = introduced else { return };
            ahead = read;
            let is_beyond_share = match &seat {
                Seat::Place(place) => !place.counts_for(self.client.ip()),
                Seat::Guest(_) => false,
            };
            if is_beyond_share {
                let Some(guest) = self.seats.guest(Whose::at(self.client.ip())) else { return };
                seat = guest;
            }
        }
        let (client, place) = (self.client, seat.place().clone());
        let serving = async move {
            match seat {
                Seat::Place(place) => self.serve(ahead, place).await,
                Seat::Guest(place) => {
                    let _ = tokio::time::timeout(GUEST_TIME, self.serve_guest(ahead, place)).await;
                }
            }
        };
        tokio::select! {
            () = serving => {}
            () = place.given_up() => tracing::debug!(%client, "an idle connection has made room"),
        }
    }

    /// Hears from whoever has passed the connection on for which client it is. What came with it.
    async fn introduced(&mut self) -> Option<Bytes> {
        let reading = async {
            let told = proxy_protocol::read(&mut self.stream).await;
            told.map_err(|error| error.to_string())
        };
        let told = tokio::time::timeout(proxy_protocol::TIME, reading).await;
        match told.unwrap_or_else(|_| Err("its PROXY header did not come in time".to_owned())) {
            Ok((client, ahead)) => {
                self.client = client.map_or(self.client, canonical);
                Some(ahead)
            }
            Err(reason) => {
                if let Some(before) = self.shared.unannounced.happens() {
                    let from = self.client.ip();
                    tracing::warn!(
                        %from, reason, before,
                        "a connection from proxy-protocol-from is closed"
                    );
                }
                None
            }
        }
    }

    async fn serve(self, ahead: Bytes, place: Arc<Place>) {
        let Self { shared, stream, client, .. } = self;
        let is_admitted = shared.access.load().admits(client.ip());
        let open = Arc::new(shared.services.metrics.connection());
        let opened = opened(&shared, stream, ahead, is_admitted).await;
        let Ok(stream) = opened.inspect_err(|error| {
            tracing::debug!(%client, %error, "a connection came to nothing");
        }) else {
            return;
        };
        let shutdown = shared.services.shutdown.clone();
        let account = account(&shared, client);
        let peer = Peer::new(shared, client, account.clone(), place.clone(), open);
        http::serve(stream, &place, client.ip(), account, http::SILENCE, &shutdown, |received| {
            let peer = peer.clone();
            async move {
                if peer.shared.access.load().admits(client.ip()) {
                    proxy::answer(&peer, received).await
                } else {
                    proxy::turn_away(&peer, received)
                }
            }
        })
        .await;
    }

    /// Answers a question after the proxy's health, and tells everybody else to come again. No
    /// handshake is spent on that.
    async fn serve_guest(self, ahead: Bytes, place: Arc<Place>) {
        let Self { shared, stream, client, .. } = self;
        if let Some(before) = shared.turned_away.happens() {
            tracing::warn!(
                client = %client.ip(), before,
                "a connection finds no place: too many are at work, all in all or this client's"
            );
        }
        let mut stream: TcpClient = Rewound::new(ahead, stream);
        if !matches!(stream.opening().await, Ok(Opening::Plain)) {
            return;
        }
        let shutdown = shared.services.shutdown.clone();
        let open = Arc::new(shared.services.metrics.connection());
        let account = account(&shared, client);
        let peer = Peer::new(shared, client, account.clone(), place.clone(), open);
        let stream = ClientStream::Left(stream);
        http::serve(stream, &place, client.ip(), account, http::SILENCE, &shutdown, |received| {
            std::future::ready(proxy::put_off(&peer, received))
        })
        .await;
    }
}

/// Whom the memory counts for that a client's requests take.
fn account(shared: &Shared, client: SocketAddr) -> Account {
    shared.services.memory.budget.account(Some(access::one_client(client.ip())))
}

impl Seat {
    const fn place(&self) -> &Arc<Place> {
        match self {
            Self::Place(place) | Self::Guest(place) => place,
        }
    }
}

/// The client's stream, with TLS ended if it spoke that. No handshake is spent on a client that
/// would be turned away.
async fn opened(
    shared: &Shared,
    stream: TcpStream,
    ahead: Bytes,
    is_admitted: bool,
) -> io::Result<ClientStream> {
    stream.set_nodelay(true)?;
    // Else the kernel takes megabytes for a client that does not read. Where it can't be had, a
    // client is served all the same.
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let address = stream.local_addr()?.ip().to_canonical();
    let mut stream: TcpClient = Rewound::new(ahead, stream);
    match within(HANDSHAKE_TIMEOUT, stream.opening()).await? {
        Opening::Nothing => Err(io::ErrorKind::UnexpectedEof.into()),
        Opening::Plain => Ok(ClientStream::Left(stream)),
        Opening::Tls if !is_admitted => Err(io::ErrorKind::PermissionDenied.into()),
        Opening::Tls => {
            let settings = shared.tls.for_proxy(&Host::Ip(address)).map_err(io::Error::other)?;
            let accepting = Box::pin(TlsAcceptor::from(settings).accept(stream));
            let stream = within(HANDSHAKE_TIMEOUT, accepting).await?;
            Ok(ClientStream::Right(Box::new(stream)))
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
