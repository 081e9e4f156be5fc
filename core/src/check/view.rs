//! Properties of a view and its report, one function each. They ask the state anew, on other ways than `compute`.

use super::{Note, error};
use crate::compute::effective;
use crate::identity::SpiffeId;
use crate::name::{ClusterName, EndpointId, NetworkName, PortName, ServiceKey};
use crate::report::{Outcome, Rejection, Report, Subject};
use crate::state::{Cluster, LaneVerdict, Shard, State};
use crate::view::{Candidate, Import, Path, Peer, Standing, Tier, View, ViewItem};
use std::collections::{BTreeMap, BTreeSet};

/// A view with all that it can be held against.
pub(super) struct Seen<'a> {
    pub(super) state: &'a State,
    pub(super) own: &'a Cluster,
    pub(super) view: &'a View,
    pub(super) report: &'a Report,
}

pub(super) const PROPERTIES: &[fn(&Seen<'_>) -> Vec<Note>] = &[
    candidates_are_the_chosen_ones,
    every_place_has_its_decision,
    imports_are_wanted,
    candidates_belong_to_exporters,
    candidates_are_in_order,
    the_own_cluster_is_local,
    local_places_are_never_withdrawn,
    withdrawn_clusters_serve_nothing,
    shares_sum_to_ready_endpoints,
    nothing_remote_is_unverifiable,
    no_share_is_zero,
    identities_are_the_exporters_own,
    peers_are_partners,
    partners_are_peers,
    importers_are_members,
];

impl<'a> Seen<'a> {
    fn imports(&self) -> impl Iterator<Item = &'a Import> {
        self.view.items.values().filter_map(|item| match item {
            ViewItem::Import(import) => Some(&**import),
            ViewItem::Export(_) | ViewItem::Peer(_) => None,
        })
    }

    fn peers(&self) -> impl Iterator<Item = &'a Peer> {
        self.view.items.values().filter_map(|item| match item {
            ViewItem::Peer(peer) => Some(&**peer),
            ViewItem::Export(_) | ViewItem::Import(_) => None,
        })
    }

    fn candidates(&self) -> impl Iterator<Item = (&'a Import, &'a Candidate)> {
        self.imports().flat_map(|import| import.candidates.iter().map(move |candidate| (import, candidate)))
    }

    fn exporter(&self, service: &ServiceKey, name: &ClusterName) -> Option<(&'a Cluster, &'a Shard)> {
        let cluster = self.state.cluster_named(name)?;
        Some((cluster, self.state.shard(service, cluster.id)?))
    }
}

fn candidates_are_the_chosen_ones(seen: &Seen<'_>) -> Vec<Note> {
    let mut shown: BTreeMap<&ServiceKey, Vec<&Candidate>> = BTreeMap::new();
    for (import, candidate) in seen.candidates() {
        shown.entry(&import.service).or_default().push(candidate);
    }
    let mut chosen: BTreeMap<&ServiceKey, Vec<&Candidate>> = BTreeMap::new();
    for (service, report) in &seen.report.services {
        for decision in &report.decisions {
            if let Outcome::Chosen(candidate) = &decision.outcome {
                chosen.entry(service).or_default().push(candidate);
            }
        }
    }
    shown.values_mut().chain(chosen.values_mut()).for_each(|list| list.sort());
    let services: BTreeSet<&ServiceKey> = shown.keys().chain(chosen.keys()).copied().collect();
    let differ = services.into_iter().filter(|service| shown.get(service) != chosen.get(service));
    differ.map(|service| error(service, "the view's candidates are not the report's chosen ones")).collect()
}

fn every_place_has_its_decision(seen: &Seen<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for ((service, id), shard) in &seen.state.shards {
        let (Some(cluster), Some(report)) = (seen.state.clusters.get(id), seen.report.services.get(service))
        else {
            notes.push(error(service, "it has no report"));
            continue;
        };
        let mine = report.decisions.iter().filter(|decision| decision.cluster == cluster.name);
        let (mut endpoints, mut gateways): (Vec<&EndpointId>, Vec<&String>) = (Vec::new(), Vec::new());
        for decision in mine {
            match &decision.subject {
                Subject::Endpoint { id, .. } => endpoints.push(id),
                Subject::Gateway { address, .. } => gateways.push(address),
            }
        }
        let expected: Vec<String> =
            cluster.gateways.iter().map(|gateway| gateway.address.to_string()).collect();
        let whole =
            endpoints.into_iter().eq(shard.endpoints.keys()) && gateways.into_iter().eq(expected.iter());
        if !whole {
            notes
                .push(error(service, format!("a place in cluster {} has no decision, or two", cluster.name)));
        }
    }
    notes
}

