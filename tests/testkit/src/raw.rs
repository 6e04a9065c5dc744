//! A server that says one thing to whoever connects, whatever it was asked.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::PATIENCE;

/// What is done with a connection.
#[derive(Debug, Clone)]
pub enum Word {
    /// It is reset at once.
    Reset,
    /// These bytes are sent after the first ones have come, and nothing more.
    Bytes(Vec<u8>),
}

/// A server on a free port of loopback.
#[derive(Debug)]
pub struct RawServer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl RawServer {
    /// A server that says this.
    #[must_use]
    pub fn start(word: Word) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let acceptor = thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || {
                for stream in listener.incoming().flatten() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    say(&word, stream);
                }
            }
        });
        Self { address, stopped, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Only a connection wakes the one who accepts them.
        drop(TcpStream::connect(self.address));
        drop(self.acceptor.take().map(JoinHandle::join));
    }
}

/// Whoever connects may break off: that is no concern of the server's.
fn say(word: &Word, mut stream: TcpStream) {
    match word {
        Word::Reset => {
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
        Word::Bytes(bytes) => {
            drop(stream.set_read_timeout(Some(PATIENCE)));
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(bytes));
            drop(stream.shutdown(Shutdown::Write));
            // What is not read would turn the end into a reset, which may overtake the bytes.
            drop(stream.read_to_end(&mut Vec::new()));
        }
    }
}
