//! The endpoints of a service: its slices joined with pods and nodes.

use super::Own;
use crate::index::{Index, Node, Pod, PodKey, Slice, SliceEndpoint, SliceKey};
use sealane_core::endpoint::{Endpoint, Locality};
use sealane_core::identity::SpiffeId;
use sealane_core::name::{EndpointId, NetworkName, PortName, ServiceKey};
use sealane_core::service::{ExportSpec, IpFamily};
use std::collections::BTreeMap;

/// An endpoint with what stands behind it in this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The endpoint, as other clusters learn of it.
    pub endpoint: Endpoint,
    /// The pod, where there is one.
    pub pod: Option<PodKey>,
    /// The name of its node, where it is known: for this cluster's own use.
    pub node: Option<String>,
}

/// The id of an endpoint by what it is made of.
#[must_use]
pub fn endpoint_id(seed: &str) -> EndpointId {
    let hash = sealane_trust::sha256(seed.as_bytes());
    let text = data_encoding::BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
    EndpointId::parse(&format!("e-{}", &text[..13]))
        .expect("base32 in lower case is what an endpoint id is made of")
}

pub(super) fn join(
    index: &Index,
    own: &Own,
    key: &ServiceKey,
    spec: &ExportSpec,
    notes: &mut Vec<String>,
) -> BTreeMap<EndpointId, Backend> {
    let mut backends: BTreeMap<EndpointId, Backend> = BTreeMap::new();
    for (slice_key, slice) in index.slices_of(key) {
        let ports = target_ports(slice, spec);
        for given in &slice.endpoints {
            let pod = index.pod_of(&slice_key.namespace, given);
            if let (Some(name), None) = (&given.pod, pod) {
                notes.push(format!("EndpointSlice {}: there is no Pod {name}", slice_key.name));
            }
            let seed = seed(slice_key, slice, given, pod);
            let endpoint = endpoint(index, own, key, given, pod, endpoint_id(&seed), ports.clone());
            let node = node_name(given, pod).cloned();
            add(&mut backends, &seed, Backend { endpoint, pod: pod.map(|(key, _)| key.clone()), node });
        }
    }
    backends
}

/// Two slices may hold one endpoint with different ports (then it has both), and one pod may have several addresses
/// of one family (then each is an endpoint).
fn add(backends: &mut BTreeMap<EndpointId, Backend>, seed: &str, mut backend: Backend) {
    if let Some(other) = backends.get_mut(&backend.endpoint.id) {
        if other.endpoint.address == backend.endpoint.address {
            other.endpoint.ready |= backend.endpoint.ready;
            other.endpoint.ports.extend(backend.endpoint.ports);
            return;
        }
        backend.endpoint.id = endpoint_id(&format!("{seed}/{}", backend.endpoint.address));
    }
    backends.insert(backend.endpoint.id.clone(), backend);
}

/// What an endpoint's id is made of: stable for the life of its pod, or else of its place in its slice.
fn seed(key: &SliceKey, slice: &Slice, given: &SliceEndpoint, pod: Option<(&PodKey, &Pod)>) -> String {
    let base = match pod {
        Some((_, Pod { uid: Some(uid), .. })) => uid.clone(),
        Some((pod, _)) => format!("pod/{pod}"),
        None => return format!("{}/{}/{}", key.namespace, key.name, given.address),
    };
    match slice.family {
        IpFamily::V4 => base,
        IpFamily::V6 => format!("{base}/IPv6"),
    }
}

fn endpoint(
    index: &Index,
    own: &Own,
    service: &ServiceKey,
    given: &SliceEndpoint,
    pod: Option<(&PodKey, &Pod)>,
    id: EndpointId,
    ports: BTreeMap<PortName, u16>,
) -> Endpoint {
    let identity =
        |(_, pod): (&PodKey, &Pod)| SpiffeId::workload(&own.trust_domain, &service.namespace, &pod.account);
    Endpoint {
        id,
        address: given.address,
        ports,
        ready: given.ready,
        locality: locality(index, own, given, pod),
        spiffe_id: pod.map(identity),
        inbound_port: pod.and_then(|(_, pod)| pod.inbound_port),
        hostname: given.hostname.clone(),
        network: network(index, given, pod),
    }
}

/// Its pod's, else its node's; `None` is the cluster's.
fn network(index: &Index, given: &SliceEndpoint, pod: Option<(&PodKey, &Pod)>) -> Option<NetworkName> {
    let of_pod = pod.and_then(|(_, pod)| pod.network.clone());
    of_pod.or_else(|| node(index, given, pod).and_then(|node| node.network.clone()))
}

fn node<'a>(index: &'a Index, given: &SliceEndpoint, pod: Option<(&PodKey, &Pod)>) -> Option<&'a Node> {
    node_name(given, pod).and_then(|name| index.nodes.get(name))
}

fn node_name<'a>(given: &'a SliceEndpoint, pod: Option<(&PodKey, &'a Pod)>) -> Option<&'a String> {
    given.node.as_ref().or(pod.and_then(|(_, pod)| pod.node.as_ref()))
}

/// By its node's labels, else its slice's zone, else the cluster's own: region and zone come from one of them, because a
/// zone belongs to its region. Only where a zone is said alone, and the cluster's own region may hold it, they meet.
fn locality(index: &Index, own: &Own, given: &SliceEndpoint, pod: Option<(&PodKey, &Pod)>) -> Locality {
    let node = node(index, given, pod);
    let region = node.and_then(|n| n.region.clone());
    let zone = node.and_then(|n| n.zone.clone());
    match (region, zone.or_else(|| given.zone.clone().filter(|_| node.is_none_or(|n| n.region.is_none())))) {
        (Some(region), zone) => Locality { region: Some(region), zone },
        (None, Some(zone)) => {
            let holds = own.locality.zone.as_ref().is_none_or(|own| *own == zone);
            Locality { region: own.locality.region.clone().filter(|_| holds), zone: Some(zone) }
        }
        (None, None) => own.locality.clone(),
    }
}

/// The target port of each Service port that the slice serves: they have the same name and protocol.
fn target_ports(slice: &Slice, spec: &ExportSpec) -> BTreeMap<PortName, u16> {
    let serves = |p: &&crate::index::SlicePort| {
        spec.ports.iter().any(|s| (&s.name, s.protocol) == (&p.name, p.protocol))
    };
    slice.ports.iter().filter(serves).map(|p| (p.name.clone(), p.port)).collect()
}
