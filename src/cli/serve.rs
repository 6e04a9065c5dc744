//! `entrepot serve`: run the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use entrepot_ca::{Authority, Constraints};
use entrepot_cache::Store;
use entrepot_oci::{Host, HostPattern, Registry};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustls_pki_types::ServerName;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::admin::guard::Guard;
use crate::admin::pages::ProxyPages;
use crate::admin::server::AdminServer;
use crate::config::{Settings, Sources};
use crate::gateway::Gateway;
use crate::images::Images;
use crate::listener::{Listener, Services};
use crate::log::Volume;
use crate::metrics::Metrics;
use crate::upstream::Upstream;

use super::reload::{Reload, waiting_for};

/// How long requests under way may take to end once the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the proxy until SIGTERM or SIGINT, and drains it; a second signal ends it at once. On SIGHUP
/// `sources` are read again.
pub(super) fn run(settings: Settings, sources: Sources) -> anyhow::Result<()> {
    let volume = crate::log::start(settings.log);
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    protect_memory();
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(settings, sources, volume));
    // What still runs after the drain has had its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(settings: Settings, sources: Sources, volume: Volume) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let certificates = certificates(&settings)?;
    let store = Store::open(settings.store.clone())
        .await
        .with_context(|| format!("cache-dir {}", settings.store.dir.display()))?;
    let metrics = metrics(&settings);
    let upstream =
        Upstream::new(&settings.upstream, metrics.clone()).context("TLS towards upstreams")?;
    let tasks = TaskTracker::new();
    let shutdown = CancellationToken::new();
    let pages = ProxyPages {
        ca_pem: certificates.certificate_pem().to_owned(),
        ca_fingerprint: certificates.fingerprint().to_string(),
        external_url: settings.external_url.clone(),
    };
    let dialer = upstream.for_strangers().dialer();
    let gateway = Gateway::new(store.clone(), upstream, settings.gateway.clone(), tasks.clone());
    let free_space = admin::FreeSpace::default();
    let history = admin::History::new(metrics.clone());
    tasks.spawn(free_space.clone().watch(settings.store.dir.clone(), shutdown.clone()));
    tasks.spawn(history.clone().keep(shutdown.clone()));
    let (pruning, ended) = (gateway.clone(), shutdown.clone());
    tasks.spawn(async move { ended.run_until_cancelled(pruning.keep_pruning()).await });
    let services = Services {
        dialer,
        gateway: gateway.clone(),
        pages: Arc::new(pages),
        certificates: certificates.clone(),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    };
    // First: whoever finds the proxy there finds the other there as well.
    let admin = bind_admin(&settings).await?;
    let listener = Listener::bind(settings.listener.clone(), services)?;
    settings.upstream.own.set([listener.addresses(), vec![admin.address()?]].concat());
    let proxy_url = proxy_url(&settings, &listener.addresses());
    let set_up = set_up(&proxy_url, &certificates);
    announce(&settings, &certificates, &listener.addresses(), &set_up);
    let operators = admin::Services {
        images: Images::of(&store),
        store: store.clone(),
        max_size: settings.store.max_size,
        min_free: settings.store.min_free,
        free_space,
        history,
        gateway,
        metrics,
        ca_expiry: certificates.not_after(),
        config: ArcSwap::from_pointee(waiting_for(settings.shown.clone(), &[])),
        guard: Guard::new(settings.admin_token.clone()),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        turn: admin::Turn::default(),
        imports: admin::Turn::default(),
        policy: settings.listener.policy.clone(),
        room: admin::Room::default(),
        audience: admin::Audience::default(),
        ca_fingerprint: certificates.fingerprint().to_string(),
        proxy_url,
        set_up,
    };
    warn_of_credentials(&settings);
    let operators = Arc::new(operators);
    let access = listener.access_rules();
    let started = settings.shown;
    let reload = Reload { sources, volume, access, operators: operators.clone(), started };
    tokio::spawn(admin.run(operators));
    let mut accepting = tokio::spawn(listener.run());

    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = hangup.recv() => reload.run().await,
            // It only ends with the shutdown; a proxy that takes nobody must not look alive.
            ended = &mut accepting => bail!("the listener has ended: {ended:?}"),
        }
    }
    tracing::info!("draining: no new clients; requests under way have {} s", DRAIN.as_secs());
    shutdown.cancel();
    tasks.close();
    let drained = async {
        // Joined before the tracker is asked, so that no connection is accepted after it.
        if let Err(error) = accepting.await {
            tracing::warn!(%error, "the listener did not end well");
        }
        tasks.wait().await;
    };
    tokio::select! {
        drained = tokio::time::timeout(DRAIN, drained) => if drained.is_ok() {
            tracing::info!("drained");
        } else {
            tracing::warn!("some requests did not end in time and were broken off");
        },
        () = signals.next() => tracing::warn!("second signal: ending at once"),
    }
    store.close().await;
    Ok(())
}

/// The CA in `ca-dir`, made if there is none.
pub(super) fn certificates(settings: &Settings) -> anyhow::Result<Authority> {
    let constraints = settings.ca_constraints.as_deref().map(constraints).transpose()?;
    let options =
        entrepot_ca::Options { host_name: host_name(), constraints, ..Default::default() };
    let authority = Authority::open(&settings.ca_dir, &options)
        .with_context(|| format!("ca-dir {}", settings.ca_dir.display()))?;
    warn_of_constraints(&authority, settings);
    Ok(authority)
}

