//! The state as a set of records: the one form that disk, snapshot and backup share.

use super::{
    AdminKey, AdminResult, Admission, Cluster, Hash, Meta, Record, RecordKey, Server, Shard, State, Token,
};
use crate::identity::{ClusterId, FederationId, ServerId};
use crate::name::{ServiceKey, TrustDomain};
use crate::state::Limits;
use crate::time::{Millis, Revision};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

/// Records that do not make a state. The replica must not start from them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There is no record of the federation itself.
    #[error("the records do not hold the federation's own facts")]
    NoMeta,
    /// A record came twice.
    #[error("the record {0:?} came twice")]
    Twice(Box<RecordKey>),
    /// Two clusters share a name.
    #[error("clusters {0} and {1} have the same name")]
    SameName(ClusterId, ClusterId),
    /// Two clusters share a trust domain.
    #[error("clusters {0} and {1} have the same trust domain")]
    SameTrustDomain(ClusterId, ClusterId),
    /// A shard belongs to no member.
    #[error("the shard of {service} belongs to cluster {cluster}, which is not a member")]
    Orphan {
        /// The service.
        service: ServiceKey,
        /// The cluster that is missing.
        cluster: ClusterId,
    },
}

impl Record {
    /// The key of this record.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Record::Meta(_) => RecordKey::Meta,
            Record::Server(server) => RecordKey::Server(server.id),
            Record::Token(token) => RecordKey::Token(token.hash),
            Record::Cluster(cluster) => RecordKey::Cluster(cluster.id),
            Record::Shard(service, cluster, _) => RecordKey::Shard(service.clone(), *cluster),
            Record::AdminResult(key, _) => RecordKey::AdminResult(*key),
            Record::Admission(admission) => RecordKey::Admission(admission.cluster.clone()),
        }
    }
}

impl State {
    /// The state before the first command: no federation yet. Only [`crate::command::Action::Found`] applies to it.
    #[must_use]
    pub fn empty() -> State {
        State {
            meta: Meta {
                federation: FederationId([0; 16]),
                trust_domain: TrustDomain::unfounded(),
                revision: Revision::default(),
                cluster_version: 0,
                next_cluster: 1,
                next_server: 1,
                next_observed: 1,
                now: Millis(0),
                admin_floor: Millis(0),
                limits: Limits::default(),
            },
            servers: OrdMap::new(),
            tokens: OrdMap::new(),
            admissions: OrdMap::new(),
            clusters: OrdMap::new(),
            shards: OrdMap::new(),
            admin_results: OrdMap::new(),
            by_name: OrdMap::new(),
            by_trust_domain: OrdMap::new(),
            exported: OrdSet::new(),
        }
    }

    /// One record; `None` when it does not exist (any more).
    #[must_use]
    pub fn record(&self, key: &RecordKey) -> Option<Record> {
        Some(match key {
            RecordKey::Meta => Record::Meta(self.meta.clone()),
            RecordKey::Server(id) => Record::Server(self.servers.get(id)?.clone()),
            RecordKey::Token(hash) => Record::Token(self.tokens.get(hash)?.clone()),
            RecordKey::Cluster(id) => Record::Cluster(self.clusters.get(id)?.clone()),
            RecordKey::Shard(service, id) => {
                Record::Shard(service.clone(), *id, self.shards.get(&(service.clone(), *id))?.clone())
            }
            RecordKey::AdminResult(key) => Record::AdminResult(*key, self.admin_results.get(key)?.clone()),
            RecordKey::Admission(name) => Record::Admission(self.admissions.get(name)?.clone()),
        })
    }

    /// Every record, in the order of [`RecordKey`].
    pub fn records(&self) -> impl Iterator<Item = Record> {
        std::iter::once(Record::Meta(self.meta.clone()))
            .chain(self.servers.values().cloned().map(Record::Server))
            .chain(self.tokens.values().cloned().map(Record::Token))
            .chain(self.clusters.values().cloned().map(Record::Cluster))
            .chain(self.shards.iter().map(|((s, c), shard)| Record::Shard(s.clone(), *c, shard.clone())))
            .chain(self.admin_results.iter().map(|(key, result)| Record::AdminResult(*key, result.clone())))
            .chain(self.admissions.values().cloned().map(Record::Admission))
    }

    /// The key of every record, in order.
    pub fn record_keys(&self) -> impl Iterator<Item = RecordKey> {
        self.records().map(|record| record.key())
    }

