//! The merge of exports into one import, with its conflicts (KEP-1645).

use super::{conflicts, ports};
use crate::identity::ClusterId;
use crate::name::{ClusterName, ServiceKey};
use crate::service::{Export, ExportSpec, IpFamily};
use crate::state::{Shard, State};
use crate::view::Conflict;
use std::collections::BTreeSet;

/// What the exports of one service merge to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The properties that importers see.
    pub spec: ExportSpec,
    /// The cluster of the oldest export, whose properties win.
    pub oldest: ClusterName,
    /// Every cluster that exports it validly.
    pub clusters: BTreeSet<ClusterName>,
    /// The conflicts; every constituent export takes part in each.
    pub conflicts: Vec<Conflict>,
}

/// A valid export in the merge.
pub(super) type Voice<'a> = (&'a ClusterName, &'a ExportSpec);

/// The exports of a service that pass, oldest first, merged. `None` when none of them is valid.
pub(super) fn merge_all(
    state: &State,
    service: &ServiceKey,
    counted: impl Fn(ClusterId, &Shard) -> bool,
) -> Option<Merged> {
    let shards = state.shards_of(service).filter(|(id, shard)| counted(*id, shard));
    let mut exports: Vec<(u64, &ClusterName, &Export)> = shards
        .filter_map(|(id, shard)| Some((shard.observed, &state.clusters.get(&id)?.name, &*shard.export)))
        .collect();
    exports.sort_by_key(|(observed, name, _)| (*observed, *name));
    let exports: Vec<_> = exports.into_iter().map(|(_, name, export)| (name, export)).collect();
    merge(&exports)
}

/// Merges the exports of one service, oldest first. Invalid ones never count; `None` when no valid one is left.
#[must_use]
pub fn merge(exports: &[(&ClusterName, &Export)]) -> Option<Merged> {
    let voices: Vec<Voice<'_>> =
        exports.iter().filter_map(|(name, export)| Some((*name, export.spec.as_ref().ok()?))).collect();
    let (oldest, first) = *voices.first()?;
    let spec = ExportSpec {
        ports: ports::union(voices.iter().map(|(_, spec)| spec.ports.as_slice())),
        ip_families: families(&voices).map(|(_, families)| families.to_vec()).unwrap_or_default(),
        ..first.clone()
    };
    let conflicts = conflicts::conflicts(&voices, &spec);
    let clusters = voices.iter().map(|(name, _)| (*name).clone()).collect();
    Some(Merged { spec, oldest: oldest.clone(), clusters, conflicts })
}

/// The families of the oldest export, in its order: they are what the addresses of the import are made of, and a younger
/// export takes none of them away. One that names none (it has no endpoint yet) has no say.
pub(super) fn families<'a>(voices: &[Voice<'a>]) -> Option<(&'a ClusterName, &'a [IpFamily])> {
    let told = voices.iter().find(|(_, spec)| !spec.ip_families.is_empty())?;
    Some((told.0, &told.1.ip_families))
}
