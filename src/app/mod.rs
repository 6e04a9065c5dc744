//! A proxy that is put together from its settings: the one place where its parts are made and
//! handed to each other.
//!
//! It writes to the log what an operator has to know of the parts; which words a start and an end
//! have, and which signals end it, is the business of who runs it.
//!
//! - `error`: why there is none
//! - `authority`: the CA of a configuration
//! - `address`: how clients reach the proxy

mod address;
mod authority;
mod error;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_ca::Authority;
use entrepot_cache::{Store, Totals};
use entrepot_oci::{HostPattern, Registry};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use authority::certificates;
pub(crate) use error::AppError;

use crate::admin::guard::Guard;
use crate::admin::onlookers::Onlookers;
use crate::admin::pages::ProxyPages;
use crate::admin::reload::Answer;
use crate::admin::sample::Sample;
use crate::admin::server::AdminServer;
use crate::admin::socket::{AdminSocket, Place, SocketFile};
use crate::admin::{self, AdminServices, Facts, FreeSpace, History, Reloads, Shared};
use crate::bucket::Bucket;
use crate::bucket::round::Round;
use crate::bucket::uploads::Uploads;
use crate::config::Settings;
use crate::gateway::Gateway;
use crate::images::{FleetImages, Images};
use crate::listener::speaker::Speaker;
use crate::listener::{AccessRules, BindError, Listener, ListenerOptions, ListenerServices};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::pulls::Pulls;
use crate::records::{self, Archive};
use crate::savings::Savings;
use crate::upstream::{Dialer, Timeouts, Upstream};

/// A proxy whose store is open and whose sockets are bound; nobody is served yet.
pub(crate) struct App {
    core: Core,
    listener: Listener,
    admin: AdminServer,
    socket: Option<AdminSocket>,
    socket_path: PathBuf,
    operators: Arc<AdminServices>,
    reloads: mpsc::Receiver<Answer>,
    cache_dir: PathBuf,
}

/// What all that serves has in common.
struct Core {
    certificates: Authority,
    store: Store,
    metrics: Metrics,
    pulls: Pulls,
    savings: Savings,
    memory: Memory,
    gateway: Gateway,
    peers: Peers,
    /// What is shared by all replicas, if there are several.
    shared: Option<Shared>,
    dialer: Dialer,
    speaker: Speaker,
    /// With what clients try it.
    sample: Sample,
    /// Every connection and download, for the drain.
    tasks: TaskTracker,
    /// Cancelled when the drain begins.
    shutdown: CancellationToken,
}

impl App {
    /// Opens the store and the CA, and binds the sockets; within a tokio runtime.
    pub(crate) async fn build(settings: &Settings) -> Result<Self, AppError> {
        let core = Core::build(settings).await?;
        // First: whoever finds the proxy there finds the other there as well.
        let admin = bind_admin(settings.admin_listen).await?;
        // The store is open: whoever has left one there is gone.
        let socket = bind_socket(&settings.admin_socket)?;
        let listener = Listener::bind(settings.listener.clone(), core.services(settings))?;
        let addresses = listener.addresses();
        let of_admin = admin.address().map_err(AppError::AdminAddress)?;
        settings.upstream.own.set([addresses.clone(), vec![of_admin]].concat());
        let (to, reloads) = Reloads::new();
        let operators = Arc::new(core.operators(settings, &addresses, to));
        let cache_dir = settings.store.dir.clone();
        let socket_path = settings.admin_socket.path.clone();
        Ok(Self { core, listener, admin, socket, socket_path, operators, reloads, cache_dir })
    }

