//! The way to a bucket's server, with whatever goes wrong on it: everything passes as it is until
//! a test says otherwise, at any moment and while requests are under way. What passes is counted.

use std::collections::HashMap;
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::fault::On;
use crate::http::{BodyReader, Head, Request, chunk};
use crate::{Gate, PATIENCE, wait_until};

/// How much of a body is passed on at a time.
const PIECE: usize = 16 * 1024;

/// What goes wrong on the way. Offsets count bytes of the body of an answer.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The request is taken and nothing is ever said.
    Silence,
    /// Answers so in place of the server: with the status and error code of S3.
    Status(u16),
    /// Hangs up after so many bytes of the answer.
    Cut(usize),
    /// Says nothing more after so many bytes of the answer, until the gate is open.
    Stall(usize, Gate),
    /// Passes on no more than so many bytes a second, either way.
    Rate(usize),
    /// Passes on other bytes of the same length: the lowest bit of this one is inverted.
    Flip(usize),
    /// Waits before the request goes on.
    Delay(Duration),
    /// Hangs up when so many bytes of the request's body have been passed on.
    CutRequest(usize),
    /// Waits at the gate when so many bytes of the request's body have been passed on.
    StallRequest(usize, Gate),
    /// The server gets the request and does it; who asked never hears of it.
    LoseAnswer,
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// The value of `Range`.
    pub range: Option<String>,
    /// When its head had come.
    pub at: Instant,
}

/// A forwarder; it takes nobody any more when it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    stopped: AtomicBool,
    troubles: Mutex<Vec<Entry>>,
    gates: Mutex<Vec<Gate>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicU64,
    open: Mutex<HashMap<u64, Vec<TcpStream>>>,
}

#[derive(Debug)]
struct Entry {
    on: On,
    trouble: Trouble,
    /// How many requests it is still about; none for all that come.
    times: Option<usize>,
}

impl Forwarder {
    /// One to this server, on a free port of loopback.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            stopped: AtomicBool::new(false),
            troubles: Mutex::default(),
            gates: Mutex::default(),
            seen: Mutex::default(),
            connections: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let acceptor = Mutex::new(Some(accepting(&shared, listener)));
        Self { address, shared, acceptor }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does this to every such request from now on.
    pub fn always(&self, on: On, trouble: Trouble) {
        self.shared.add(on, trouble, None);
    }

    /// Does this to the next so many such requests.
    pub fn times(&self, times: usize, on: On, trouble: Trouble) {
        self.shared.add(on, trouble, Some(times));
    }

    /// Does everything right again, for what comes now; who is met by silence stays so.
    pub fn heal(&self) {
        self.shared.troubles.lock().unwrap().clear();
        if self.acceptor.lock().unwrap().is_none() {
            let mut listener = None;
            wait_until("the forwarder's port is taken", || {
                listener = TcpListener::bind(self.address).ok();
                listener.is_some()
            });
            self.shared.stopped.store(false, Ordering::SeqCst);
            let acceptor = accepting(&self.shared, listener.expect("a listener"));
            *self.acceptor.lock().unwrap() = Some(acceptor);
        }
    }

    /// Ends every connection, and refuses every other until it is healed.
    pub fn refuse(&self) {
        let Some(acceptor) = self.acceptor.lock().unwrap().take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Only a connection wakes the one who accepts them.
        drop(TcpStream::connect(self.address));
        drop(acceptor.join());
        self.shared.hang_up();
    }

    /// Ends every connection, and takes others.
    pub fn hang_up(&self) {
        self.shared.hang_up();
    }

    /// What came by so far: requests whose method is this and whose path and query contain that.
    #[must_use]
    pub fn seen(&self, method: &str, part: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        let is_wanted = |seen: &&Seen| seen.method == method && seen.target.contains(part);
        seen.iter().filter(is_wanted).cloned().collect()
    }

    /// Everything that came by so far, a line each.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// Forgets what came by.
    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// Waits until so many requests came by whose method is this and whose target contains that.
    #[track_caller]
    pub fn wait_until_seen(&self, method: &str, part: &str, count: usize) {
        wait_until(
            &format!("not {count} times {method} …{part}…: {:#?}", self.summary()),
            || self.seen(method, part).len() >= count,
        );
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        for gate in self.shared.gates.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            gate.open();
        }
        self.refuse();
    }
}

fn accepting(shared: &Arc<Shared>, listener: TcpListener) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            if shared.stopped.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(&shared);
            // One that breaks off is no concern of the forwarder's.
            thread::spawn(move || shared.converse(near).ok());
        }
    })
}

/// Whether the connection is of use to a further request.
enum Next {
    KeepAlive,
    Hangup,
}

type Connection = BufReader<TcpStream>;

impl Shared {
    fn add(&self, on: On, trouble: Trouble, times: Option<usize>) {
        if let Trouble::Stall(_, gate) | Trouble::StallRequest(_, gate) = &trouble {
            self.gates.lock().unwrap().push(gate.clone());
        }
        self.troubles.lock().unwrap().push(Entry { on, trouble, times });
    }

    fn take(&self, request: &Request) -> Option<Trouble> {
        let mut entries = self.troubles.lock().unwrap();
        let at = entries.iter().position(|entry| entry.on.is_about(request))?;
        let trouble = entries[at].trouble.clone();
        if let Some(times) = &mut entries[at].times {
            *times -= 1;
            if *times == 0 {
                entries.remove(at);
            }
        }
        Some(trouble)
    }

