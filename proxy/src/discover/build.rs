//! From items to a snapshot: only what a change can affect is made anew, and what is remembered of places (health,
//! load) outlives the change.

use super::items::{Change, InboundItem, Item, Key, OutboundItem, PeerItem, TargetItem};
use crate::authorize::{Admits, Domains};
use crate::balance::Health;
use crate::detect;
use crate::snapshot::{
    Choice, Dial, Inbound, Outbound, OutboundPort, Peer, Place, Snapshot, Unusable, Via, gateway_identity,
    tls_name,
};
use crate::tls;
use imbl::OrdMap;
use rustls::pki_types::CertificateDer;
use sealane_core::endpoint::{GatewayAddress, GatewayHost};
use sealane_core::identity::SpiffeId;
use sealane_core::name::{ClusterName, EndpointId, ServiceKey};
use sealane_core::service::{Port, Protocol};
use sealane_core::sni::{ServerName, Target};
use sealane_core::time::Revision;
use sealane_core::view::{Candidate, Path};
use sealane_trust::bundle::Bundle;
use sealane_trust::tls::Identity;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;

/// The most gateways of a cluster that stand in for an endpoint without an inbound proxy.
const MAX_STAND_INS: usize = 4;

/// Places that are remembered without a look at whether they are still used.
const SWEEP: usize = 256;

type HealthKey = (String, ClusterName, ServiceKey, u16);

/// Keeps the items and makes snapshots of them.
#[derive(Debug)]
pub(crate) struct Builder {
    identity: Identity,
    cluster: Option<ClusterName>,
    version: u64,
    revision: Revision,
    outbound_items: BTreeMap<ServiceKey, OutboundItem>,
    inbound_items: BTreeMap<ServiceKey, InboundItem>,
    outbound: OrdMap<ServiceKey, Arc<Outbound>>,
    inbound: OrdMap<ServiceKey, Arc<Inbound>>,
    peers: OrdMap<ClusterName, Arc<Peer>>,
    by_socket: OrdMap<SocketAddr, ServiceKey>,
    domains: Arc<Domains>,
    probe_tls: Option<Arc<rustls::ServerConfig>>,
    /// Who claims an address: an agent gives each to one import, and of several the first by name has it.
    claims: BTreeMap<SocketAddr, BTreeSet<ServiceKey>>,
    dials: BTreeMap<(ClusterName, BTreeSet<SpiffeId>), Weak<rustls::ClientConfig>>,
    health: BTreeMap<HealthKey, Weak<Health>>,
    loads: BTreeMap<SocketAddr, Weak<AtomicU32>>,
    /// How many places are remembered before those that nothing uses any more are looked for.
    sweep_at: usize,
}

impl Builder {
    /// No items yet.
    pub(crate) fn new(identity: Identity) -> Self {
        Builder {
            identity,
            cluster: None,
            version: 0,
            revision: Revision::default(),
            outbound_items: BTreeMap::new(),
            inbound_items: BTreeMap::new(),
            outbound: OrdMap::new(),
            inbound: OrdMap::new(),
            peers: OrdMap::new(),
            by_socket: OrdMap::new(),
            domains: Arc::default(),
            probe_tls: None,
            claims: BTreeMap::new(),
            dials: BTreeMap::new(),
            health: BTreeMap::new(),
            loads: BTreeMap::new(),
            sweep_at: SWEEP,
        }
    }

    /// The agent said which cluster we are in.
    pub(crate) fn welcome(&mut self, cluster: ClusterName) {
        self.cluster = Some(cluster);
    }

    /// Applies a delta, whole. Clusters that are no more have their connections ended.
    pub(crate) fn apply(&mut self, change: Change) -> Snapshot {
        (self.version, self.revision) = (change.version, change.revision);
        let mut dirty = Dirty::default();
        if change.full {
            self.drop_unnamed(&change, &mut dirty);
        }
        let refused = change.refused.into_iter().filter_map(|(key, _)| key);
        for key in change.deletes.into_iter().chain(refused) {
            self.delete(&key, &mut dirty);
        }
        for (_, item, _) in change.upserts {
            self.upsert(item, &mut dirty);
        }
        self.rebuild(&dirty);
        self.snapshot()
    }

