//! Services.

use super::{FieldError, name_of, namespace_of, port_number, protocol};
use k8s_openapi::api::core::v1 as core_v1;
use sealane_core::name::{PortName, ServiceKey, ServiceName};
use sealane_core::service::{
    InternalTrafficPolicy, IpFamily, Port, ServiceFacts, ServiceKind, SessionAffinity,
};

/// Reduces a Service to the facts that an export passes on.
///
/// # Errors
/// When a field breaks a rule of the API or of the federation's names.
pub fn reduce(object: core_v1::Service) -> Result<(ServiceKey, ServiceFacts), FieldError> {
    let name =
        ServiceName::parse(name_of(&object.metadata)?).map_err(|e| FieldError::new("metadata.name", e))?;
    let key = ServiceKey { namespace: namespace_of(&object.metadata)?, name };
    let spec = object.spec.ok_or_else(|| FieldError::new("spec", "is missing"))?;
    let affinity = match spec.session_affinity.as_deref() {
        None | Some("None") => SessionAffinity::None,
        Some("ClientIP") => SessionAffinity::ClientIp,
        Some(other) => return Err(unknown("spec.sessionAffinity", other, "None or ClientIP")),
    };
    let policy = match spec.internal_traffic_policy.as_deref() {
        None | Some("Cluster") => InternalTrafficPolicy::Cluster,
        Some("Local") => InternalTrafficPolicy::Local,
        Some(other) => return Err(unknown("spec.internalTrafficPolicy", other, "Cluster or Local")),
    };
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    let timeout = timeout
        .map(|s| {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            u32::try_from(s).map_err(|_| FieldError::new(field, "is negative"))
        })
        .transpose()?;
    let service = ServiceFacts {
        kind: ServiceKind::of(spec.type_.as_deref(), spec.cluster_ip.as_deref()),
        ports: ports(spec.ports.unwrap_or_default())?,
        session_affinity: affinity,
        session_affinity_timeout_s: timeout,
        internal_traffic_policy: policy,
        traffic_distribution: spec.traffic_distribution,
        ip_families: families(&spec.ip_families.unwrap_or_default())?,
    };
    Ok((key, service))
}

fn ports(given: Vec<core_v1::ServicePort>) -> Result<Vec<Port>, FieldError> {
    let mut ports: Vec<Port> = Vec::with_capacity(given.len());
    let several = given.len() > 1;
    for (at, port) in given.into_iter().enumerate() {
        let field = |f: &str| format!("spec.ports[{at}].{f}");
        let name = PortName::parse(port.name.as_deref().unwrap_or_default())
            .map_err(|e| FieldError::new(field("name"), e))?;
        if several && name.as_str().is_empty() {
            return Err(FieldError::new(field("name"), "must be given where there are several ports"));
        }
        let made = Port {
            name,
            protocol: protocol(|| field("protocol"), port.protocol.as_deref())?,
            port: port_number(|| field("port"), port.port)?,
            app_protocol: port.app_protocol,
        };
        if ports.iter().any(|p| p.name == made.name) {
            return Err(FieldError::new(field("name"), "is the name of another port too"));
        }
        if ports.iter().any(|p| (p.protocol, p.port) == (made.protocol, made.port)) {
            return Err(FieldError::new(field("port"), "is another port of the same protocol too"));
        }
        ports.push(made);
    }
    Ok(ports)
}

fn families(names: &[String]) -> Result<Vec<IpFamily>, FieldError> {
    let mut families = Vec::new();
    for name in names {
        let family = match name.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            other => return Err(unknown("spec.ipFamilies", other, "IPv4 or IPv6")),
        };
        if families.contains(&family) {
            return Err(FieldError::new("spec.ipFamilies", "names a family twice"));
        }
        families.push(family);
    }
    Ok(families)
}

fn unknown(field: &str, found: &str, expected: &str) -> FieldError {
    FieldError::new(field, format!("{found:?} is not {expected}"))
}
