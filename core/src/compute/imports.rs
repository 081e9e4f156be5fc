//! The merge of exports into one import, with its conflicts (KEP-1645).

use super::ports;
use crate::identity::ClusterId;
use crate::name::{ClusterName, ServiceKey};
use crate::service::{Export, ExportSpec, IpFamily, Port, ServiceType};
use crate::state::{Shard, State};
use crate::view::{Conflict, ConflictField};
use std::collections::{BTreeMap, BTreeSet};

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
type Voice<'a> = (&'a ClusterName, &'a ExportSpec);

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
        ip_families: common_families(&voices),
        ..first.clone()
    };
    let conflicts = conflicts(&voices, &spec);
    let clusters = voices.iter().map(|(name, _)| (*name).clone()).collect();
    Some(Merged { spec, oldest: oldest.clone(), clusters, conflicts })
}

/// The families that every exporter has, in the oldest's order; the oldest's own where they share none. An exporter
/// that names none (it has no endpoint yet) has no say.
fn common_families(voices: &[Voice<'_>]) -> Vec<IpFamily> {
    let mut told = voices.iter().map(|(_, spec)| &spec.ip_families).filter(|families| !families.is_empty());
    let Some(first) = told.next() else { return Vec::new() };
    let rest: Vec<&Vec<IpFamily>> = told.collect();
    let common: Vec<IpFamily> =
        first.iter().copied().filter(|family| rest.iter().all(|other| other.contains(family))).collect();
    if common.is_empty() { first.clone() } else { common }
}

fn conflicts(voices: &[Voice<'_>], merged: &ExportSpec) -> Vec<Conflict> {
    let first = voices[0].1;
    // Affinity means nothing to a headless import, so it can not be in conflict there.
    let affine = merged.service_type != ServiceType::Headless;
    let rows: [(ConflictField, bool, String, &dyn Fn(&ExportSpec) -> bool); 9] = [
        (ConflictField::Port, true, show_ports(&merged.ports), &|s| port_set(s) == port_set(first)),
        (ConflictField::Type, true, first.service_type.as_str().to_owned(), &|s| {
            s.service_type == first.service_type
        }),
        (ConflictField::SessionAffinity, affine, format!("{:?}", first.session_affinity), &|s| {
            s.session_affinity == first.session_affinity
        }),
        (ConflictField::SessionAffinityConfig, affine, show_timeout(first), &|s| {
            s.session_affinity_timeout_s == first.session_affinity_timeout_s
        }),
        (ConflictField::InternalTrafficPolicy, true, format!("{:?}", first.internal_traffic_policy), &|s| {
            s.internal_traffic_policy == first.internal_traffic_policy
        }),
        (
            ConflictField::TrafficDistribution,
            true,
            first.traffic_distribution.clone().unwrap_or_else(|| "none".to_owned()),
            &|s| s.traffic_distribution == first.traffic_distribution,
        ),
        (ConflictField::Labels, true, show_map(&first.labels), &|s| s.labels == first.labels),
        (ConflictField::Annotations, true, show_map(&first.annotations), &|s| {
            s.annotations == first.annotations
        }),
        (ConflictField::IpFamily, true, show_families(&merged.ip_families), &|s| {
            s.ip_families.is_empty() || family_set(&s.ip_families) == family_set(&merged.ip_families)
        }),
    ];
    let row = |(field, applies, value, agrees): (_, bool, String, &dyn Fn(&ExportSpec) -> bool)| {
        applies.then(|| conflict(voices, field, &value, agrees)).flatten()
    };
    rows.into_iter().filter_map(row).collect()
}

fn conflict(
    voices: &[Voice<'_>],
    field: ConflictField,
    value: &str,
    agrees: &dyn Fn(&ExportSpec) -> bool,
) -> Option<Conflict> {
    let disagree = voices.iter().filter(|(_, spec)| !agrees(spec)).count();
    if disagree == 0 {
        return None;
    }
    let (subject, source) = wording(field);
    let (oldest, all) = (voices[0].0, voices.len());
    let message = format!(
        "Conflicting {subject}. Using \"{}\" {source} \"{oldest}\". {disagree}/{all} clusters disagree.",
        shorten(value)
    );
    Some(Conflict { field, message })
}

/// The name of a field and where the used value comes from: what is merged does not come from the oldest alone.
fn wording(field: ConflictField) -> (&'static str, &'static str) {
    const OLDEST: &str = "from oldest service export in";
    match field {
        ConflictField::Port => ("ports", "merged from all service exports, oldest first from the one in"),
        ConflictField::Type => ("type", OLDEST),
        ConflictField::SessionAffinity => ("sessionAffinity", OLDEST),
        ConflictField::SessionAffinityConfig => ("sessionAffinityConfig", OLDEST),
        ConflictField::InternalTrafficPolicy => ("internalTrafficPolicy", OLDEST),
        ConflictField::TrafficDistribution => ("trafficDistribution", OLDEST),
        ConflictField::Labels => ("exportedLabels", OLDEST),
        ConflictField::Annotations => ("exportedAnnotations", OLDEST),
        ConflictField::IpFamily => {
            ("ipFamilies", "common to the service exports, in the order of the oldest one in")
        }
    }
}

fn port_set(spec: &ExportSpec) -> BTreeSet<&Port> {
    spec.ports.iter().collect()
}

fn family_set(families: &[IpFamily]) -> BTreeSet<IpFamily> {
    families.iter().copied().collect()
}

fn show_ports(ports: &[Port]) -> String {
    let show = |port: &Port| match port.name.as_str() {
        "" => format!("{}/{}", port.port, port.protocol),
        name => format!("{name} {}/{}", port.port, port.protocol),
    };
    ports.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn show_timeout(spec: &ExportSpec) -> String {
    spec.session_affinity_timeout_s.map_or_else(|| "none".to_owned(), |s| format!("timeoutSeconds: {s}"))
}

fn show_map(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn show_families(families: &[IpFamily]) -> String {
    let show = |family: &IpFamily| match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    };
    families.iter().map(show).collect::<Vec<_>>().join(",")
}

/// A value short enough for a condition's message.
fn shorten(value: &str) -> String {
    const MOST: usize = 160;
    if value.chars().count() <= MOST {
        return value.to_owned();
    }
    let kept: String = value.chars().take(MOST).collect();
    format!("{kept}…")
}
