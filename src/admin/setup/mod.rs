//! The scripts that set a client up, as served at `/setup/<client>`.
//!
//! They run as root on other machines, so nothing of a request reaches them but what was parsed
//! into a type whose every spelling is harmless to a shell. What differs between two scripts is
//! three single-quoted assignments at the top; the rest is the same for everybody. Whether a
//! request is answered at all, and with which status, is the caller's business.
//!
//! - `address`: where the client finds the proxy
//! - `fingerprint`: which CA certificate the client is to trust
//! - `clients`: what each client needs, and what its script says of itself
//! - `common.sh`: changing files so that it can be taken back, the trust store, a check
//! - `steps.sh`: setting up and undoing
//! - `options.sh`: arguments and environment
//! - `unit.sh`: an engine that systemd runs
//! - `last.sh`: the line that runs it all
//! - `check.sh`: a script of its own, which shows whether it all works

mod address;
mod fingerprint;
#[cfg(test)]
mod tests;

pub use address::ProxyAddress;

use fingerprint::Fingerprint;

const COMMON: &str = include_str!("common.sh");
const STEPS: &str = include_str!("steps.sh");
const OPTIONS: &str = include_str!("options.sh");
const UNIT: &str = include_str!("unit.sh");
const LAST: &str = include_str!("last.sh");
const CHECK_HEAD: &str = include_str!("check.head.sh");
const CHECK: &str = include_str!("check.sh");

/// Where kind's script ends that of its nodes.
const END_OF_NODE_SCRIPT: &str = "END_OF_NODE_SCRIPT";
/// Where what a script prints of itself ends.
const END_OF_USAGE: &str = "END_OF_USAGE";

/// What there is a script for: `/setup/<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// An engine that systemd runs, dockerd unless told otherwise.
    Systemd,
    /// dockerd's mirror of the Hub.
    DockerMirror,
    /// containerd, by proxy or mirror.
    Containerd,
    /// Podman, Buildah, Skopeo and CRI-O.
    Podman,
    /// k3s and RKE2.
    K3s,
    /// The nodes of a kind cluster.
    Kind,
    /// `BuildKit`.
    Buildkit,
    /// Trust alone.
    Ca,
}

impl Client {
    /// All of them, in the order in which people are told of them.
    pub const ALL: [Self; 8] = [
        Self::Systemd,
        Self::Containerd,
        Self::Podman,
        Self::K3s,
        Self::Kind,
        Self::Buildkit,
        Self::DockerMirror,
        Self::Ca,
    ];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|client| client.name() == name)
    }

    /// Its name in a URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::DockerMirror => "docker-mirror",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::K3s => "k3s",
            Self::Kind => "kind",
            Self::Buildkit => "buildkit",
            Self::Ca => "ca",
        }
    }

    /// What its script says of itself, and what it does.
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Systemd => {
                (include_str!("clients/systemd.head.sh"), include_str!("clients/systemd.sh"))
            }
            Self::DockerMirror => (
                include_str!("clients/docker-mirror.head.sh"),
                include_str!("clients/docker-mirror.sh"),
            ),
            Self::Containerd => {
                (include_str!("clients/containerd.head.sh"), include_str!("clients/containerd.sh"))
            }
            Self::Podman => {
                (include_str!("clients/podman.head.sh"), include_str!("clients/podman.sh"))
            }
            Self::K3s => (include_str!("clients/k3s.head.sh"), include_str!("clients/k3s.sh")),
            Self::Kind => (include_str!("clients/kind.head.sh"), include_str!("clients/kind.sh")),
            Self::Buildkit => {
                (include_str!("clients/buildkit.head.sh"), include_str!("clients/buildkit.sh"))
            }
            Self::Ca => (include_str!("clients/ca.head.sh"), include_str!("clients/ca.sh")),
        }
    }
}

