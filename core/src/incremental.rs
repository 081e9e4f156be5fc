//! Which items of which views a change can touch: cost follows change, never size.
//!
//! [`affected`] names a superset, as tight as is cheap to know. A publisher computes just those items anew
//! ([`crate::compute::Computation::item`]) and compares. A property test holds it to the full computation.

use crate::compute::{Computation, counts, wants};
use crate::events::{ClusterFact, Events};
use crate::identity::ClusterId;
use crate::name::{Namespace, ServiceKey};
use crate::state::{Cluster, Lease, State};
use crate::view::ViewKey;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The items that may differ between two states, given what happened in between.
///
/// Items of clusters that are no members after are left out: with its membership a cluster's whole view goes.
#[must_use]
pub fn affected(before: &State, after: &State, events: &Events) -> BTreeSet<(ClusterId, ViewKey)> {
    let mut reach = Reach {
        before: Computation::new(before),
        after: Computation::new(after),
        suspects: BTreeSet::new(),
        items: BTreeSet::new(),
    };
    for ((service, exporter), event) in &events.shards {
        if event.export { reach.export(service, *exporter) } else { reach.endpoints(service, *exporter) }
    }
    for (cluster, facts) in &events.clusters {
        for fact in facts {
            reach.fact(*cluster, *fact);
        }
    }
    for (reporter, target) in &events.lanes {
        reach.lane(*reporter, *target);
    }
    reach.verdicts();
    reach.items.retain(|(cluster, _)| after.clusters.contains_key(cluster));
    reach.items
}

#[cfg(test)]
mod tests;

struct Reach<'a> {
    before: Computation<'a>,
    after: Computation<'a>,
    /// Clusters whose verdict may have turned.
    suspects: BTreeSet<ClusterId>,
    items: BTreeSet<(ClusterId, ViewKey)>,
}

impl<'a> Reach<'a> {
    fn both(&self) -> [&'a State; 2] {
        [self.before.state(), self.after.state()]
    }

