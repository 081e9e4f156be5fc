//! Whether a Service can be exported, and what its export says.

use super::{ExportSpec, InternalTrafficPolicy, Invalid, IpFamily, Port, ServiceType, SessionAffinity};
use std::collections::BTreeMap;

/// The type of a Service, as far as exporting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// `ClusterIP` (the default) with an address.
    ClusterIp,
    /// `ClusterIP` with `clusterIP: None`.
    Headless,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
    /// `ExternalName`, or a type that this version does not know.
    ExternalName,
}

impl ServiceKind {
    /// From `spec.type` and `spec.clusterIP`, as Kubernetes writes them.
    #[must_use]
    pub fn of(service_type: Option<&str>, cluster_ip: Option<&str>) -> Self {
        match (service_type.unwrap_or("ClusterIP"), cluster_ip) {
            ("ClusterIP", Some("None")) => ServiceKind::Headless,
            ("ClusterIP", _) => ServiceKind::ClusterIp,
            ("NodePort", _) => ServiceKind::NodePort,
            ("LoadBalancer", _) => ServiceKind::LoadBalancer,
            _ => ServiceKind::ExternalName,
        }
    }
}

/// The facts of a Service that its export passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its type.
    pub kind: ServiceKind,
    /// Its ports, in order.
    pub ports: Vec<Port>,
    /// Session affinity.
    pub session_affinity: SessionAffinity,
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`.
    pub session_affinity_timeout_s: Option<u32>,
    /// Internal traffic policy.
    pub internal_traffic_policy: InternalTrafficPolicy,
    /// `trafficDistribution`.
    pub traffic_distribution: Option<String>,
    /// The families of its endpoints, in the Service's order.
    pub ip_families: Vec<IpFamily>,
}

/// What a ServiceExport exports: the Service of its name (`None` when there is none), with the labels and annotations
/// of the ServiceExport's own spec.
///
/// # Errors
/// When it exports nothing; the error is the reason of the condition `Valid`.
pub fn export_of(
    service: Option<&ServiceFacts>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
) -> Result<ExportSpec, Invalid> {
    let service = service.ok_or(Invalid::NoService)?;
    let service_type = match service.kind {
        ServiceKind::ClusterIp | ServiceKind::NodePort | ServiceKind::LoadBalancer => {
            ServiceType::ClusterSetIp
        }
        ServiceKind::Headless => ServiceType::Headless,
        ServiceKind::ExternalName => return Err(Invalid::InvalidServiceType),
    };
    Ok(ExportSpec {
        service_type,
        ports: service.ports.clone(),
        session_affinity: service.session_affinity,
        session_affinity_timeout_s: service.session_affinity_timeout_s,
        internal_traffic_policy: service.internal_traffic_policy,
        traffic_distribution: service.traffic_distribution.clone(),
        ip_families: service.ip_families.clone(),
        labels,
        annotations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_service_decides_what_it_exports() {
        let table = [
            (None, Some("10.0.0.1"), Ok(ServiceType::ClusterSetIp)),
            (Some("ClusterIP"), Some("None"), Ok(ServiceType::Headless)),
            (Some("NodePort"), Some("10.0.0.1"), Ok(ServiceType::ClusterSetIp)),
            (Some("LoadBalancer"), None, Ok(ServiceType::ClusterSetIp)),
            (Some("ExternalName"), None, Err(Invalid::InvalidServiceType)),
            (Some("Tomorrow"), None, Err(Invalid::InvalidServiceType)),
        ];
        for (kind, ip, expected) in table {
            let facts = ServiceFacts {
                kind: ServiceKind::of(kind, ip),
                ports: Vec::new(),
                session_affinity: SessionAffinity::None,
                session_affinity_timeout_s: None,
                internal_traffic_policy: InternalTrafficPolicy::Cluster,
                traffic_distribution: None,
                ip_families: Vec::new(),
            };
            let export = export_of(Some(&facts), BTreeMap::new(), BTreeMap::new());
            assert_eq!(export.map(|spec| spec.service_type), expected, "{kind:?} {ip:?}");
        }
        assert_eq!(export_of(None, BTreeMap::new(), BTreeMap::new()), Err(Invalid::NoService));
    }
}
