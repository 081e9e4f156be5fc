//! The clusters that one cluster has to do with, and only those: their bundles go nowhere else.

use super::Computation;
use crate::name::ClusterName;
use crate::state::Cluster;
use crate::view::Peer;

/// Another cluster that this one imports from (and therefore probes, also while it is withdrawn) or exports to.
pub(super) fn peer(computation: &Computation<'_>, own: &Cluster, name: &ClusterName) -> Option<Peer> {
    let other = computation.state().cluster_named(name).filter(|other| other.id != own.id)?;
    let exports_to_us = computation.imports_from(own, other.id);
    let imports_from_us = computation.imports_from(other, own.id);
    (exports_to_us || imports_from_us).then(|| Peer {
        id: other.id,
        name: other.name.clone(),
        trust_domain: other.trust_domain.clone(),
        bundle: other.bundle.clone(),
        network: other.network.clone(),
        gateways: other.gateways.clone(),
        probes: other.probes.clone(),
        exports_to_us,
        imports_from_us,
        standing: computation.standing(other.id),
    })
}