    /// Where clients are listened for.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.listener.addresses()
    }

    /// What does not change while the proxy runs: its CA, the line that sets a client up.
    #[must_use]
    pub(crate) fn facts(&self) -> &Facts {
        &self.operators.facts
    }

    /// Where operators are listened for.
    pub(crate) fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.address()
    }

    /// Where the admin socket lies, if there is one.
    #[must_use]
    pub(crate) fn admin_socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(|_| self.socket_path.as_path())
    }

    /// What is kept, if that is known within `patience`.
    pub(crate) async fn kept(&self, patience: Duration) -> Option<Totals> {
        let store = &self.core.store;
        store.is_known_within(patience).await.then(|| store.totals())
    }

    /// The SHA-256 of each script, as it is fetched by the address that clients are told.
    #[must_use]
    pub(crate) fn script_hashes(&self, settings: &Settings) -> Option<String> {
        let facts = &self.operators.facts;
        address::scripts(settings, &facts.proxy_url, &facts.ca_fingerprint)
    }

    /// Begins to serve.
    #[must_use]
    pub(crate) fn run(self) -> RunningApp {
        let Self { core, listener, admin, socket, operators, reloads, cache_dir, .. } = self;
        let Core {
            store,
            gateway,
            peers,
            shared,
            pulls,
            savings,
            speaker,
            sample,
            tasks,
            shutdown,
            ..
        } = core;
        tasks.spawn(peers.keep(shutdown.clone()));
        let (free_space, history) = (operators.free_space.clone(), operators.history.clone());
        tasks.spawn(free_space.watch(cache_dir, shutdown.clone()));
        tasks.spawn(history.keep(shutdown.clone()));
        tasks.spawn(pulls.clone().keep(shutdown.clone()));
        tasks.spawn(savings.clone().keep(shutdown.clone()));
        tasks.spawn(gateway.keep_house(shutdown.clone()));
        if let Some(Shared { bucket, uploads, round, fleet }) = shared {
            tasks.spawn(bucket.watch(shutdown.clone()));
            tasks.spawn(uploads.keep(tasks.clone(), shutdown.clone()));
            tasks.spawn(fleet.notes().clone().keep(shutdown.clone()));
            tasks.spawn(round.keep(shutdown.clone()));
        }
        tasks.spawn(sample.keep(operators.images.clone(), shutdown.clone()));
        let access = listener.access_rules();
        let (socket, socket_file) = socket.map(AdminSocket::into_parts).unzip();
        #[expect(
            clippy::disallowed_methods,
            reason = "probes are answered until the process ends, drain and all"
        )]
        tokio::spawn(admin.run(socket, operators.clone()));
        let accepting = tasks.spawn(listener.run());
        RunningApp {
            accepting,
            access,
            speaker,
            operators,
            pulls,
            savings,
            reloads,
            store,
            _socket_file: socket_file,
            tasks,
            shutdown,
        }
    }
}

impl Core {
    async fn build(settings: &Settings) -> Result<Self, AppError> {
        let certificates = certificates(settings)?;
        let store = Store::open(settings.store.clone()).await.map_err(|source| {
            AppError::Store { dir: settings.store.dir.clone(), source: Box::new(source) }
        })?;
        let metrics = metrics(settings);
        let price = settings.price.clone();
        let savings = Savings::open(store.clone(), metrics.clone(), price).await;
        let format = settings.log.format;
        let pulls = Pulls::new(store.clone(), metrics.clone(), settings.shares, format);
        let upstream = Upstream::new(&settings.upstream, metrics.clone());
        let upstream = upstream.map_err(AppError::Trust)?;
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let dialer = upstream.for_strangers().dialer();
        let bucket = settings.bucket.as_ref().map(|options| {
            let ca = certificates.fingerprint().to_string();
            Bucket::new(options, &dialer, &ca, metrics.clone(), tasks.clone())
        });
        let bucket = bucket.transpose().map_err(AppError::Bucket)?;
        let uploads = bucket.map(|bucket| (Uploads::new(bucket.clone(), store.clone()), bucket));
        let options = settings.gateway.clone();
        let memory = Memory::new(settings.shares);
        let peers = peers(settings, &certificates, metrics.clone())?;
        let of_fleet = uploads.clone().map(|(uploads, bucket)| {
            records::Fleet::new(bucket, uploads, settings.shares, tasks.clone())
        });
        let archive = Archive::new(store.clone(), of_fleet);
        let gateway =
            Gateway::new(archive, upstream, options, memory.clone(), peers.clone(), tasks.clone());
        let shared = uploads.map(|(uploads, bucket)| common(bucket, uploads, &store, &gateway));
        let speaker = Speaker::new(&address::name(settings), settings.contact.as_ref());
        Ok(Self {
            certificates,
            store,
            metrics,
            pulls,
            savings,
            memory,
            gateway,
            peers,
            shared,
            dialer,
            speaker,
            sample: Sample::default(),
            tasks,
            shutdown,
        })
    }