    fn hang_up(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for stream in open.values().flatten() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn converse(&self, near: TcpStream) -> io::Result<()> {
        let id = self.connections.fetch_add(1, Ordering::SeqCst);
        let far = TcpStream::connect(self.server)?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
        }
        far.set_read_timeout(Some(PATIENCE))?;
        let ends = vec![near.try_clone()?, far.try_clone()?];
        self.open.lock().unwrap().insert(id, ends);
        let (mut near, mut far) = (BufReader::new(near), BufReader::new(far));
        while let Ok(Next::KeepAlive) = self.exchange(&mut near, &mut far) {}
        for end in [near.get_ref(), far.get_ref()] {
            drop(end.shutdown(Shutdown::Both));
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(())
    }

    fn exchange(&self, near: &mut Connection, far: &mut Connection) -> io::Result<Next> {
        let Some(head) = Head::read(near)? else { return Ok(Next::Hangup) };
        let mut parts = head.start_line.split(' ');
        let (method, target) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let request = Request { headers: head.headers.clone(), ..Request::new(method, target) };
        self.seen.lock().unwrap().push(Seen {
            method: method.to_owned(),
            target: target.to_owned(),
            range: head.headers.get("range").map(str::to_owned),
            at: Instant::now(),
        });
        let trouble = self.take(&request);
        let body = BodyReader::of_request(&head.headers)?;
        match trouble {
            Some(Trouble::Silence) => {
                // Until whoever asks has had enough.
                let mut rest = Vec::new();
                drop(near.read_to_end(&mut rest));
                return Ok(Next::Hangup);
            }
            Some(Trouble::Status(status)) => {
                let mut body = body;
                body.read_to_end(near)?;
                near.get_mut().write_all(refusal(method, status).as_bytes())?;
                return Ok(Next::KeepAlive);
            }
            // The delay is what is being simulated.
            Some(Trouble::Delay(delay)) => thread::sleep(delay),
            _ => {}
        }
        let wire = format!("{}\r\n{}", head.start_line, head.headers.to_wire());
        far.get_mut().write_all(wire.as_bytes())?;
        let (cut, stall, rate) = match &trouble {
            Some(Trouble::CutRequest(at)) => (Some(*at), None, None),
            Some(Trouble::StallRequest(at, gate)) => (None, Some((*at, gate.clone())), None),
            Some(Trouble::Rate(rate)) => (None, None, Some(*rate)),
            _ => (None, None, None),
        };
        let passage = Passage { cut, stall, flip: None, rate };
        let is_chunked = head.headers.get("transfer-encoding").is_some();
        if let Next::Hangup = passage.pass(body, is_chunked, near, far.get_mut())? {
            return Ok(Next::Hangup);
        }
        let answer = Head::read(far)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Some(Trouble::LoseAnswer) = trouble {
            return Ok(Next::Hangup);
        }
        let wire = format!("{}\r\n{}", answer.start_line, answer.headers.to_wire());
        near.get_mut().write_all(wire.as_bytes())?;
        let (cut, stall, flip, rate) = match trouble {
            Some(Trouble::Cut(at)) => (Some(at), None, None, None),
            Some(Trouble::Stall(at, gate)) => (None, Some((at, gate)), None, None),
            Some(Trouble::Flip(at)) => (None, None, Some(at), None),
            Some(Trouble::Rate(rate)) => (None, None, None, Some(rate)),
            _ => (None, None, None, None),
        };
        let (status, _) = answer.status()?;
        let body = BodyReader::of_response(method, status, &answer.headers)?;
        let is_chunked = answer.headers.get("transfer-encoding").is_some();
        let passage = Passage { cut, stall, flip, rate };
        passage.pass(body, is_chunked, far, near.get_mut())
    }
}

/// How a body is passed on.
struct Passage {
    cut: Option<usize>,
    stall: Option<(usize, Gate)>,
    flip: Option<usize>,
    rate: Option<usize>,
}

impl Passage {
    fn pass(
        &self,
        mut body: BodyReader,
        is_chunked: bool,
        from: &mut Connection,
        to: &mut TcpStream,
    ) -> io::Result<Next> {
        let mut passed = 0;
        let mut buffer = [0; PIECE];
        loop {
            if self.cut == Some(passed) {
                return Ok(Next::Hangup);
            }
            if let Some((_, gate)) = self.stall.as_ref().filter(|(at, _)| *at == passed) {
                gate.pass();
            }
            let stops = [self.cut, self.stall.as_ref().map(|(at, _)| *at)];
            let ends = stops.into_iter().flatten().filter(|at| *at > passed);
            let most = ends.map(|at| at - passed).min().unwrap_or(PIECE).min(PIECE);
            let count = body.read(from, &mut buffer[..most])?;
            if count == 0 {
                if is_chunked {
                    to.write_all(b"0\r\n\r\n")?;
                }
                to.flush()?;
                return Ok(Next::KeepAlive);
            }
            let piece = &mut buffer[..count];
            if let Some(at) = self.flip.filter(|at| (passed..passed + count).contains(at)) {
                piece[at - passed] ^= 1;
            }
            if let Some(rate) = self.rate {
                // The rate is what is being simulated; nothing waits for this to be over.
                let share = Duration::from_secs(1) * u32::try_from(count).unwrap();
                thread::sleep(share / u32::try_from(rate).unwrap());
            }
            if is_chunked {
                to.write_all(&chunk(piece))?;
            } else {
                to.write_all(piece)?;
            }
            passed += count;
        }
    }
}

/// An error document of S3.
fn refusal(method: &str, status: u16) -> String {
    let code = match status {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        503 => "SlowDown",
        507 => "QuotaExceeded",
        _ => "InternalError",
    };
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>a test wants \
         it so</Message></Error>"
    );
    let length = document.len();
    let body = if method == "HEAD" { "" } else { &document };
    format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
