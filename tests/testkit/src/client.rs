//! A client of the proxy: CONNECT, the TLS inside it, and every other form of request.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net;

use crate::PATIENCE;
use crate::http::{BodyReader, Head, Request, Response};
use crate::tls::{Handshake, Sni, Stream, TlsOptions, Versions};

/// How a client turns to the proxy, and whom it trusts.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
    own_address: Option<Ipv4Addr>,
    outer_tls: bool,
    tls: TlsOptions,
    proxy_headers: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Way {
    /// Through this proxy.
    Proxy(SocketAddr),
    /// Straight to the hosts, whose addresses are these.
    Direct(Vec<(String, SocketAddr)>),
    /// Through this socket.
    Socket(PathBuf),
}

impl Client {
    /// A client of this proxy that trusts nobody yet.
    #[must_use]
    pub fn new(proxy: SocketAddr) -> Self {
        Self::going(Way::Proxy(proxy))
    }

    /// A client without a proxy, which knows where these hosts are: what it is told is what the
    /// hosts say themselves.
    #[must_use]
    pub fn direct(hosts: Vec<(String, SocketAddr)>) -> Self {
        Self::going(Way::Direct(hosts))
    }

    /// A client of who listens at this Unix socket.
    #[must_use]
    pub fn at_socket(path: PathBuf) -> Self {
        Self::going(Way::Socket(path))
    }

    fn going(way: Way) -> Self {
        let tls = TlsOptions { alpn: vec![b"http/1.1".to_vec()], ..TlsOptions::default() };
        Self { way, own_address: None, outer_tls: false, tls, proxy_headers: Vec::new() }
    }

    /// Trusts these certificates as well.
    #[must_use]
    pub fn trusting(mut self, pem: &str) -> Self {
        self.tls.trust(pem);
        self
    }

    /// Comes from this address: every one of 127.0.0.0/8 is this machine's.
    #[must_use]
    pub fn from_address(mut self, address: Ipv4Addr) -> Self {
        self.own_address = Some(address);
        self
    }

    /// Speaks TLS to the proxy itself, as for `HTTPS_PROXY=https://…`.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.outer_tls = true;
        self
    }

    /// Sends this server name in place of the host's.
    #[must_use]
    pub fn with_sni(mut self, name: &str) -> Self {
        self.tls.sni = Sni::Other(name.to_owned());
        self
    }

    /// Sends no server name.
    #[must_use]
    pub fn without_sni(mut self) -> Self {
        self.tls.sni = Sni::Absent;
        self
    }

    /// Offers these application protocols.
    #[must_use]
    pub fn with_alpn(mut self, protocols: &[&str]) -> Self {
        self.tls.alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Offers these versions of TLS.
    #[must_use]
    pub fn with_versions(mut self, versions: Versions) -> Self {
        self.tls.versions = versions;
        self
    }

    /// Adds a field to every CONNECT.
    #[must_use]
    pub fn with_proxy_header(mut self, name: &str, value: &str) -> Self {
        self.proxy_headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A connection to the proxy itself.
    pub fn plain(&self) -> io::Result<Connection> {
        let proxy = match &self.way {
            Way::Proxy(proxy) => proxy,
            Way::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(Connection::new("localhost".to_owned(), Box::new(stream), None));
            }
            Way::Direct(_) => return Err(unknown_host("a proxy")),
        };
        let (host, stream) = (proxy.to_string(), self.dial(*proxy)?);
        if !self.outer_tls {
            return Ok(Connection::new(host, stream, None));
        }
        let outer = TlsOptions { sni: Sni::Host, ..self.tls.clone() };
        let (stream, handshake) = outer.connect(&proxy.ip().to_string(), stream)?;
        Ok(Connection::new(host, stream, Some(handshake)))
    }

    /// Sends a CONNECT for `authority` and returns the answer, with the connection that it came on.
    pub fn connect(&self, authority: &str) -> io::Result<(Response, Connection)> {
        let mut connection = self.plain()?;
        let mut request = Request::new("CONNECT", authority).header("Host", authority);
        for (name, value) in &self.proxy_headers {
            request.headers.push(name.clone(), value.clone());
        }
        let response = connection.send(&request)?;
        Ok((response, connection))
    }

    /// A tunnel to `host` (port 443) or `host:port`, with TLS inside it.
    pub fn open(&self, host: &str) -> io::Result<Connection> {
        let (name, authority) = match host.rsplit_once(':') {
            Some((name, _)) => (name, host.to_owned()),
            None => (host, format!("{host}:443")),
        };
        let stream = match &self.way {
            Way::Proxy(_) | Way::Socket(_) => self.tunnel(&authority)?,
            Way::Direct(hosts) => {
                let known = hosts.iter().find(|(known, _)| known == name);
                self.dial(known.ok_or_else(|| unknown_host(name))?.1)?
            }
        };
        let (stream, handshake) = self.tls.connect(name, stream)?;
        Ok(Connection::new(host.to_owned(), stream, Some(handshake)))
    }

    /// TLS with `host`, by its bare name, on a connection whose CONNECT has been answered.
    pub fn inside(&self, host: &str, tunnel: Connection) -> io::Result<Connection> {
        let (stream, handshake) = self.tls.connect(host, tunnel.into_stream())?;
        Ok(Connection::new(host.to_owned(), stream, Some(handshake)))
    }

    fn dial(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let stream = match self.own_address {
            Some(own) => connected_from(own, address)?,
            None => TcpStream::connect_timeout(&address, PATIENCE)?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Box::new(stream))
    }

    fn tunnel(&self, authority: &str) -> io::Result<Box<dyn Stream>> {
        let (response, connection) = self.connect(authority)?;
        if response.status != 200 {
            let words = format!("CONNECT {authority}: {} {}", response.status, response.reason);
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, words));
        }
        Ok(connection.into_stream())
    }

    /// Sends a request on a connection of its own. An `https` URL goes through a tunnel, an `http`
    /// URL in absolute form, and a path to the proxy itself.
    pub fn send(&self, request: &Request) -> io::Result<Response> {
        if let Some(rest) = request.target.strip_prefix("https://") {
            let (host, path) = split_host(rest);
            let inner = Request { target: path, ..request.clone() };
            return self.open(&host)?.send(&inner);
        }
        let mut request = request.clone();
        if let Some(rest) = request.target.strip_prefix("http://") {
            let (host, _) = split_host(rest);
            if request.headers.get("host").is_none() {
                request.headers.push("Host", host);
            }
        }
        self.plain()?.send(&request)
    }

    /// A `GET`; see [`Client::send`].
    pub fn get(&self, url: &str) -> io::Result<Response> {
        self.send(&Request::get(url))
    }
}

