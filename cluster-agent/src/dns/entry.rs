//! What the names of one import answer. Pure: the import and its addresses go in, wherever those come from.
//!
//! An endpoint behind a gateway has no name of its own: its address means something else in this network.

use crate::config::Outbound;
use sealane_core::name::{ClusterName, Hostname, PortName};
use sealane_core::service::{IpFamily, Protocol, ServiceType};
use sealane_core::view::{Import, Path};
use std::collections::BTreeMap;
use std::net::IpAddr;

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
    /// To the import's own addresses; none while it was given none.
    ClusterSet {
        /// These.
        own: Vec<IpAddr>,
        /// The families of which one may yet come.
        awaited: Vec<IpFamily>,
    },
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
    /// The names of an import; `None` when it has none.
    #[must_use]
    pub fn of(outbound: &Outbound) -> Option<Entry> {
        let import = &outbound.import;
        let places = match import.service_type {
            ServiceType::ClusterSetIp => {
                Places::ClusterSet { own: outbound.addresses.clone(), awaited: outbound.awaited.clone() }
            }
            ServiceType::Headless => Places::Headless(Some(instances(import)).filter(|i| !i.is_empty())?),
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

/// All ready endpoints that are reached at their own address, whatever their tier: who asks for a headless name chooses
/// for itself.
fn instances(import: &Import) -> Vec<Instance> {
    let mut found: BTreeMap<(&ClusterName, String), Instance> = BTreeMap::new();
    for candidate in &import.candidates {
        let Path::Direct { address, ports, hostname, .. } = &candidate.path else { continue };
        let host = host(hostname.as_ref(), *address);
        let instance = found.entry((&candidate.cluster, host.clone())).or_insert_with(|| Instance {
            cluster: candidate.cluster.clone(),
            host,
            addresses: Vec::new(),
            ports: BTreeMap::new(),
        });
        if !instance.addresses.contains(address) {
            instance.addresses.push(*address);
        }
        instance.ports.extend(ports.iter().map(|(name, port)| (name.clone(), *port)));
    }
    found.into_values().collect()
}

fn host(hostname: Option<&Hostname>, address: IpAddr) -> String {
    hostname.map_or_else(|| dashed(address), ToString::to_string)
}

/// An address as a label, as CoreDNS writes it.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
