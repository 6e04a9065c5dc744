//! Server settings per intercepted host.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use entrepot_ca::Authority as CertificateAuthority;
use entrepot_oci::Host;
use moka::sync::Cache;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

use crate::upstream::trust;

/// How long a client may take to open a TLS connection, or to say anything at all.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Hosts whose settings are kept: the known registries several times over. Settings hold the
/// session tickets' key, so a host that falls out only costs its clients a full handshake.
const MAX_HOSTS: u64 = 1024;

/// TLS settings could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no TLS settings: {0}")]
pub(crate) struct TlsSettingsError(#[from] rustls::Error);

/// Makes and keeps server settings.
pub(super) struct TlsSettings {
    certificates: CertificateAuthority,
    hosts: ConfigCache,
    /// Of the proxy itself, by the address that clients connect to.
    addresses: ConfigCache,
    own_names: ArcSwap<Vec<Host>>,
}

type ConfigCache = Cache<Host, Arc<ServerConfig>>;

impl TlsSettings {
    pub(super) fn new(certificates: CertificateAuthority, own_names: Vec<Host>) -> Self {
        let kept = || {
            let lru = moka::policy::EvictionPolicy::lru();
            Cache::builder().max_capacity(MAX_HOSTS).eviction_policy(lru).build()
        };
        Self {
            certificates,
            hosts: kept(),
            addresses: kept(),
            own_names: ArcSwap::from_pointee(own_names),
        }
    }

    /// The proxy is reached under these names from now on.
    pub(super) fn rename(&self, own_names: Vec<Host>) {
        self.own_names.store(Arc::new(own_names));
        self.addresses.invalidate_all();
    }

    /// Settings for clients that believe they talk to `host`.
    pub(super) fn for_host(&self, host: &Host) -> Result<Arc<ServerConfig>, TlsSettingsError> {
        let certificates = self.certificates.clone();
        kept(&self.hosts, host, || Arc::new(OneHost { certificates, host: host.clone() }))
    }

    /// Settings for clients that reach the proxy itself by TLS, at `address`. Leaves are made for
    /// the proxy's own names alone, whatever a client asks for.
    pub(super) fn for_proxy(&self, address: &Host) -> Result<Arc<ServerConfig>, TlsSettingsError> {
        kept(&self.addresses, address, || {
            Arc::new(OwnNames {
                certificates: self.certificates.clone(),
                names: self.own_names.load_full(),
                address: address.clone(),
            })
        })
    }
}

fn kept<R: ResolvesServerCert + 'static>(
    cache: &ConfigCache,
    host: &Host,
    resolver: impl FnOnce() -> Arc<R>,
) -> Result<Arc<ServerConfig>, TlsSettingsError> {
    if let Some(known) = cache.get(host) {
        return Ok(known);
    }
    let made = settings(resolver())?;
    cache.insert(host.clone(), made.clone());
    Ok(made)
}

fn settings(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsSettingsError> {
    let mut settings = ServerConfig::builder_with_provider(trust::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    // The first that a client offers as well. Whoever knows HTTP/1.0 alone says so in each request.
    settings.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    settings.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(settings))
}

fn leaf(certificates: &CertificateAuthority, host: &Host) -> Option<Arc<CertifiedKey>> {
    let name = match host {
        Host::Name(name) => ServerName::try_from(&**name).ok()?,
        Host::Ip(ip) => ServerName::from(*ip),
    };
    certificates
        .leaf(&name)
        .inspect_err(|error| tracing::warn!(%host, %error, "no certificate could be made"))
        .ok()
}

/// Always the current leaf of one host. A client that names another is answered 421 later, since
/// a failed handshake would not tell anybody why.
struct OneHost {
    certificates: CertificateAuthority,
    host: Host,
}

impl fmt::Debug for OneHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneHost").field("host", &self.host).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for OneHost {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        leaf(&self.certificates, &self.host)
    }
}

/// The leaf of whichever own name the client asks for, else of the address it connected to.
struct OwnNames {
    certificates: CertificateAuthority,
    names: Arc<Vec<Host>>,
    address: Host,
}

impl fmt::Debug for OwnNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnNames").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for OwnNames {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| name.parse::<Host>().ok());
        let host = asked.filter(|name| self.names.contains(name));
        leaf(&self.certificates, host.as_ref().unwrap_or(&self.address))
    }
}