/// A connection from an address of one's own choice.
fn connected_from(own: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = net::socket_with(
        net::AddressFamily::INET,
        net::SocketType::STREAM,
        net::SocketFlags::CLOEXEC,
        None,
    )?;
    net::bind(&socket, &SocketAddr::from((own, 0)))?;
    net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

fn unknown_host(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("this client knows no way to {name}"))
}

/// `host[:port]` and the path of a URL without its scheme.
fn split_host(rest: &str) -> (String, String) {
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    (host.to_owned(), path)
}

/// A connection on which requests can be sent, one after the other.
pub struct Connection {
    host: String,
    reader: BufReader<Box<dyn Stream>>,
    handshake: Option<Handshake>,
}

impl Connection {
    fn new(host: String, stream: Box<dyn Stream>, handshake: Option<Handshake>) -> Self {
        Self { host, reader: BufReader::new(stream), handshake }
    }

    /// What came of the innermost handshake.
    #[track_caller]
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        self.handshake.as_ref().expect("a connection with TLS")
    }

    fn into_stream(self) -> Box<dyn Stream> {
        assert!(self.reader.buffer().is_empty(), "the other side spoke before it was asked");
        self.reader.into_inner()
    }

    /// Sends a request and reads the whole answer. `Host` is added where it is missing.
    ///
    /// An answer that ends too early is an error.
    pub fn send(&mut self, request: &Request) -> io::Result<Response> {
        let mut download = self.start(request)?;
        let body = download.finish()?;
        Ok(download.into_response().body(body))
    }

    /// Sends a request and reads the head of the answer.
    pub fn start(&mut self, request: &Request) -> io::Result<Download<'_>> {
        let mut request = request.clone();
        if request.headers.get("host").is_none() {
            request.headers.push("Host", self.host.clone());
        }
        self.write(&request.to_wire())?;
        self.read_head(&request.method)
    }

    /// Sends these bytes and reads one answer.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<Response> {
        self.write(bytes)?;
        let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
        let mut download = self.read_head(&String::from_utf8_lossy(method))?;
        let body = download.finish()?;
        Ok(download.into_response().body(body))
    }

    /// Sends these bytes and reads all that comes until the other side closes the connection.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.write(bytes)?;
        let mut all = Vec::new();
        match self.reader.read_to_end(&mut all) {
            Err(error) if is_timeout(&error) => Err(error),
            _ => Ok(all),
        }
    }

    /// Sends these bytes and nothing else.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.reader.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// The next line that the other side sends, without its end.
    pub fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Whether the other side closes the connection, in whatever way, rather than to say more or
    /// to wait.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => !is_timeout(&error),
        }
    }

    fn read_head(&mut self, method: &str) -> io::Result<Download<'_>> {
        loop {
            let head = Head::read(&mut self.reader)?.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection ended without an answer",
                )
            })?;
            let (status, reason) = head.status()?;
            if (100..200).contains(&status) {
                continue;
            }
            let body = BodyReader::of_response(method, status, &head.headers)?;
            let response =
                Response { status, reason, headers: head.headers, ..Response::default() };
            return Ok(Download { response, body, reader: &mut self.reader });
        }
    }
}

/// Whether an error says that the other side was silent for [`PATIENCE`].
#[must_use]
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// An answer whose body is read when the test says so.
pub struct Download<'a> {
    response: Response,
    body: BodyReader,
    reader: &'a mut BufReader<Box<dyn Stream>>,
}

impl Download<'_> {
    /// The head of the answer.
    #[must_use]
    pub fn head(&self) -> &Response {
        &self.response
    }

    /// Reads that many bytes of the body; a body that ends before is an error.
    pub fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.body.read(self.reader, &mut bytes[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(bytes)
    }

    /// Reads what is left of the body; a body that does not end as it should is an error.
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        self.body.read_to_end(self.reader)
    }

    /// Reads what is left of the body and keeps none of it.
    pub fn skip(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        while self.body.read(self.reader, &mut buffer)? > 0 {}
        Ok(())
    }

    fn into_response(self) -> Response {
        self.response
    }
}
