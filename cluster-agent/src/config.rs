//! What the cluster's proxies run by: derived from the view, the catalog and the lanes, and sent as deltas.
//!
//! Pure but for the service. [`Common`] is what all proxies share; a proxy's own part is in [`slice`].

mod service;
mod slice;
mod wire;

pub use service::{ConfigService, LaneEvent, PROBES, ProxyStatus};
pub use slice::{Item, ItemKey, Role, Told};

use crate::catalog::{Catalog, Own, Shard};
use crate::lanes::Verdicts;
use crate::map::{self, Shared};
use crate::view::Held;
use imbl::OrdMap;
use sealane_core::endpoint::GatewayAddress;
use sealane_core::name::{ClusterName, EndpointId, PortName, ServiceKey, TrustDomain};
use sealane_core::service::{IpFamily, ServiceType};
use sealane_core::state::LaneVerdict;
use sealane_core::time::Revision;
use sealane_core::trust::Bundle;
use sealane_core::view::{Candidate, Import, Tier, ViewItem, ViewKey};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// An import as a proxy dials it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The import, with lanes that this cluster sees down already avoided.
    pub import: Arc<Import>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// The families of which it may yet be given one, while it has none.
    pub awaited: Vec<IpFamily>,
}

/// The addresses of an import.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// As it has them now.
    pub addresses: Vec<IpAddr>,
    /// Whether these are all: where there are none, that none will come.
    pub settled: bool,
}

impl Given {
    /// These, and where there are none they are yet to come.
    #[must_use]
    pub fn so_far(addresses: Vec<IpAddr>) -> Self {
        let settled = !addresses.is_empty();
        Given { addresses, settled }
    }
}

impl Outbound {
    /// An import with what it was given.
    #[must_use]
    pub fn of(import: Arc<Import>, given: Given) -> Self {
        let awaited = match (given.settled, import.ip_families.as_slice()) {
            (true, _) => Vec::new(),
            (false, []) => vec![IpFamily::V4, IpFamily::V6],
            (false, families) => families.to_vec(),
        };
        Outbound { import, addresses: given.addresses, awaited }
    }
}

/// A service of this cluster that proxies admit connections for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The service.
    pub service: ServiceKey,
    /// Its ports with the places that serve them.
    pub ports: Vec<InboundPort>,
    /// The clusters whose workloads may come in, this one included.
    pub importers: BTreeSet<ClusterName>,
}

/// One port of such a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPort {
    /// The Service port.
    pub port: u16,
    /// Its name.
    pub name: PortName,
    /// Who serves it.
    pub targets: Vec<InboundTarget>,
}

/// A place that serves a port.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What all proxies of the cluster share. A clone is cheap.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// The revision of the view that it was made from.
    pub revision: Revision,
    /// Every import.
    pub outbound: Shared<ServiceKey, Outbound>,
    /// Every export with every endpoint: a gateway's.
    pub inbound: Shared<ServiceKey, Inbound>,
    /// Every cluster to verify or probe, this one included.
    pub peers: Shared<ClusterName, TrustedPeer>,
    /// What it was made from, to make the next one by what changed.
    pub catalog: Arc<Catalog>,
    items: OrdMap<ViewKey, ViewItem>,
    verdicts: Arc<Verdicts>,
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
    pub verdicts: &'a Arc<Verdicts>,
}

/// What may differ in the next [`Common`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    outbound: BTreeSet<ServiceKey>,
    inbound: BTreeSet<ServiceKey>,
    peers: BTreeSet<ClusterName>,
}

impl Changed {
    /// What the inputs may have changed since a former one.
    #[must_use]
    pub fn since(before: &Common, inputs: &Inputs<'_>) -> Changed {
        let Inputs { own, held, catalog, verdicts } = inputs;
        let inbound: BTreeSet<ServiceKey> =
            map::changed(&before.catalog.shards, &catalog.shards).cloned().collect();
        let peers = BTreeSet::from([own.cluster.clone()]);
        let mut changed = Changed { outbound: BTreeSet::clone(&inbound), inbound, peers };
        for key in map::changed(&before.items, &held.items) {
            match key {
                ViewKey::Import(service) => drop(changed.outbound.insert(service.clone())),
                ViewKey::Export(service) => drop(changed.inbound.insert(service.clone())),
                ViewKey::Peer(cluster) => drop(changed.peers.insert(cluster.clone())),
            }
        }
        if before.verdicts != **verdicts {
            // A lane turns seldom, and any import may have a candidate behind it.
            changed.outbound.extend(held.imports().map(|i| i.service.clone()));
        }
        changed
    }

    /// The imports among it, and whether each is one that has an address of its own: there, and not headless.
    pub fn addressed<'a>(&'a self, held: &'a Held) -> impl Iterator<Item = (&'a ServiceKey, bool)> {
        let headed = |i: &Arc<Import>| i.service_type != ServiceType::Headless;
        self.outbound.iter().map(move |service| (service, held.import(service).is_some_and(headed)))
    }

    /// Adds imports whose addresses are others now.
    pub fn readdressed(&mut self, services: Vec<ServiceKey>) {
        self.outbound.extend(services);
    }
}

impl Common {
    /// Makes the next one; `None` when nothing differs. What does not differ is shared with the former one.
    #[must_use]
    pub fn next(
        &self,
        inputs: &Inputs<'_>,
        changed: &Changed,
        given: impl Fn(&ServiceKey) -> Given,
    ) -> Option<Common> {
        let Inputs { own, held, catalog, verdicts } = *inputs;
        let mut next = Common {
            revision: held.revision,
            catalog: catalog.clone(),
            items: held.items.clone(),
            verdicts: verdicts.clone(),
            ..self.clone()
        };
        let mut differs = self.revision != held.revision || !Arc::ptr_eq(&self.catalog, catalog);
        for service in &changed.outbound {
            let made = held.import(service).map(|import| {
                let import = at_home(&avoid(import, verdicts), own, catalog.shards.get(service));
                Outbound::of(import, given(service))
            });
            differs |= map::set(&mut next.outbound, service, made);
        }
        for service in &changed.inbound {
            let made = catalog
                .shards
                .get(service)
                .and_then(|shard| slice::inbound(service, shard, importers(own, held, service), |_| true));
            differs |= map::set(&mut next.inbound, service, made);
        }
        for cluster in &changed.peers {
            let made =
                if *cluster == own.cluster { Some(own_peer(own)) } else { held.peer(cluster).map(peer) };
            differs |= map::set(&mut next.peers, cluster, made);
        }
        differs.then_some(next)
    }
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
    import.candidates.sort();
    Arc::new(import)
}

/// The import with this cluster's own endpoints as it knows them itself: they are right while the store is away, too.
/// What the cluster has no word of (its source is not read yet) stays as the store has it.
#[must_use]
pub fn at_home(import: &Arc<Import>, own: &Own, shard: Option<&Arc<Shard>>) -> Arc<Import> {
    let Some((shard, spec)) = shard.and_then(|shard| Some((shard, shard.export.spec.as_ref().ok()?))) else {
        return import.clone();
    };
    if !import.clusters.contains(&own.cluster) {
        return import.clone();
    }
    let (cluster, locality) = (&own.cluster, &own.locality);
    let home = sealane_core::compute::at_home(import, cluster, locality, spec, shard.endpoints());
    let others = import.candidates.iter().filter(|c| c.cluster != own.cluster).cloned();
    let mut candidates: Vec<Candidate> = home.into_iter().chain(others).collect();
    candidates.sort();
    if candidates == import.candidates {
        return import.clone();
    }
    Arc::new(Import { candidates, ..Import::clone(import) })
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
