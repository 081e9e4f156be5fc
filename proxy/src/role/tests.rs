//! The whole path on loopback, with real certificates: an application of `east`, its sidecar, `west`'s gateway, a
//! sidecar of `west` and its application.

use super::*;
use crate::discover::build::Builder;
use crate::discover::items::{Change, InboundItem, Item, Key, OutboundItem, PeerItem, TargetItem};
use crate::gate::{Gate, Limits};
use crate::listen::explicit::{self, ImportPort};
use crate::tls::tests::Ca;
use sealane_core::endpoint::{GatewayAddress, GatewayHost, Locality};
use sealane_core::identity::SpiffeId;
use sealane_core::name::{ClusterName, EndpointId, PortName, ServiceKey};
use sealane_core::service::{InternalTrafficPolicy, Port, Protocol, ServiceType, SessionAffinity};
use sealane_core::time::Revision;
use sealane_core::trust::Bundle;
use sealane_core::view::{Candidate, Import, Path, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod capture;
mod chain;
mod refusals;

pub(crate) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const ENDPOINT: &str = "e-aaaaaaaaaaaaa";
pub(crate) const OTHER_ENDPOINT: &str = "e-bbbbbbbbbbbbb";

fn with_identity(identity: Identity, own: Vec<SocketAddr>, drain: Drain) -> Arc<Context> {
    let metrics = Arc::new(Metrics::new());
    Arc::new(Context {
        current: Current::new(),
        identity,
        connections: Connections::new(Arc::clone(&metrics)),
        metrics,
        drain,
        pipes: Pipes::new(16),
        mark: None,
        own,
        max_outbound: 1000,
    })
}

/// A context with an identity of its own.
pub(crate) fn context(own: Vec<SocketAddr>) -> Arc<Context> {
    with_identity(crate::tls::tests::identity("east.test", "ns/shop/sa/web"), own, Drain::default())
}

pub(crate) fn service() -> ServiceKey {
    ServiceKey::parse("shop/cart").unwrap()
}

pub(crate) fn name(s: &str) -> ClusterName {
    ClusterName::parse(s).unwrap()
}

pub(crate) fn names(all: &[&str]) -> BTreeSet<ClusterName> {
    all.iter().map(|n| name(n)).collect()
}

/// A listener on a free port.
pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    listener().await.1
}

/// A cluster with its authority.
pub(crate) struct Cluster {
    pub(crate) name: &'static str,
    pub(crate) ca: Ca,
}

impl Cluster {
    pub(crate) fn new(name: &'static str) -> Self {
        Cluster { name, ca: Ca::new(&format!("{name}.test")) }
    }

    pub(crate) fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://{}.test/{path}", self.name)).unwrap()
    }

    /// As another cluster (or, with `own`, its own proxies) knows it.
    pub(crate) fn peer(&self, own: bool) -> PeerItem {
        let bundle = self.ca.bundle();
        PeerItem {
            name: name(self.name),
            trust_domain: bundle.trust_domain().clone(),
            bundle: Some(Bundle {
                trust_domain: bundle.trust_domain().clone(),
                sequence: 1,
                refresh_hint_s: 60,
                roots: bundle.roots().iter().map(|r| r.to_vec()).collect(),
            }),
            exports_to_us: true,
            imports_from_us: true,
            probes: Vec::new(),
            own,
        }
    }
}

/// A proxy of a test: its context and what the agent would tell it.
pub(crate) struct Proxy {
    pub(crate) context: Arc<Context>,
    builder: Builder,
    version: u64,
}

impl Proxy {
    pub(crate) fn new(cluster: &Cluster, path: &str) -> Self {
        Proxy::with(cluster.ca.identity(path), cluster, Vec::new())
    }

    pub(crate) fn with(identity: Identity, cluster: &Cluster, own: Vec<SocketAddr>) -> Self {
        let context = with_identity(identity.clone(), own, Drain::default());
        let mut builder = Builder::new(identity);
        builder.welcome(name(cluster.name));
        Proxy { context, builder, version: 0 }
    }

    /// Applies items on top of what it has.
    pub(crate) fn tell(&mut self, items: Vec<Item>) {
        self.change(items, Vec::new());
    }

    pub(crate) fn change(&mut self, items: Vec<Item>, deletes: Vec<Key>) {
        self.version += 1;
        let key = |item: &Item| match item {
            Item::Outbound(o) => Key::Outbound(o.import.service.clone()),
            Item::Inbound(i) => Key::Inbound(i.service.clone()),
            Item::Peer(p) => Key::Peer(p.name.clone()),
        };
        let change = Change {
            version: self.version,
            revision: Revision { generation: 1, index: self.version },
            upserts: items.into_iter().map(|item| (key(&item), item, Default::default())).collect(),
            deletes,
            ..Change::default()
        };
        self.context.current.store(self.builder.apply(change));
    }

    /// Serves its mTLS port as a sidecar.
    pub(crate) async fn sidecar(&self) -> SocketAddr {
        let (listener, address) = listener().await;
        tokio::spawn(sidecar::serve(Arc::clone(&self.context), Gate::new(Limits::default()), listener));
        address
    }

    /// Serves its port as a gateway.
    pub(crate) async fn gateway(&self, limits: Limits) -> SocketAddr {
        let (listener, address) = listener().await;
        tokio::spawn(gateway::serve(Arc::clone(&self.context), Gate::new(limits), listener));
        address
    }

    /// Listens for an application that calls the service.
    pub(crate) async fn outbound(&self) -> SocketAddr {
        let (listener, address) = listener().await;
        let import = ImportPort { service: service(), port: 80 };
        tokio::spawn(explicit::serve(Arc::clone(&self.context), listener, import));
        address
    }

