//! Questions that a state answers from its indexes.

use super::{Cluster, Shard, State};
use crate::identity::ClusterId;
use crate::name::{ClusterName, Namespace, ServiceKey};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

impl State {
    /// Whether the federation was founded.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.meta.cluster_version != 0
    }

    /// The member now bound to a name.
    #[must_use]
    pub fn cluster_named(&self, name: &ClusterName) -> Option<&Arc<Cluster>> {
        self.clusters.get(self.by_name.get(name)?)
    }

    /// One shard.
    #[must_use]
    pub fn shard(&self, service: &ServiceKey, cluster: ClusterId) -> Option<&Arc<Shard>> {
        self.shards.get(&(service.clone(), cluster))
    }

    /// The shards of one service, by cluster id.
    pub fn shards_of(&self, service: &ServiceKey) -> impl Iterator<Item = (ClusterId, &Arc<Shard>)> {
        let range = (service.clone(), ClusterId(0))..=(service.clone(), ClusterId(u64::MAX));
        self.shards.range(range).map(|((_, cluster), shard)| (*cluster, shard))
    }

    /// The services that one cluster exports, in order.
    pub fn services_of(&self, cluster: ClusterId) -> impl Iterator<Item = &ServiceKey> {
        let from = cluster_start(cluster);
        self.exported
            .range((from, Bound::Unbounded))
            .take_while(move |(id, _)| *id == cluster)
            .map(|(_, s)| s)
    }

    /// The services that anybody exports from one namespace.
    #[must_use]
    pub fn services_in(&self, namespace: &Namespace) -> BTreeSet<ServiceKey> {
        let from = (ServiceKey::first_of(namespace), ClusterId(0));
        self.shards
            .range((Bound::Included(from), Bound::Unbounded))
            .map(|((service, _), _)| service)
            .take_while(|service| service.namespace == *namespace)
            .cloned()
            .collect()
    }

    /// Every service that anybody exports.
    #[must_use]
    pub fn services(&self) -> BTreeSet<ServiceKey> {
        self.shards.keys().map(|(service, _)| service.clone()).collect()
    }
}

/// Where the range of one cluster's services begins.
fn cluster_start(cluster: ClusterId) -> Bound<(ClusterId, ServiceKey)> {
    Bound::Included((cluster, ServiceKey::first()))
}
