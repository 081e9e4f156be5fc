//! What the cluster exports, as the store should have it: the index joined into domain values.
//!
//! Pure. A shard is made anew only when something that it is made of changed, and it is a new value only when it
//! differs, so that comparing two catalogs is comparing pointers.

mod endpoints;
mod labels;

pub use endpoints::{Backend, endpoint_id};

use crate::index::{Index, Selector, ServiceExport, Touched};
use crate::map::{self, Shared};
use sealane_core::endpoint::{Endpoint, Gateway, GatewayAddress, Locality};
use sealane_core::name::{ClusterName, EndpointId, Namespace, NetworkName, ServiceKey, TrustDomain};
use sealane_core::service::{Export, Invalid, IpFamily, export_of};
use sealane_core::trust::Bundle;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who this cluster is and what its configuration says of all its exports.
#[derive(Debug, Clone, PartialEq)]
pub struct Own {
    /// Its name.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The default network of its endpoints.
    pub network: NetworkName,
    /// The locality of endpoints that have none of their own.
    pub locality: Locality,
    /// Where its gateways are dialled and probed.
    pub gateways: Vec<GatewayAddress>,
    /// Which namespaces it imports into.
    pub selector: Selector,
    /// Its roots.
    pub bundle: Bundle,
}

impl Own {
    /// The gateways as the store knows them. A gateway has no locality or weight of its own yet.
    #[must_use]
    pub fn gateway_records(&self) -> Vec<Gateway> {
        let gateway = |address: &GatewayAddress| Gateway {
            address: address.clone(),
            network: self.network.clone(),
            locality: self.locality.clone(),
            weight: 1,
            ready: true,
        };
        self.gateways.iter().map(gateway).collect()
    }
}

/// One exported service: the export and its endpoints with what stands behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The export.
    pub export: Export,
    /// The endpoints, none while the export is invalid.
    pub backends: BTreeMap<EndpointId, Backend>,
    /// What was left out or guessed, as sentences for the export's author.
    pub notes: Vec<String>,
    /// The generation of the ServiceExport, where it states one.
    pub generation: Option<i64>,
}

impl Shard {
    /// The endpoints as the store takes them.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.backends.values().map(|b| &b.endpoint)
    }
}

/// What the cluster exports. A clone is cheap.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog {
    /// The exported services.
    pub shards: Shared<ServiceKey, Shard>,
    /// The namespaces that exist here and are selected.
    pub interest: Arc<BTreeSet<Namespace>>,
}

impl Catalog {
    /// Follows a change of the index. Says whether anything is different now.
    pub fn update(&mut self, index: &Index, own: &Own, touched: &Touched) -> bool {
        let mut changed = false;
        for key in &touched.services {
            let made = index.exports.get(key).map(|export| shard(index, own, key, export));
            changed |= map::set(&mut self.shards, key, made);
        }
        if touched.namespaces {
            let selected = index.namespaces.iter().filter(|(_, n)| n.imports() && own.selector.selects(n));
            let interest: BTreeSet<Namespace> = selected.map(|(name, _)| name.clone()).collect();
            if interest != *self.interest {
                self.interest = Arc::new(interest);
                changed = true;
            }
        }
        changed
    }
}

fn shard(index: &Index, own: &Own, key: &ServiceKey, export: &ServiceExport) -> Shard {
    let mut notes = Vec::new();
    let mut kept = |field, given| labels::keep(field, given, &mut notes);
    let labels = kept("exportedLabels", &export.labels);
    let annotations = kept("exportedAnnotations", &export.annotations);
    let mut spec = export_of(index.services.get(key), labels, annotations);
    let mut backends = BTreeMap::new();
    if let Ok(spec) = &mut spec {
        if spec.ip_families.is_empty() {
            spec.ip_families = families(index, key);
        }
        backends = endpoints::join(index, own, key, spec, &mut notes);
    }
    let made = Export { spec, importers: export.importers.clone(), created: export.created };
    Shard { export: made, backends, notes, generation: export.generation }
}

/// The families of a service that states none: those of its slices.
fn families(index: &Index, key: &ServiceKey) -> Vec<IpFamily> {
    let found: BTreeSet<IpFamily> = index.slices_of(key).map(|(_, slice)| slice.family).collect();
    found.into_iter().collect()
}

/// The condition `Valid` of an export.
pub fn validity(shard: &Shard) -> Result<(), Invalid> {
    shard.export.spec.as_ref().map(|_| ()).map_err(|reason| *reason)
}

#[cfg(test)]
mod tests;
