//! A proxy's configuration as messages.

use super::{Inbound, InboundTarget, Item, ItemKey, Outbound, TrustedPeer};
use sealane_proto::Wire;
use sealane_proto::agent::v1 as wire;
use sealane_proto::agent::v1::proxy_item::Kind;
use sealane_proto::agent::v1::proxy_item_key::Kind as Key;
use sealane_proto::convert::field;

pub(super) fn item(item: &Item) -> wire::ProxyItem {
    let kind = match item {
        Item::Outbound(value) => Kind::Outbound(outbound(value)),
        Item::Inbound(value) => Kind::Inbound(inbound(value)),
        Item::Peer(value) => Kind::Peer(peer(value)),
    };
    wire::ProxyItem { kind: Some(kind) }
}

pub(super) fn key(key: &ItemKey) -> wire::ProxyItemKey {
    let kind = match key {
        ItemKey::Outbound(service) => Key::Outbound(service.to_wire()),
        ItemKey::Inbound(service) => Key::Inbound(service.to_wire()),
        ItemKey::Peer(name) => Key::Peer(name.to_string()),
    };
    wire::ProxyItemKey { kind: Some(kind) }
}

fn outbound(value: &Outbound) -> wire::Outbound {
    wire::Outbound {
        import: Some(value.import.to_wire()),
        addresses: value.addresses.iter().map(|a| field::address_bytes(*a)).collect(),
    }
}

fn inbound(value: &Inbound) -> wire::Inbound {
    let ports = value.ports.iter().map(|port| wire::InboundPort {
        port: u32::from(port.port),
        name: port.name.to_string(),
        targets: port.targets.iter().map(target).collect(),
    });
    wire::Inbound {
        service: Some(value.service.to_wire()),
        ports: ports.collect(),
        importers: value.importers.iter().map(ToString::to_string).collect(),
    }
}

fn target(value: &InboundTarget) -> wire::InboundTarget {
    wire::InboundTarget {
        endpoint: value.endpoint.to_string(),
        address: field::address_bytes(value.address),
        app_port: u32::from(value.app_port),
        inbound_port: value.inbound_port.map(u32::from),
        ready: value.ready,
        spiffe_id: value.spiffe_id.as_ref().map(ToString::to_string),
    }
}

fn peer(value: &TrustedPeer) -> wire::TrustedPeer {
    wire::TrustedPeer {
        name: value.name.to_string(),
        trust_domain: value.trust_domain.to_string(),
        bundle: value.bundle.as_ref().map(Wire::to_wire),
        exports_to_us: value.exports_to_us,
        imports_from_us: value.imports_from_us,
        probes: field::to_list(&value.probes),
        own: value.own,
    }
}