    fn drop_unnamed(&mut self, change: &Change, dirty: &mut Dirty) {
        let named: BTreeSet<&Key> = change.upserts.iter().map(|(key, ..)| key).collect();
        let outbound = self.outbound_items.keys().cloned().map(Key::Outbound);
        let inbound = self.inbound_items.keys().cloned().map(Key::Inbound);
        let peers = self.peers.keys().cloned().map(Key::Peer);
        let gone: Vec<Key> = outbound.chain(inbound).chain(peers).filter(|k| !named.contains(k)).collect();
        for key in gone {
            self.delete(&key, dirty);
        }
    }

    fn delete(&mut self, key: &Key, dirty: &mut Dirty) {
        match key {
            Key::Outbound(service) => {
                self.outbound_items.remove(service);
                self.set_outbound(service, None);
            }
            Key::Inbound(service) => {
                self.inbound_items.remove(service);
                self.inbound.remove(service);
            }
            Key::Peer(cluster) => {
                if let Some(peer) = self.peers.remove(cluster) {
                    tracing::info!(%cluster, "cluster is no peer any more: its connections end");
                    peer.gone.cancel();
                    self.dials.retain(|(of, _), _| of != cluster);
                    dirty.peers = true;
                }
            }
        }
    }

    fn upsert(&mut self, item: Item, dirty: &mut Dirty) {
        match item {
            Item::Outbound(item) => {
                let service = item.import.service.clone();
                if self.outbound_items.get(&service) != Some(&item) {
                    self.outbound_items.insert(service.clone(), item);
                    dirty.outbound.insert(service);
                }
            }
            Item::Inbound(item) => {
                let service = item.service.clone();
                if self.inbound_items.get(&service) != Some(&item) {
                    self.inbound_items.insert(service.clone(), item);
                    dirty.inbound.insert(service);
                }
            }
            Item::Peer(item) => self.upsert_peer(item, dirty),
        }
    }

    fn upsert_peer(&mut self, item: PeerItem, dirty: &mut Dirty) {
        let former = self.peers.get(&item.name).filter(|p| p.trust_domain == item.trust_domain);
        if let Some(stranger) = self.peers.get(&item.name).filter(|p| p.trust_domain != item.trust_domain) {
            // Another cluster under the name of a removed one.
            stranger.gone.cancel();
        }
        let bundle = item.bundle.as_ref().and_then(bundle);
        let same_bundle = former.is_some_and(|f| f.bundle == bundle);
        let gone = former.map_or_else(CancellationToken::new, |f| f.gone.clone());
        if !same_bundle {
            self.dials.retain(|(of, _), _| *of != item.name);
        }
        let peer = Peer {
            name: item.name.clone(),
            trust_domain: item.trust_domain,
            bundle,
            bundle_sequence: item.bundle.map_or(0, |b| b.sequence),
            exports_to_us: item.exports_to_us,
            imports_from_us: item.imports_from_us,
            own: item.own,
            probes: item.probes,
            gone,
        };
        self.peers.insert(item.name, Arc::new(peer));
        dirty.peers = true;
    }

    fn rebuild(&mut self, dirty: &Dirty) {
        if dirty.peers {
            let by_domain = self.peers.values().map(|p| (p.trust_domain.clone(), Arc::clone(p)));
            self.domains = Arc::new(by_domain.collect());
        }
        let outbound: Vec<OutboundItem> = if dirty.peers {
            self.outbound_items.values().cloned().collect()
        } else {
            dirty.outbound.iter().filter_map(|s| self.outbound_items.get(s)).cloned().collect()
        };
        for item in outbound {
            let built = Arc::new(self.outbound(&item));
            self.set_outbound(&item.import.service, Some(built));
        }
        let inbound: Vec<InboundItem> = if dirty.peers {
            self.inbound_items.values().cloned().collect()
        } else {
            dirty.inbound.iter().filter_map(|s| self.inbound_items.get(s)).cloned().collect()
        };
        for item in inbound {
            let built = Arc::new(self.inbound(&item));
            self.inbound.insert(item.service, built);
        }
        if dirty.peers || self.probe_tls.is_none() {
            let admits = Admits::Known;
            self.probe_tls = Some(tls::server::config(&self.identity, Arc::clone(&self.domains), admits));
        }
        self.sweep();
    }

    /// Forgets places that nothing uses any more, once there may be as many of them as of others.
    fn sweep(&mut self) {
        let remembered = |b: &Builder| b.health.len().max(b.loads.len()).max(b.dials.len());
        if remembered(self) < self.sweep_at {
            return;
        }
        self.health.retain(|_, health| health.strong_count() > 0);
        self.loads.retain(|_, load| load.strong_count() > 0);
        self.dials.retain(|_, dial| dial.strong_count() > 0);
        self.sweep_at = SWEEP + 2 * remembered(self);
    }

