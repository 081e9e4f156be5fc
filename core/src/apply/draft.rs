//! The draft of a change: a copy of the state that shares its structure, what must be written, what happened.

use crate::command::Refusal;
use crate::events::{ClusterFact, Events, ShardEvent};
use crate::identity::ClusterId;
use crate::name::ServiceKey;
use crate::state::{Cluster, RecordKey, Shard, State};
use crate::time::Millis;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct Draft {
    pub(super) state: State,
    pub(super) dirty: BTreeSet<RecordKey>,
    pub(super) events: Events,
}

impl Draft {
    pub(super) fn new(state: State) -> Self {
        Draft { state, dirty: BTreeSet::from([RecordKey::Meta]), events: Events::default() }
    }

    pub(super) fn now(&self) -> Millis {
        self.state.meta.now
    }

    /// Runs a step whole or not at all.
    pub(super) fn attempt<T>(
        &mut self,
        step: impl FnOnce(&mut Draft) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut trial = self.clone();
        let value = step(&mut trial)?;
        *self = trial;
        Ok(value)
    }

    pub(super) fn cluster(&self, id: ClusterId) -> Option<Arc<Cluster>> {
        self.state.clusters.get(&id).cloned()
    }

    /// Adds a member or replaces its record. Name and trust domain never change in the life of an id.
    pub(super) fn put_cluster(&mut self, cluster: Cluster) {
        let id = cluster.id;
        self.dirty.insert(RecordKey::Cluster(id));
        self.state.by_name.insert(cluster.name.clone(), id);
        self.state.by_trust_domain.insert(cluster.trust_domain.clone(), id);
        self.state.clusters.insert(id, Arc::new(cluster));
    }

    /// Changes a member's record, and says which fact changed where a view depends on it.
    pub(super) fn edit(
        &mut self,
        id: ClusterId,
        fact: Option<ClusterFact>,
        change: impl FnOnce(&mut Cluster),
    ) {
        let Some(cluster) = self.state.clusters.get_mut(&id) else { return };
        change(Arc::make_mut(cluster));
        self.dirty.insert(RecordKey::Cluster(id));
        if let Some(fact) = fact {
            self.events.fact(id, fact);
        }
    }

    pub(super) fn put_shard(&mut self, service: &ServiceKey, cluster: ClusterId, shard: Shard, export: bool) {
        self.state.exported.insert((cluster, service.clone()));
        let before = self.state.shards.insert((service.clone(), cluster), Arc::new(shard));
        self.note_shard(service, cluster, ShardEvent { existed: before.is_some(), export });
    }

    pub(super) fn remove_shard(&mut self, service: &ServiceKey, cluster: ClusterId) {
        self.state.exported.remove(&(cluster, service.clone()));
        if self.state.shards.remove(&(service.clone(), cluster)).is_some() {
            self.note_shard(service, cluster, ShardEvent { existed: true, export: true });
        }
    }

    fn note_shard(&mut self, service: &ServiceKey, cluster: ClusterId, event: ShardEvent) {
        self.dirty.insert(RecordKey::Shard(service.clone(), cluster));
        self.events.shard(service.clone(), cluster, event);
    }
}
