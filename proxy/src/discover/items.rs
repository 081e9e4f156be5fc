//! What the agent sends, as values: parsed whole or refused with the field that is wrong.

use sealane_core::endpoint::GatewayAddress;
use sealane_core::name::{ClusterName, EndpointId, ServiceKey, TrustDomain};
use sealane_core::time::Revision;
use sealane_core::trust::Bundle;
use sealane_core::view::Import;
use sealane_proto::Invalid;
use sealane_proto::agent::v1 as wire;
use sealane_proto::convert::field;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The key of one item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// An import.
    Outbound(ServiceKey),
    /// A service that we serve.
    Inbound(ServiceKey),
    /// A cluster that we talk with.
    Peer(ClusterName),
}

/// One item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// See [`Key::Outbound`].
    Outbound(OutboundItem),
    /// See [`Key::Inbound`].
    Inbound(InboundItem),
    /// See [`Key::Peer`].
    Peer(PeerItem),
}

/// An import.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutboundItem {
    /// As the view has it.
    pub(crate) import: Import,
    /// Its own addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// A service that we serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InboundItem {
    /// The service.
    pub(crate) service: ServiceKey,
    /// Its ports.
    pub(crate) ports: BTreeMap<u16, Vec<TargetItem>>,
    /// Who may come in.
    pub(crate) importers: BTreeSet<ClusterName>,
}

/// An endpoint that serves a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetItem {
    /// Its id.
    pub(crate) endpoint: EndpointId,
    /// Its address.
    pub(crate) address: IpAddr,
    /// The application's port.
    pub(crate) app_port: u16,
    /// Its inbound proxy's port.
    pub(crate) inbound_port: Option<u16>,
    /// Whether it takes new connections.
    pub(crate) ready: bool,
}

/// A cluster that we talk with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerItem {
    /// Its name.
    pub(crate) name: ClusterName,
    /// Its trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Its roots.
    pub(crate) bundle: Option<Bundle>,
    /// Whether we import from it.
    pub(crate) exports_to_us: bool,
    /// Whether it imports from us.
    pub(crate) imports_from_us: bool,
    /// Where it is probed.
    pub(crate) probes: Vec<GatewayAddress>,
    /// Whether it is ours.
    pub(crate) own: bool,
}

/// A delta, with what of it could not be understood.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// The agent's version after it.
    pub(crate) version: u64,
    /// The view that it was made from.
    pub(crate) revision: Revision,
    /// What it does not name is dropped.
    pub(crate) full: bool,
    /// New and changed items, with the messages that they came as.
    pub(crate) upserts: Vec<(Key, Item, wire::ProxyItem)>,
    /// Items that are no more.
    pub(crate) deletes: Vec<Key>,
    /// Items that were refused: they are dropped, the rest is applied.
    pub(crate) refused: Vec<(Option<Key>, Invalid)>,
}

impl Change {
    /// Reads a delta.
    ///
    /// # Errors
    /// When its frame is wrong; single items that are wrong go to `refused`.
    pub(crate) fn parse(delta: wire::ProxyDelta) -> Result<Self, Invalid> {
        let mut change = Change {
            version: delta.version,
            revision: field::present(delta.revision, "revision")?,
            full: delta.full,
            ..Change::default()
        };
        for (at, message) in delta.upserts.into_iter().enumerate() {
            let key = item_key(&message);
            match item(message.clone()) {
                Ok((key, item)) => change.upserts.push((key, item, message)),
                Err(e) => change.refused.push((key, e.within(&format!("upserts[{at}]")))),
            }
        }
        for (at, message) in delta.deletes.into_iter().enumerate() {
            change.deletes.push(key(message).map_err(|e| e.within(&format!("deletes[{at}]")))?);
        }
        Ok(change)
    }

    /// The refusals as one bounded text, empty when there are none.
    pub(crate) fn error(&self) -> String {
        let mut text = String::new();
        for (_, invalid) in self.refused.iter().take(8) {
            text.push_str(&format!("{invalid}; "));
        }
        if self.refused.len() > 8 {
            text.push_str(&format!("and {} more", self.refused.len() - 8));
        }
        text.trim_end_matches("; ").chars().take(2000).collect()
    }
}

