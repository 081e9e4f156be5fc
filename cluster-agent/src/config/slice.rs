//! One proxy's configuration, and the difference between two of them. Pure.

use super::{Common, Inbound, InboundPort, InboundTarget, Outbound, TrustedPeer};
use crate::catalog::{Backend, Shard};
use crate::index::PodKey;
use sealane_core::name::{ClusterName, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKey {
    /// An import.
    Outbound(ServiceKey),
    /// A service that is served.
    Inbound(ServiceKey),
    /// A cluster.
    Peer(ClusterName),
}

/// An item.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An import.
    Outbound(Arc<Outbound>),
    /// A service that is served.
    Inbound(Arc<Inbound>),
    /// A cluster.
    Peer(Arc<TrustedPeer>),
}

impl Item {
    fn same(&self, other: &Item) -> bool {
        match (self, other) {
            (Item::Outbound(a), Item::Outbound(b)) => Arc::ptr_eq(a, b) || a == b,
            (Item::Inbound(a), Item::Inbound(b)) => Arc::ptr_eq(a, b) || a == b,
            (Item::Peer(a), Item::Peer(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}

/// A proxy's whole configuration.
pub type Slice = BTreeMap<ItemKey, Item>;

/// A gateway's: every export with every endpoint, and every cluster.
#[must_use]
pub fn gateway(common: &Common) -> Slice {
    let inbound = common.inbound.iter().map(|(k, v)| (ItemKey::Inbound(k.clone()), Item::Inbound(v.clone())));
    inbound.chain(peers(common)).collect()
}

/// A sidecar's: every import, every cluster, and the exports that its pod backs.
#[must_use]
pub fn sidecar(common: &Common, pod: Option<&PodKey>) -> Slice {
    let outbound =
        common.outbound.iter().map(|(k, v)| (ItemKey::Outbound(k.clone()), Item::Outbound(v.clone())));
    let mut slice: Slice = outbound.chain(peers(common)).collect();
    let Some(pod) = pod else { return slice };
    let backed = |b: &Backend| b.pod.as_ref() == Some(pod);
    for (service, shard) in &common.catalog.shards {
        let Some(whole) = common.inbound.get(service) else { continue };
        if !shard.backends.values().any(backed) {
            continue;
        }
        if let Some(own) = inbound(service, shard, whole.importers.clone(), backed) {
            slice.insert(ItemKey::Inbound(service.clone()), Item::Inbound(Arc::new(own)));
        }
    }
    slice
}

fn peers(common: &Common) -> impl Iterator<Item = (ItemKey, Item)> {
    common.peers.iter().map(|(k, v)| (ItemKey::Peer(k.clone()), Item::Peer(v.clone())))
}

/// What is admitted for a shard; `None` for one that exports nothing.
pub(super) fn inbound(
    service: &ServiceKey,
    shard: &Shard,
    importers: BTreeSet<ClusterName>,
    serves: impl Fn(&Backend) -> bool,
) -> Option<Inbound> {
    let spec = shard.export.spec.as_ref().ok()?;
    let target = |backend: &Backend, app_port: u16| InboundTarget {
        endpoint: backend.endpoint.id.clone(),
        address: backend.endpoint.address,
        app_port,
        inbound_port: backend.endpoint.inbound_port,
        ready: backend.endpoint.ready,
        spiffe_id: backend.endpoint.spiffe_id.clone(),
    };
    // A proxy knows streams of TCP only.
    let tcp = spec.ports.iter().filter(|p| p.protocol == sealane_core::service::Protocol::Tcp);
    let ports = tcp.map(|port| InboundPort {
        port: port.port,
        name: port.name.clone(),
        targets: shard
            .backends
            .values()
            .filter(|b| serves(b))
            .filter_map(|b| Some(target(b, *b.endpoint.ports.get(&port.name)?)))
            .collect(),
    });
    Some(Inbound { service: service.clone(), ports: ports.collect(), importers })
}

/// What brings a proxy from one configuration to another: what to put, and what to drop.
#[must_use]
pub fn delta(before: &Slice, after: &Slice) -> (Vec<Item>, Vec<ItemKey>) {
    let differs = |(key, item): &(&ItemKey, &Item)| before.get(*key).is_none_or(|old| !old.same(item));
    let upserts = after.iter().filter(differs).map(|(_, item)| item.clone()).collect();
    let deletes = before.keys().filter(|key| !after.contains_key(*key)).cloned().collect();
    (upserts, deletes)
}