    fn set_outbound(&mut self, service: &ServiceKey, outbound: Option<Arc<Outbound>>) {
        let sockets = outbound.as_ref().map(|o| o.sockets()).unwrap_or_default();
        let former = match outbound {
            Some(outbound) => self.outbound.insert(service.clone(), outbound),
            None => self.outbound.remove(service),
        };
        let former = former.map(|o| o.sockets()).unwrap_or_default();
        for socket in former.symmetric_difference(&sockets) {
            let claims = self.claims.entry(*socket).or_default();
            if sockets.contains(socket) {
                claims.insert(service.clone())
            } else {
                claims.remove(service)
            };
            match claims.first() {
                Some(first) if self.by_socket.get(socket) == Some(first) => {}
                Some(first) => drop(self.by_socket.insert(*socket, first.clone())),
                None => {
                    self.by_socket.remove(socket);
                    self.claims.remove(socket);
                }
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: self.version,
            revision: self.revision,
            cluster: self.cluster.clone(),
            by_socket: self.by_socket.clone(),
            outbound: self.outbound.clone(),
            inbound: self.inbound.clone(),
            peers: self.peers.clone(),
            probe_tls: self.probe_tls.clone(),
        }
    }

    fn inbound(&mut self, item: &InboundItem) -> Inbound {
        let cluster = self.cluster.clone();
        let mut ports = BTreeMap::new();
        for (port, targets) in &item.ports {
            let places = targets.iter().map(|t| self.place(cluster.as_ref(), &item.service, *port, t));
            ports.insert(*port, places.collect());
        }
        let admits = Admits::Importers(item.importers.clone());
        Inbound {
            service: item.service.clone(),
            importers: item.importers.clone(),
            ports,
            tls: tls::server::config(&self.identity, Arc::clone(&self.domains), admits),
        }
    }

    fn place(
        &mut self,
        own: Option<&ClusterName>,
        service: &ServiceKey,
        port: u16,
        target: &TargetItem,
    ) -> Arc<Place> {
        let TargetItem { endpoint, address, app_port, inbound_port, ready } = target.clone();
        let dialled = SocketAddr::new(address, inbound_port.unwrap_or(app_port));
        let health = match own {
            Some(own) => self.health(dialled.to_string(), own, service, port),
            None => Arc::default(),
        };
        let kept = self.loads.get(&dialled).and_then(Weak::upgrade);
        let load = kept.unwrap_or_default();
        self.loads.insert(dialled, Arc::downgrade(&load));
        Arc::new(Place { endpoint, address, app_port, inbound_port, ready, load, health })
    }

    fn outbound(&mut self, item: &OutboundItem) -> Outbound {
        let mut ports = BTreeMap::new();
        for port in item.import.ports.iter().filter(|p| p.protocol == Protocol::Tcp) {
            let mut choices = Vec::new();
            for candidate in &item.import.candidates {
                self.choices(&item.import.service, port, candidate, &mut choices);
            }
            choices.sort_by_key(|c: &Arc<Choice>| c.tier);
            ports.insert(port.port, OutboundPort { speaks: detect::declared(port), choices });
        }
        Outbound { service: item.import.service.clone(), addresses: item.addresses.clone(), ports }
    }

    /// The places that a candidate means for a port: none, one, or a few gateways that stand in for it.
    fn choices(
        &mut self,
        service: &ServiceKey,
        port: &Port,
        candidate: &Candidate,
        into: &mut Vec<Arc<Choice>>,
    ) {
        let mut wanted = Vec::new();
        match &candidate.path {
            Path::Direct { id, address, ports, spiffe_id, inbound_port, .. } => {
                if !ports.contains_key(&port.name) {
                    return;
                }
                let proxy = inbound_port.map(|port| GatewayAddress { host: GatewayHost::Ip(*address), port });
                match proxy {
                    Some(address) => wanted.push(Wanted {
                        via: Via::Direct(id.clone()),
                        weight: 1,
                        place: Ok(address),
                        identities: spiffe_id.iter().cloned().collect(),
                    }),
                    None => self.stand_ins(candidate, id, &mut wanted),
                }
            }
            Path::Gateway { address, weights, identities, .. } => wanted.push(Wanted {
                via: Via::Gateway,
                weight: weights.get(&port.name).copied().unwrap_or(0),
                place: Ok(address.clone()),
                identities: identities.clone(),
            }),
        }
        for wanted in wanted.into_iter().filter(|w| w.weight > 0) {
            into.push(Arc::new(self.choice(service, port.port, candidate, wanted)));
        }
    }

    /// An endpoint without an inbound proxy is reached by its own cluster's gateways, which terminate for it.
    fn stand_ins(&self, candidate: &Candidate, endpoint: &EndpointId, into: &mut Vec<Wanted>) {
        let via = || Via::GatewayFor(endpoint.clone());
        match self.peers.get(&candidate.cluster) {
            Some(peer) if !peer.probes.is_empty() => {
                into.extend(peer.probes.iter().take(MAX_STAND_INS).map(|address| Wanted {
                    via: via(),
                    weight: 1,
                    place: Ok(address.clone()),
                    identities: BTreeSet::from([gateway_identity(peer)]),
                }));
            }
            _ => into.push(Wanted {
                via: via(),
                weight: 1,
                place: Err(Unusable::NoProxy),
                identities: BTreeSet::new(),
            }),
        }
    }

    fn choice(&mut self, service: &ServiceKey, port: u16, candidate: &Candidate, wanted: Wanted) -> Choice {
        let Wanted { via, weight, place, identities } = wanted;
        let cluster = candidate.cluster.clone();
        let named = match &place {
            Ok(address) => format!("{via} {address}"),
            Err(_) => via.to_string(),
        };
        let target = Target { endpoint: via.endpoint().cloned(), port, service: service.clone() };
        let health = self.health(named, &cluster, service, port);
        let dial = place.and_then(|address| self.dial(&cluster, address, target, identities));
        Choice { cluster, tier: candidate.tier, weight, via, dial, health }
    }

    fn dial(
        &mut self,
        cluster: &ClusterName,
        address: GatewayAddress,
        target: Target,
        identities: BTreeSet<SpiffeId>,
    ) -> Result<Dial, Unusable> {
        let peer = self.peers.get(cluster).ok_or(Unusable::UnknownCluster)?;
        let bundle = peer.bundle.clone().ok_or(Unusable::NoBundle)?;
        let ours = |id: &SpiffeId| id.trust_domain() == &peer.trust_domain;
        let accepted: BTreeSet<SpiffeId> = identities.into_iter().filter(ours).collect();
        if accepted.is_empty() {
            return Err(Unusable::NoIdentity);
        }
        let server_name = tls_name(&ServerName::Service(target.clone())).ok_or(Unusable::Name)?;
        let gone = peer.gone.clone();
        let made = |accepted| tls::client::config(&self.identity, bundle, accepted);
        let key = (cluster.clone(), accepted.clone());
        let kept = self.dials.get(&key).and_then(Weak::upgrade);
        let tls = kept.unwrap_or_else(|| made(accepted.clone()));
        self.dials.insert(key, Arc::downgrade(&tls));
        Ok(Dial { address, target, server_name, accepted, tls, gone })
    }

    fn health(
        &mut self,
        place: String,
        cluster: &ClusterName,
        service: &ServiceKey,
        port: u16,
    ) -> Arc<Health> {
        let key = (place, cluster.clone(), service.clone(), port);
        let kept = self.health.get(&key).and_then(Weak::upgrade);
        let health = kept.unwrap_or_default();
        self.health.insert(key, Arc::downgrade(&health));
        health
    }
}

#[derive(Debug, Default)]
struct Dirty {
    outbound: BTreeSet<ServiceKey>,
    inbound: BTreeSet<ServiceKey>,
    peers: bool,
}

struct Wanted {
    via: Via,
    weight: u32,
    place: Result<GatewayAddress, Unusable>,
    identities: BTreeSet<SpiffeId>,
}

/// The bundle as the verifier takes it; one that it does not take is as none, and said.
fn bundle(published: &sealane_core::trust::Bundle) -> Option<Bundle> {
    let roots = published.roots.iter().map(|r| CertificateDer::from(r.clone())).collect();
    Bundle::new(published.trust_domain.clone(), roots)
        .inspect_err(|error| tracing::warn!(trust_domain = %published.trust_domain, %error, "bundle refused"))
        .ok()
}

#[cfg(test)]
mod tests;
