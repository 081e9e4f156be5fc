//! Services, ports and exports; time and names of services.

use super::field::{name, names, port, texts, to_list};
use super::{Invalid, Wire, WireEnum, field, wire_enum};
use crate::types::v1 as wire;
use sealane_core::name::ServiceKey;
use sealane_core::service::{
    Export, ExportSpec, InternalTrafficPolicy, Invalid as NotExported, IpFamily, Port, Protocol, ServiceType,
    SessionAffinity,
};
use sealane_core::time::{Millis, Revision};

wire_enum!(Protocol, wire::Protocol, [Tcp, Udp, Sctp]);
wire_enum!(ServiceType, wire::ServiceType, [ClusterSetIp, Headless]);
wire_enum!(SessionAffinity, wire::SessionAffinity, [None, ClientIp]);
wire_enum!(InternalTrafficPolicy, wire::InternalTrafficPolicy, [Cluster, Local]);
wire_enum!(IpFamily, wire::IpFamily, [V4, V6]);
wire_enum!(NotExported, wire::Invalid, [NoService, InvalidServiceType]);

impl Wire for Revision {
    type Message = wire::Revision;

    fn to_wire(&self) -> wire::Revision {
        wire::Revision { generation: self.generation, index: self.index }
    }

    fn from_wire(m: wire::Revision) -> Result<Self, Invalid> {
        Ok(Revision { generation: m.generation, index: m.index })
    }
}

impl Wire for ServiceKey {
    type Message = wire::ServiceKey;

    fn to_wire(&self) -> wire::ServiceKey {
        wire::ServiceKey { namespace: self.namespace.to_string(), name: self.name.to_string() }
    }

    fn from_wire(m: wire::ServiceKey) -> Result<Self, Invalid> {
        Ok(ServiceKey { namespace: name(&m.namespace, "namespace")?, name: name(&m.name, "name")? })
    }
}

impl Wire for Port {
    type Message = wire::Port;

    fn to_wire(&self) -> wire::Port {
        wire::Port {
            name: self.name.to_string(),
            protocol: self.protocol.to_number(),
            port: self.port.into(),
            app_protocol: self.app_protocol.clone(),
        }
    }

    fn from_wire(m: wire::Port) -> Result<Self, Invalid> {
        Ok(Port {
            name: name(&m.name, "name")?,
            protocol: Protocol::from_number(m.protocol, "protocol")?,
            port: port(m.port, "port")?,
            app_protocol: m.app_protocol,
        })
    }
}

/// IP families, in order.
pub(super) fn families(numbers: &[i32], field: &str) -> Result<Vec<IpFamily>, Invalid> {
    numbers.iter().enumerate().map(|(i, n)| IpFamily::from_number(*n, &format!("{field}[{i}]"))).collect()
}

impl Wire for ExportSpec {
    type Message = wire::ExportSpec;

    fn to_wire(&self) -> wire::ExportSpec {
        wire::ExportSpec {
            service_type: self.service_type.to_number(),
            ports: to_list(&self.ports),
            session_affinity: self.session_affinity.to_number(),
            session_affinity_timeout_s: self.session_affinity_timeout_s,
            internal_traffic_policy: self.internal_traffic_policy.to_number(),
            traffic_distribution: self.traffic_distribution.clone(),
            ip_families: self.ip_families.iter().map(|f| f.to_number()).collect(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
        }
    }

    fn from_wire(m: wire::ExportSpec) -> Result<Self, Invalid> {
        Ok(ExportSpec {
            service_type: ServiceType::from_number(m.service_type, "service_type")?,
            ports: field::list(m.ports, "ports")?,
            session_affinity: SessionAffinity::from_number(m.session_affinity, "session_affinity")?,
            session_affinity_timeout_s: m.session_affinity_timeout_s,
            internal_traffic_policy: InternalTrafficPolicy::from_number(
                m.internal_traffic_policy,
                "internal_traffic_policy",
            )?,
            traffic_distribution: m.traffic_distribution,
            ip_families: families(&m.ip_families, "ip_families")?,
            labels: m.labels,
            annotations: m.annotations,
        })
    }
}

impl Wire for Export {
    type Message = wire::Export;

    fn to_wire(&self) -> wire::Export {
        wire::Export {
            spec: Some(match &self.spec {
                Ok(spec) => wire::export::Spec::Valid(spec.to_wire()),
                Err(reason) => wire::export::Spec::Invalid(reason.to_number()),
            }),
            importers: self.importers.as_ref().map(|names| wire::ClusterNames { names: texts(names) }),
            created_ms: self.created.0,
        }
    }

    fn from_wire(m: wire::Export) -> Result<Self, Invalid> {
        Ok(Export {
            spec: match m.spec {
                Some(wire::export::Spec::Valid(spec)) => Ok(field::inner(spec, "valid")?),
                Some(wire::export::Spec::Invalid(reason)) => {
                    Err(NotExported::from_number(reason, "invalid")?)
                }
                None => return Err(Invalid::unknown("spec")),
            },
            importers: m.importers.map(|m| names(&m.names, "importers.names")).transpose()?,
            created: Millis(m.created_ms),
        })
    }
}
