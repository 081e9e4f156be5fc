//! Endpoints, gateways, localities and trust bundles.

use super::field::{
    address, address_bytes, at_most, inner, map, name, optional_name, optional_port, port, present,
};
use super::{Invalid, Wire};
use crate::types::v1 as wire;
use sealane_core::endpoint::{Endpoint, Gateway, GatewayAddress, GatewayHost, Locality};
use sealane_core::name::PortName;
use sealane_core::trust::Bundle;
use std::collections::BTreeMap;

/// The most roots in a bundle.
const MAX_ROOTS: usize = 8;
/// The longest root, in bytes.
const MAX_ROOT: usize = 8 * 1024;

impl Wire for Locality {
    type Message = wire::Locality;

    fn to_wire(&self) -> wire::Locality {
        wire::Locality {
            region: self.region.as_ref().map(ToString::to_string),
            zone: self.zone.as_ref().map(ToString::to_string),
        }
    }

    fn from_wire(m: wire::Locality) -> Result<Self, Invalid> {
        Ok(Locality {
            region: optional_name(m.region.as_deref(), "region")?,
            zone: optional_name(m.zone.as_deref(), "zone")?,
        })
    }
}

/// Target ports by name.
pub(super) fn targets(
    messages: Vec<wire::PortTarget>,
    field: &str,
) -> Result<BTreeMap<PortName, u16>, Invalid> {
    map(messages.into_iter().map(|m| Ok((name(&m.name, "name")?, port(m.port, "port")?))), field)
}

/// The messages of target ports.
pub(super) fn to_targets(ports: &BTreeMap<PortName, u16>) -> Vec<wire::PortTarget> {
    ports
        .iter()
        .map(|(name, port)| wire::PortTarget { name: name.to_string(), port: (*port).into() })
        .collect()
}

impl Wire for Endpoint {
    type Message = wire::Endpoint;

    fn to_wire(&self) -> wire::Endpoint {
        wire::Endpoint {
            id: self.id.to_string(),
            address: address_bytes(self.address),
            ports: to_targets(&self.ports),
            ready: self.ready,
            locality: Some(self.locality.to_wire()),
            spiffe_id: self.spiffe_id.as_ref().map(ToString::to_string),
            inbound_port: self.inbound_port.map(u32::from),
            hostname: self.hostname.as_ref().map(ToString::to_string),
            network: self.network.as_ref().map(ToString::to_string),
        }
    }

    fn from_wire(m: wire::Endpoint) -> Result<Self, Invalid> {
        Ok(Endpoint {
            id: name(&m.id, "id")?,
            address: address(&m.address, "address")?,
            ports: targets(m.ports, "ports")?,
            ready: m.ready,
            locality: present(m.locality, "locality")?,
            spiffe_id: optional_name(m.spiffe_id.as_deref(), "spiffe_id")?,
            inbound_port: optional_port(m.inbound_port, "inbound_port")?,
            hostname: optional_name(m.hostname.as_deref(), "hostname")?,
            network: optional_name(m.network.as_deref(), "network")?,
        })
    }
}

impl Wire for GatewayAddress {
    type Message = wire::GatewayAddress;

    fn to_wire(&self) -> wire::GatewayAddress {
        wire::GatewayAddress {
            host: Some(match &self.host {
                GatewayHost::Ip(ip) => wire::gateway_address::Host::Ip(address_bytes(*ip)),
                GatewayHost::Dns(name) => wire::gateway_address::Host::Dns(name.to_string()),
            }),
            port: self.port.into(),
        }
    }

    fn from_wire(m: wire::GatewayAddress) -> Result<Self, Invalid> {
        Ok(GatewayAddress {
            host: match m.host {
                Some(wire::gateway_address::Host::Ip(bytes)) => GatewayHost::Ip(address(&bytes, "ip")?),
                Some(wire::gateway_address::Host::Dns(text)) => GatewayHost::Dns(name(&text, "dns")?),
                None => return Err(Invalid::unknown("host")),
            },
            port: port(m.port, "port")?,
        })
    }
}

impl Wire for Gateway {
    type Message = wire::Gateway;

    fn to_wire(&self) -> wire::Gateway {
        wire::Gateway {
            address: Some(self.address.to_wire()),
            network: self.network.to_string(),
            locality: Some(self.locality.to_wire()),
            weight: self.weight,
            ready: self.ready,
        }
    }

    fn from_wire(m: wire::Gateway) -> Result<Self, Invalid> {
        Ok(Gateway {
            address: present(m.address, "address")?,
            network: name(&m.network, "network")?,
            locality: present(m.locality, "locality")?,
            weight: m.weight,
            ready: m.ready,
        })
    }
}

impl Wire for Bundle {
    type Message = wire::Bundle;

    fn to_wire(&self) -> wire::Bundle {
        wire::Bundle {
            trust_domain: self.trust_domain.to_string(),
            sequence: self.sequence,
            refresh_hint_s: self.refresh_hint_s,
            roots: self.roots.clone(),
        }
    }

    fn from_wire(m: wire::Bundle) -> Result<Self, Invalid> {
        if m.roots.is_empty() {
            return Err(Invalid::new("roots", "must hold at least one certificate"));
        }
        at_most(&m.roots, MAX_ROOTS, "roots")?;
        for (i, root) in m.roots.iter().enumerate() {
            if root.is_empty() || root.len() > MAX_ROOT {
                let rule =
                    format!("must be a DER certificate of at most {MAX_ROOT} bytes, not of {}", root.len());
                return Err(Invalid::new(&format!("roots[{i}]"), rule));
            }
        }
        Ok(Bundle {
            trust_domain: name(&m.trust_domain, "trust_domain")?,
            sequence: m.sequence,
            refresh_hint_s: m.refresh_hint_s,
            roots: m.roots,
        })
    }
}

/// An `Arc` around a value, from its message.
pub(super) fn shared<T: Wire>(message: T::Message, field: &str) -> Result<std::sync::Arc<T>, Invalid> {
    inner(message, field).map(std::sync::Arc::new)
}
