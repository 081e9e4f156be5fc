//! Properties of a state, one function each.

use super::{Note, error};
use crate::state::{ADMIN_RESULTS, State};
use std::collections::BTreeSet;

pub(super) const PROPERTIES: &[fn(&State) -> Vec<Note>] = &[
    names_are_indexed,
    trust_domains_are_indexed,
    exports_are_indexed,
    shards_belong_to_members,
    exports_are_granted,
    lanes_join_members,
    ids_are_below_their_counters,
    observations_are_unique,
    bundles_are_of_their_clusters,
    endpoints_are_of_their_clusters,
    tokens_point_to_members,
    admissions_are_of_their_clusters,
    results_are_bounded,
    limits_are_kept,
];

fn names_are_indexed(state: &State) -> Vec<Note> {
    let built: imbl::OrdMap<_, _> = state.clusters.values().map(|c| (c.name.clone(), c.id)).collect();
    same(built == state.by_name && built.len() == state.clusters.len(), "by_name")
}

fn trust_domains_are_indexed(state: &State) -> Vec<Note> {
    let built: imbl::OrdMap<_, _> = state.clusters.values().map(|c| (c.trust_domain.clone(), c.id)).collect();
    same(built == state.by_trust_domain && built.len() == state.clusters.len(), "by_trust_domain")
}

fn exports_are_indexed(state: &State) -> Vec<Note> {
    let built: imbl::OrdSet<_> = state.shards.keys().map(|(service, id)| (*id, service.clone())).collect();
    same(built == state.exported, "exported")
}

fn same(holds: bool, index: &str) -> Vec<Note> {
    if holds { Vec::new() } else { vec![error(format!("index {index}"), "it disagrees with the records")] }
}

fn shards_belong_to_members(state: &State) -> Vec<Note> {
    let orphans = state.shards.keys().filter(|(_, id)| !state.clusters.contains_key(id));
    orphans
        .map(|(service, id)| error(service, format!("exported by cluster {id}, which is no member")))
        .collect()
}

fn exports_are_granted(state: &State) -> Vec<Note> {
    let granted = |service: &crate::name::ServiceKey, id| {
        state.clusters.get(id).is_none_or(|cluster| cluster.exports.covers(&service.namespace))
    };
    let beyond = state.shards.keys().filter(|(service, id)| !granted(service, id));
    beyond.map(|(service, id)| error(service, format!("outside the export grant of cluster {id}"))).collect()
}

fn lanes_join_members(state: &State) -> Vec<Note> {
    let mut notes = Vec::new();
    for cluster in state.clusters.values() {
        for target in cluster.lanes.keys() {
            if *target == cluster.id || !state.clusters.contains_key(target) {
                let sentence = format!("it has a lane to {target}, which is not another member");
                notes.push(error(format!("cluster {}", cluster.name), sentence));
            }
        }
    }
    notes
}

fn ids_are_below_their_counters(state: &State) -> Vec<Note> {
    let mut notes = Vec::new();
    if state.clusters.keys().any(|id| id.0 >= state.meta.next_cluster) {
        notes.push(error("next_cluster", "an id would be given twice"));
    }
    if state.servers.keys().any(|id| id.0 >= state.meta.next_server) {
        notes.push(error("next_server", "an id would be given twice"));
    }
    if state.shards.values().any(|shard| shard.observed >= state.meta.next_observed) {
        notes.push(error("next_observed", "a later export would be older than an earlier one"));
    }
    notes
}

fn observations_are_unique(state: &State) -> Vec<Note> {
    let mut seen = BTreeSet::new();
    let twice = state.shards.iter().filter(|(_, shard)| !seen.insert(shard.observed));
    twice
        .map(|((service, id), _)| error(service, format!("its age in cluster {id} is another's too")))
        .collect()
}

fn bundles_are_of_their_clusters(state: &State) -> Vec<Note> {
    let strange = state.clusters.values().filter(|cluster| {
        cluster.bundle.as_ref().is_some_and(|bundle| bundle.trust_domain != cluster.trust_domain)
    });
    strange.map(|cluster| error(format!("cluster {}", cluster.name), "its bundle is another's")).collect()
}

fn endpoints_are_of_their_clusters(state: &State) -> Vec<Note> {
    let mut notes = Vec::new();
    for ((service, id), shard) in &state.shards {
        let Some(cluster) = state.clusters.get(id) else { continue };
        for (key, endpoint) in &shard.endpoints {
            let own = endpoint.spiffe_id.as_ref().is_none_or(|id| *id.trust_domain() == cluster.trust_domain);
            if *key != endpoint.id || !own {
                notes.push(error(service, format!("endpoint {key} is not cluster {}'s own", cluster.name)));
            }
        }
    }
    notes
}

fn tokens_point_to_members(state: &State) -> Vec<Note> {
    let joined = state.tokens.values().filter_map(|token| token.consumed.as_ref()?.cluster);
    let strange = joined.filter(|id| !state.clusters.contains_key(id));
    strange
        .map(|id| error("tokens", format!("one was consumed by cluster {id}, which is no member")))
        .collect()
}

fn admissions_are_of_their_clusters(state: &State) -> Vec<Note> {
    let strange = state.admissions.iter().filter(|(name, admission)| {
        let member = state.cluster_named(name);
        admission.cluster != **name || member.is_some_and(|m| m.trust_domain != admission.trust_domain)
    });
    strange
        .map(|(name, _)| error(format!("admission of {name}"), "it is of another cluster or trust domain"))
        .collect()
}

fn results_are_bounded(state: &State) -> Vec<Note> {
    let keys: BTreeSet<_> = state.admin_results.values().map(|result| (&result.by, result.key)).collect();
    if state.admin_results.len() > ADMIN_RESULTS || keys.len() != state.admin_results.len() {
        return vec![error("admin results", "there are too many, or two of one key")];
    }
    Vec::new()
}

fn limits_are_kept(state: &State) -> Vec<Note> {
    let limits = &state.meta.limits;
    let mut notes = Vec::new();
    for cluster in state.clusters.values() {
        let over = state.services_of(cluster.id).count() > limits.services as usize
            || cluster.gateways.len() > limits.gateways as usize
            || cluster.interest.len() > limits.namespaces as usize;
        if over {
            notes.push(error(format!("cluster {}", cluster.name), "it is above a limit"));
        }
    }
    let big = state.shards.iter().filter(|(_, shard)| shard.endpoints.len() > limits.endpoints as usize);
    notes.extend(
        big.map(|((service, id), _)| error(service, format!("cluster {id} has too many endpoints of it"))),
    );
    notes
}