/// Counters in which the registries that are named have their places.
fn metrics(settings: &Settings) -> Metrics {
    let hosts = &settings.listener.policy.intercept;
    let named = hosts.iter().filter_map(HostPattern::exact);
    Metrics::new(named.map(|authority| Registry::at(&authority).to_string()))
}

fn constraints(hosts: &[Host]) -> anyhow::Result<Constraints> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for host in hosts {
        match host {
            Host::Name(name) => names.push(&**name),
            Host::Ip(ip) => addresses.push(*ip),
        }
    }
    Constraints::new(names, addresses).context("ca-constrain")
}

/// A constrained CA can't vouch for a registry that was added after it was made.
fn warn_of_constraints(authority: &Authority, settings: &Settings) {
    let hosts = settings.listener.policy.intercept.iter().filter_map(HostPattern::constraint);
    for host in hosts {
        let name = ServerName::try_from(host.to_string());
        if let Some(error) = name.ok().and_then(|name| authority.check_name(&name).err()) {
            tracing::warn!(%host, %error, "this registry can't be intercepted");
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn bind_admin(settings: &Settings) -> anyhow::Result<AdminServer> {
    let address = settings.admin_listen;
    AdminServer::bind(address).await.with_context(|| {
        format!(
            "can't listen on {address} for the admin listener: choose another with --admin-listen"
        )
    })
}

/// What an operator needs at first: where it listens, the CA, the line to run on a client.
fn announce(settings: &Settings, certificates: &Authority, addresses: &[SocketAddr], set_up: &str) {
    for address in addresses {
        tracing::info!(%address, "listening");
    }
    let fingerprint = certificates.fingerprint().to_string();
    tracing::info!(
        directory = %settings.ca_dir.display(),
        sha256 = fingerprint,
        "CA certificate"
    );
    tracing::info!("to set a client up, run there: {set_up}");
}

/// How clients reach the proxy.
fn proxy_url(settings: &Settings, addresses: &[SocketAddr]) -> String {
    let guessed = || url_of(addresses, &host_name());
    settings.external_url.as_ref().map_or_else(guessed, ToString::to_string)
}

/// How clients reach a listener at `addresses`, on a machine of this name.
fn url_of(addresses: &[SocketAddr], host_name: &str) -> String {
    let first = addresses.first();
    let port = first.map_or(3128, SocketAddr::port);
    match first {
        // Nobody else reaches it, whatever the machine is called.
        Some(first) if addresses.iter().all(is_loopback) => format!("http://{first}"),
        _ if is_container_id(host_name) => format!("http://THIS-MACHINE:{port}"),
        _ => format!("http://{host_name}:{port}"),
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Docker and Podman call a container by the first twelve digits of its id. Outside of it nobody knows
/// that name, nor does it know the machine's.
fn is_container_id(host_name: &str) -> bool {
    host_name.len() == 12 && host_name.chars().all(|c| c.is_ascii_hexdigit())
}

/// The line to run on a client.
fn set_up(proxy_url: &str, certificates: &Authority) -> String {
    let plain = certificates.fingerprint().to_string().replace(':', "").to_lowercase();
    format!("curl -fsS '{proxy_url}/setup/systemd?fp={plain}' | sudo sh")
}

/// What a registry's credentials may pull is open to everybody who reaches the proxy: on purpose,
/// but not behind an operator's back.
pub(super) fn warn_of_credentials(settings: &Settings) {
    for rule in settings.gateway.registry.rules.iter().filter(|rule| rule.credentials.is_some()) {
        tracing::warn!(
            registry = %rule.host,
            "credentials are configured: everyone who reaches this proxy may pull what they may"
        );
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// One that ends the proxy.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The CA's key is in memory: no core dump, no other process of this user may read it.
fn protect_memory() {
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "memory dumps could not be switched off");
    }
}

/// A client costs up to three open files; the usual soft limit of 1024 is for programs that use
/// select(2).
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_that_leads_here() {
        let everywhere = ["0.0.0.0:3128", "[::]:3128"];
        let both_loopbacks = ["127.0.0.1:8080", "[::1]:8080"];
        for (addresses, host_name, url) in [
            (everywhere, "proxy.corp", "http://proxy.corp:3128"),
            (everywhere, "3f5c0a9be412", "http://THIS-MACHINE:3128"),
            (everywhere, "entrepot-7d9f", "http://entrepot-7d9f:3128"),
            (both_loopbacks, "proxy.corp", "http://127.0.0.1:8080"),
            (both_loopbacks, "3f5c0a9be412", "http://127.0.0.1:8080"),
            (["[::ffff:127.0.0.2]:80", "[::1]:80"], "proxy.corp", "http://[::ffff:127.0.0.2]:80"),
            (["127.0.0.1:3129", "10.0.0.5:3129"], "proxy.corp", "http://proxy.corp:3129"),
        ] {
            let listening: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(url_of(&listening, host_name), url, "{addresses:?} {host_name}");
        }
    }
}