    /// What the listener serves clients with.
    fn services(&self, settings: &Settings) -> ListenerServices {
        let pages = ProxyPages {
            ca_pem: self.certificates.certificate_pem().to_owned(),
            ca_fingerprint: self.certificates.fingerprint().to_string(),
            external_url: settings.external_url.clone(),
            metrics: self.metrics.clone(),
            sample: self.sample.clone(),
            speaker: self.speaker.clone(),
        };
        ListenerServices {
            dialer: self.dialer.clone(),
            gateway: self.gateway.clone(),
            pages: Arc::new(pages),
            certificates: self.certificates.clone(),
            speaker: self.speaker.clone(),
            metrics: self.metrics.clone(),
            pulls: self.pulls.clone(),
            memory: self.memory.clone(),
            tasks: self.tasks.clone(),
            shutdown: self.shutdown.clone(),
        }
    }

    /// What the admin listener tells of, with the proxy at `addresses`.
    fn operators(
        &self,
        settings: &Settings,
        addresses: &[SocketAddr],
        reloads: Reloads,
    ) -> AdminServices {
        AdminServices {
            images: Images::of(&self.store),
            store: self.store.clone(),
            free_space: FreeSpace::default(),
            history: History::new(self.metrics.clone()),
            gateway: self.gateway.clone(),
            memory: self.memory.clone(),
            metrics: self.metrics.clone(),
            pulls: self.pulls.clone(),
            savings: self.savings.clone(),
            shared: self.shared.clone(),
            config: ArcSwap::from_pointee(waiting_for(settings.shown.clone(), &[])),
            guard: Guard::new(settings.admin_token.clone(), onlookers(settings)),
            speaker: self.speaker.clone(),
            tasks: self.tasks.clone(),
            shutdown: self.shutdown.clone(),
            queues: admin::Queues::default(),
            reloads,
            facts: self.facts(settings, addresses),
        }
    }

    fn facts(&self, settings: &Settings, addresses: &[SocketAddr]) -> Facts {
        let proxy_url = address::proxy_url(settings, addresses);
        Facts {
            max_size: settings.store.max_size,
            min_free: settings.store.min_free,
            policy: settings.listener.policy.clone(),
            ca_expiry: self.certificates.not_after(),
            ca_fingerprint: self.certificates.fingerprint().to_string(),
            set_up: address::set_up(&proxy_url, &self.certificates),
            name: address::name(settings),
            proxy_url,
        }
    }
}

/// The other replicas, each with the key of these `certificates`.
fn peers(
    settings: &Settings,
    certificates: &Authority,
    metrics: Metrics,
) -> Result<Peers, AppError> {
    let (options, upstream) = (&settings.peers, &settings.upstream);
    let timeouts = Timeouts {
        connect: upstream.connect_timeout,
        header: upstream.header_timeout,
        idle: upstream.idle_timeout,
    };
    let (issuer, own) = (certificates.issuer().clone(), upstream.own.clone());
    Peers::new(options, issuer, own, timeouts, metrics).map_err(AppError::Trust)
}

/// What this replica has in common with others.
fn common(bucket: Bucket, uploads: Uploads, store: &Store, gateway: &Gateway) -> Shared {
    let fleet = FleetImages::new(bucket.clone(), uploads.clone(), store.clone(), gateway.clone());
    let notes = fleet.notes().clone();
    let round = Round::new(bucket.clone(), store.clone(), uploads.clone(), notes);
    Shared { bucket, uploads, round, fleet }
}

/// Counters in which the registries that are named have their places.
fn metrics(settings: &Settings) -> Metrics {
    let hosts = &settings.listener.policy.intercept;
    let named = hosts.iter().filter_map(HostPattern::exact);
    Metrics::new(named.map(|authority| Registry::at(&authority).to_string()))
}

