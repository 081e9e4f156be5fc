//! The EndpointSlices of an import in a cluster: by source cluster, family, ports and whether kube-proxy may use them.

mod pack;

use super::observed::Scene;
use super::places::{Chosen, Place};
use super::seen::{Kind, Owner};
use crate::config::Outbound;
use crate::desired::{
    MANAGER, SLICE_MANAGER, SLICE_SERVICE, SLICE_SOURCE, family_of, slice_name, slice_ports,
};
use pack::{Packs, pack};
use sealane_core::name::{ClusterName, PortName};
use sealane_core::service::{IpFamily, ServiceType};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The label by which kube-proxy finds the slices of a Service.
pub const KUBE_PROXY: &str = "kubernetes.io/service-name";

/// A slice without its owner and revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Its name.
    pub name: String,
    /// Whether kube-proxy may use it.
    pub chosen: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The family of its addresses.
    pub family: IpFamily,
    /// Its endpoints.
    pub endpoints: Vec<Value>,
    /// Its ports.
    pub ports: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    cluster: ClusterName,
    family: IpFamily,
    chosen: bool,
    ports: BTreeMap<PortName, u16>,
}

/// The slices of an import, as few others as can be than those that are there. `derived` is the name of its Service, which
/// headless imports have none of.
#[must_use]
pub fn slices(outbound: &Outbound, places: &[Place], derived: &str, scene: &Scene) -> Vec<Slice> {
    let import = &outbound.import;
    let headless = import.service_type == ServiceType::Headless;
    let chosen = Chosen::of(outbound, places);
    let mut groups: BTreeMap<Group, Vec<&Place>> = BTreeMap::new();
    for place in places {
        for (chosen, ports) in chosen.split(place) {
            // A headless service need not have ports.
            let bare = headless && !chosen && place.ports.is_empty();
            if !ports.is_empty() || bare {
                let family = family_of(place.address);
                let group = Group { cluster: place.cluster.clone(), family, chosen, ports };
                groups.entry(group).or_default().push(place);
            }
        }
    }
    let hints = Hints::of(outbound, &groups);
    let mut slices = Vec::new();
    for (group, places) in &groups {
        let (base, hints) = (base(outbound, group), hints.filter(|_| group.chosen));
        // An endpoint is its address: of two that share one the first is meant.
        let places: BTreeMap<IpAddr, &Place> =
            places.iter().rev().map(|place| (place.address, *place)).collect();
        let wanted: BTreeSet<IpAddr> = places.keys().copied().collect();
        for (number, addresses) in pack(&there(scene, &base), &wanted) {
            let held = addresses.iter().filter_map(|address| places.get(address));
            let endpoints = held.map(|place| endpoint(place, headless, hints)).collect();
            let ports = slice_ports(&import.ports, &group.ports);
            slices.push(Slice {
                name: name(&base, number),
                chosen: group.chosen,
                labels: labels(outbound, group, derived),
                family: group.family,
                endpoints,
                ports: ports.iter().map(|p| json!(p)).collect(),
            });
        }
    }
    // What kube-proxy begins to use comes before what it leaves.
    slices.sort_by(|a, b| (!a.chosen, &a.name).cmp(&(!b.chosen, &b.name)));
    slices
}

/// Where kube-proxy is told to stay near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hints {
    Zone,
    Node,
}

impl Hints {
    /// `trafficDistribution` takes effect by hints. kube-proxy heeds them only where every endpoint has one.
    fn of(outbound: &Outbound, groups: &BTreeMap<Group, Vec<&Place>>) -> Option<Self> {
        let wanted = match outbound.import.traffic_distribution.as_deref()? {
            "PreferClose" | "PreferSameZone" => Hints::Zone,
            "PreferSameNode" => Hints::Node,
            _ => return None,
        };
        let chosen: Vec<&Place> = groups
            .iter()
            .filter(|(group, _)| group.chosen)
            .flat_map(|(_, places)| places.iter().copied())
            .collect();
        if wanted == Hints::Node && chosen.iter().all(|place| place.node.is_some()) {
            return Some(Hints::Node);
        }
        // Only this cluster's own endpoints have a node.
        chosen.iter().all(|place| place.zone.is_some()).then_some(Hints::Zone)
    }
}

fn endpoint(place: &Place, headless: bool, hints: Option<Hints>) -> Value {
    let mut endpoint = json!({ "addresses": [place.address], "conditions": { "ready": true } });
    if let Some(hostname) = place.hostname.as_ref().filter(|_| headless) {
        endpoint["hostname"] = json!(hostname.as_str());
    }
    if let Some(zone) = &place.zone {
        endpoint["zone"] = json!(zone.as_str());
        if hints.is_some() {
            endpoint["hints"] = json!({ "forZones": [{ "name": zone.as_str() }] });
        }
    }
    if let Some(node) = &place.node {
        endpoint["nodeName"] = json!(node);
        if hints == Some(Hints::Node) {
            endpoint["hints"]["forNodes"] = json!([{ "name": node }]);
        }
    }
    endpoint
}

fn labels(outbound: &Outbound, group: &Group, derived: &str) -> BTreeMap<String, String> {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut labels = BTreeMap::from([
        label(SLICE_SERVICE, outbound.import.service.name.as_str()),
        label(SLICE_SOURCE, group.cluster.as_str()),
        label(SLICE_MANAGER, MANAGER),
    ]);
    if group.chosen {
        labels.extend([label(KUBE_PROXY, derived)]);
    }
    labels
}

/// The name of a group's first slice. It says whether kube-proxy may use it: kube-proxy would go on with the endpoints of a
/// slice that loses its label, so that what is chosen later, or no more, is in another slice.
fn base(outbound: &Outbound, group: &Group) -> String {
    let ports: Vec<String> = group.ports.iter().map(|(name, port)| format!("{name}={port}")).collect();
    let chosen = if group.chosen { "chosen" } else { "known" };
    let apart = [group.family.as_str(), &ports.join(","), chosen, "0"].join("/");
    slice_name(&outbound.import.service, &group.cluster, &apart)
}

/// The name of one of its slices.
fn name(base: &str, number: usize) -> String {
    if number == 0 { base.to_owned() } else { format!("{base}-{number}") }
}

/// Which slice of a group has this name.
fn number(base: &str, name: &str) -> Option<usize> {
    match name.strip_prefix(base)? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse().ok().filter(|number| *number > 0),
    }
}

/// The slices of a group that are there. What others made is none of them.
fn there(scene: &Scene, base: &str) -> Packs {
    let ours = scene.of(Kind::Slice).filter(|(_, seen)| !matches!(seen.owner, Owner::Foreign(_)));
    let numbered = ours.filter_map(|(key, seen)| Some((number(base, &key.name)?, seen)));
    numbered.map(|(number, seen)| (number, seen.addresses.iter().copied().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_s_name_tells_its_number_in_its_group() {
        for at in [0, 1, 10] {
            assert_eq!(number("web-west-abc", &name("web-west-abc", at)), Some(at));
        }
        for other in ["web-west-abd", "web-west-abc-", "web-west-abc-x", "web-west-abc-0", "web-west-abc-1-1"]
        {
            assert_eq!(number("web-west-abc", other), None, "{other}");
        }
    }
}
