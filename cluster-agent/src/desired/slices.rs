//! EndpointSlices of imports: one for each source cluster, family and set of target ports.

use super::MANAGER;
use super::imports::family_of;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sealane_core::endpoint::{GatewayHost, Locality};
use sealane_core::name::{ClusterName, PortName, ServiceKey};
use sealane_core::service::Port;
use sealane_core::view::{Import, Path};
use std::collections::BTreeMap;

/// The most endpoints in a slice, by the API.
const CHUNK: usize = 1_000;
/// The label that names the service of a slice of another, or this, cluster.
pub const SLICE_SERVICE: &str = "multicluster.kubernetes.io/service-name";
/// The label that names the cluster that a slice's endpoints are in.
pub const SLICE_SOURCE: &str = "multicluster.kubernetes.io/source-cluster";
/// The label that names a slice's manager.
pub const SLICE_MANAGER: &str = "endpointslice.kubernetes.io/managed-by";

/// What the endpoints of one slice have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    cluster: ClusterName,
    /// `IPv4`, `IPv6` or `FQDN`.
    addresses: &'static str,
    /// `direct` or `gateway`.
    path: &'static str,
    ports: BTreeMap<PortName, u16>,
}

/// The slices of an import, as files.
#[must_use]
pub fn slices(import: &Import) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for candidate in &import.candidates {
        let (group, endpoint) = place(import, &candidate.cluster, &candidate.path);
        groups.entry(group).or_default().push(endpoint);
    }
    let mut out = Vec::new();
    for (group, endpoints) in groups {
        for (number, chunk) in endpoints.chunks(CHUNK).enumerate() {
            out.push(slice(import, &group, number, chunk.to_vec()));
        }
    }
    out
}

fn place(import: &Import, cluster: &ClusterName, path: &Path) -> (Group, Endpoint) {
    match path {
        Path::Direct { address, ports, locality, hostname, .. } => {
            let group = Group {
                cluster: cluster.clone(),
                addresses: family_of(*address).as_str(),
                path: "direct",
                ports: ports.clone(),
            };
            let hostname = hostname.as_ref().map(ToString::to_string);
            (group, endpoint(address.to_string(), locality, hostname))
        }
        Path::Gateway { address, locality, weights, .. } => {
            let addresses = match &address.host {
                GatewayHost::Ip(ip) => family_of(*ip).as_str(),
                GatewayHost::Dns(_) => "FQDN",
            };
            // Whatever the port, the gateway is dialled at its own; it goes by the name that is asked for.
            let names = import.ports.iter().map(|p| &p.name).filter(|name| weights.contains_key(*name));
            let ports = names.map(|name| (name.clone(), address.port)).collect();
            let group = Group { cluster: cluster.clone(), addresses, path: "gateway", ports };
            (group, endpoint(address.host.to_string(), locality, None))
        }
    }
}

fn endpoint(address: String, locality: &Locality, hostname: Option<String>) -> Endpoint {
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        hostname,
        zone: locality.zone.as_ref().map(ToString::to_string),
        ..Endpoint::default()
    }
}

fn slice(import: &Import, group: &Group, number: usize, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let labels = BTreeMap::from([
        label(SLICE_SERVICE, import.service.name.as_str()),
        label(SLICE_SOURCE, group.cluster.as_str()),
        label(SLICE_MANAGER, MANAGER),
    ]);
    let metadata = ObjectMeta {
        name: Some(name(import, group, number)),
        namespace: Some(import.service.namespace.to_string()),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([label("sealane.dev/path", group.path)])),
        ..ObjectMeta::default()
    };
    EndpointSlice {
        address_type: group.addresses.to_owned(),
        endpoints: Some(endpoints),
        metadata,
        ports: Some(slice_ports(&import.ports, &group.ports)),
    }
}

/// The ports of a slice: those of the import that have a target.
#[must_use]
pub fn slice_ports(ports: &[Port], targets: &BTreeMap<PortName, u16>) -> Vec<EndpointPort> {
    let made = ports.iter().filter_map(|p| {
        let target = targets.get(&p.name)?;
        Some(EndpointPort {
            app_protocol: p.app_protocol.clone(),
            name: Some(p.name.to_string()),
            port: Some(i32::from(*target)),
            protocol: Some(p.protocol.as_str().to_owned()),
        })
    });
    made.collect()
}

fn name(import: &Import, group: &Group, number: usize) -> String {
    let ports: Vec<String> = group.ports.iter().map(|(name, port)| format!("{name}={port}")).collect();
    let apart = [group.addresses, group.path, &ports.join(","), &number.to_string()].join("/");
    slice_name(&import.service, &group.cluster, &apart)
}

/// A name that says what it can and is unique by a hash of what sets the slice apart.
#[must_use]
pub fn slice_name(service: &ServiceKey, cluster: &ClusterName, apart: &str) -> String {
    let hash = sealane_trust::sha256(format!("{service}/{cluster}/{apart}").as_bytes());
    let hash = data_encoding::BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
    format!("{}-{cluster}-{}", service.name, &hash[..10])
}
