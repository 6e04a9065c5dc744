//! An HTTP/1.1 server, over TLS or not, that sends its replies as right or as wrong as it is told.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;

use crate::ca::{Leaf, TestCa};
use crate::fault::{Delivery, Framing, Hangup, Reply};
use crate::http::{BodyReader, Head, Request, Response, chunk};
use crate::tls::{self, Stream, Versions};

/// How much of a body is written at a time.
const PIECE: usize = 16 * 1024;

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on a free port of loopback; its connections end with it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    tls: Option<Arc<ServerConfig>>,
    handler: Box<Handler>,
    refusal: Option<Refusal>,
    stopped: AtomicBool,
    accepted: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

/// What a request with a body is answered when so much of the body has come; the connection is
/// reset then, whatever else has come meanwhile.
struct Refusal {
    after: usize,
    response: Response,
}

impl Refusal {
    fn send(&self, stream: &mut dyn Stream) -> io::Result<()> {
        stream.write_all(head(&self.response, Framing::Length).as_bytes())?;
        stream.write_all(&self.response.body)?;
        stream.flush()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Server {
    /// A server that speaks TLS with this certificate.
    #[must_use]
    pub fn https<R: Into<Reply>>(
        leaf: Leaf,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(tls::server_config(leaf)), handler)
    }

    /// A server that takes so much of a body, refuses the rest with this answer, and hangs up hard.
    /// What has no body is answered 200.
    #[must_use]
    pub fn refusing(leaf: Leaf, after: usize, response: Response) -> Self {
        let refusal = Some(Refusal { after, response });
        Self::with(Some(tls::server_config(leaf)), refusal, |_| Response::new(200))
    }

    /// A server that speaks TLS with clients alone that show a certificate of `clients`.
    #[must_use]
    pub fn demanding<R: Into<Reply>>(
        leaf: Leaf,
        clients: &TestCa,
        versions: Versions,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(tls::demanding_config(leaf, clients, versions)), handler)
    }

    /// A server that speaks TLS, and takes a certificate of `clients` of whoever has one.
    #[must_use]
    pub fn asking<R: Into<Reply>>(
        leaf: Leaf,
        clients: &TestCa,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(tls::asking_config(leaf, clients)), handler)
    }

    /// A server that speaks plain HTTP.
    #[must_use]
    pub fn http<R: Into<Reply>>(handler: impl Fn(&Request) -> R + Send + Sync + 'static) -> Self {
        Self::start(None, handler)
    }

    /// A server that accepts connections and never says anything.
    #[must_use]
    pub fn silent() -> Self {
        let gate = crate::Gate::new();
        Self::http(move |_| {
            gate.pass();
            Response::new(500)
        })
    }

    pub(crate) fn start<R: Into<Reply>>(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        Self::with(tls, None, handler)
    }

    fn with<R: Into<Reply>>(
        tls: Option<Arc<ServerConfig>>,
        refusal: Option<Refusal>,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            tls,
            handler: Box::new(move |request| handler(request).into()),
            refusal,
            stopped: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared, &listener)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Stops listening and ends every connection, as dropping it does.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Only a connection wakes the one who accepts them.
        drop(TcpStream::connect(self.address));
        drop(acceptor.join());
        let open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let id = shared.accepted.fetch_add(1, Ordering::SeqCst);
        drop(stream.set_nodelay(true));
        let Ok(control) = stream.try_clone() else { continue };
        shared.open.lock().unwrap().insert(id, control);
        let shared = Arc::clone(shared);
        thread::spawn(move || converse(&shared, id, stream));
    }
}

/// Serves one connection to its end. A client that breaks off is no concern of the server's.
fn converse(shared: &Shared, id: u64, stream: TcpStream) {
    let stream = match &shared.tls {
        Some(config) => tls::accept(config, stream),
        None => Box::new(stream) as Box<dyn Stream>,
    };
    let mut reader = BufReader::new(stream);
    let hangup = loop {
        match exchange(shared, id, &mut reader) {
            Ok(Next::KeepAlive) => {}
            Ok(Next::Hangup(hangup)) => break hangup,
            Err(_) => break Hangup::Fin,
        }
    };
    hang_up(shared, id, hangup, reader.into_inner());
}

/// Closes a connection: its socket is known to `shared` as well, and goes when both let go of it.
fn hang_up(shared: &Shared, id: u64, hangup: Hangup, mut stream: Box<dyn Stream>) {
    let control = shared.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    let Some(control) = control else { return };
    if hangup == Hangup::CloseNotify {
        stream.close_notify();
    }
    if hangup == Hangup::Rst {
        // A connection that is gone already can't be reset, and need not be.
        let _ = rustix::net::sockopt::set_socket_linger(&control, Some(Duration::ZERO));
    } else {
        drop(control.shutdown(Shutdown::Both));
    }
}

enum Next {
    KeepAlive,
    Hangup(Hangup),
}

type Connection = BufReader<Box<dyn Stream>>;

fn exchange(shared: &Shared, id: u64, reader: &mut Connection) -> io::Result<Next> {
    let Some(request) = read_request(reader, shared.refusal.as_ref())? else {
        return Ok(Next::Hangup(Hangup::CloseNotify));
    };
    let request = match request {
        Received::Whole(mut request) => {
            request.connection = id;
            request.is_certified = reader.get_ref().is_certified();
            request
        }
        Received::Refused => return Ok(Next::Hangup(Hangup::Rst)),
    };
    let Reply { response, delivery } = (shared.handler)(&request);
    let mut sender = Sender { stream: reader.get_mut().as_mut(), delivery: &delivery };
    let sent = sender.send(&request, &response)?;
    let wants_close = [&request.headers, &response.headers].iter().any(|headers| {
        headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    });
    Ok(match sent {
        Next::KeepAlive if wants_close => Next::Hangup(Hangup::CloseNotify),
        next => next,
    })
}

