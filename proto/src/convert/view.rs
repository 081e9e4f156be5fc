//! Views: what a cluster receives.

use super::endpoint::{shared, targets, to_targets};
use super::field::{
    address, address_bytes, inner, list, map, name, names, optional, optional_name, optional_port,
};
use super::field::{present, texts, to_list};
use super::service::families;
use super::{Invalid, Wire, WireEnum, wire_enum};
use crate::types::v1 as wire;
use sealane_core::identity::ClusterId;
use sealane_core::name::{ClusterName, EndpointId};
use sealane_core::reach::Unreached;
use sealane_core::service::{InternalTrafficPolicy, ServiceType, SessionAffinity};
use sealane_core::view::{
    Candidate, Conflict, ConflictField, ExportStatus, Import, Path, Peer, Standing, Tier, ViewItem, ViewKey,
};
use std::sync::Arc;

wire_enum!(Tier, wire::Tier, [Local, Remote, Avoided]);
wire_enum!(Unreached, wire::Unreached, [NoGateway, NoPort, ClusterWithdrawn]);
wire_enum!(Standing, wire::Standing, [Live, Suspect, Withdrawn]);
wire_enum!(
    ConflictField,
    wire::ConflictField,
    [
        Port,
        Type,
        SessionAffinity,
        SessionAffinityConfig,
        InternalTrafficPolicy,
        TrafficDistribution,
        Labels,
        Annotations,
        IpFamily,
    ]
);

impl Wire for ViewKey {
    type Message = wire::ViewKey;

    fn to_wire(&self) -> wire::ViewKey {
        use wire::view_key::Kind;
        let kind = match self {
            ViewKey::Import(service) => Kind::Import(service.to_wire()),
            ViewKey::Export(service) => Kind::Export(service.to_wire()),
            ViewKey::Peer(name) => Kind::Peer(name.to_string()),
        };
        wire::ViewKey { kind: Some(kind) }
    }

    fn from_wire(m: wire::ViewKey) -> Result<Self, Invalid> {
        use wire::view_key::Kind;
        Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Import(m) => ViewKey::Import(inner(m, "import")?),
            Kind::Export(m) => ViewKey::Export(inner(m, "export")?),
            Kind::Peer(text) => ViewKey::Peer(name(&text, "peer")?),
        })
    }
}

impl Wire for ViewItem {
    type Message = wire::ViewItem;

    fn to_wire(&self) -> wire::ViewItem {
        use wire::view_item::Kind;
        let kind = match self {
            ViewItem::Import(import) => Kind::Import(import.to_wire()),
            ViewItem::Export(status) => Kind::Export(status.to_wire()),
            ViewItem::Peer(peer) => Kind::Peer(peer.to_wire()),
        };
        wire::ViewItem { kind: Some(kind) }
    }

    fn from_wire(m: wire::ViewItem) -> Result<Self, Invalid> {
        use wire::view_item::Kind;
        Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Import(m) => ViewItem::Import(shared(m, "import")?),
            Kind::Export(m) => ViewItem::Export(shared(m, "export")?),
            Kind::Peer(m) => ViewItem::Peer(shared(m, "peer")?),
        })
    }
}

impl Wire for Import {
    type Message = wire::Import;

    fn to_wire(&self) -> wire::Import {
        wire::Import {
            service: Some(self.service.to_wire()),
            service_type: self.service_type.to_number(),
            ports: to_list(&self.ports),
            session_affinity: self.session_affinity.to_number(),
            session_affinity_timeout_s: self.session_affinity_timeout_s,
            internal_traffic_policy: self.internal_traffic_policy.to_number(),
            traffic_distribution: self.traffic_distribution.clone(),
            ip_families: self.ip_families.iter().map(|f| f.to_number()).collect(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            clusters: texts(&self.clusters),
            candidates: to_list(&self.candidates),
            unreached: self.unreached.iter().map(to_unreached).collect(),
        }
    }

    fn from_wire(m: wire::Import) -> Result<Self, Invalid> {
        Ok(Import {
            service: present(m.service, "service")?,
            service_type: ServiceType::from_number(m.service_type, "service_type")?,
            ports: list(m.ports, "ports")?,
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
            clusters: names(&m.clusters, "clusters")?,
            candidates: list(m.candidates, "candidates")?,
            unreached: map(m.unreached.iter().map(unreached), "unreached")?,
        })
    }
}

fn to_unreached((cluster, why): (&ClusterName, &Unreached)) -> wire::UnreachedCluster {
    wire::UnreachedCluster { cluster: cluster.to_string(), why: why.to_number() }
}

fn unreached(m: &wire::UnreachedCluster) -> Result<(ClusterName, Unreached), Invalid> {
    Ok((name(&m.cluster, "cluster")?, Unreached::from_number(m.why, "why")?))
}

impl Wire for Candidate {
    type Message = wire::Candidate;

    fn to_wire(&self) -> wire::Candidate {
        wire::Candidate {
            cluster: self.cluster.to_string(),
            tier: self.tier.to_number(),
            path: Some(to_path(&self.path)),
        }
    }

