//! entrepot itself.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Kind, Peer, Plan, Surroundings, text};
use crate::certificates::HOST;
use crate::child::{Launch, Listens, free_address};
use crate::load::{Way, on_cpu};
use crate::wire::Incoming;

/// How long a page of the admin listener may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place for one entrepot to run in: its directories and its ports.
#[derive(Debug)]
pub(crate) struct Instance {
    dir: PathBuf,
    ca: PathBuf,
    /// Tables at the end of its configuration.
    tables: String,
    pub(crate) listen: SocketAddr,
    /// Where its metrics are.
    pub(crate) admin: SocketAddr,
}

impl Instance {
    pub(crate) fn new(around: &Surroundings, name: &str) -> anyhow::Result<Self> {
        let dir = around.place(name)?;
        let (listen, admin) = (free_address()?, free_address()?);
        Ok(Self { ca: dir.join("ca"), dir, tables: String::new(), listen, admin })
    }

    /// One of several that have a CA in common.
    pub(crate) fn replica(around: &Surroundings, name: &str) -> anyhow::Result<Self> {
        Ok(Self { ca: around.place("fleet")?.join("ca"), ..Self::new(around, name)? })
    }

    /// The same, with these tables at the end of its configuration.
    pub(crate) fn with(self, tables: &str) -> Self {
        Self { tables: self.tables + tables, ..self }
    }

    /// Where it keeps objects.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Starts it.
    pub(crate) fn start(&self, around: &Surroundings) -> anyhow::Result<Peer> {
        Peer::run(Kind::Entrepot, self.plan(around)?, around.port)
    }

    pub(super) fn plan(&self, around: &Surroundings) -> anyhow::Result<Plan> {
        let file = self.dir.join("entrepot.toml");
        fs::write(&file, self.configuration(around))?;
        let launch = Launch {
            program: around.entrepot.clone(),
            arguments: ["serve", "--config", &text(&file)].map(str::to_owned).to_vec(),
            environment: vec![("HOME".to_owned(), text(&self.dir))],
            listens: Listens::At(self.listen),
            log: self.dir.join("entrepot.log"),
        };
        Ok(Plan { launch, way: Way::Proxy, ca: self.ca.join("ca.crt") })
    }

    fn configuration(&self, around: &Surroundings) -> String {
        let (host, port) = (HOST, around.port);
        format!(
            "listen = [\"{}\"]\nadmin-listen = \"{}\"\ncache-dir = {:?}\nca-dir = {:?}\n\
             max-size = \"1TiB\"\ntag-ttl = \"1h\"\nintercept-also = [\"{host}:{port}\"]\n\n\
             [upstream]\nconnect-to = [\"{host}:{port}:127.0.0.1:{port}\"]\nca-files = [{:?}]\n\
             proxy = \"direct\"\n{}",
            self.listen,
            self.admin,
            text(&self.store()),
            text(&self.ca),
            text(&around.identity.ca),
            self.tables,
        )
    }
}

/// A page of the admin listener.
pub(crate) fn admin_page(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    on_cpu(None, async {
        timeout(PATIENCE, page(admin, path)).await.context("the admin listener")?
    })
}

async fn page(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut incoming = Incoming::new(TcpStream::connect(admin).await?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    incoming.stream.write_all(request.as_bytes()).await?;
    let head = incoming.head().await?.context("closed without an answer")?;
    let mut body = Vec::new();
    let len = head.body_bytes().context("a body of unknown length")?;
    incoming.body(len, |piece| body.extend_from_slice(piece)).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
