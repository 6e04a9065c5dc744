//! The binary under test, as it is run for real: a configuration file, a data directory, signals.

mod process;

use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::canary::files_under;
use crate::client::Client;
use crate::http::Response;
use crate::image::digest_of;
use crate::pull::{Pulled, Puller};
use crate::registry::Registry;
use crate::{PATIENCE, TestCa};

use process::Process;
pub use process::{Finished, Signal, run};

/// How often a start is tried again because another program took its port meanwhile.
const START_ATTEMPTS: usize = 5;
/// Between two attempts to connect.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// A running proxy; it is killed when it is dropped, and its directories go away.
#[derive(Debug)]
pub struct Proxy {
    settings: Builder,
    ports: Ports,
    process: Process,
    ca_pem: String,
    home: TempDir,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Ports {
    /// Ports that are free now. Somebody else may take them before the proxy does: then others
    /// are tried.
    fn free(place: Option<SocketAddr>) -> Self {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (listen, admin) = (bind(), bind());
        let listen = place.unwrap_or_else(|| listen.local_addr().unwrap());
        Self { listen, admin: admin.local_addr().unwrap() }
    }
}

/// A place for a proxy that others have to know before it is there. Every address of 127.0.0.0/8 is
/// this machine's; nobody else takes a port of one that is chosen at random.
#[must_use]
pub fn free_place() -> SocketAddr {
    let random = RandomState::new().hash_one(std::process::id()).to_be_bytes();
    let address = Ipv4Addr::new(127, random[0].clamp(1, 254), random[1], random[2].clamp(1, 254));
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// A proxy that is still being described.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    binary: PathBuf,
    connect_to: Vec<String>,
    ca_files: Vec<String>,
    top: String,
    upstream: String,
    tables: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    everywhere: bool,
    place: Option<SocketAddr>,
    admin_everywhere: bool,
    files: Option<u32>,
}

impl Builder {
    /// Leads every host of `registry` to it, and trusts its authority.
    pub fn in_front_of(self, registry: &Registry) -> Self {
        let entries = registry.connect_to();
        entries
            .iter()
            .fold(self.trusting(registry.ca()), |builder, entry| builder.connect_to(entry))
    }

    /// Adds an entry to `connect-to`.
    pub fn connect_to(mut self, entry: &str) -> Self {
        self.connect_to.push(entry.to_owned());
        self
    }

    /// Adds an authority's certificate to `ca-files`.
    pub fn trusting(mut self, ca: &TestCa) -> Self {
        let file = ca.pem_file().display().to_string();
        if !self.ca_files.contains(&file) {
            self.ca_files.push(file);
        }
        self
    }

    /// Adds lines to the top of the configuration.
    pub fn config(mut self, lines: &str) -> Self {
        writeln!(self.top, "{lines}").unwrap();
        self
    }

    /// Adds lines to `[upstream]`.
    pub fn upstream(mut self, lines: &str) -> Self {
        writeln!(self.upstream, "{lines}").unwrap();
        self
    }

    /// Adds tables to the end of the configuration.
    pub fn tables(mut self, lines: &str) -> Self {
        writeln!(self.tables, "{lines}").unwrap();
        self
    }

    /// Sets a variable of the proxy's environment, in which there is else only `PATH` and `HOME`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument after `serve --config FILE`.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Lets it listen on every IPv4 address of this machine.
    pub fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// Lets it listen at this [place](free_place), after a restart too.
    pub fn listening_at(mut self, place: SocketAddr) -> Self {
        self.place = Some(place);
        self
    }

    /// Lets its admin listener listen on every IPv4 address of this machine.
    pub fn admin_everywhere(mut self) -> Self {
        self.admin_everywhere = true;
        self
    }