/// What a set-up script is made from.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// Where the client is to find the proxy.
    pub address: &'a ProxyAddress,
    /// SHA-256 of the CA certificate's DER form, as 64 hexadecimal digits, with colons or without.
    pub fingerprint: &'a str,
    /// Whether the script removes what it otherwise makes.
    pub undo: bool,
    /// The fingerprint that the request asks for (`?fp=`), when it does.
    pub expected_fingerprint: Option<&'a str>,
}

/// Why there is no script. Display never repeats the offending text: it may be hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A `Host` header that names no address (the client's fault: 400).
    #[error("the Host header is not host[:port] with a DNS name, an IPv4 or an [IPv6] address")]
    Host,
    /// An address in the configuration that can't be given to clients (the operator's fault).
    #[error("the address is not http://host[:port] or https://host[:port]")]
    Url,
    /// `?fp=` that is no fingerprint (the client's fault: 400).
    #[error("the fingerprint asked for is not 64 hexadecimal digits, with or without colons")]
    ExpectedFingerprint,
    /// `?fp=` that is another certificate's (409).
    #[error(
        "this proxy's CA certificate has the SHA-256 fingerprint {actual}, not {expected}: \
         either the CA was renewed since, or this is not the proxy you meant"
    )]
    FingerprintMismatch {
        /// What the request asks for.
        expected: String,
        /// What the CA has.
        actual: String,
    },
    /// The CA's own fingerprint can't be read (our fault: 500).
    #[error("the CA's fingerprint is not 64 hexadecimal digits")]
    CaFingerprint,
}

/// The script for a client, whole, as POSIX shell.
pub fn script(client: Client, script: &Script<'_>) -> Result<String, SetupError> {
    let fingerprint = agreed_fingerprint(script)?;
    let address = script.address;
    let mode = if script.undo { "undo" } else { "setup" };
    let assignments =
        format!("proxy_url='{address}'\nca_fingerprint='{fingerprint}'\nmode='{mode}'\n");
    Ok(assembled(client, &assignments))
}

/// The script that shows whether a machine pulls through the proxy, whole, as POSIX shell.
pub fn check(script: &Script<'_>) -> Result<String, SetupError> {
    let fingerprint = agreed_fingerprint(script)?;
    let assignments = format!("proxy_url='{}'\nca_fingerprint='{fingerprint}'\n", script.address);
    Ok([CHECK_HEAD, &assignments, &usage(CHECK_HEAD), CHECK].concat())
}

fn assembled(client: Client, assignments: &str) -> String {
    let (head, body) = client.parts();
    let node = match client {
        Client::Kind => format!(
            "\nnode_script() {{\n    cat <<'{END_OF_NODE_SCRIPT}'\n{}{END_OF_NODE_SCRIPT}\n}}\n",
            assembled(Client::Containerd, assignments)
        ),
        _ => String::new(),
    };
    let usage = usage(head);
    [head, assignments, COMMON, STEPS, OPTIONS, &usage, UNIT, body, &node, LAST].concat()
}

/// What a script prints of itself: the comment that it begins with, which nobody has on disk who
/// pipes it into a shell.
fn usage(head: &str) -> String {
    let lines = head.lines().skip(1).map_while(|line| line.strip_prefix('#'));
    let lines: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let text = lines.join("\n");
    format!("\nusage() {{\n    cat <<'{END_OF_USAGE}'\n{text}\n{END_OF_USAGE}\n}}\n")
}

fn agreed_fingerprint(script: &Script<'_>) -> Result<Fingerprint, SetupError> {
    let actual = Fingerprint::parse(script.fingerprint).ok_or(SetupError::CaFingerprint)?;
    let Some(expected) = script.expected_fingerprint else {
        return Ok(actual);
    };
    let expected = Fingerprint::parse(expected).ok_or(SetupError::ExpectedFingerprint)?;
    if expected == actual {
        return Ok(actual);
    }
    Err(SetupError::FingerprintMismatch {
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}