    /// Rebuilds a state, with its indexes, from its records in any order.
    ///
    /// # Errors
    /// When the records can not have come from one state.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Result<State, RecordError> {
        let mut state = State::empty();
        let mut meta = None;
        for record in records {
            match record {
                Record::Meta(found) if meta.is_none() => meta = Some(found),
                Record::Meta(_) => return Err(twice(RecordKey::Meta)),
                other => state.load(other)?,
            }
        }
        state.meta = meta.ok_or(RecordError::NoMeta)?;
        state.adopt_shards()?;
        Ok(state)
    }

    fn load(&mut self, record: Record) -> Result<(), RecordError> {
        let key = record.key();
        let fresh = match record {
            Record::Meta(_) => false,
            Record::Server(server) => self.load_server(server),
            Record::Token(token) => self.load_token(token),
            Record::Cluster(cluster) => return self.load_cluster(cluster),
            Record::Shard(service, id, shard) => self.load_shard(service, id, shard),
            Record::AdminResult(key, result) => self.load_result(key, result),
            Record::Admission(admission) => self.load_admission(admission),
        };
        if fresh { Ok(()) } else { Err(twice(key)) }
    }

    fn load_server(&mut self, server: Arc<Server>) -> bool {
        let id: ServerId = server.id;
        self.servers.insert(id, server).is_none()
    }

    fn load_token(&mut self, token: Arc<Token>) -> bool {
        let hash: Hash = token.hash;
        self.tokens.insert(hash, token).is_none()
    }

    fn load_shard(&mut self, service: ServiceKey, cluster: ClusterId, shard: Arc<Shard>) -> bool {
        self.exported.insert((cluster, service.clone()));
        self.shards.insert((service, cluster), shard).is_none()
    }

    fn load_result(&mut self, key: AdminKey, result: Arc<AdminResult>) -> bool {
        self.admin_results.insert(key, result).is_none()
    }

    fn load_admission(&mut self, admission: Arc<Admission>) -> bool {
        self.admissions.insert(admission.cluster.clone(), admission).is_none()
    }

    fn load_cluster(&mut self, cluster: Arc<Cluster>) -> Result<(), RecordError> {
        let id = cluster.id;
        if self.clusters.contains_key(&id) {
            return Err(twice(RecordKey::Cluster(id)));
        }
        if let Some(other) = self.by_name.insert(cluster.name.clone(), id) {
            return Err(RecordError::SameName(other, id));
        }
        if let Some(other) = self.by_trust_domain.insert(cluster.trust_domain.clone(), id) {
            return Err(RecordError::SameTrustDomain(other, id));
        }
        self.clusters.insert(id, cluster);
        Ok(())
    }

    fn adopt_shards(&self) -> Result<(), RecordError> {
        let orphan = self.shards.keys().find(|(_, cluster)| !self.clusters.contains_key(cluster));
        match orphan {
            Some((service, cluster)) => {
                Err(RecordError::Orphan { service: service.clone(), cluster: *cluster })
            }
            None => Ok(()),
        }
    }
}

fn twice(key: RecordKey) -> RecordError {
    RecordError::Twice(Box::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, domain, http, key, name, put};

    fn world() -> State {
        let mut world = World::of(&["east", "west"]);
        world.put("west", vec![put("shop/cart", http())]);
        world.state
    }

    #[test]
    fn the_records_of_a_state_are_that_state_in_any_order() {
        let state = world();
        let mut records: Vec<Record> = state.records().collect();
        assert!(state.record_keys().is_sorted());
        assert!(records.iter().all(|record| state.record(&record.key()).as_ref() == Some(record)));
        records.reverse();
        assert_eq!(State::from_records(records), Ok(state));
        assert_eq!(State::from_records(State::empty().records()), Ok(State::empty()));
    }

    #[test]
    fn records_that_do_not_make_a_state_are_refused() {
        let state = world();
        let all: Vec<Record> = state.records().collect();
        let but = |key: &RecordKey| all.iter().filter(|r| r.key() != *key).cloned().collect::<Vec<_>>();
        let (east, west) = (ClusterId(1), ClusterId(2));
        let mut with = all.clone();
        with.push(Record::Meta(state.meta.clone()));
        assert_eq!(State::from_records(with), Err(twice(RecordKey::Meta)));
        for key in state.record_keys().filter(|key| *key != RecordKey::Meta) {
            let mut with = all.clone();
            with.push(state.record(&key).unwrap());
            assert_eq!(State::from_records(with), Err(twice(key)));
        }
        assert_eq!(State::from_records(but(&RecordKey::Meta)), Err(RecordError::NoMeta));
        let orphan = RecordError::Orphan { service: key("shop/cart"), cluster: west };
        assert_eq!(State::from_records(but(&RecordKey::Cluster(west))), Err(orphan));
        for (change, expected) in [
            (
                Cluster { name: name("east"), ..(*state.clusters[&west]).clone() },
                RecordError::SameName(east, west),
            ),
            (
                Cluster { trust_domain: domain("east"), ..(*state.clusters[&west]).clone() },
                RecordError::SameTrustDomain(east, west),
            ),
        ] {
            let mut changed = but(&RecordKey::Cluster(west));
            changed.push(Record::Cluster(Arc::new(change)));
            assert_eq!(State::from_records(changed), Err(expected));
        }
    }
}