    /// Lets it have so many files open at most.
    pub fn files(mut self, most: u32) -> Self {
        self.files = Some(most);
        self
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Proxy {
        let home = tempfile::tempdir().unwrap();
        let (ports, process) = self.launch(home.path());
        let ca = Client::new(ports.listen).get("/ca.crt").expect("an answer to GET /ca.crt");
        Proxy { settings: self, ports, process, ca_pem: ca.text(), home }
    }

    #[track_caller]
    fn launch(&self, home: &Path) -> (Ports, Process) {
        for _ in 0..START_ATTEMPTS {
            let ports = Ports::free(self.place);
            let process = self.spawn(home, ports);
            match wait_until_ready(&process, ports) {
                Ok(()) => return (ports, process),
                Err(output) if output.to_lowercase().contains("in use") => {}
                Err(output) => panic!("the proxy did not start:\n{output}"),
            }
        }
        panic!("no port stayed free for the proxy");
    }

    fn spawn(&self, home: &Path, ports: Ports) -> Process {
        let config = home.join("entrepot.toml");
        fs::write(&config, self.toml(home, ports)).unwrap();
        let mut arguments = vec!["serve".to_owned(), "--config".to_owned()];
        arguments.push(config.display().to_string());
        arguments.extend_from_slice(&self.arguments);
        let mut environment = self.environment.clone();
        environment.push(("HOME".to_owned(), home.display().to_string()));
        let Some(most) = self.files else {
            return Process::spawn(&self.binary, &arguments, &environment);
        };
        let limited = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
        let mut shell = vec!["-c".to_owned(), limited, self.binary.display().to_string()];
        shell.append(&mut arguments);
        Process::spawn(Path::new("/bin/sh"), &shell, &environment)
    }

    fn toml(&self, home: &Path, ports: Ports) -> String {
        let Self { connect_to, ca_files, top, upstream, tables, .. } = self;
        let data = home.join("data").display().to_string();
        let admin = if self.admin_everywhere { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let own = if self.everywhere { Ipv4Addr::UNSPECIFIED.into() } else { ports.listen.ip() };
        let listen = SocketAddr::new(own, ports.listen.port());
        format!(
            "listen = [\"{listen}\"]\nadmin-listen = \"{}\"\ndata-dir = {data:?}\n{top}\n\
             [upstream]\nconnect-to = {connect_to:?}\nca-files = {ca_files:?}\n{upstream}\n{tables}",
            SocketAddr::new(admin.into(), ports.admin.port())
        )
    }
}

/// Waits for the proxy's first answer; what it printed, if it ended before or never gave one.
fn wait_until_ready(process: &Process, ports: Ports) -> Result<(), String> {
    let client = Client::new(ports.listen);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let answers = || client.get("/healthz").is_ok_and(|response| response.status == 200);
        if says_that_it_listens(process, ports) && answers() {
            return Ok(());
        }
        if process.has_ended() {
            return Err(process.complete_output());
        }
        // A server that does not listen yet can only be asked again.
        thread::sleep(BETWEEN_ATTEMPTS);
    }
    Err(process.lines().join("\n"))
}

/// Whether this process has the port: another test's proxy may have taken it meanwhile, and it
/// would answer as well.
fn says_that_it_listens(process: &Process, ports: Ports) -> bool {
    let port = format!(":{}", ports.listen.port());
    process.lines().iter().any(|line| line.contains("listening") && line.contains(&port))
}

impl Proxy {
    /// The proxy whose binary is at this path, in front of nothing yet.
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder {
            binary: binary.into(),
            connect_to: Vec::new(),
            ca_files: Vec::new(),
            top: String::new(),
            upstream: String::new(),
            tables: String::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            everywhere: false,
            place: None,
            admin_everywhere: false,
            files: None,
        }
    }

    /// Where it listens for clients; another port after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.ports.listen
    }

