//! The EndpointSlices of an import in a cluster: by source cluster, family, ports and whether kube-proxy may use them.

use super::places::{Chosen, Place};
use crate::config::Outbound;
use crate::desired::{
    MANAGER, SLICE_MANAGER, SLICE_SERVICE, SLICE_SOURCE, family_of, slice_name, slice_ports,
};
use sealane_core::name::{ClusterName, PortName};
use sealane_core::service::{IpFamily, ServiceType};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The label by which kube-proxy finds the slices of a Service.
pub const KUBE_PROXY: &str = "kubernetes.io/service-name";
/// The most endpoints in a slice: as many as Kubernetes itself puts there.
const MOST: usize = 100;
/// How full slices are meant to be where a service has several: a change rewrites one of them.
const MEANT: usize = 50;

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

/// The slices of an import. `derived` is the name of its Service, which headless imports have none of.
#[must_use]
pub fn slices(outbound: &Outbound, places: &[Place], derived: &str) -> Vec<Slice> {
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
        for (number, chunk) in chunks(places) {
            let hints = hints.filter(|_| group.chosen);
            let endpoints = chunk.iter().map(|place| endpoint(place, headless, hints)).collect();
            let ports = slice_ports(&import.ports, &group.ports);
            slices.push(Slice {
                name: name(outbound, group, &number),
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

/// The endpoints in slices of at most [`MOST`]. Which slice an endpoint is in depends on its address and, by powers of
/// two, on how many there are: one that comes or goes changes its own slice alone.
fn chunks<'a>(places: &[&'a Place]) -> Vec<(String, Vec<&'a Place>)> {
    if places.len() <= MOST {
        return vec![("0".to_owned(), places.to_vec())];
    }
    let count = places.len().div_ceil(MEANT).next_power_of_two();
    let mut buckets: BTreeMap<usize, Vec<&Place>> = BTreeMap::new();
    for place in places {
        let hash = sealane_trust::sha256(place.address.to_string().as_bytes());
        let bucket = usize::from(u16::from_be_bytes([hash[0], hash[1]])) % count;
        buckets.entry(bucket).or_default().push(place);
    }
    let mut chunks = Vec::new();
    for (bucket, places) in buckets {
        for (number, chunk) in places.chunks(MOST).enumerate() {
            chunks.push((format!("{count}/{bucket}/{number}"), chunk.to_vec()));
        }
    }
    chunks
}

/// Whether kube-proxy may use a slice is not in its name: what is chosen later is the same slice with one more label.
fn name(outbound: &Outbound, group: &Group, number: &str) -> String {
    let ports: Vec<String> = group.ports.iter().map(|(name, port)| format!("{name}={port}")).collect();
    let chosen = if group.chosen { "chosen" } else { "known" };
    let apart = [group.family.as_str(), &ports.join(","), chosen, number].join("/");
    slice_name(&outbound.import.service, &group.cluster, &apart)
}
