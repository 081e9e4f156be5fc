//! Services and their exports, as the MCS API (KEP-1645) describes them.

use crate::name::{ClusterName, PortName};
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod validity;

pub use validity::{ServiceFacts, ServiceKind, export_of};

/// A transport protocol of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One port of a Service as its clients see it (no target port, no node port).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The name, empty where the only port is unnamed.
    pub name: PortName,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The Service port, never 0.
    pub port: u16,
    /// The application protocol, as stated by the Service.
    pub app_protocol: Option<String>,
}

impl fmt::Display for Port {
    /// As people name it: `http 80/TCP`, without a name `80/TCP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.as_str().is_empty() {
            write!(f, "{} ", self.name)?;
        }
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// The type of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceType {
    /// Reached by one clusterset IP.
    ClusterSetIp,
    /// Reached by the addresses of its endpoints.
    Headless,
}

impl ServiceType {
    /// The name as the MCS API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterSetIp => "ClusterSetIP",
            ServiceType::Headless => "Headless",
        }
    }
}

/// `sessionAffinity`, with the time-out of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SessionAffinity {
    /// No affinity.
    #[default]
    None,
    /// One client address keeps its endpoint.
    ClientIp,
}

impl SessionAffinity {
    /// The name as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SessionAffinity::None => "None",
            SessionAffinity::ClientIp => "ClientIP",
        }
    }
}

/// `internalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum InternalTrafficPolicy {
    /// Any endpoint.
    #[default]
    Cluster,
    /// Endpoints of the client's own node only.
    Local,
}

impl InternalTrafficPolicy {
    /// The name as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            InternalTrafficPolicy::Cluster => "Cluster",
            InternalTrafficPolicy::Local => "Local",
        }
    }
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The name as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        }
    }
}

/// Why a ServiceExport exports nothing (the reasons of its condition `Valid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invalid {
    /// There is no Service of that name.
    NoService,
    /// The Service is of type ExternalName.
    InvalidServiceType,
}

impl Invalid {
    /// The standard reason.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Invalid::NoService => "NoService",
            Invalid::InvalidServiceType => "InvalidServiceType",
        }
    }
}

/// What a valid export says of its Service: the properties that importers see, and that can conflict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportSpec {
    /// Headless or not.
    pub service_type: ServiceType,
    /// The ports, in the Service's order; at most [`crate::state::Limits::ports`].
    pub ports: Vec<Port>,
    /// Session affinity.
    pub session_affinity: SessionAffinity,
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`.
    pub session_affinity_timeout_s: Option<u32>,
    /// Internal traffic policy.
    pub internal_traffic_policy: InternalTrafficPolicy,
    /// `trafficDistribution`, such as `PreferClose`.
    pub traffic_distribution: Option<String>,
    /// The families that the Service's endpoints have, in order.
    pub ip_families: Vec<IpFamily>,
    /// From the ServiceExport's spec only, never from metadata.
    pub labels: BTreeMap<String, String>,
    /// From the ServiceExport's spec only, never from metadata.
    pub annotations: BTreeMap<String, String>,
}

/// One ServiceExport of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Export {
    /// The exported properties, or why there are none.
    pub spec: Result<ExportSpec, Invalid>,
    /// The clusters allowed to import it; `None` means every cluster.
    pub importers: Option<BTreeSet<ClusterName>>,
    /// `metadata.creationTimestamp`: shown, never compared (clocks of different API servers do not compare).
    pub created: Millis,
}
