//! What a simulated cluster says of itself.

use super::member::Member;
use anyhow::Result;
use sealane_core::command::CatalogChange;
use sealane_core::endpoint::Endpoint;
use sealane_core::name::{EndpointId, Namespace, NetworkName, PortName, ServiceKey};
use sealane_core::service::{
    Export, ExportSpec, InternalTrafficPolicy, IpFamily, Port, Protocol, ServiceType, SessionAffinity,
};
use sealane_core::time::Millis;
use sealane_core::trust::Bundle;
use sealane_trust::clock;
use sealane_trust::issue::{Authority, Validity};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The port that every service has.
const PORT: &str = "http";

/// A cluster in a network, which imports what is in some namespaces and exports some services of one endpoint each.
///
/// # Errors
/// When a name is none, or no root can be made.
pub(crate) fn whole(
    member: &Member,
    network: &str,
    interest: &[&str],
    exports: &[ServiceKey],
) -> Result<Vec<CatalogChange>> {
    let (network, locality) = (NetworkName::parse(network)?, Default::default());
    let namespaces = interest.iter().map(|n| Namespace::parse(n)).collect::<Result<BTreeSet<_>, _>>()?;
    let mut changes = vec![
        CatalogChange::PutProfile { network, locality, probes: Vec::new() },
        CatalogChange::PutInterest { namespaces },
        CatalogChange::PutBundle { bundle: bundle(member)? },
    ];
    for service in exports {
        let export = Export { spec: Ok(spec()?), importers: None, created: Millis(1) };
        changes.push(CatalogChange::PutExport { service: service.clone(), export });
        changes.push(endpoint(service, 1)?);
    }
    changes.push(CatalogChange::Synced { services: exports.iter().cloned().collect() });
    Ok(changes)
}

/// The one endpoint of a service, at an address that ends with `value`.
///
/// # Errors
/// Never with the names of here.
pub(crate) fn endpoint(service: &ServiceKey, value: u8) -> Result<CatalogChange> {
    let endpoint = Endpoint {
        id: EndpointId::parse("e-abcdefghij234")?,
        address: Ipv4Addr::new(10, 0, 0, value).into(),
        ports: BTreeMap::from([(PortName::parse(PORT)?, 8080)]),
        ready: true,
        locality: Default::default(),
        spiffe_id: None,
        inbound_port: Some(15_008),
        hostname: None,
        network: None,
    };
    Ok(CatalogChange::PutEndpoints { service: service.clone(), endpoints: vec![endpoint] })
}

fn bundle(member: &Member) -> Result<Bundle> {
    let validity = Validity::starting(clock::now(), Duration::from_secs(86_400));
    let root = Authority::root(&member.trust_domain, "root of a simulated cluster", validity)?;
    let roots = vec![root.root_certificate().to_vec()];
    Ok(Bundle { trust_domain: member.trust_domain.clone(), sequence: 1, refresh_hint_s: 300, roots })
}

fn spec() -> Result<ExportSpec> {
    let http = Port { name: PortName::parse(PORT)?, protocol: Protocol::Tcp, port: 80, app_protocol: None };
    Ok(ExportSpec {
        service_type: ServiceType::ClusterSetIp,
        ports: vec![http],
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: vec![IpFamily::V4],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    })
}
