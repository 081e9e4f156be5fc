//! What the names of one import answer. Pure: the import and its addresses go in, wherever those come from.

use crate::config::Outbound;
use sealane_core::name::{ClusterName, EndpointId, Hostname, PortName};
use sealane_core::service::{Protocol, ServiceType};
use sealane_core::view::{Import, Path};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Addresses of one import that were given elsewhere than in [`Outbound`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assigned {
    /// The import's own (`spec.ips` of its ServiceImport), in order; none while it has none yet.
    pub addresses: Vec<IpAddr>,
    /// Addresses of this cluster by which single endpoints of other networks are reached. An endpoint of another
    /// network that has none is not answered: its own address means something else here.
    pub endpoints: BTreeMap<(ClusterName, EndpointId), Vec<IpAddr>>,
}

/// What the names of one import answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The ports that have a name; the others have no record.
    pub ports: Vec<NamedPort>,
    /// Where its names lead.
    pub places: Places,
}

/// A port that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name, never empty.
    pub name: PortName,
    /// Its protocol.
    pub protocol: Protocol,
    /// The Service port.
    pub port: u16,
}

/// Where the names of an import lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// To the import's own addresses. There may be none yet: the name exists all the same.
    ClusterSet(Vec<IpAddr>),
    /// To each ready endpoint, in the order of cluster and host; never empty, because a headless service without ready
    /// endpoints has no name.
    Headless(Vec<Instance>),
}

/// One ready endpoint of a headless service, by the name that it has in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its hostname, or else its address with dashes.
    pub host: String,
    /// Its addresses, of either family: endpoints with one hostname are one instance.
    pub addresses: Vec<IpAddr>,
    /// The port of each port name, as it is reached at these addresses.
    pub ports: BTreeMap<PortName, u16>,
}

impl Entry {
    /// The names of an import; `None` when it has none. `assigned` is where its addresses come from, if not from
    /// itself.
    #[must_use]
    pub fn of(outbound: &Outbound, assigned: Option<&Assigned>) -> Option<Entry> {
        let import = &outbound.import;
        let places = match import.service_type {
            ServiceType::ClusterSetIp => {
                Places::ClusterSet(assigned.map_or(&outbound.addresses, |a| &a.addresses).clone())
            }
            ServiceType::Headless => {
                Places::Headless(Some(instances(import, assigned)).filter(|i| !i.is_empty())?)
            }
        };
        let named = import.ports.iter().filter(|port| !port.name.as_str().is_empty());
        let port = |p: &sealane_core::service::Port| NamedPort {
            name: p.name.clone(),
            protocol: p.protocol,
            port: p.port,
        };
        Some(Entry { ports: named.map(port).collect(), places })
    }
}

/// All ready endpoints, whatever their tier: who asks for a headless name chooses for itself.
fn instances(import: &Import, assigned: Option<&Assigned>) -> Vec<Instance> {
    let mut found = Instances::default();
    for candidate in &import.candidates {
        let cluster = &candidate.cluster;
        match &candidate.path {
            Path::Direct { address, ports, hostname, .. } => {
                found.add(cluster, hostname.as_ref(), &[*address], ports);
            }
            Path::Gateway { endpoints, weights, .. } => {
                let ports = import.ports.iter().filter(|p| weights.contains_key(&p.name));
                let ports = ports.map(|p| (p.name.clone(), p.port)).collect();
                for (id, hostname) in endpoints {
                    let key = (cluster.clone(), id.clone());
                    if let Some(addresses) = assigned.and_then(|a| a.endpoints.get(&key)) {
                        found.add(cluster, hostname.as_ref(), addresses, &ports);
                    }
                }
            }
        }
    }
    found.into_ordered()
}

#[derive(Default)]
struct Instances(BTreeMap<(ClusterName, String), Instance>);

impl Instances {
    fn add(
        &mut self,
        cluster: &ClusterName,
        hostname: Option<&Hostname>,
        addresses: &[IpAddr],
        ports: &BTreeMap<PortName, u16>,
    ) {
        let Some(first) = addresses.first() else { return };
        let host = hostname.map_or_else(|| dashed(*first), ToString::to_string);
        let instance = self.0.entry((cluster.clone(), host.clone())).or_insert_with(|| Instance {
            cluster: cluster.clone(),
            host,
            addresses: Vec::new(),
            ports: BTreeMap::new(),
        });
        for address in addresses {
            if !instance.addresses.contains(address) {
                instance.addresses.push(*address);
            }
        }
        instance.ports.extend(ports.iter().map(|(name, port)| (name.clone(), *port)));
    }

    fn into_ordered(self) -> Vec<Instance> {
        self.0.into_values().collect()
    }
}

/// An address as a label, as CoreDNS writes it.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
