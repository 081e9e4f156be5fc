//! Weighing: every place of every exporter of one service, for one importer.

use super::relation::{Uncounted, counts, wants};
use super::{Computation, imports, places};
use crate::endpoint::Locality;
use crate::liveness;
use crate::name::{ClusterName, ServiceKey};
use crate::reach::Unreached;
use crate::report::{ExportReport, NotImported, Outcome, Rejection, ServiceReport};
use crate::state::{Cluster, Shard};
use crate::view::{Candidate, Import};
use std::collections::BTreeMap;

/// One exporter of the service.
pub(super) struct Exporter<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) shard: &'a Shard,
    pub(super) counted: Result<(), Uncounted>,
}

struct Weighed<'a> {
    not_imported: Option<NotImported>,
    merged: Option<imports::Merged>,
    exporters: Vec<Exporter<'a>>,
    places: Vec<places::Weighed<'a>>,
}

/// The import, where there is one.
pub(super) fn import(
    computation: &Computation<'_>,
    importer: &Cluster,
    service: &ServiceKey,
) -> Option<Import> {
    // Before the costly part: most clusters do not import most services.
    if !wants(importer, &service.namespace) {
        return None;
    }
    let weighed = weigh(computation, importer, service);
    let merged = weighed.merged.filter(|_| weighed.not_imported.is_none())?;
    let unreached = unreached(&weighed.places);
    let candidates = chosen(weighed.places);
    let spec = merged.spec;
    Some(Import {
        service: service.clone(),
        service_type: spec.service_type,
        ports: spec.ports,
        session_affinity: spec.session_affinity,
        session_affinity_timeout_s: spec.session_affinity_timeout_s,
        internal_traffic_policy: spec.internal_traffic_policy,
        traffic_distribution: spec.traffic_distribution,
        ip_families: spec.ip_families,
        labels: spec.labels,
        annotations: spec.annotations,
        clusters: merged.clusters,
        candidates,
        unreached,
    })
}

/// The exporters of which nothing is chosen, because a gateway or a port is missing or they are withdrawn.
fn unreached(places: &[places::Weighed<'_>]) -> BTreeMap<ClusterName, Unreached> {
    let mut unreached: BTreeMap<ClusterName, Unreached> = BTreeMap::new();
    for place in places {
        let why = match place.outcome {
            Outcome::Rejected(Rejection::NoGateway) => Unreached::NoGateway,
            Outcome::Rejected(Rejection::NoPort) => Unreached::NoPort,
            Outcome::Rejected(Rejection::ClusterWithdrawn) => Unreached::ClusterWithdrawn,
            _ => continue,
        };
        // The one with the right port lacks the gateway alone.
        unreached.entry(place.cluster().clone()).and_modify(|known| *known = why.min(*known)).or_insert(why);
    }
    if !unreached.is_empty() {
        for place in places.iter().filter(|place| matches!(place.outcome, Outcome::Chosen(_))) {
            unreached.remove(place.cluster());
        }
    }
    unreached
}

fn chosen(places: Vec<places::Weighed<'_>>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = places
        .into_iter()
        .filter_map(|place| match place.outcome {
            Outcome::Chosen(candidate) => Some(candidate),
            Outcome::BehindGateway | Outcome::Rejected(_) => None,
        })
        .collect();
    candidates.sort();
    candidates
}

/// The whole report.
pub(super) fn report(
    computation: &Computation<'_>,
    importer: &Cluster,
    service: &ServiceKey,
) -> ServiceReport {
    let state = computation.state();
    let weighed = weigh(computation, importer, service);
    let bar = weighed.not_imported.as_ref().and_then(|why| importers_bar(why, importer, service));
    let export = |exporter: &Exporter<'_>| ExportReport {
        cluster: exporter.cluster.name.clone(),
        observed: exporter.shard.observed,
        counted: match (&bar, &exporter.counted) {
            (Some(sentence), _) => Err(sentence.clone()),
            (None, Err(why)) => Err(why.sentence(&exporter.cluster.name, &importer.name)),
            (None, Ok(())) => Ok(()),
        },
        liveness: liveness::verdict(state, exporter.cluster.id),
    };
    ServiceReport {
        service: service.clone(),
        importer: importer.name.clone(),
        revision: state.meta.revision,
        exports: weighed.exporters.iter().map(export).collect(),
        not_imported: weighed.not_imported,
        conflicts: weighed.merged.map(|merged| merged.conflicts).unwrap_or_default(),
        decisions: weighed.places.into_iter().map(places::Weighed::decision).collect(),
    }
}

/// Why no export counts for this importer at all.
fn importers_bar(why: &NotImported, importer: &Cluster, service: &ServiceKey) -> Option<String> {
    let (name, namespace) = (&importer.name, &service.namespace);
    match why {
        NotImported::NoExport => None,
        NotImported::NoNamespace => Some(format!(
            "cluster {name} does not import into namespace {namespace}: there is none, or its labels keep it out"
        )),
        NotImported::NotGranted => {
            let grant = &importer.imports;
            Some(format!(
                "the import grant \"{grant}\" of cluster {name} does not cover namespace {namespace}"
            ))
        }
    }
}

fn weigh<'a>(computation: &Computation<'a>, importer: &'a Cluster, service: &ServiceKey) -> Weighed<'a> {
    let state = computation.state();
    let exporters = exporters(computation, importer, service);
    let merged = imports::merge_all(state, service, |id, shard| counts(shard, id, importer).is_ok());
    let not_imported = if merged.is_none() {
        Some(NotImported::NoExport)
    } else if !importer.interest.contains(&service.namespace) {
        Some(NotImported::NoNamespace)
    } else if !importer.imports.covers(&service.namespace) {
        Some(NotImported::NotGranted)
    } else {
        None
    };
    let admitted = merged.as_ref().filter(|_| not_imported.is_none());
    let places = exporters
        .iter()
        .flat_map(|e| places::weigh(computation, importer, e, admitted.map(|m| &m.spec)))
        .collect();
    Weighed { not_imported, merged, exporters, places }
}

/// Every exporter of a service, oldest export first.
fn exporters<'a>(
    computation: &Computation<'a>,
    importer: &Cluster,
    service: &ServiceKey,
) -> Vec<Exporter<'a>> {
    let state = computation.state();
    let mut exporters: Vec<Exporter<'a>> = state
        .shards_of(service)
        .filter_map(|(id, shard)| {
            let cluster = state.clusters.get(&id)?;
            Some(Exporter { cluster, shard, counted: counts(shard, id, importer) })
        })
        .collect();
    exporters.sort_by_key(|e| (e.shard.observed, &e.cluster.name));
    exporters
}

/// A place's own locality, else its cluster's default. The two are not mixed: a zone belongs to its region.
pub(crate) fn effective(own: &Locality, default: &Locality) -> Locality {
    if *own == Locality::default() { default.clone() } else { own.clone() }
}
