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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::access::{self, AccessCheck, ConnectionLimits, ConnectionPermit};
use super::stream::{ClientStream, Opening, Rewound, TcpClient};
use super::tls::{HANDSHAKE_TIMEOUT, TlsSettings};
use super::{ListenerOptions, ListenerServices, Peer, ProxyNames, Shared, http, proxy};
use crate::memory::UNSENT;

/// Connections at once: each may hold a file of the store and an upstream connection open beside
/// its own, and the usual limit on open files in production is a multiple of this.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// Connections of one client at once, half of all: a load balancer or a whole site behind one
/// address works, and one that leaks them leaves room for others.
const MAX_PER_CLIENT: usize = MAX_CONNECTIONS / 2;
/// Connections that the kernel holds for us while we are busy.
const BACKLOG: i32 = 4096;
/// The pause after a failed accept (too many open files): others end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answered to a client that has too many connections, before it has said anything.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 This address has too many connections\r\n\
    Retry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

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
        let shared = Arc::new(Shared { services, policy, access, names, tls, tunnel_silence });
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
        let most = MAX_CONNECTIONS.min(self.shared.services.memory.shares.connections());
        let permits = Arc::new(Semaphore::new(most));
        let connection_limits = ConnectionLimits::new(MAX_PER_CLIENT.min(most / 2));
        let mut loops = tokio::task::JoinSet::new();
        for socket in self.sockets {
            loops.spawn(accept_all(
                socket,
                self.shared.clone(),
                permits.clone(),
                connection_limits.clone(),
            ));
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

async fn accept_all(
    socket: TcpListener,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    connection_limits: ConnectionLimits,
) {
    let shutdown = shared.services.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&socket, &permits) => accepted,
        };
        let (stream, client, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let Some(permit) = placed(&connection_limits, &stream, client, permit) else { continue };
        let shared = shared.clone();
        shared.services.tasks.clone().spawn(async move {
            serve(shared, stream, client, permit).await;
        });
    }
}

async fn accept(
    socket: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, client) = socket.accept().await?;
    Ok((stream, client, permit))
}

/// A permit for a new connection; one that finds none is told so.
fn placed(
    connection_limits: &ConnectionLimits,
    stream: &TcpStream,
    client: SocketAddr,
    among_all: OwnedSemaphorePermit,
) -> Option<ConnectionPermit> {
    let permit = connection_limits.take(client.ip(), among_all);
    if permit.is_none() {
        tracing::debug!(%client, "this address has too many connections");
        // It fits a new connection's buffer, and nobody waits for it to be read.
        let _ = stream.try_write(TOO_MANY);
    }
    permit
}

async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    client: SocketAddr,
    permit: ConnectionPermit,
) {
    let is_admitted = shared.access.load().admits(client.ip());
    let open = shared.services.metrics.connection();
    let Ok(stream) = opened(&shared, stream, is_admitted).await.inspect_err(|error| {
        tracing::debug!(%client, %error, "a connection came to nothing");
    }) else {
        return;
    };
    let shutdown = shared.services.shutdown.clone();
    let account = shared.services.memory.budget.account(Some(access::one_client(client.ip())));
    let peer = Peer { shared, client, account: account.clone(), _permit: Arc::new((permit, open)) };
    http::serve(stream, client.ip(), account, http::SILENCE, &shutdown, |received| {
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

/// The client's stream, with TLS ended if it spoke that. No handshake is spent on a client that
/// would be turned away.
async fn opened(shared: &Shared, stream: TcpStream, is_admitted: bool) -> io::Result<ClientStream> {
    stream.set_nodelay(true)?;
    // Else the kernel takes megabytes for a client that does not read. Where it can't be had, a
    // client is served all the same.
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let address = stream.local_addr()?.ip().to_canonical();
    let mut stream: TcpClient = Rewound::new(Bytes::new(), stream);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn a_client_with_too_many_connections_is_told() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (connection_limits, permits) = (ConnectionLimits::new(1), Arc::new(Semaphore::new(2)));
        let mut kept = Vec::new();
        for is_first in [true, false] {
            let mut far = TcpStream::connect(address).await.unwrap();
            let (near, client, permit) = accept(&listener, &permits).await.unwrap();
            let permit = placed(&connection_limits, &near, client, permit);
            assert_eq!(permit.is_some(), is_first);
            drop(near);
            let mut answer = String::new();
            far.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.starts_with("HTTP/1.1 503 "), !is_first, "{answer}");
            kept.extend(permit);
        }
        assert_eq!(permits.available_permits(), 1);
    }
}