    /// The finished and open connections as JSON, once there are enough that match.
    pub(crate) async fn connections(&self, direction: &str, ended: usize) -> Vec<serde_json::Value> {
        let mut found = Vec::new();
        for _ in 0..500 {
            let dump = serde_json::to_value(self.context.connections.dump()).unwrap();
            let of = |c: &&serde_json::Value| c["direction"] == direction && c["result"] != "active";
            found = dump.as_array().unwrap().iter().filter(of).cloned().collect();
            if found.len() >= ended {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{ended} ended {direction} connections did not come; there are {found:#?}");
    }
}

pub(crate) fn target(endpoint: &str, inbound: Option<SocketAddr>, app: SocketAddr) -> TargetItem {
    TargetItem {
        endpoint: EndpointId::parse(endpoint).unwrap(),
        address: app.ip(),
        app_port: app.port(),
        inbound_port: inbound.map(|a| a.port()),
        ready: true,
    }
}

pub(crate) fn inbound(targets: Vec<TargetItem>, importers: &[&str]) -> Item {
    let ports = BTreeMap::from([(80, targets)]);
    Item::Inbound(InboundItem { service: service(), ports, importers: names(importers) })
}

pub(crate) fn gateway_address(address: SocketAddr) -> GatewayAddress {
    GatewayAddress { host: GatewayHost::Ip(address.ip()), port: address.port() }
}

pub(crate) fn port_name() -> PortName {
    PortName::parse("http").unwrap()
}

/// A candidate by way of a gateway.
pub(crate) fn by_gateway(
    cluster: &str,
    tier: Tier,
    gateway: SocketAddr,
    identities: &[SpiffeId],
) -> Candidate {
    let path = Path::Gateway {
        address: gateway_address(gateway),
        locality: Locality::default(),
        weights: BTreeMap::from([(port_name(), 1)]),
        identities: identities.iter().cloned().collect(),
        endpoints: Vec::new(),
    };
    Candidate { cluster: name(cluster), tier, path }
}

/// A candidate in the same network.
pub(crate) fn direct(
    cluster: &str,
    tier: Tier,
    endpoint: &str,
    at: SocketAddr,
    id: Option<SpiffeId>,
) -> Candidate {
    let path = Path::Direct {
        id: EndpointId::parse(endpoint).unwrap(),
        address: at.ip(),
        ports: BTreeMap::from([(port_name(), 8080)]),
        locality: Locality::default(),
        spiffe_id: id,
        inbound_port: Some(at.port()),
        hostname: None,
    };
    Candidate { cluster: name(cluster), tier, path }
}

pub(crate) fn outbound(candidates: Vec<Candidate>) -> Item {
    let port = Port { name: port_name(), protocol: Protocol::Tcp, port: 80, app_protocol: None };
    let import = Import {
        service: service(),
        service_type: ServiceType::ClusterSetIp,
        ports: vec![port],
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        clusters: candidates.iter().map(|c| c.cluster.clone()).collect(),
        candidates,
        unreached: BTreeMap::new(),
    };
    Item::Outbound(OutboundItem { import, addresses: Vec::new() })
}

/// Both clusters and three proxies, ready to carry.
pub(crate) struct Chain {
    pub(crate) east: Cluster,
    pub(crate) west: Cluster,
    pub(crate) client: Proxy,
    pub(crate) gateway: Proxy,
    pub(crate) server: Proxy,
    /// Where an application of east connects.
    pub(crate) entry: SocketAddr,
    pub(crate) gateway_address: SocketAddr,
}

impl Chain {
    /// A chain to an application that listens there.
    pub(crate) async fn to(app: SocketAddr) -> Chain {
        let (east, west) = (Cluster::new("east"), Cluster::new("west"));
        let mut server = Proxy::new(&west, "ns/shop/sa/cart");
        let both =
            |own: &Cluster, other: &Cluster| vec![Item::Peer(own.peer(true)), Item::Peer(other.peer(false))];
        server.tell(both(&west, &east));
        server.tell(vec![inbound(vec![target(ENDPOINT, None, app)], &["east", "west"])]);
        let sidecar = server.sidecar().await;

        let mut gateway = Proxy::new(&west, "sealane/gateway");
        gateway.tell(both(&west, &east));
        gateway.tell(vec![inbound(vec![target(ENDPOINT, Some(sidecar), app)], &["east", "west"])]);
        let gateway_address = gateway.gateway(Limits::default()).await;

        let mut client = Proxy::new(&east, "ns/shop/sa/web");
        let accepted = [west.id("ns/shop/sa/cart")];
        client.tell(vec![outbound(vec![by_gateway("west", Tier::Remote, gateway_address, &accepted)])]);
        client.tell(both(&east, &west));
        let entry = client.outbound().await;
        Chain { east, west, client, gateway, server, entry, gateway_address }
    }
}

/// An application that sends back what it got, once it has got all.
pub(crate) async fn echo_at_end() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).await.is_ok() {
                    all.extend_from_slice(b" and back");
                    // The caller may be gone in tests of refusals.
                    let _ = stream.write_all(&all).await;
                }
            });
        }
    });
    address
}

/// An application that says its name and closes.
pub(crate) async fn says(word: &'static str) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.write_all(word.as_bytes()).await;
            });
        }
    });
    address
}

/// Connects and reads to the end; the error's kind when it broke.
pub(crate) async fn hear(entry: SocketAddr) -> Result<String, std::io::ErrorKind> {
    let mut stream = TcpStream::connect(entry).await.unwrap();
    let mut heard = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut heard)).await;
    read.expect("an answer in time").map(|_| heard).map_err(|e| e.kind())
}
