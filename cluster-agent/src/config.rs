//! What the cluster's proxies run by: derived from the view, the catalog and the lanes, and sent as deltas.
//!
//! Pure but for the service. [`Common`] is what all proxies share; a proxy's own part is in [`slice`].

mod service;
mod slice;
mod wire;

pub use service::{ConfigService, LaneEvent, PROBES, ProxyStatus};
pub use slice::{Item, ItemKey, Slice, delta, gateway, sidecar};

use crate::addresses::Addresses;
use crate::catalog::{Catalog, Own};
use crate::lanes::Verdicts;
use crate::view::Held;
use sealane_core::endpoint::GatewayAddress;
use sealane_core::name::{ClusterName, EndpointId, PortName, ServiceKey, TrustDomain};
use sealane_core::service::ServiceType;
use sealane_core::state::LaneVerdict;
use sealane_core::time::Revision;
use sealane_core::trust::Bundle;
use sealane_core::view::{Import, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// An import as a proxy dials it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbound {
    /// The import, with lanes that this cluster sees down already avoided.
    pub import: Arc<Import>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
}

/// A service of this cluster that proxies admit connections for.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// The service.
    pub service: ServiceKey,
    /// Its ports with the places that serve them.
    pub ports: Vec<InboundPort>,
    /// The clusters whose workloads may come in, this one included.
    pub importers: BTreeSet<ClusterName>,
}

/// One port of such a service.
#[derive(Debug, Clone, PartialEq)]
pub struct InboundPort {
    /// The Service port.
    pub port: u16,
    /// Its name.
    pub name: PortName,
    /// Who serves it.
    pub targets: Vec<InboundTarget>,
}

/// A place that serves a port.
#[derive(Debug, Clone, PartialEq)]
pub struct InboundTarget {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its address.
    pub address: IpAddr,
    /// The application's port.
    pub app_port: u16,
    /// The port of its inbound proxy.
    pub inbound_port: Option<u16>,
    /// Whether it takes new connections.
    pub ready: bool,
    /// The identity of its workload.
    pub spiffe_id: Option<sealane_core::identity::SpiffeId>,
}

/// A cluster that proxies verify or probe.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustedPeer {
    /// Its name.
    pub name: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its roots.
    pub bundle: Option<Bundle>,
    /// Whether this cluster imports from it.
    pub exports_to_us: bool,
    /// Whether it imports from this cluster.
    pub imports_from_us: bool,
    /// Where it is probed.
    pub probes: Vec<GatewayAddress>,
    /// Whether it is this cluster itself.
    pub own: bool,
}

/// What all proxies of the cluster share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Common {
    /// The revision of the view that it was made from.
    pub revision: Revision,
    /// Every import.
    pub outbound: BTreeMap<ServiceKey, Arc<Outbound>>,
    /// Every export with every endpoint: a gateway's.
    pub inbound: BTreeMap<ServiceKey, Arc<Inbound>>,
    /// Every cluster to verify or probe, this one included.
    pub peers: BTreeMap<ClusterName, Arc<TrustedPeer>>,
    /// What it was made from, to make the next one by what changed.
    pub catalog: Arc<Catalog>,
}

/// What [`Common`] is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// This cluster.
    pub own: &'a Own,
    /// The view.
    pub held: &'a Held,
    /// The catalog.
    pub catalog: &'a Arc<Catalog>,
    /// The lanes.
    pub verdicts: &'a Verdicts,
    /// The imports' addresses.
    pub addresses: &'a Addresses,
}

impl Common {
    /// Makes it anew; values that do not differ are the former ones, so that comparing is comparing pointers.
    #[must_use]
    pub fn make(inputs: &Inputs<'_>, before: &Common) -> Common {
        let held = inputs.held;
        let outbound = held.imports().map(|import| {
            let addresses = inputs.addresses.of(&import.service).into_iter().collect();
            (import.service.clone(), Outbound { import: avoid(import, inputs.verdicts), addresses })
        });
        let inbound = inputs.catalog.shards.iter().filter_map(|(service, shard)| {
            let importers = importers(inputs.own, held, service);
            Some((service.clone(), slice::inbound(service, shard, importers, |_| true)?))
        });
        let peers = held.peers().map(|p| (p.name.clone(), peer(p)));
        let own = std::iter::once((inputs.own.cluster.clone(), own_peer(inputs.own)));
        Common {
            revision: held.revision,
            outbound: keep(outbound, &before.outbound),
            inbound: keep(inbound, &before.inbound),
            peers: keep(peers.chain(own), &before.peers),
            catalog: inputs.catalog.clone(),
        }
    }
}

/// The imports that need an address: all but headless ones.
#[must_use]
pub fn addressed(held: &Held) -> BTreeSet<ServiceKey> {
    let headed = held.imports().filter(|i| i.service_type != ServiceType::Headless);
    headed.map(|i| i.service.clone()).collect()
}

fn keep<K: Ord, V: PartialEq>(
    made: impl Iterator<Item = (K, V)>,
    before: &BTreeMap<K, Arc<V>>,
) -> BTreeMap<K, Arc<V>> {
    made.map(|(key, value)| {
        let kept = before.get(&key).filter(|old| ***old == value).cloned();
        let value = kept.unwrap_or_else(|| Arc::new(value));
        (key, value)
    })
    .collect()
}

/// The import as this cluster's own probes see it: the candidates of a lane that is down are a last resort, at once
/// and whether the store hears of it or not. What the store computes from the same lanes is the same.
#[must_use]
pub fn avoid(import: &Arc<Import>, verdicts: &Verdicts) -> Arc<Import> {
    let tier =
        |cluster: &ClusterName, tier: Tier| match (tier, verdicts.get(cluster).map(|(verdict, _)| verdict)) {
            (Tier::Remote, Some(LaneVerdict::Down)) => Tier::Avoided,
            (Tier::Avoided, Some(LaneVerdict::Up)) => Tier::Remote,
            (same, _) => same,
        };
    if import.candidates.iter().all(|c| tier(&c.cluster, c.tier) == c.tier) {
        return import.clone();
    }
    let mut import = Import::clone(import);
    for candidate in &mut import.candidates {
        candidate.tier = tier(&candidate.cluster, candidate.tier);
    }
    import.candidates.sort_by(|a, b| (a.tier, &a.cluster, &a.path).cmp(&(b.tier, &b.cluster, &b.path)));
    Arc::new(import)
}

/// Who may come in: who the store says imports the service, and this cluster itself.
fn importers(own: &Own, held: &Held, service: &ServiceKey) -> BTreeSet<ClusterName> {
    let mut importers = held.export(service).map(|e| e.importers.clone()).unwrap_or_default();
    importers.insert(own.cluster.clone());
    importers
}

fn peer(peer: &Arc<sealane_core::view::Peer>) -> TrustedPeer {
    TrustedPeer {
        name: peer.name.clone(),
        trust_domain: peer.trust_domain.clone(),
        bundle: peer.bundle.as_deref().cloned(),
        exports_to_us: peer.exports_to_us,
        imports_from_us: peer.imports_from_us,
        probes: peer.probes.to_vec(),
        own: false,
    }
}

fn own_peer(own: &Own) -> TrustedPeer {
    TrustedPeer {
        name: own.cluster.clone(),
        trust_domain: own.trust_domain.clone(),
        bundle: Some(own.bundle.clone()),
        exports_to_us: true,
        imports_from_us: true,
        probes: own.gateways.clone(),
        own: true,
    }
}

#[cfg(test)]
pub(crate) mod tests;