fn onlookers(settings: &Settings) -> Onlookers {
    Onlookers::of(&settings.admin_look_from)
}

async fn bind_admin(address: SocketAddr) -> Result<AdminServer, AppError> {
    AdminServer::bind(address).await.map_err(|source| AppError::AdminListen { address, source })
}

/// The admin socket. Some file systems take none: where nobody has asked for one, the proxy goes on
/// without.
fn bind_socket(place: &Place) -> Result<Option<AdminSocket>, AppError> {
    let path = &place.path;
    match AdminSocket::bind(path) {
        Ok(socket) => Ok(Some(socket)),
        Err(source) if place.is_chosen => Err(AppError::AdminSocket { path: path.clone(), source }),
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "there is no admin socket: name another place with admin-socket, or set \
                 admin-token-file; without either, subcommands can't change anything here"
            );
            Ok(None)
        }
    }
}

/// A configuration as it is shown, with the keys that take effect at the next start.
#[must_use]
pub(crate) fn waiting_for(mut shown: Value, keys: &[&str]) -> Value {
    if let Some(document) = shown.as_object_mut() {
        document.insert("waiting_for_restart".to_owned(), json!(keys));
    }
    shown
}

/// A proxy that serves.
pub(crate) struct RunningApp {
    accepting: JoinHandle<()>,
    access: AccessRules,
    speaker: Speaker,
    operators: Arc<AdminServices>,
    pulls: Pulls,
    savings: Savings,
    /// What operators have asked for.
    reloads: mpsc::Receiver<Answer>,
    store: Store,
    _socket_file: Option<SocketFile>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl RunningApp {
    /// Waits until an operator wants the configuration to be read again, who is to be told then; or
    /// until nobody is accepted any more, which only the drain is to bring about: a proxy that has
    /// come to this can't be drained.
    ///
    /// Cancel safe.
    pub(crate) async fn next_request(&mut self) -> Result<Answer, Result<(), JoinError>> {
        tokio::select! {
            ended = &mut self.accepting => Err(ended),
            // The way there is as old as the proxy: it has an end only with it.
            Some(answer) = self.reloads.recv() => Ok(answer),
        }
    }

    /// What is in force, as it is shown.
    #[must_use]
    pub(crate) fn shown(&self) -> Arc<Value> {
        self.operators.config.load_full()
    }

    /// Takes over what of `settings` can be replaced while requests are served, all of it or
    /// nothing.
    pub(crate) fn reconfigure(&self, settings: &Settings) -> Result<(), BindError> {
        // The one step that can fail comes first.
        let ListenerOptions { access, names, .. } = settings.listener.clone();
        self.access.replace(access, names.mirror)?;
        self.operators.gateway.reconfigure(settings.gateway.clone());
        self.operators.guard.replace(settings.admin_token.clone(), onlookers(settings));
        self.savings.reprice(settings.price.clone());
        self.speaker.replace_contact(settings.contact.as_ref());
        Ok(())
    }

    /// Tells operators from now on that this configuration is in force.
    pub(crate) fn show(&self, in_force: Value) {
        self.operators.config.store(Arc::new(in_force));
    }

    /// Takes no new clients, and waits until the requests under way have ended.
    ///
    /// Cancel safe: what still runs then runs on until the runtime ends.
    pub(crate) async fn drain(&mut self) {
        self.shutdown.cancel();
        // Nobody reads the configuration again; whoever waits for that is told so.
        self.reloads.close();
        while self.reloads.try_recv().is_ok() {}
        self.tasks.close();
        // Joined before the tracker is asked, so that no connection is accepted after it.
        if let Err(error) = (&mut self.accepting).await {
            tracing::warn!(%error, "the listener did not end well");
        }
        self.tasks.wait().await;
        self.operators.gateway.write_uses().await;
    }

    /// Removes the admin socket, writes down what was saved, and closes the store.
    pub(crate) async fn close(self) {
        let Self { store, pulls, savings, _socket_file: socket_file, .. } = self;
        drop(socket_file);
        pulls.finish().await;
        savings.finish().await;
        store.close().await;
    }
}