enum Received {
    Whole(Request),
    /// Its answer has gone.
    Refused,
}

fn read_request(
    reader: &mut Connection,
    refusal: Option<&Refusal>,
) -> io::Result<Option<Received>> {
    match reader.fill_buf()?.first() {
        None => return Ok(None),
        Some(first) if !first.is_ascii_uppercase() => {
            // What servers of plain HTTP say to a TLS hello.
            reader.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
            return Ok(None);
        }
        Some(_) => {}
    }
    let Some(head) = Head::read(reader)? else { return Ok(None) };
    let mut parts = head.start_line.split(' ');
    let mut request =
        Request::new(parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    request.headers = head.headers;
    if request.headers.get("expect").is_some() {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let has_body = ["content-length", "transfer-encoding"]
        .iter()
        .any(|name| request.headers.get(name).is_some_and(|value| value != "0"));
    if let Some(refusal) = refusal.filter(|_| has_body) {
        io::copy(&mut reader.take(refusal.after as u64), &mut io::sink())?;
        refusal.send(reader.get_mut().as_mut())?;
        return Ok(Some(Received::Refused));
    }
    request.body = BodyReader::of_request(&request.headers)?.read_to_end(reader)?.into();
    Ok(Some(Received::Whole(request)))
}

/// Sends one response the way its delivery says.
struct Sender<'a> {
    stream: &'a mut dyn Stream,
    delivery: &'a Delivery,
}

impl Sender<'_> {
    fn send(&mut self, request: &Request, response: &Response) -> io::Result<Next> {
        if let Some(gate) = &self.delivery.slow_head {
            gate.pass();
        }
        if let Some(hangup) = self.delivery.no_answer {
            return Ok(Next::Hangup(hangup));
        }
        for _ in 0..self.delivery.interim {
            self.stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")?;
        }
        self.stream.write_all(head(response, self.delivery.framing).as_bytes())?;
        if request.method == "HEAD" || matches!(response.status, 204 | 304) {
            self.stream.flush()?;
            return Ok(Next::KeepAlive);
        }
        self.send_body(&response.body)
    }

    fn send_body(&mut self, body: &Bytes) -> io::Result<Next> {
        let stall_at = self.delivery.stall.as_ref().map(|(at, _)| *at);
        let cut_at = self.delivery.cut.map(|(at, _)| at);
        let mut sent = 0;
        loop {
            if stall_at == Some(sent) {
                self.stall()?;
            }
            if let Some((_, hangup)) = self.delivery.cut.filter(|(at, _)| *at == sent) {
                self.stream.flush()?;
                return Ok(Next::Hangup(hangup));
            }
            if sent == body.len() {
                return self.end();
            }
            let stops = [stall_at, cut_at, Some(sent + PIECE), Some(body.len())];
            let end = stops.into_iter().flatten().filter(|stop| *stop > sent).min();
            let end = end.unwrap_or(body.len()).min(body.len());
            self.send_piece(&body[sent..end])?;
            sent = end;
        }
    }

    fn stall(&mut self) -> io::Result<()> {
        self.stream.flush()?;
        if let Some((_, gate)) = &self.delivery.stall {
            gate.pass();
        }
        Ok(())
    }

    fn send_piece(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Some(rate) = self.delivery.bytes_per_sec {
            // The rate is what is being simulated; nothing waits for this to be over.
            let share = u32::try_from(piece.len()).unwrap() * Duration::from_secs(1);
            thread::sleep(share / u32::try_from(rate).unwrap());
        }
        match self.delivery.framing {
            Framing::Length | Framing::Claimed(_) => self.stream.write_all(piece),
            Framing::Chunked | Framing::Unterminated | Framing::BadChunkSize => {
                self.stream.write_all(&chunk(piece))
            }
        }
    }

    fn end(&mut self) -> io::Result<Next> {
        let (last, next) = match self.delivery.framing {
            Framing::Length => ("", Next::KeepAlive),
            Framing::Chunked => ("0\r\n\r\n", Next::KeepAlive),
            Framing::Claimed(_) | Framing::Unterminated => ("", Next::Hangup(Hangup::CloseNotify)),
            Framing::BadChunkSize => ("0x\r\n", Next::Hangup(Hangup::CloseNotify)),
        };
        self.stream.write_all(last.as_bytes())?;
        self.stream.flush()?;
        Ok(next)
    }
}

fn head(response: &Response, framing: Framing) -> String {
    let mut headers = response.headers.clone();
    match framing {
        Framing::Length if headers.get("content-length").is_some() => {}
        Framing::Length if matches!(response.status, 204 | 304) => {}
        Framing::Length => headers.set("Content-Length", response.body.len().to_string()),
        Framing::Claimed(length) => headers.set("Content-Length", length.to_string()),
        Framing::Chunked | Framing::Unterminated | Framing::BadChunkSize => {
            headers.remove("content-length");
            headers.set("Transfer-Encoding", "chunked");
        }
    }
    let reason = if response.reason.is_empty() { "Status" } else { &response.reason };
    format!("HTTP/1.1 {} {reason}\r\n{}", response.status, headers.to_wire())
}