    /// Where its admin API listens; another port after a restart.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.ports.admin
    }

    /// Its `data-dir`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.home.path().join("entrepot.toml")
    }

    /// The certificate that its clients trust, as `/ca.crt` gave it at the first start.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A client that trusts this proxy.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.ports.listen).trusting(&self.ca_pem)
    }

    /// An engine behind this proxy, which pulls from Docker Hub.
    #[must_use]
    pub fn puller(&self) -> Puller {
        Puller::new(self.client())
    }

    /// A page of the admin listener.
    #[track_caller]
    #[must_use]
    pub fn admin(&self, path: &str) -> Response {
        Client::new(self.ports.admin).get(path).expect("an answer of the admin listener")
    }

    /// Where its admin socket lies.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir().join("cache/admin.sock")
    }

    /// A client of its admin socket, where its own user may do everything.
    #[must_use]
    pub fn operator(&self) -> Client {
        Client::at_socket(self.admin_socket())
    }

    /// Whether an object of this digest is finished in the store.
    #[must_use]
    pub fn keeps(&self, digest: &str) -> bool {
        self.kept_file(digest).is_some()
    }

    /// Waits until an object of this digest is finished in the store, and on record: a client has
    /// its last byte as soon as the digest is right, before the file is synced and renamed, and the
    /// download is over only after that.
    #[track_caller]
    pub fn wait_until_kept(&self, digest: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !(self.keeps(digest) && self.is_on_record(digest)) {
            assert!(Instant::now() < deadline, "{digest} is not kept:\n{}", self.log().join("\n"));
            // Only the directory itself tells when it has changed.
            thread::sleep(BETWEEN_ATTEMPTS);
        }
    }

    /// Waits until an object of this digest is finished in the store, on record or not.
    #[track_caller]
    pub fn wait_until_finished(&self, digest: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.keeps(digest) {
            assert!(Instant::now() < deadline, "{digest} does not come");
            thread::sleep(BETWEEN_ATTEMPTS);
        }
    }

    fn is_on_record(&self, digest: &str) -> bool {
        let hex = digest.rsplit(':').next().unwrap_or_default();
        files_under(&self.data_dir()).iter().any(|path| {
            path.ends_with(hex) && path.components().any(|part| part.as_os_str() == "_contents")
        })
    }

    /// Waits until everything of an image that was just pulled is finished in the store, after
    /// which it is a hit.
    #[track_caller]
    pub fn wait_until_all_kept(&self, pulled: &Pulled) {
        for object in pulled.manifests.iter().chain(&pulled.blobs) {
            self.wait_until_kept(&object.digest);
        }
    }

    /// Fails if a finished object in the store is not what its name says.
    #[track_caller]
    pub fn assert_store_is_sound(&self) {
        let finished = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "blobs");
        for path in files_under(&self.data_dir()).into_iter().filter(finished) {
            let hex = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(bytes) = fs::read(&path) else { continue };
            assert_eq!(digest_of(&bytes), format!("sha256:{hex}"), "{}", path.display());
        }
    }

    /// What it has printed so far, on both of its outputs.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// Whether a line contains this.
    #[must_use]
    pub fn log_contains(&self, part: &str) -> bool {
        self.log().iter().any(|line| line.contains(part))
    }

    /// Waits for a line that contains all these parts.
    #[track_caller]
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        self.process.wait_for_line(parts, 1)
    }

    /// Waits for so many lines that contain all these parts, and gives the last of them.
    #[track_caller]
    pub fn wait_for_logs(&self, parts: &[&str], count: usize) -> String {
        self.process.wait_for_line(parts, count)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end; its log is complete then.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        self.process.wait_exit()
    }

    /// Ends it with `signal` and starts it again, with the same directories and on other ports.
    #[track_caller]
    pub fn restart(&mut self, signal: Signal) {
        self.signal(signal);
        self.wait_exit();
        self.start_again();
    }

    /// Starts it again after its end, with the same directories and on other ports.
    #[track_caller]
    pub fn start_again(&mut self) {
        (self.ports, self.process) = self.settings.launch(self.home.path());
    }

    /// Inverts a bit of a kept object, as a disk may.
    ///
    /// # Panics
    /// When it is not kept.
    pub fn damage(&self, digest: &str) {
        let path = self.kept_file(digest).expect("a kept object");
        let mut bytes = fs::read(&path).expect("a readable object");
        if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
        fs::write(&path, bytes).expect("a writable object");
    }

    /// Takes a kept object away, as an eviction does.
    ///
    /// # Panics
    /// When it is not kept.
    pub fn lose(&self, digest: &str) {
        fs::remove_file(self.kept_file(digest).expect("a kept object")).expect("a removed object");
    }

    fn kept_file(&self, digest: &str) -> Option<PathBuf> {
        let hex = digest.rsplit(':').next().unwrap_or_default();
        files_under(&self.data_dir()).into_iter().find(|path| {
            path.ends_with(hex) && path.components().any(|part| part.as_os_str() == "blobs")
        })
    }

    /// Waits until it takes no connections any more, as one that is about to end.
    #[track_caller]
    pub fn wait_until_closed(&self) {
        let deadline = Instant::now() + PATIENCE;
        while Client::new(self.ports.listen).get("/healthz").is_ok() {
            assert!(Instant::now() < deadline, "still accepting:\n{}", self.log().join("\n"));
            // Nothing says that a socket is closed but another attempt to connect.
            thread::sleep(BETWEEN_ATTEMPTS);
        }
    }

    /// Runs a subcommand with this proxy's configuration file and environment.
    #[track_caller]
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let environment = self.settings.environment.iter();
        let environment: Vec<_> =
            environment.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.run_with(arguments, &environment)
    }

    /// The same with another environment.
    #[track_caller]
    #[must_use]
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
        let config = self.config_file().display().to_string();
        let arguments = [arguments, &["--config", &config]].concat();
        run(&self.settings.binary, &arguments, environment)
    }
}
