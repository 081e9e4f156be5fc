//! Endpoints, gateways and where they are.

use crate::identity::SpiffeId;
use crate::name::{DnsName, EndpointId, Hostname, NetworkName, PortName, TopologyName};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A region and a zone, either of which may be unknown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    pub region: Option<TopologyName>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<TopologyName>,
}

/// One backend of an exported Service, as its own cluster publishes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its id, stable for the life of its pod.
    pub id: EndpointId,
    /// Its address within its network.
    pub address: IpAddr,
    /// The target port of each Service port that it really has, by Service port name.
    pub ports: BTreeMap<PortName, u16>,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Where it is.
    pub locality: Locality,
    /// The workload's identity; `None` where the pod's ServiceAccount is not known (then no proxy serves it).
    pub spiffe_id: Option<SpiffeId>,
    /// The port of its inbound proxy; `None` when the pod has none and only its own gateway can serve it.
    pub inbound_port: Option<u16>,
    /// Its hostname, in a headless service.
    pub hostname: Option<Hostname>,
    /// Its network, where it differs from its cluster's default.
    pub network: Option<NetworkName>,
}

/// The host part of a gateway's address; clouds often give a DNS name only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayHost {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A name, resolved by the importer with respect to its TTL.
    Dns(DnsName),
}

impl fmt::Display for GatewayHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GatewayHost::Ip(ip) => write!(f, "{ip}"),
            GatewayHost::Dns(name) => write!(f, "{name}"),
        }
    }
}

/// Where a gateway is dialled: host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayAddress {
    /// The host.
    pub host: GatewayHost,
    /// The port, never 0.
    pub port: u16,
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            GatewayHost::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            GatewayHost::Dns(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// One east-west gateway of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// Where importers dial it.
    pub address: GatewayAddress,
    /// The network whose endpoints it reaches (its cluster's default unless it says otherwise).
    pub network: NetworkName,
    /// Where it is.
    pub locality: Locality,
    /// Its share among the gateways of its cluster, 0 to take no new connections.
    pub weight: u32,
    /// Whether it takes new connections.
    pub ready: bool,
}
