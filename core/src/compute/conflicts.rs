//! Conflicts between the exports of one service, and how they are told (KEP-1645).

use super::imports::{Voice, families};
use crate::service::{ExportSpec, IpFamily, Port, ServiceType};
use crate::view::{Conflict, ConflictField};
use std::collections::{BTreeMap, BTreeSet};

const FIELDS: [ConflictField; 9] = [
    ConflictField::Port,
    ConflictField::Type,
    ConflictField::SessionAffinity,
    ConflictField::SessionAffinityConfig,
    ConflictField::InternalTrafficPolicy,
    ConflictField::TrafficDistribution,
    ConflictField::Labels,
    ConflictField::Annotations,
    ConflictField::IpFamily,
];

/// The conflicts of these exports, oldest first; there is at least one of them, and `merged` is what they merge to.
pub(super) fn conflicts(voices: &[Voice<'_>], merged: &ExportSpec) -> Vec<Conflict> {
    FIELDS.into_iter().filter_map(|field| conflict(voices, merged, field)).collect()
}

fn conflict(voices: &[Voice<'_>], merged: &ExportSpec, field: ConflictField) -> Option<Conflict> {
    let (oldest, first) = *voices.first()?;
    let disagree = voices.iter().filter(|(_, spec)| !agrees(field, spec, first, merged)).count();
    if disagree == 0 {
        return None;
    }
    let winner = match field {
        ConflictField::IpFamily => families(voices).map_or(oldest, |(cluster, _)| cluster),
        _ => oldest,
    };
    let ((subject, source), all) = (wording(field), voices.len());
    let value = shorten(&shown(field, merged));
    let message = format!(
        "Conflicting {subject}. Using \"{value}\" {source} \"{winner}\". {disagree}/{all} clusters disagree."
    );
    Some(Conflict { field, message })
}

/// Whether an export agrees with the oldest one in a property (for families: with the oldest that has any).
fn agrees(field: ConflictField, spec: &ExportSpec, first: &ExportSpec, merged: &ExportSpec) -> bool {
    // Affinity means nothing to a headless import, so it can not be in conflict there.
    let headless = merged.service_type == ServiceType::Headless;
    match field {
        ConflictField::Port => port_set(spec) == port_set(first),
        ConflictField::Type => spec.service_type == first.service_type,
        ConflictField::SessionAffinity => headless || spec.session_affinity == first.session_affinity,
        ConflictField::SessionAffinityConfig => {
            headless || spec.session_affinity_timeout_s == first.session_affinity_timeout_s
        }
        ConflictField::InternalTrafficPolicy => spec.internal_traffic_policy == first.internal_traffic_policy,
        ConflictField::TrafficDistribution => spec.traffic_distribution == first.traffic_distribution,
        ConflictField::Labels => spec.labels == first.labels,
        ConflictField::Annotations => spec.annotations == first.annotations,
        ConflictField::IpFamily => {
            spec.ip_families.is_empty() || family_set(&spec.ip_families) == family_set(&merged.ip_families)
        }
    }
}

/// The value that importers get.
fn shown(field: ConflictField, merged: &ExportSpec) -> String {
    match field {
        ConflictField::Port => show_ports(&merged.ports),
        ConflictField::Type => merged.service_type.as_str().to_owned(),
        ConflictField::SessionAffinity => merged.session_affinity.as_str().to_owned(),
        ConflictField::SessionAffinityConfig => show_timeout(merged),
        ConflictField::InternalTrafficPolicy => merged.internal_traffic_policy.as_str().to_owned(),
        ConflictField::TrafficDistribution => {
            merged.traffic_distribution.clone().unwrap_or_else(|| "none".to_owned())
        }
        ConflictField::Labels => show_map(&merged.labels),
        ConflictField::Annotations => show_map(&merged.annotations),
        ConflictField::IpFamily => show_families(&merged.ip_families),
    }
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
        ConflictField::IpFamily => ("ipFamilies", OLDEST),
    }
}

fn port_set(spec: &ExportSpec) -> BTreeSet<&Port> {
    spec.ports.iter().collect()
}

fn family_set(families: &[IpFamily]) -> BTreeSet<IpFamily> {
    families.iter().copied().collect()
}

fn show_ports(ports: &[Port]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn show_timeout(spec: &ExportSpec) -> String {
    spec.session_affinity_timeout_s.map_or_else(|| "none".to_owned(), |s| format!("timeoutSeconds: {s}"))
}

fn show_map(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn show_families(families: &[IpFamily]) -> String {
    families.iter().map(|family| family.as_str()).collect::<Vec<_>>().join(",")
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
