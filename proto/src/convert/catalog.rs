//! Changes to a cluster's catalog, and what they are answered.

use super::field::{at_most, inner, list, name, names, present, set, texts, to_list};
use super::{Invalid, Wire, WireEnum, wire_enum};
use crate::types::v1 as wire;
use sealane_core::command::{CatalogChange, CatalogResult, Refusal, RefusalCode};
use sealane_core::name::{ClusterName, ServiceKey};
use sealane_core::state::LaneVerdict;
use wire::catalog_change::Kind;

/// The most endpoints in one change; more come in further changes.
pub const MAX_ENDPOINTS: usize = 100;

wire_enum!(LaneVerdict, wire::LaneVerdict, [Up, Down]);
wire_enum!(
    RefusalCode,
    wire::RefusalCode,
    [NotFound, Exists, Forbidden, Expired, Consumed, Invalid, Forgotten]
);

impl Wire for Refusal {
    type Message = wire::Refusal;

    fn to_wire(&self) -> wire::Refusal {
        wire::Refusal { code: self.code.to_number(), message: self.message.clone() }
    }

    fn from_wire(m: wire::Refusal) -> Result<Self, Invalid> {
        Ok(Refusal { code: RefusalCode::from_number(m.code, "code")?, message: m.message })
    }
}

impl Wire for CatalogResult {
    type Message = wire::CatalogResult;

    fn to_wire(&self) -> wire::CatalogResult {
        let refused = |(change, refusal): &(u32, Refusal)| wire::RefusedChange {
            change: *change,
            refusal: Some(refusal.to_wire()),
        };
        wire::CatalogResult { refused: self.refused.iter().map(refused).collect() }
    }

    fn from_wire(m: wire::CatalogResult) -> Result<Self, Invalid> {
        let refused = m.refused.into_iter().enumerate().map(|(i, r)| {
            let refusal = present(r.refusal, "refusal").map_err(|e| e.within(&format!("refused[{i}]")))?;
            Ok((r.change, refusal))
        });
        Ok(CatalogResult { refused: refused.collect::<Result<_, Invalid>>()? })
    }
}

type LaneReport = (ClusterName, LaneVerdict, Option<u32>);

fn lane(m: &wire::LaneReport) -> Result<LaneReport, Invalid> {
    Ok((name(&m.cluster, "cluster")?, LaneVerdict::from_number(m.verdict, "verdict")?, m.rtt_us))
}

fn to_lane((cluster, verdict, rtt_us): &LaneReport) -> wire::LaneReport {
    wire::LaneReport { cluster: cluster.to_string(), verdict: verdict.to_number(), rtt_us: *rtt_us }
}

fn to_ids<'a>(
    service: &ServiceKey,
    ids: impl IntoIterator<Item = &'a sealane_core::name::EndpointId>,
) -> wire::EndpointIds {
    wire::EndpointIds { service: Some(service.to_wire()), ids: texts(ids) }
}

impl Wire for CatalogChange {
    type Message = wire::CatalogChange;

    fn to_wire(&self) -> wire::CatalogChange {
        let kind = match self {
            CatalogChange::PutProfile { network, locality, probes } => Kind::PutProfile(wire::PutProfile {
                network: network.to_string(),
                locality: Some(locality.to_wire()),
                probes: to_list(probes),
            }),
            CatalogChange::PutExport { service, export } => Kind::PutExport(wire::PutExport {
                service: Some(service.to_wire()),
                export: Some(export.to_wire()),
            }),
            CatalogChange::RemoveExport { service } => Kind::RemoveExport(service.to_wire()),
            CatalogChange::PutEndpoints { service, endpoints } => Kind::PutEndpoints(wire::PutEndpoints {
                service: Some(service.to_wire()),
                endpoints: to_list(endpoints),
            }),
            CatalogChange::RemoveEndpoints { service, ids } => Kind::RemoveEndpoints(to_ids(service, ids)),
            CatalogChange::RetainEndpoints { service, ids } => Kind::RetainEndpoints(to_ids(service, ids)),
            CatalogChange::PutGateways { gateways } => {
                Kind::PutGateways(wire::Gateways { gateways: to_list(gateways) })
            }
            CatalogChange::PutBundle { bundle } => Kind::PutBundle(bundle.to_wire()),
            CatalogChange::PutInterest { namespaces } => {
                Kind::PutInterest(wire::Namespaces { names: texts(namespaces) })
            }
            CatalogChange::PutLanes { lanes } => {
                Kind::PutLanes(wire::Lanes { lanes: lanes.iter().map(to_lane).collect() })
            }
            CatalogChange::RemoveLanes { targets } => {
                Kind::RemoveLanes(wire::ClusterNames { names: texts(targets) })
            }
            CatalogChange::Synced { services } => {
                Kind::Synced(wire::ServiceKeys { services: to_list(services) })
            }
        };
        wire::CatalogChange { kind: Some(kind) }
    }

