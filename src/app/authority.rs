//! The CA of a configuration.

use entrepot_ca::{Authority, Constraints};
use entrepot_oci::{Host, HostPattern};
use rustls_pki_types::ServerName;

use super::address::host_name;
use super::error::AppError;
use crate::config::Settings;

/// The CA in `ca-dir`, made if there is none. Blocks on the disk.
pub(crate) fn certificates(settings: &Settings) -> Result<Authority, AppError> {
    let constraints = settings.ca_constraints.as_deref().map(constraints).transpose()?;
    let options =
        entrepot_ca::Options { host_name: host_name(), constraints, ..Default::default() };
    let authority = Authority::open(&settings.ca_dir, &options)
        .map_err(|source| AppError::Authority { dir: settings.ca_dir.clone(), source })?;
    warn_of_constraints(&authority, settings);
    for deficiency in authority.deficiencies() {
        tracing::warn!(deficiency, "strict clients refuse this CA, as Python 3.13 does");
    }
    Ok(authority)
}

fn constraints(hosts: &[Host]) -> Result<Constraints, AppError> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for host in hosts {
        match host {
            Host::Name(name) => names.push(&**name),
            Host::Ip(ip) => addresses.push(*ip),
        }
    }
    Constraints::new(names, addresses).map_err(AppError::Constraints)
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
