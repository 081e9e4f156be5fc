//! EndpointSlices.

use super::{FieldError, name_of, namespace_of, port_number, protocol};
use k8s_openapi::api::discovery::v1 as discovery_v1;
use sealane_core::name::{Hostname, Namespace, PortName, ServiceKey, ServiceName, TopologyName};
use sealane_core::service::{IpFamily, Protocol};
use std::net::IpAddr;

/// Names the Service of a slice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Slices with this label are what agents write: they describe other clusters.
const SOURCE_LABEL: &str = "multicluster.kubernetes.io/source-cluster";

/// Which slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl SliceKey {
    /// The service that a slice of this key belongs to.
    #[must_use]
    pub fn service(&self, slice: &Slice) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), name: slice.service.clone() }
    }
}

/// The parts of a slice that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Its Service.
    pub service: ServiceName,
    /// The family of its addresses.
    pub family: IpFamily,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One port of every endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service port that it serves.
    pub name: PortName,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address (the first: more than one are not meant to be used).
    pub address: IpAddr,
    /// Whether it takes connections; unknown counts as yes, as the API says.
    pub ready: bool,
    /// Its hostname.
    pub hostname: Option<Hostname>,
    /// Its node.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<TopologyName>,
    /// The pod that it refers to, in the slice's namespace.
    pub pod: Option<String>,
}

impl Slice {
    /// Reduces a slice; `None` for one that is no business of ours: of no Service, of DNS names, or an agent's own.
    ///
    /// # Errors
    /// When a field breaks a rule of the API or of the federation's names.
    pub fn reduce(object: discovery_v1::EndpointSlice) -> Result<Option<(SliceKey, Self)>, FieldError> {
        let key = SliceKey {
            namespace: namespace_of(&object.metadata)?,
            name: name_of(&object.metadata)?.to_owned(),
        };
        let labels = object.metadata.labels.unwrap_or_default();
        let Some(service) = labels.get(SERVICE_LABEL) else { return Ok(None) };
        if labels.contains_key(SOURCE_LABEL) {
            return Ok(None);
        }
        let service = ServiceName::parse(service)
            .map_err(|e| FieldError::new(format!("metadata.labels[{SERVICE_LABEL}]"), e))?;
        let family = match object.address_type.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            "FQDN" => return Ok(None),
            other => {
                let reason = format!("{other:?} is not IPv4, IPv6 or FQDN");
                return Err(FieldError::new("addressType", reason));
            }
        };
        let ports = object.ports.unwrap_or_default();
        let ports = ports.into_iter().enumerate().filter_map(|(at, p)| port(at, p).transpose());
        let endpoints = object.endpoints.unwrap_or_default();
        let endpoints = endpoints.into_iter().enumerate().map(|(at, e)| endpoint(at, e, family));
        let slice = Slice {
            service,
            family,
            ports: ports.collect::<Result<_, _>>()?,
            endpoints: endpoints.collect::<Result<_, _>>()?,
        };
        Ok(Some((key, slice)))
    }
}

/// A port without a number means "every port": nothing that a proxy could dial.
fn port(at: usize, given: discovery_v1::EndpointPort) -> Result<Option<SlicePort>, FieldError> {
    let field = |f: &str| format!("ports[{at}].{f}");
    let Some(number) = given.port else { return Ok(None) };
    Ok(Some(SlicePort {
        name: PortName::parse(given.name.as_deref().unwrap_or_default())
            .map_err(|e| FieldError::new(field("name"), e))?,
        protocol: protocol(|| field("protocol"), given.protocol.as_deref())?,
        port: port_number(|| field("port"), number)?,
    }))
}

fn endpoint(at: usize, given: discovery_v1::Endpoint, family: IpFamily) -> Result<SliceEndpoint, FieldError> {
    let field = |f: &str| format!("endpoints[{at}].{f}");
    let text = given.addresses.first().ok_or_else(|| FieldError::new(field("addresses"), "is empty"))?;
    let address: IpAddr = text
        .parse()
        .map_err(|_| FieldError::new(field("addresses[0]"), format!("{text:?} is not an IP address")))?;
    if address.is_ipv4() != (family == IpFamily::V4) {
        return Err(FieldError::new(field("addresses[0]"), format!("{address} is not of the addressType")));
    }
    let pod = given.target_ref.filter(|r| r.kind.as_deref() == Some("Pod")).and_then(|r| r.name);
    let hostname = given.hostname.map(|h| Hostname::parse(&h)).transpose();
    let zone = given.zone.map(|z| TopologyName::parse(&z)).transpose();
    Ok(SliceEndpoint {
        address,
        ready: given.conditions.and_then(|c| c.ready).unwrap_or(true),
        hostname: hostname.map_err(|e| FieldError::new(field("hostname"), e))?,
        node: given.node_name,
        zone: zone.map_err(|e| FieldError::new(field("zone"), e))?,
        pod,
    })
}