    fn from_wire(m: wire::CatalogChange) -> Result<Self, Invalid> {
        match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::PutProfile(m) => profile(m).map_err(|e| e.within("put_profile")),
            Kind::PutExport(m) => export(m).map_err(|e| e.within("put_export")),
            Kind::RemoveExport(m) => Ok(CatalogChange::RemoveExport { service: inner(m, "remove_export")? }),
            Kind::PutEndpoints(m) => endpoints(m).map_err(|e| e.within("put_endpoints")),
            Kind::RemoveEndpoints(m) => {
                let (service, ids) = ids(m).map_err(|e| e.within("remove_endpoints"))?;
                Ok(CatalogChange::RemoveEndpoints { service, ids })
            }
            Kind::RetainEndpoints(m) => {
                let (service, ids) = ids(m).map_err(|e| e.within("retain_endpoints"))?;
                Ok(CatalogChange::RetainEndpoints { service, ids })
            }
            Kind::PutGateways(m) => {
                Ok(CatalogChange::PutGateways { gateways: list(m.gateways, "put_gateways.gateways")? })
            }
            Kind::PutBundle(m) => Ok(CatalogChange::PutBundle { bundle: inner(m, "put_bundle")? }),
            Kind::PutInterest(m) => {
                Ok(CatalogChange::PutInterest { namespaces: names(&m.names, "put_interest.names")? })
            }
            Kind::PutLanes(m) => {
                let lanes = m
                    .lanes
                    .iter()
                    .enumerate()
                    .map(|(i, l)| lane(l).map_err(|e| e.within(&format!("put_lanes.lanes[{i}]"))));
                Ok(CatalogChange::PutLanes { lanes: lanes.collect::<Result<_, _>>()? })
            }
            Kind::RemoveLanes(m) => {
                Ok(CatalogChange::RemoveLanes { targets: names(&m.names, "remove_lanes.names")? })
            }
            Kind::Synced(m) => Ok(CatalogChange::Synced { services: set(m.services, "synced.services")? }),
        }
    }
}

fn profile(m: wire::PutProfile) -> Result<CatalogChange, Invalid> {
    Ok(CatalogChange::PutProfile {
        network: name(&m.network, "network")?,
        locality: present(m.locality, "locality")?,
        probes: list(m.probes, "probes")?,
    })
}

fn export(m: wire::PutExport) -> Result<CatalogChange, Invalid> {
    Ok(CatalogChange::PutExport {
        service: present(m.service, "service")?,
        export: present(m.export, "export")?,
    })
}

fn endpoints(m: wire::PutEndpoints) -> Result<CatalogChange, Invalid> {
    at_most(&m.endpoints, MAX_ENDPOINTS, "endpoints")?;
    Ok(CatalogChange::PutEndpoints {
        service: present(m.service, "service")?,
        endpoints: list(m.endpoints, "endpoints")?,
    })
}

fn ids(
    m: wire::EndpointIds,
) -> Result<(ServiceKey, std::collections::BTreeSet<sealane_core::name::EndpointId>), Invalid> {
    Ok((present(m.service, "service")?, names(&m.ids, "ids")?))
}