fn imports_are_wanted(seen: &Seen<'_>) -> Vec<Note> {
    let unwanted = seen.imports().filter(|import| {
        let namespace = &import.service.namespace;
        !seen.own.interest.contains(namespace) || !seen.own.imports.covers(namespace)
    });
    unwanted.map(|import| error(&import.service, "imported without interest or grant")).collect()
}

fn candidates_belong_to_exporters(seen: &Seen<'_>) -> Vec<Note> {
    let strange = seen.candidates().filter(|(import, candidate)| {
        seen.exporter(&import.service, &candidate.cluster).is_none()
            || !import.clusters.contains(&candidate.cluster)
    });
    strange
        .map(|(import, c)| error(&import.service, format!("cluster {} does not export it", c.cluster)))
        .collect()
}

fn candidates_are_in_order(seen: &Seen<'_>) -> Vec<Note> {
    let unordered = seen.imports().filter(|import| !import.candidates.is_sorted_by(|a, b| a < b));
    unordered.map(|import| error(&import.service, "its candidates are out of order or twice")).collect()
}

fn the_own_cluster_is_local(seen: &Seen<'_>) -> Vec<Note> {
    let wrong = seen.candidates().filter(|(_, c)| {
        let local = c.cluster == seen.own.name && matches!(c.path, Path::Direct { .. });
        local != (c.tier == Tier::Local)
    });
    wrong
        .map(|(import, c)| error(&import.service, format!("cluster {} has the wrong tier", c.cluster)))
        .collect()
}

fn local_places_are_never_withdrawn(seen: &Seen<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for (service, report) in &seen.report.services {
        let own = report.decisions.iter().filter(|decision| decision.cluster == seen.own.name);
        let barred = |outcome: &Outcome| {
            matches!(
                outcome,
                Outcome::Rejected(Rejection::ClusterWithdrawn | Rejection::NoBundle | Rejection::NoGateway)
            )
        };
        if own.into_iter().any(|decision| barred(&decision.outcome)) {
            notes.push(error(service, "a local place was withheld for a reason that only remote ones have"));
        }
    }
    notes
}

fn withdrawn_clusters_serve_nothing(seen: &Seen<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for (import, candidate) in seen.candidates().filter(|(_, c)| c.tier != Tier::Local) {
        let Some(cluster) = seen.state.cluster_named(&candidate.cluster) else { continue };
        let lane = seen.own.lanes.get(&cluster.id).map(|lane| lane.verdict);
        let withdrawn = crate::liveness::verdict(seen.state, cluster.id).standing == Standing::Withdrawn;
        if withdrawn && lane != Some(LaneVerdict::Up) {
            notes.push(error(&import.service, format!("cluster {} is withdrawn", cluster.name)));
        }
        if (lane == Some(LaneVerdict::Down)) != (candidate.tier == Tier::Avoided) {
            notes.push(error(&import.service, format!("the lane to {} is not heeded", cluster.name)));
        }
    }
    notes
}

/// The shares of a cluster's gateways, by service, cluster and port.
type Shares<'a> = BTreeMap<(&'a ServiceKey, &'a ClusterName, &'a PortName), u32>;

fn shares_sum_to_ready_endpoints(seen: &Seen<'_>) -> Vec<Note> {
    let mut given: Shares<'_> = BTreeMap::new();
    for (import, candidate) in seen.candidates() {
        if let Path::Gateway { weights, .. } = &candidate.path {
            for (port, share) in weights {
                *given.entry((&import.service, &candidate.cluster, port)).or_default() += share;
            }
        }
    }
    let wrong = given.into_iter().filter(|((service, name, port), share)| {
        let ready =
            seen.exporter(service, name).map(|(cluster, shard)| far_and_ready(seen, cluster, shard, port));
        ready != Some(*share)
    });
    wrong
        .map(|((service, name, port), share)| {
            error(
                service,
                format!(
                    "the gateways of {name} share {share} for port {port:?}, which is not its ready endpoints"
                ),
            )
        })
        .collect()
}

