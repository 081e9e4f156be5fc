//! The configuration in use, as `/config` shows it: what a connection made now would be decided by.

use crate::balance::{Standing, now_ms};
use crate::role::Context;
use crate::snapshot::{Choice, Inbound, Outbound, Peer, Place};
use sealane_core::view::Tier;
use serde::Serialize;

/// The whole dump.
#[derive(Debug, Serialize)]
pub(crate) struct Config {
    version: u64,
    revision: String,
    cluster: Option<String>,
    draining: bool,
    agent_connected: bool,
    identity: IdentityShown,
    outbound: Vec<OutboundShown>,
    inbound: Vec<InboundShown>,
    peers: Vec<PeerShown>,
    pipes_in_use: usize,
    pipes_opened: usize,
    /// How many times a direction was a stream, taken in larger pieces.
    streams: usize,
}

#[derive(Debug, Serialize)]
struct IdentityShown {
    spiffe_id: String,
    serial: String,
    not_before_ms: u64,
    not_after_ms: u64,
}

#[derive(Debug, Serialize)]
struct OutboundShown {
    service: String,
    addresses: Vec<String>,
    ports: Vec<PortShown>,
}

#[derive(Debug, Serialize)]
struct PortShown {
    port: u16,
    /// In the order of tiers; the first tier with one that is not ejected takes all connections.
    candidates: Vec<CandidateShown>,
}

#[derive(Debug, Serialize)]
struct CandidateShown {
    cluster: String,
    tier: &'static str,
    weight: u32,
    path: &'static str,
    endpoint: Option<String>,
    address: Option<String>,
    sni: Option<String>,
    identities: Vec<String>,
    state: &'static str,
    failures: u32,
    ejected_for_ms: u64,
    unusable: Option<String>,
}

#[derive(Debug, Serialize)]
struct InboundShown {
    service: String,
    importers: Vec<String>,
    ports: Vec<InboundPortShown>,
}

#[derive(Debug, Serialize)]
struct InboundPortShown {
    port: u16,
    places: Vec<PlaceShown>,
}

#[derive(Debug, Serialize)]
struct PlaceShown {
    endpoint: String,
    application: String,
    inbound_proxy: Option<String>,
    ready: bool,
    state: &'static str,
    connections: u32,
}

#[derive(Debug, Serialize)]
struct PeerShown {
    name: String,
    trust_domain: String,
    own: bool,
    exports_to_us: bool,
    imports_from_us: bool,
    roots: usize,
    bundle_sequence: u64,
    probes: Vec<String>,
}

impl Config {
    /// Of the snapshot in use now.
    pub(crate) fn of(context: &Context) -> Self {
        let snapshot = context.current.load();
        let svid = context.identity.current();
        Config {
            version: snapshot.version,
            revision: snapshot.revision.to_string(),
            cluster: snapshot.cluster.as_ref().map(ToString::to_string),
            draining: context.drain.draining(),
            agent_connected: context.metrics.agent_connected.get() == 1,
            identity: IdentityShown {
                spiffe_id: svid.spiffe_id.to_string(),
                serial: svid.serial.to_string(),
                not_before_ms: svid.not_before.0,
                not_after_ms: svid.not_after.0,
            },
            outbound: snapshot.outbound.values().map(|o| outbound(o)).collect(),
            inbound: snapshot.inbound.values().map(|i| inbound(i)).collect(),
            peers: snapshot.peers.values().map(|p| peer(p)).collect(),
            pipes_in_use: context.pipes.in_use(),
            pipes_opened: context.pipes.opened(),
            streams: context.pipes.streams(),
        }
    }
}

fn outbound(outbound: &Outbound) -> OutboundShown {
    let ports = outbound.ports.iter();
    OutboundShown {
        service: outbound.service.to_string(),
        addresses: outbound.addresses.iter().map(ToString::to_string).collect(),
        ports: ports
            .map(|(number, port)| PortShown {
                port: *number,
                candidates: port.choices.iter().map(|c| candidate(c)).collect(),
            })
            .collect(),
    }
}

fn candidate(choice: &Choice) -> CandidateShown {
    let now = now_ms();
    let (failures, ejected_for_ms) = choice.health.shown(now);
    let dial = choice.dial.as_ref();
    CandidateShown {
        cluster: choice.cluster.to_string(),
        tier: match choice.tier {
            Tier::Local => "local",
            Tier::Remote => "remote",
            Tier::Avoided => "avoided",
        },
        weight: choice.weight,
        path: choice.via.kind(),
        endpoint: choice.via.endpoint().map(ToString::to_string),
        address: dial.map(|d| d.address.to_string()).ok(),
        sni: dial.map(|d| d.target.to_string()).ok(),
        identities: dial.map(|d| d.accepted.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        state: state(choice.health.standing(now)),
        failures,
        ejected_for_ms,
        unusable: choice.dial.as_ref().err().map(ToString::to_string),
    }
}

fn state(standing: Standing) -> &'static str {
    match standing {
        Standing::Healthy => "healthy",
        Standing::HalfOpen => "half-open",
        Standing::Ejected => "ejected",
    }
}

fn inbound(inbound: &Inbound) -> InboundShown {
    let ports = inbound.ports.iter();
    InboundShown {
        service: inbound.service.to_string(),
        importers: inbound.importers.iter().map(ToString::to_string).collect(),
        ports: ports
            .map(|(port, places)| InboundPortShown {
                port: *port,
                places: places.iter().map(|p| place(p)).collect(),
            })
            .collect(),
    }
}

fn place(place: &Place) -> PlaceShown {
    PlaceShown {
        endpoint: place.endpoint.to_string(),
        application: place.application().to_string(),
        inbound_proxy: place.inbound_proxy().map(|p| p.to_string()),
        ready: place.ready,
        state: state(place.health.standing(now_ms())),
        connections: place.load.load(std::sync::atomic::Ordering::Relaxed),
    }
}

fn peer(peer: &Peer) -> PeerShown {
    PeerShown {
        name: peer.name.to_string(),
        trust_domain: peer.trust_domain.to_string(),
        own: peer.own,
        exports_to_us: peer.exports_to_us,
        imports_from_us: peer.imports_from_us,
        roots: peer.bundle.as_ref().map_or(0, |b| b.roots().len()),
        bundle_sequence: peer.bundle_sequence,
        probes: peer.probes.iter().map(ToString::to_string).collect(),
    }
}
