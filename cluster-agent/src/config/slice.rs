//! One proxy's part of what all share, and how it changes. Pure.

use super::{Common, Inbound, InboundPort, InboundTarget, Outbound, TrustedPeer};
use crate::catalog::{Backend, Shard};
use crate::index::PodKey;
use crate::map::{self, Shared};
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

/// What a proxy is to its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It serves every export, with every endpoint.
    Gateway,
    /// It carries every import, and serves the exports that its pod backs, where it has one.
    Sidecar(Option<PodKey>),
}

/// What one proxy was told: as a whole it is its role's part of [`Common`].
#[derive(Debug, Clone, Default)]
pub struct Told {
    common: Arc<Common>,
    /// What a sidecar serves: of each service its own pod alone.
    own: BTreeMap<ServiceKey, Inbound>,
}

impl Told {
    /// Tells a proxy the latest: what to put, and what to drop, in the order of keys.
    pub fn tell(&mut self, role: &Role, now: &Arc<Common>) -> (Vec<Item>, Vec<ItemKey>) {
        let before = std::mem::replace(&mut self.common, now.clone());
        let mut delta = Delta::default();
        match role {
            Role::Gateway => delta.shared(&before.inbound, &now.inbound, ItemKey::Inbound, Item::Inbound),
            Role::Sidecar(pod) => {
                delta.shared(&before.outbound, &now.outbound, ItemKey::Outbound, Item::Outbound);
                if let Some(pod) = pod {
                    self.serve(pod, &before, now, &mut delta);
                }
            }
        }
        delta.shared(&before.peers, &now.peers, ItemKey::Peer, Item::Peer);
        (delta.upserts, delta.deletes)
    }

    fn serve(&mut self, pod: &PodKey, before: &Common, now: &Common, delta: &mut Delta) {
        let exports = map::changed(&before.inbound, &now.inbound);
        let shards = map::changed(&before.catalog.shards, &now.catalog.shards);
        let changed: BTreeSet<&ServiceKey> = exports.chain(shards).collect();
        for service in changed {
            let made = backed(now, service, pod);
            let told = self.own.get(service);
            match made {
                Some(made) if told == Some(&made) => {}
                Some(made) => {
                    delta.upserts.push(Item::Inbound(Arc::new(made.clone())));
                    self.own.insert(service.clone(), made);
                }
                None => {
                    if self.own.remove(service).is_some() {
                        delta.deletes.push(ItemKey::Inbound(service.clone()));
                    }
                }
            }
        }
    }
}

/// What a pod's own sidecar serves of a service; `None` when the pod does not back it.
fn backed(common: &Common, service: &ServiceKey, pod: &PodKey) -> Option<Inbound> {
    let whole = common.inbound.get(service)?;
    let shard = common.catalog.shards.get(service)?;
    let backed = |b: &Backend| b.pod.as_ref() == Some(pod);
    if !shard.backends.values().any(backed) {
        return None;
    }
    inbound(service, shard, whole.importers.clone(), backed)
}

#[derive(Default)]
struct Delta {
    upserts: Vec<Item>,
    deletes: Vec<ItemKey>,
}

impl Delta {
    /// What differs between two maps that all proxies of a role share.
    fn shared<K: Ord + Clone, V: Eq>(
        &mut self,
        before: &Shared<K, V>,
        now: &Shared<K, V>,
        key: impl Fn(K) -> ItemKey,
        item: impl Fn(Arc<V>) -> Item,
    ) {
        for changed in map::changed(before, now) {
            match now.get(changed) {
                Some(value) => self.upserts.push(item(value.clone())),
                None => self.deletes.push(key(changed.clone())),
            }
        }
    }
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