/// The key of an item that may be invalid otherwise: its former version must not stay in use.
fn item_key(message: &wire::ProxyItem) -> Option<Key> {
    use wire::proxy_item::Kind;
    let service = |s: &Option<sealane_proto::types::v1::ServiceKey>| {
        field::present::<ServiceKey>(s.clone(), "service").ok()
    };
    match message.kind.as_ref()? {
        Kind::Outbound(o) => service(&o.import.as_ref()?.service).map(Key::Outbound),
        Kind::Inbound(i) => service(&i.service).map(Key::Inbound),
        Kind::Peer(p) => ClusterName::parse(&p.name).ok().map(Key::Peer),
    }
}

fn key(message: wire::ProxyItemKey) -> Result<Key, Invalid> {
    use wire::proxy_item_key::Kind;
    match message.kind {
        Some(Kind::Outbound(service)) => Ok(Key::Outbound(field::inner(service, "outbound")?)),
        Some(Kind::Inbound(service)) => Ok(Key::Inbound(field::inner(service, "inbound")?)),
        Some(Kind::Peer(name)) => Ok(Key::Peer(field::name(&name, "peer")?)),
        None => Err(Invalid::new("kind", "is missing or of a newer version")),
    }
}

fn item(message: wire::ProxyItem) -> Result<(Key, Item), Invalid> {
    use wire::proxy_item::Kind;
    match message.kind {
        Some(Kind::Outbound(o)) => outbound(o).map_err(|e| e.within("outbound")),
        Some(Kind::Inbound(i)) => inbound(i).map_err(|e| e.within("inbound")),
        Some(Kind::Peer(p)) => peer(p).map_err(|e| e.within("peer")),
        None => Err(Invalid::new("kind", "is missing or of a newer version")),
    }
}

fn outbound(message: wire::Outbound) -> Result<(Key, Item), Invalid> {
    let import: Import = field::present(message.import, "import")?;
    let addresses =
        message.addresses.iter().map(|a| field::address(a, "addresses")).collect::<Result<Vec<_>, _>>()?;
    Ok((Key::Outbound(import.service.clone()), Item::Outbound(OutboundItem { import, addresses })))
}

fn inbound(message: wire::Inbound) -> Result<(Key, Item), Invalid> {
    let service: ServiceKey = field::present(message.service, "service")?;
    let mut ports = BTreeMap::new();
    for port in message.ports {
        let number = field::port(port.port, "ports.port")?;
        let targets = port.targets.into_iter().map(target).collect::<Result<Vec<_>, _>>()?;
        if ports.insert(number, targets).is_some() {
            return Err(Invalid::new("ports", format!("names port {number} twice")));
        }
    }
    let importers = field::names(&message.importers, "importers")?;
    Ok((Key::Inbound(service.clone()), Item::Inbound(InboundItem { service, ports, importers })))
}

fn target(message: wire::InboundTarget) -> Result<TargetItem, Invalid> {
    Ok(TargetItem {
        endpoint: field::name(&message.endpoint, "targets.endpoint")?,
        address: field::address(&message.address, "targets.address")?,
        app_port: field::port(message.app_port, "targets.app_port")?,
        inbound_port: field::optional_port(message.inbound_port, "targets.inbound_port")?,
        ready: message.ready,
    })
}

fn peer(message: wire::TrustedPeer) -> Result<(Key, Item), Invalid> {
    let name: ClusterName = field::name(&message.name, "name")?;
    let peer = PeerItem {
        name: name.clone(),
        trust_domain: field::name(&message.trust_domain, "trust_domain")?,
        bundle: field::optional(message.bundle, "bundle")?,
        exports_to_us: message.exports_to_us,
        imports_from_us: message.imports_from_us,
        probes: field::list(message.probes, "probes")?,
        own: message.own,
    };
    if peer.bundle.as_ref().is_some_and(|b| b.trust_domain != peer.trust_domain) {
        return Err(Invalid::new("bundle.trust_domain", "is not the peer's own trust domain"));
    }
    Ok((Key::Peer(name), Item::Peer(peer)))
}
