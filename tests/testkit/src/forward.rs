//! Somebody else's forward proxy, which the proxy under test has to go through.

use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConfig;

use crate::ca::Leaf;
use crate::http::Head;
use crate::registry::{Registry, User};
use crate::tls::{self, Stream};

/// How long one side of a tunnel is listened to before it is the other's turn.
const TURN: Duration = Duration::from_millis(2);

/// What was asked of a forward proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The method and the target.
    pub request: String,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

/// A forward proxy that is still being described.
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    tls: Option<Arc<ServerConfig>>,
    hosts: Vec<(String, SocketAddr)>,
    user: Option<User>,
    status: Option<u16>,
}

impl Builder {
    /// Spoken to by TLS, with this certificate.
    pub fn over_tls(mut self, leaf: Leaf) -> Self {
        self.tls = Some(tls::server_config(leaf));
        self
    }

    /// Knows where the hosts of a registry are.
    pub fn knowing(mut self, registry: &Registry) -> Self {
        self.hosts.extend(registry.addresses());
        self
    }

    /// Knows where `host:port` is.
    pub fn leading(mut self, authority: &str, address: SocketAddr) -> Self {
        self.hosts.push((authority.to_owned(), address));
        self
    }

    /// Lets nobody through but this user.
    pub fn demanding(mut self, user: &User) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// Answers everything with this status.
    pub fn answering(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Starts it on a free port of loopback.
    #[must_use]
    pub fn start(self) -> ForwardProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { rules: self, ..Shared::default() });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared, &listener)
        });
        ForwardProxy { address, shared, acceptor: Some(acceptor) }
    }
}

#[derive(Debug, Default)]
struct Shared {
    rules: Builder,
    stopped: AtomicBool,
    passed: Mutex<Vec<Passed>>,
}

/// A running forward proxy; it takes nobody any more when it is dropped.
#[derive(Debug)]
pub struct ForwardProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl ForwardProxy {
    /// One that knows nobody yet and lets everybody through.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, with these credentials if any.
    #[must_use]
    pub fn url(&self, user: Option<&User>) -> String {
        let scheme = if self.shared.rules.tls.is_some() { "https" } else { "http" };
        let user = user.map(|user| format!("{}:{}@", user.name, user.password));
        format!("{scheme}://{}{}", user.unwrap_or_default(), self.address)
    }

    /// What it was asked so far.
    #[must_use]
    pub fn passed(&self) -> Vec<Passed> {
        self.shared.passed.lock().unwrap().clone()
    }

    /// The methods and targets of that.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.passed().into_iter().map(|passed| passed.request).collect()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Only a connection wakes the one who accepts them.
        drop(TcpStream::connect(self.address));
        drop(self.acceptor.take().map(JoinHandle::join));
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        // One who breaks off is no concern of the proxy's.
        thread::spawn(move || drop(converse(&shared, stream)));
    }
}

fn converse(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = stream.try_clone()?;
    let stream = match &shared.rules.tls {
        Some(config) => tls::accept(config, stream),
        None => Box::new(stream) as Box<dyn Stream>,
    };
    let mut reader = BufReader::new(stream);
    let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
    let request = head.start_line.trim_end_matches(" HTTP/1.1").to_owned();
    let authorization = head.headers.get("proxy-authorization").map(str::to_owned);
    let passed = Passed { request, authorization };
    shared.passed.lock().unwrap().push(passed.clone());
    if let Some(status) = shared.refusal(&passed) {
        let answer = format!(
            "HTTP/1.1 {status} No\r\nProxy-Authenticate: Basic realm=\"corp\"\r\n\
             Content-Length: 2\r\nConnection: close\r\n\r\nno"
        );
        reader.get_mut().write_all(answer.as_bytes())?;
        return reader.get_mut().flush();
    }
    let mut near = reader.into_inner();
    let mut far = shared.open(&passed.request, &head, near.as_mut())?;
    socket.set_read_timeout(Some(TURN))?;
    far.set_read_timeout(Some(TURN))?;
    while pass(near.as_mut(), &mut far)? && pass(&mut far, near.as_mut())? {}
    near.close_notify();
    Ok(())
}

impl Shared {
    fn refusal(&self, passed: &Passed) -> Option<u16> {
        let wanted = self.rules.user.as_ref().map(User::basic);
        let is_known = wanted.is_none() || wanted == passed.authorization;
        self.rules.status.or(if is_known { None } else { Some(407) })
    }

    /// The far side, after whatever has to be said first on either side.
    fn open(&self, request: &str, head: &Head, near: &mut dyn Stream) -> io::Result<TcpStream> {
        let (method, target) = request.split_once(' ').unwrap_or_default();
        if method == "CONNECT" {
            let far = self.dial(target)?;
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            near.flush()?;
            return Ok(far);
        }
        let rest = target.strip_prefix("http://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let mut far = self.dial(authority)?;
        let mut headers = head.headers.clone();
        headers.remove("proxy-authorization");
        headers.set("Connection", "close");
        far.write_all(format!("{method} {path} HTTP/1.1\r\n{}", headers.to_wire()).as_bytes())?;
        Ok(far)
    }

    fn dial(&self, authority: &str) -> io::Result<TcpStream> {
        let known = self.rules.hosts.iter().find(|(host, _)| host == authority);
        let unknown = || io::Error::new(io::ErrorKind::NotFound, authority.to_owned());
        let far = TcpStream::connect(known.ok_or_else(unknown)?.1)?;
        far.set_nodelay(true)?;
        Ok(far)
    }
}

/// Passes on what has come; whether there may come more.
fn pass(from: &mut dyn Stream, to: &mut dyn Stream) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    match from.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(count) => {
            to.write_all(&buffer[..count])?;
            to.flush().map(|()| true)
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}
