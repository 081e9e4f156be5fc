//! What should be in the cluster because of the federation: ServiceImports, EndpointSlices and the conditions of
//! ServiceExports. Pure: the view and the catalog go in, parts of objects come out, and the sinks shape them further
//! (one writes files, the other asks the API server for addresses and chooses tiers for kube-proxy).

mod condition;
mod confirmed;
mod exports;
mod imports;
mod slices;

pub(crate) use condition::shorten;
pub use condition::{Condition, Draft};
pub use confirmed::{Acknowledged, Confirmed, Edition, Editions};
pub use exports::{conditions, refusal};
pub use imports::{ImportSpec, ImportStatus, family_of};
pub use slices::{SLICE_MANAGER, SLICE_SERVICE, SLICE_SOURCE, slice_name, slice_ports, slices};

use crate::catalog::Shard;
use crate::config::{Common, Outbound};
use crate::map;
use imbl::OrdMap;
use sealane_core::command::Refusal;
use sealane_core::name::ServiceKey;
use sealane_core::view::{ViewItem, ViewKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The manager's name in labels.
pub const MANAGER: &str = "sealane-agent";
/// The label that names the manager of a ServiceImport.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What the objects are made of.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// What proxies run by: the imports with their addresses and avoided lanes, and the catalog.
    pub common: Arc<Common>,
    /// The view, of which the standing of exports is shown.
    pub exports: OrdMap<ViewKey, ViewItem>,
    /// Exports that the store refused.
    pub refused: Arc<BTreeMap<ServiceKey, Refusal>>,
    /// The editions of exports that the view is about.
    pub confirmed: Editions,
}

/// What objects are about: those of one subject are made together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An import: its ServiceImport and EndpointSlices.
    Import(ServiceKey),
    /// An export: the conditions of its ServiceExport.
    Export(ServiceKey),
}

impl Subject {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceKey {
        match self {
            Subject::Import(service) | Subject::Export(service) => service,
        }
    }
}

impl Sources {
    /// An import that should be here. A namespace that does not exist here is not ours to make.
    #[must_use]
    pub fn import(&self, service: &ServiceKey) -> Option<&Arc<Outbound>> {
        let here = self.common.catalog.interest.contains(&service.namespace);
        self.common.outbound.get(service).filter(|_| here)
    }

    /// Whether what the view says of an export is about this edition of it. One that states no generation has no others.
    #[must_use]
    pub fn confirms(&self, service: &ServiceKey, shard: &Shard) -> bool {
        shard.generation.is_none() || self.confirmed.get(service) == Some(&Edition::of(shard))
    }

    /// What may differ from what was made of former sources.
    #[must_use]
    pub fn changed_since(&self, before: &Sources) -> BTreeSet<Subject> {
        let imports = map::changed(&before.common.outbound, &self.common.outbound);
        let mut changed: BTreeSet<Subject> = imports.cloned().map(Subject::Import).collect();
        if before.common.catalog.interest != self.common.catalog.interest {
            // A namespace that came or went may hold any of them.
            changed.extend(self.common.outbound.keys().cloned().map(Subject::Import));
        }
        let shards = map::changed(&before.common.catalog.shards, &self.common.catalog.shards);
        changed.extend(shards.cloned().map(Subject::Export));
        let standings = map::changed(&before.exports, &self.exports).filter_map(|key| match key {
            ViewKey::Export(service) => Some(service.clone()),
            _ => None,
        });
        changed.extend(standings.map(Subject::Export));
        let refused = before.refused.keys().chain(self.refused.keys());
        let refused = refused.filter(|service| before.refused.get(*service) != self.refused.get(*service));
        changed.extend(refused.cloned().map(Subject::Export));
        let confirmed = map::changed(&before.confirmed, &self.confirmed);
        changed.extend(confirmed.cloned().map(Subject::Export));
        changed
    }
}
