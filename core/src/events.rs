//! What one command changed, finely enough to recompute nothing but what it can affect.

use crate::identity::ClusterId;
use crate::name::ServiceKey;
use std::collections::{BTreeMap, BTreeSet};

/// What one command (or a batch of them, see [`Events::merge`]) changed in meaning.
///
/// A write that says again what the state already says is no event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events {
    /// The shards that were created, changed or removed.
    pub shards: BTreeMap<(ServiceKey, ClusterId), ShardEvent>,
    /// The facts of clusters that changed.
    pub clusters: BTreeMap<ClusterId, BTreeSet<ClusterFact>>,
    /// Lanes whose verdict was first heard, changed or was dropped: (who reports, on whom).
    pub lanes: BTreeSet<(ClusterId, ClusterId)>,
}

/// What happened to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardEvent {
    /// Whether it existed before.
    pub existed: bool,
    /// Whether the export itself changed (also: appeared, went); else only its endpoints did.
    pub export: bool,
}

/// A fact of a cluster on which views depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterFact {
    /// It joined or was removed.
    Membership,
    /// Its default network.
    Network,
    /// Its default locality.
    Locality,
    /// Its probe endpoints.
    Probes,
    /// Its gateways.
    Gateways,
    /// Its trust bundle.
    Bundle,
    /// The namespaces that it imports into.
    Interest,
    /// Its lease.
    Lease,
}

impl Events {
    /// Whether nothing changed that a view could depend on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.clusters.is_empty() && self.lanes.is_empty()
    }

    /// Takes up the events of the next command, so that a batch is recomputed once.
    pub fn merge(&mut self, next: Events) {
        for ((service, cluster), event) in next.shards {
            self.shard(service, cluster, event);
        }
        for (cluster, facts) in next.clusters {
            self.clusters.entry(cluster).or_default().extend(facts);
        }
        self.lanes.extend(next.lanes);
    }

    pub(crate) fn shard(&mut self, service: ServiceKey, cluster: ClusterId, event: ShardEvent) {
        let kept = self.shards.entry((service, cluster)).or_insert(event);
        kept.export |= event.export;
    }

    pub(crate) fn fact(&mut self, cluster: ClusterId, fact: ClusterFact) {
        self.clusters.entry(cluster).or_default().insert(fact);
    }
}