    fn from_wire(m: wire::Candidate) -> Result<Self, Invalid> {
        use wire::candidate::Path as Kind;
        Ok(Candidate {
            cluster: name(&m.cluster, "cluster")?,
            tier: Tier::from_number(m.tier, "tier")?,
            path: match m.path.ok_or_else(|| Invalid::unknown("path"))? {
                Kind::Direct(m) => direct(m).map_err(|e| e.within("direct"))?,
                Kind::Gateway(m) => gateway(m).map_err(|e| e.within("gateway"))?,
            },
        })
    }
}

fn to_path(path: &Path) -> wire::candidate::Path {
    match path {
        Path::Direct { id, address, ports, locality, spiffe_id, inbound_port, hostname } => {
            wire::candidate::Path::Direct(wire::DirectPath {
                id: id.to_string(),
                address: address_bytes(*address),
                ports: to_targets(ports),
                locality: Some(locality.to_wire()),
                spiffe_id: spiffe_id.as_ref().map(ToString::to_string),
                inbound_port: inbound_port.map(u32::from),
                hostname: hostname.as_ref().map(ToString::to_string),
            })
        }
        Path::Gateway { address, locality, weights, identities, endpoints } => {
            let weight = |(name, weight): (&_, &u32)| wire::PortWeight {
                name: ToString::to_string(name),
                weight: *weight,
            };
            let endpoint = |(id, hostname): &(EndpointId, Option<_>)| wire::NamedEndpoint {
                id: id.to_string(),
                hostname: hostname.as_ref().map(ToString::to_string),
            };
            wire::candidate::Path::Gateway(wire::GatewayPath {
                address: Some(address.to_wire()),
                locality: Some(locality.to_wire()),
                weights: weights.iter().map(weight).collect(),
                identities: texts(identities),
                endpoints: endpoints.iter().map(endpoint).collect(),
            })
        }
    }
}

fn direct(m: wire::DirectPath) -> Result<Path, Invalid> {
    Ok(Path::Direct {
        id: name(&m.id, "id")?,
        address: address(&m.address, "address")?,
        ports: targets(m.ports, "ports")?,
        locality: present(m.locality, "locality")?,
        spiffe_id: optional_name(m.spiffe_id.as_deref(), "spiffe_id")?,
        inbound_port: optional_port(m.inbound_port, "inbound_port")?,
        hostname: optional_name(m.hostname.as_deref(), "hostname")?,
    })
}

fn gateway(m: wire::GatewayPath) -> Result<Path, Invalid> {
    let endpoint = |(i, m): (usize, wire::NamedEndpoint)| -> Result<_, Invalid> {
        Ok((
            name(&m.id, &format!("endpoints[{i}].id"))?,
            optional_name(m.hostname.as_deref(), &format!("endpoints[{i}].hostname"))?,
        ))
    };
    Ok(Path::Gateway {
        address: present(m.address, "address")?,
        locality: present(m.locality, "locality")?,
        weights: map(m.weights.into_iter().map(|m| Ok((name(&m.name, "name")?, m.weight))), "weights")?,
        identities: names(&m.identities, "identities")?,
        endpoints: m.endpoints.into_iter().enumerate().map(endpoint).collect::<Result<_, _>>()?,
    })
}

impl Wire for ExportStatus {
    type Message = wire::ExportStatus;

    fn to_wire(&self) -> wire::ExportStatus {
        wire::ExportStatus {
            service: Some(self.service.to_wire()),
            refused: self.ready.as_ref().err().map(Wire::to_wire),
            conflicts: to_list(&self.conflicts),
            importers: texts(&self.importers),
        }
    }

    fn from_wire(m: wire::ExportStatus) -> Result<Self, Invalid> {
        Ok(ExportStatus {
            service: present(m.service, "service")?,
            ready: optional(m.refused, "refused")?.map_or(Ok(()), Err),
            conflicts: list(m.conflicts, "conflicts")?,
            importers: names(&m.importers, "importers")?,
        })
    }
}

impl Wire for Conflict {
    type Message = wire::Conflict;

    fn to_wire(&self) -> wire::Conflict {
        wire::Conflict { field: self.field.to_number(), message: self.message.clone() }
    }

    fn from_wire(m: wire::Conflict) -> Result<Self, Invalid> {
        Ok(Conflict { field: ConflictField::from_number(m.field, "field")?, message: m.message })
    }
}

impl Wire for Peer {
    type Message = wire::Peer;

    fn to_wire(&self) -> wire::Peer {
        wire::Peer {
            id: self.id.0,
            name: self.name.to_string(),
            trust_domain: self.trust_domain.to_string(),
            bundle: self.bundle.as_ref().map(|b| b.to_wire()),
            network: self.network.to_string(),
            gateways: to_list(&*self.gateways),
            probes: to_list(&*self.probes),
            exports_to_us: self.exports_to_us,
            imports_from_us: self.imports_from_us,
            standing: self.standing.to_number(),
        }
    }

    fn from_wire(m: wire::Peer) -> Result<Self, Invalid> {
        Ok(Peer {
            id: ClusterId(m.id),
            name: name(&m.name, "name")?,
            trust_domain: name(&m.trust_domain, "trust_domain")?,
            bundle: m.bundle.map(|b| shared(b, "bundle")).transpose()?,
            network: name(&m.network, "network")?,
            gateways: Arc::new(list(m.gateways, "gateways")?),
            probes: Arc::new(list(m.probes, "probes")?),
            exports_to_us: m.exports_to_us,
            imports_from_us: m.imports_from_us,
            standing: Standing::from_number(m.standing, "standing")?,
        })
    }
}