    fn either(&self, id: ClusterId) -> impl Iterator<Item = &'a Arc<Cluster>> {
        self.both().into_iter().filter_map(move |state| state.clusters.get(&id))
    }

    /// Only endpoints of a shard changed: whoever imports it, and nobody else.
    fn endpoints(&mut self, service: &ServiceKey, exporter: ClusterId) {
        self.imports_of(service, exporter);
    }

    /// An export appeared, changed or went.
    fn export(&mut self, service: &ServiceKey, exporter: ClusterId) {
        for cluster in self.after.state().clusters.values() {
            if wants(cluster, &service.namespace) {
                self.items.insert((cluster.id, ViewKey::Import(service.clone())));
                self.pair(cluster.id, exporter);
            }
        }
        // The conflicts are every exporter's; a removed export leaves its own exporter's view.
        self.items.insert((exporter, ViewKey::Export(service.clone())));
        self.statuses(service);
        self.suspects.insert(exporter);
    }

    fn fact(&mut self, cluster: ClusterId, fact: ClusterFact) {
        match fact {
            ClusterFact::Membership => self.membership(cluster),
            ClusterFact::Network => {
                self.exports_of(cluster);
                self.imports_by(cluster);
                self.seen_by_peers(cluster);
            }
            ClusterFact::Locality => self.exports_of(cluster),
            ClusterFact::Probes => self.seen_by_peers(cluster),
            ClusterFact::Gateways => {
                self.exports_of(cluster);
                self.seen_by_peers(cluster);
            }
            ClusterFact::Bundle => self.bundle(cluster),
            ClusterFact::Interest => self.interest(cluster),
            ClusterFact::Lease => self.lease(cluster),
        }
    }

    /// A member came or went. Its shards have events of their own, which also part it from those who imported from it;
    /// what is left is what it wanted, and its word.
    fn membership(&mut self, id: ClusterId) {
        let namespaces: BTreeSet<Namespace> =
            self.either(id).flat_map(|c| c.interest.iter().cloned()).collect();
        for namespace in &namespaces {
            self.wanted(id, namespace);
        }
        self.lease(id);
    }

    /// Imports turn only on whether there is a bundle, not on which: every peer gets the bundle itself.
    fn bundle(&mut self, id: ClusterId) {
        let had = |state: &State| state.clusters.get(&id).is_some_and(|cluster| cluster.bundle.is_some());
        let [before, after] = self.both();
        if had(before) != had(after) {
            self.exports_of(id);
        }
        self.seen_by_peers(id);
    }

    fn interest(&mut self, id: ClusterId) {
        let [before, after] = self.both();
        let interest = |state: &State| {
            state.clusters.get(&id).map(|cluster| cluster.interest.clone()).unwrap_or_default()
        };
        let (old, new) = (interest(before), interest(after));
        for namespace in old.symmetric_difference(&new) {
            self.wanted(id, namespace);
        }
    }

    /// A cluster began or ceased to import into a namespace.
    fn wanted(&mut self, id: ClusterId, namespace: &Namespace) {
        for state in self.both() {
            for service in state.services_in(namespace) {
                self.items.insert((id, ViewKey::Import(service.clone())));
                for (exporter, _) in state.shards_of(&service).filter(|(exporter, _)| *exporter != id) {
                    self.items.insert((exporter, ViewKey::Export(service.clone())));
                    self.pair(id, exporter);
                    self.suspects.insert(exporter);
                }
            }
        }
    }

    /// A lease turned: the verdict on the cluster may turn with it, and those that it bears witness on.
    fn lease(&mut self, id: ClusterId) {
        self.suspects.insert(id);
        let targets: Vec<ClusterId> =
            self.either(id).flat_map(|cluster| cluster.lanes.keys().copied()).collect();
        self.suspects.extend(targets);
    }

    /// A lane turned: its reporter's own imports from that cluster, and perhaps the verdict.
    fn lane(&mut self, reporter: ClusterId, target: ClusterId) {
        let verdict = |state: &State| {
            let lane = state.clusters.get(&reporter)?.lanes.get(&target)?;
            Some(lane.verdict)
        };
        let [before, after] = self.both();
        if verdict(before) == verdict(after) {
            return;
        }
        self.suspects.insert(target);
        if let Some(cluster) = after.clusters.get(&reporter) {
            self.imports_from(cluster, target);
        }
    }

    /// A verdict that turned touches whoever imports from the cluster or exports to it.
    fn verdicts(&mut self) {
        for id in std::mem::take(&mut self.suspects) {
            if self.may_turn(id) && self.before.standing(id) != self.after.standing(id) {
                self.exports_of(id);
                self.seen_by_peers(id);
            }
        }
    }

    /// Witnesses matter only to a lapsed lease.
    fn may_turn(&self, id: ClusterId) -> bool {
        let live =
            |state: &State| matches!(state.clusters.get(&id).map(|c| c.lease), Some(Lease::Live { .. }));
        let [before, after] = self.both();
        !(live(before) && live(after))
    }

    /// The imports that every importer of a cluster has from it.
    fn exports_of(&mut self, exporter: ClusterId) {
        let services: Vec<ServiceKey> = self.after.state().services_of(exporter).cloned().collect();
        for service in &services {
            self.imports_of(service, exporter);
        }
    }

    /// One import that comes from a cluster, in every importer.
    fn imports_of(&mut self, service: &ServiceKey, exporter: ClusterId) {
        let state = self.after.state();
        let Some(shard) = state.shard(service, exporter) else { return };
        for cluster in state.clusters.values() {
            if wants(cluster, &service.namespace) && counts(shard, exporter, cluster).is_ok() {
                self.items.insert((cluster.id, ViewKey::Import(service.clone())));
            }
        }
    }

    /// Everything that a cluster imports.
    fn imports_by(&mut self, id: ClusterId) {
        let state = self.after.state();
        let Some(cluster) = state.clusters.get(&id) else { return };
        for namespace in cluster.interest.iter().filter(|namespace| wants(cluster, namespace)) {
            let services = state.services_in(namespace);
            self.items.extend(services.into_iter().map(|service| (id, ViewKey::Import(service))));
        }
    }

    /// Everything that one cluster imports from another.
    fn imports_from(&mut self, importer: &Cluster, exporter: ClusterId) {
        let state = self.after.state();
        for service in state.services_of(exporter).filter(|service| wants(importer, &service.namespace)) {
            self.items.insert((importer.id, ViewKey::Import(service.clone())));
        }
    }

    fn statuses(&mut self, service: &ServiceKey) {
        for (exporter, _) in self.after.state().shards_of(service) {
            self.items.insert((exporter, ViewKey::Export(service.clone())));
        }
    }

    /// A cluster as its peers see it.
    fn seen_by_peers(&mut self, id: ClusterId) {
        for other in self.after.state().clusters.keys().copied().filter(|other| *other != id) {
            if related(&self.before, id, other) || related(&self.after, id, other) {
                self.see(other, id);
            }
        }
    }

    /// Two clusters each as the other sees it, where their relation turned.
    fn pair(&mut self, importer: ClusterId, exporter: ClusterId) {
        if imports(&self.before, importer, exporter) != imports(&self.after, importer, exporter) {
            self.see(importer, exporter);
            self.see(exporter, importer);
        }
    }

    fn see(&mut self, who: ClusterId, whom: ClusterId) {
        let names: Vec<_> = self.either(whom).map(|cluster| cluster.name.clone()).collect();
        self.items.extend(names.into_iter().map(|name| (who, ViewKey::Peer(name))));
    }
}

fn related(computation: &Computation<'_>, a: ClusterId, b: ClusterId) -> bool {
    imports(computation, a, b) || imports(computation, b, a)
}

fn imports(computation: &Computation<'_>, importer: ClusterId, exporter: ClusterId) -> bool {
    computation
        .state()
        .clusters
        .get(&importer)
        .is_some_and(|cluster| computation.imports_from(cluster, exporter))
}
