//! ServiceImports (`multicluster.x-k8s.io/v1beta1`).

use super::condition::{Condition, Draft};
use super::{MANAGER, Stamps};
use crate::config::Outbound;
use sealane_core::name::ServiceKey;
use sealane_core::service::{InternalTrafficPolicy, IpFamily, Port, ServiceType, SessionAffinity};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceImport {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: Spec,
    status: ImportStatus,
}

#[derive(Debug, Serialize)]
pub(super) struct Metadata {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Metadata {
    pub(super) fn of(
        service: &ServiceKey,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let (name, namespace) = (service.name.to_string(), service.namespace.to_string());
        Metadata { name, namespace, labels, annotations }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
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

#[derive(Debug, Serialize)]
struct ImportStatus {
    clusters: Vec<SourceCluster>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Serialize)]
struct SourceCluster {
    cluster: String,
}

pub(super) fn service_import(outbound: &Outbound, path: &str, stamps: Stamps<'_>) -> ServiceImport {
    let import = &outbound.import;
    let mut labels = import.labels.clone();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned());
    let clusters = import.clusters.iter().map(|c| SourceCluster { cluster: c.to_string() });
    let ready = stamps.transitions.stamp(path, ready(outbound), None, stamps.now);
    ServiceImport {
        api_version: "multicluster.x-k8s.io/v1beta1",
        kind: "ServiceImport",
        metadata: Metadata::of(&import.service, labels, import.annotations.clone()),
        spec: spec(outbound),
        status: ImportStatus { clusters: clusters.collect(), conditions: vec![ready] },
    }
}

fn ready(outbound: &Outbound) -> Draft {
    let headed = outbound.import.service_type == ServiceType::ClusterSetIp;
    let (status, reason, message) = if headed && outbound.addresses.is_empty() {
        ("False", "Pending", "no address is left in this cluster's --address-range".to_owned())
    } else {
        let candidates = outbound.import.candidates.len();
        (
            "True",
            "Ready",
            format!("{candidates} places to go to from {} clusters", outbound.import.clusters.len()),
        )
    };
    Draft { kind: "Ready", status, reason: reason.to_owned(), message }
}

fn spec(outbound: &Outbound) -> Spec {
    let import = &outbound.import;
    let headless = import.service_type == ServiceType::Headless;
    // Proxies take connections at these addresses whatever family the endpoints have.
    let families: Vec<&str> = match headless {
        true => import.ip_families.iter().map(|f| family(*f)).collect(),
        false => outbound.addresses.iter().map(|a| family(family_of(*a))).collect(),
    };
    let affinity = match import.session_affinity {
        SessionAffinity::None => "None",
        SessionAffinity::ClientIp => "ClientIP",
    };
    let timeout = import.session_affinity_timeout_s.filter(|_| !headless);
    Spec {
        kind: import.service_type.as_str(),
        ports: import.ports.iter().map(port).collect(),
        ips: outbound.addresses.iter().map(ToString::to_string).collect(),
        ip_families: families,
        session_affinity: (!headless).then_some(affinity),
        session_affinity_config: timeout
            .map(|timeout_seconds| SessionAffinityConfig { client_ip: ClientIp { timeout_seconds } }),
        internal_traffic_policy: match import.internal_traffic_policy {
            InternalTrafficPolicy::Cluster => "Cluster",
            InternalTrafficPolicy::Local => "Local",
        },
        traffic_distribution: import.traffic_distribution.clone(),
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

pub(super) fn family(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    }
}

pub(super) fn family_of(address: IpAddr) -> IpFamily {
    if address.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
}
