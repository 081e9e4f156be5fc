//! What the store should have, and the changes that bring it there. Pure.

use crate::catalog::{Catalog, Own, Shard};
use crate::lanes::Verdicts;
use crate::map;
use sealane_core::command::CatalogChange;
use sealane_core::endpoint::Endpoint;
use sealane_core::name::{ClusterName, EndpointId, ServiceKey};
use sealane_core::state::LaneVerdict;
use sealane_proto::digest;
use sealane_proto::federation::v1 as wire;
use sealane_proto::{Invalid, Wire};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most endpoints in one change.
const CHUNK: usize = 100;

/// Everything that the agent says to the store.
#[derive(Debug, Clone)]
pub struct Upward {
    /// Who this cluster is.
    pub own: Arc<Own>,
    /// What it exports.
    pub catalog: Arc<Catalog>,
    /// What it says of its lanes.
    pub lanes: Arc<Verdicts>,
}

impl Upward {
    /// Digests of all of it, for the store to compare.
    #[must_use]
    pub fn digests(&self) -> wire::Digests {
        let shard = |(service, shard): (&ServiceKey, &Arc<Shard>)| wire::ShardDigest {
            service: Some(service.to_wire()),
            digest: digest::shard(&shard.export, shard.endpoints()).to_vec(),
        };
        let own = &self.own;
        wire::Digests {
            shards: self.catalog.shards.iter().map(shard).collect(),
            profile: digest::profile(&own.network, &own.locality, &own.gateways).to_vec(),
            gateways: digest::gateways(&own.gateway_records()).to_vec(),
            bundle: digest::bundle(Some(&own.bundle)).to_vec(),
            interest: digest::interest(&self.catalog.interest).to_vec(),
        }
    }

    /// The answer to what the store wants: everything named, then the lanes, then that this is all.
    ///
    /// # Errors
    /// When the store asks for what is no service.
    pub fn answer(&self, want: wire::Want) -> Result<Vec<CatalogChange>, Invalid> {
        let own = &self.own;
        let mut out = Vec::new();
        if want.profile {
            let (network, locality, probes) =
                (own.network.clone(), own.locality.clone(), own.gateways.clone());
            out.push(CatalogChange::PutProfile { network, locality, probes });
        }
        if want.bundle {
            out.push(CatalogChange::PutBundle { bundle: own.bundle.clone() });
        }
        if want.gateways {
            out.push(CatalogChange::PutGateways { gateways: own.gateway_records() });
        }
        if want.interest {
            out.push(CatalogChange::PutInterest { namespaces: BTreeSet::clone(&self.catalog.interest) });
        }
        for service in sealane_proto::convert::field::list::<ServiceKey>(want.shards, "want.shards")? {
            if let Some(shard) = self.catalog.shards.get(&service) {
                whole_shard(&service, shard, &mut out);
            }
        }
        if !self.lanes.is_empty() {
            out.push(put_lanes(self.lanes.iter()));
        }
        out.push(CatalogChange::Synced { services: self.catalog.shards.keys().cloned().collect() });
        Ok(out)
    }

    /// What brings the store from `before`, which it has, to this.
    #[must_use]
    pub fn since(&self, before: &Upward) -> Vec<CatalogChange> {
        let mut out = Vec::new();
        let (old, new) = (&before.catalog, &self.catalog);
        if old.interest != new.interest {
            out.push(CatalogChange::PutInterest { namespaces: BTreeSet::clone(&new.interest) });
        }
        let mut gone = Vec::new();
        for service in map::changed(&old.shards, &new.shards) {
            match new.shards.get(service) {
                Some(shard) => {
                    shard_since(service, old.shards.get(service).map(AsRef::as_ref), shard, &mut out)
                }
                None => gone.push(CatalogChange::RemoveExport { service: service.clone() }),
            }
        }
        out.append(&mut gone);
        let moved: Vec<_> =
            self.lanes.iter().filter(|(c, l)| before.lanes.get(*c).map(|b| b.0) != Some(l.0)).collect();
        if !moved.is_empty() {
            out.push(put_lanes(moved.into_iter()));
        }
        let gone = before.lanes.keys().filter(|c| !self.lanes.contains_key(*c));
        let targets: BTreeSet<ClusterName> = gone.cloned().collect();
        if !targets.is_empty() {
            out.push(CatalogChange::RemoveLanes { targets });
        }
        out
    }
}

fn put_lanes<'a>(
    lanes: impl Iterator<Item = (&'a ClusterName, &'a (LaneVerdict, Option<u32>))>,
) -> CatalogChange {
    CatalogChange::PutLanes { lanes: lanes.map(|(c, (verdict, rtt))| (c.clone(), *verdict, *rtt)).collect() }
}

fn whole_shard(service: &ServiceKey, shard: &Shard, out: &mut Vec<CatalogChange>) {
    out.push(CatalogChange::PutExport { service: service.clone(), export: shard.export.clone() });
    put_endpoints(service, shard.endpoints(), out);
    out.push(CatalogChange::RetainEndpoints {
        service: service.clone(),
        ids: shard.backends.keys().cloned().collect(),
    });
}

fn shard_since(service: &ServiceKey, old: Option<&Shard>, new: &Shard, out: &mut Vec<CatalogChange>) {
    if old.is_none_or(|o| o.export != new.export) {
        out.push(CatalogChange::PutExport { service: service.clone(), export: new.export.clone() });
    }
    let known = |id: &EndpointId| old.and_then(|o| o.backends.get(id)).map(|b| &b.endpoint);
    put_endpoints(service, new.endpoints().filter(|e| known(&e.id) != Some(e)), out);
    let gone = old.into_iter().flat_map(|o| o.backends.keys()).filter(|id| !new.backends.contains_key(*id));
    let ids: BTreeSet<EndpointId> = gone.cloned().collect();
    if !ids.is_empty() {
        out.push(CatalogChange::RemoveEndpoints { service: service.clone(), ids });
    }
}

fn put_endpoints<'a>(
    service: &ServiceKey,
    endpoints: impl Iterator<Item = &'a Endpoint>,
    out: &mut Vec<CatalogChange>,
) {
    let endpoints: Vec<Endpoint> = endpoints.cloned().collect();
    for chunk in endpoints.chunks(CHUNK) {
        out.push(CatalogChange::PutEndpoints { service: service.clone(), endpoints: chunk.to_vec() });
    }
}

/// The service that a change is about.
pub(super) fn service_of(change: &CatalogChange) -> Option<&ServiceKey> {
    match change {
        CatalogChange::PutExport { service, .. }
        | CatalogChange::RemoveExport { service }
        | CatalogChange::PutEndpoints { service, .. }
        | CatalogChange::RemoveEndpoints { service, .. }
        | CatalogChange::RetainEndpoints { service, .. } => Some(service),
        _ => None,
    }
}
