//! The spec and status of ServiceImports (`multicluster.x-k8s.io/v1beta1`).

use super::condition::Condition;
use sealane_core::name::ClusterName;
use sealane_core::service::{IpFamily, Port, ServiceType, SessionAffinity};
use sealane_core::view::Import;
use serde::Serialize;
use std::net::IpAddr;

/// The spec of a ServiceImport.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportSpec {
    #[serde(rename = "type")]
    kind: &'static str,
    ports: Vec<SpecPort>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ip_families: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_affinity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_affinity_config: Option<SessionAffinityConfig>,
    internal_traffic_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_distribution: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpecPort {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_protocol: Option<String>,
    port: u16,
}

#[derive(Debug, Serialize)]
struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: ClientIp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClientIp {
    timeout_seconds: u32,
}

/// The status of a ServiceImport.
#[derive(Debug, Serialize)]
pub struct ImportStatus {
    clusters: Vec<SourceCluster>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Serialize)]
struct SourceCluster {
    cluster: String,
}

impl ImportSpec {
    /// The spec of an import that has these addresses, and these families whether or not it has addresses.
    #[must_use]
    pub fn of(import: &Import, addresses: &[IpAddr], families: &[IpFamily]) -> Self {
        let headless = import.service_type == ServiceType::Headless;
        let clustered = import.session_affinity == SessionAffinity::ClientIp;
        let timeout = import.session_affinity_timeout_s.filter(|_| !headless && clustered);
        ImportSpec {
            kind: import.service_type.as_str(),
            ports: import.ports.iter().map(port).collect(),
            ips: addresses.iter().map(ToString::to_string).collect(),
            ip_families: families.iter().map(|f| f.as_str()).collect(),
            session_affinity: (!headless).then_some(import.session_affinity.as_str()),
            session_affinity_config: timeout
                .map(|timeout_seconds| SessionAffinityConfig { client_ip: ClientIp { timeout_seconds } }),
            internal_traffic_policy: import.internal_traffic_policy.as_str(),
            traffic_distribution: import.traffic_distribution.clone(),
        }
    }
}

impl ImportStatus {
    /// The status of an import that these clusters export.
    pub fn of<'a>(clusters: impl IntoIterator<Item = &'a ClusterName>, conditions: Vec<Condition>) -> Self {
        let clusters = clusters.into_iter().map(|c| SourceCluster { cluster: c.to_string() });
        ImportStatus { clusters: clusters.collect(), conditions }
    }
}

fn port(port: &Port) -> SpecPort {
    SpecPort {
        name: port.name.to_string(),
        protocol: port.protocol.as_str(),
        app_protocol: port.app_protocol.clone(),
        port: port.port,
    }
}

/// The family of an address.
#[must_use]
pub fn family_of(address: IpAddr) -> IpFamily {
    if address.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
}