fn no_share_is_zero(seen: &Seen<'_>) -> Vec<Note> {
    let empty = |path: &Path| match path {
        Path::Gateway { weights, .. } => weights.is_empty() || weights.values().any(|share| *share == 0),
        Path::Direct { ports, .. } => ports.is_empty(),
    };
    let idle = seen.candidates().filter(|(_, candidate)| empty(&candidate.path));
    idle.map(|(import, c)| error(&import.service, format!("a candidate of {} serves nothing", c.cluster)))
        .collect()
}

/// The ready endpoints of a port that are reached through a serving gateway.
fn far_and_ready(seen: &Seen<'_>, cluster: &Cluster, shard: &Shard, port: &PortName) -> u32 {
    let serves = |network: &NetworkName| {
        cluster.gateways.iter().any(|g| g.ready && g.weight > 0 && g.network == *network)
    };
    let mut count = 0;
    for endpoint in shard.endpoints.values().filter(|e| e.ready && e.ports.contains_key(port)) {
        let network = endpoint.network.as_ref().unwrap_or(&cluster.network);
        count += u32::from(*network != seen.own.network && serves(network));
    }
    count
}

fn nothing_remote_is_unverifiable(seen: &Seen<'_>) -> Vec<Note> {
    let blind = seen.candidates().filter(|(_, c)| {
        c.tier != Tier::Local && !seen.peers().any(|peer| peer.name == c.cluster && peer.bundle.is_some())
    });
    blind
        .map(|(import, c)| error(&import.service, format!("the view holds no bundle of {}", c.cluster)))
        .collect()
}

fn identities_are_the_exporters_own(seen: &Seen<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for (import, candidate) in seen.candidates() {
        let Some(cluster) = seen.state.cluster_named(&candidate.cluster) else { continue };
        let (identities, locality): (Vec<&SpiffeId>, _) = match &candidate.path {
            Path::Direct { spiffe_id, locality, .. } => (spiffe_id.iter().collect(), locality),
            Path::Gateway { identities, locality, .. } => (identities.iter().collect(), locality),
        };
        if identities.iter().any(|id| *id.trust_domain() != cluster.trust_domain) {
            notes.push(error(&import.service, format!("an identity is not of cluster {}", cluster.name)));
        }
        if effective(locality, &cluster.locality) != *locality {
            notes.push(error(
                &import.service,
                format!("a place of cluster {} lost its locality", cluster.name),
            ));
        }
    }
    notes
}

fn peers_are_partners(seen: &Seen<'_>) -> Vec<Note> {
    let strange = seen.peers().filter(|peer| {
        let current = seen.state.cluster_named(&peer.name).is_some_and(|cluster| cluster.id == peer.id);
        !current || peer.id == seen.own.id || !(peer.exports_to_us || peer.imports_from_us)
    });
    strange
        .map(|peer| error(format!("peer {}", peer.name), "it has nothing to do with this cluster"))
        .collect()
}

fn partners_are_peers(seen: &Seen<'_>) -> Vec<Note> {
    let from: BTreeSet<&ClusterName> =
        seen.imports().flat_map(|i| &i.clusters).filter(|n| **n != seen.own.name).collect();
    let to: BTreeSet<&ClusterName> = seen
        .view
        .items
        .values()
        .filter_map(|item| match item {
            ViewItem::Export(export) => Some(export.importers.iter()),
            ViewItem::Import(_) | ViewItem::Peer(_) => None,
        })
        .flatten()
        .collect();
    let told =
        |flag: fn(&Peer) -> bool| seen.peers().filter(|p| flag(p)).map(|p| &p.name).collect::<BTreeSet<_>>();
    let mut notes = Vec::new();
    if from != told(|peer| peer.exports_to_us) {
        notes.push(error(
            format!("cluster {}", seen.own.name),
            "its peers are not those that it imports from",
        ));
    }
    if to != told(|peer| peer.imports_from_us) {
        notes
            .push(error(format!("cluster {}", seen.own.name), "its peers are not those that import from it"));
    }
    notes
}

fn importers_are_members(seen: &Seen<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for item in seen.view.items.values() {
        let ViewItem::Export(export) = item else { continue };
        let strange =
            |name: &&ClusterName| **name == seen.own.name || seen.state.cluster_named(name).is_none();
        for name in export.importers.iter().filter(strange) {
            notes.push(error(
                &export.service,
                format!("{name} is listed as an importer and is not another member"),
            ));
        }
    }
    notes
}
