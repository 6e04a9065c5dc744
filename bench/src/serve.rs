//! What origin and ceiling share: TLS connections that are asked one thing after the other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Identity;
use crate::wire::{Head, Incoming};

/// How much is read and written at a time.
const PIECE: usize = 256 * 1024;

/// A server's answers.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Writes the whole answer to a request, which has no body.
    fn answer(
        &self,
        request: &Head,
        to: &mut (impl AsyncWrite + Unpin + Send),
        room: &mut [u8],
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// Serves on a free port of 127.0.0.1 until the process is ended. Its first line of output is its
/// address.
pub(crate) fn run(dir: &Path, answers: impl Answers) -> anyhow::Result<()> {
    // Who is measured dies with who measures.
    let end = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(end)?;
    let tls = Arc::new(Identity::in_dir(dir).server()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        io::Write::write_all(
            &mut io::stdout(),
            format!("{}\n", listener.local_addr()?).as_bytes(),
        )?;
        accept(listener, tls, answers).await;
        Ok(())
    })
}

/// Serves whoever connects, for ever.
pub(crate) async fn accept(listener: TcpListener, tls: Arc<ServerConfig>, answers: impl Answers) {
    let (acceptor, answers) = (TlsAcceptor::from(tls), Arc::new(answers));
    loop {
        // A connection that broke before it was accepted is its client's matter.
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, answers) = (acceptor.clone(), answers.clone());
        tokio::spawn(async move {
            // Clients count what they did not get.
            let _ = converse(tcp, &acceptor, &*answers).await;
        });
    }
}

async fn converse(
    tcp: TcpStream,
    acceptor: &TlsAcceptor,
    answers: &impl Answers,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut incoming = Incoming::new(acceptor.accept(tcp).await?);
    let mut room = vec![0; PIECE];
    while let Some(request) = incoming.head().await? {
        answers.answer(&request, &mut incoming.stream, &mut room).await?;
    }
    Ok(())
}
