//! The configuration in use: immutable, whole, and exchanged at once. Every decision is a function over one of these.
//!
//! What costs work for a connection (TLS configurations, names) is made here, once a change, not once a connection.

use crate::balance::Health;
use crate::detect::Speaks;
use arc_swap::ArcSwap;
use imbl::OrdMap;
use sealane_core::endpoint::GatewayAddress;
use sealane_core::identity::SpiffeId;
use sealane_core::name::{ClusterName, EndpointId, ServiceKey, TrustDomain};
use sealane_core::sni::{ServerName, Target};
use sealane_core::time::Revision;
use sealane_core::view::Tier;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Everything the agent told us, made ready for use. Maps share structure with the former one's: a change costs what
/// changed.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The agent's version of it.
    pub(crate) version: u64,
    /// The view that it was made from.
    pub(crate) revision: Revision,
    /// Our own cluster, once known.
    pub(crate) cluster: Option<ClusterName>,
    /// Imports.
    pub(crate) outbound: OrdMap<ServiceKey, Arc<Outbound>>,
    /// What we serve.
    pub(crate) inbound: OrdMap<ServiceKey, Arc<Inbound>>,
    /// Clusters that we talk with.
    pub(crate) peers: OrdMap<ClusterName, Arc<Peer>>,
    /// For connections that end here without a service (probes): any known cluster may come.
    pub(crate) probe_tls: Option<Arc<rustls::ServerConfig>>,
    /// The imports' own addresses, with their ports.
    pub(crate) by_socket: OrdMap<SocketAddr, ServiceKey>,
}

/// A cluster that we talk with.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) name: ClusterName,
    /// Its trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Its roots, once known.
    pub(crate) bundle: Option<sealane_trust::bundle::Bundle>,
    /// How often its roots changed.
    pub(crate) bundle_sequence: u64,
    /// Whether we import from it.
    pub(crate) exports_to_us: bool,
    /// Whether it imports from us.
    pub(crate) imports_from_us: bool,
    /// Whether it is our own cluster.
    pub(crate) own: bool,
    /// Where it is probed; its gateways.
    pub(crate) probes: Vec<GatewayAddress>,
    /// Cancelled when the cluster is removed: its connections end then.
    pub(crate) gone: CancellationToken,
}

/// An import.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// The service.
    pub(crate) service: ServiceKey,
    /// Its own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its Service ports.
    pub(crate) ports: BTreeMap<u16, OutboundPort>,
}

/// A port of an import.
#[derive(Debug)]
pub(crate) struct OutboundPort {
    /// What is spoken there.
    pub(crate) speaks: Speaks,
    /// Where its connections may go, best tier first.
    pub(crate) choices: Vec<Arc<Choice>>,
}

/// One place that a connection to an import may go to.
#[derive(Debug)]
pub(crate) struct Choice {
    /// The cluster that serves it.
    pub(crate) cluster: ClusterName,
    /// Its tier.
    pub(crate) tier: Tier,
    /// Its share in the tier.
    pub(crate) weight: u32,
    /// How it is reached.
    pub(crate) via: Via,
    /// How to dial it, or why it can not be dialled.
    pub(crate) dial: Result<Dial, Unusable>,
    /// Whether it served lately.
    pub(crate) health: Arc<Health>,
}

/// How a place is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Via {
    /// The endpoint's own inbound proxy.
    Direct(EndpointId),
    /// A gateway of its cluster, any endpoint.
    Gateway,
    /// A gateway of its cluster, which terminates for this endpoint.
    GatewayFor(EndpointId),
}

/// All that dialling takes.
#[derive(Debug)]
pub(crate) struct Dial {
    /// Where.
    pub(crate) address: GatewayAddress,
    /// What to ask for.
    pub(crate) target: Target,
    /// The same, as the TLS library takes it.
    pub(crate) server_name: rustls::pki_types::ServerName<'static>,
    /// Who may answer.
    pub(crate) accepted: BTreeSet<SpiffeId>,
    /// Accepts the right identities of the right trust domain and no others.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// Cancelled when the cluster is removed.
    pub(crate) gone: CancellationToken,
}

/// Why a candidate can not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// No configuration for its cluster has come.
    #[error("its cluster is not among the trusted peers")]
    UnknownCluster,
    /// The cluster has published no roots.
    #[error("its cluster has not published its roots yet")]
    NoBundle,
    /// The endpoint publishes no identity, so nobody can prove to be it.
    #[error("the endpoint publishes no identity")]
    NoIdentity,
    /// Neither an inbound proxy nor a gateway to stand in for it: plain text is never sent.
    #[error("the endpoint has no inbound proxy, and its cluster no gateway that could terminate for it")]
    NoProxy,
    /// The name can not be written in a ClientHello.
    #[error("its name is longer than a server name may be")]
    Name,
}

/// A service that we admit connections for.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// The service.
    pub(crate) service: ServiceKey,
    /// Clusters whose workloads may come in.
    pub(crate) importers: BTreeSet<ClusterName>,
    /// For each Service port the places that serve it.
    pub(crate) ports: BTreeMap<u16, Vec<Arc<Place>>>,
    /// Admits exactly the importers.
    pub(crate) tls: Arc<rustls::ServerConfig>,
}

/// An endpoint of ours.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its id.
    pub(crate) endpoint: EndpointId,
    /// Its address.
    pub(crate) address: IpAddr,
    /// The application's port.
    pub(crate) app_port: u16,
    /// Its inbound proxy's port, where it has one.
    pub(crate) inbound_port: Option<u16>,
    /// Whether it takes new connections.
    pub(crate) ready: bool,
    /// Connections that we have to it now.
    pub(crate) load: Arc<AtomicU32>,
    /// Whether it answered lately.
    pub(crate) health: Arc<Health>,
}

impl Place {
    /// The application itself.
    pub(crate) fn application(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.app_port)
    }

    /// Its inbound proxy.
    pub(crate) fn inbound_proxy(&self) -> Option<SocketAddr> {
        self.inbound_port.map(|port| SocketAddr::new(self.address, port))
    }
}

impl Via {
    /// One word for dumps.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Via::Direct(_) => "direct",
            Via::Gateway => "gateway",
            Via::GatewayFor(_) => "gateway-for-endpoint",
        }
    }

    /// The endpoint, where it is a certain one.
    pub(crate) fn endpoint(&self) -> Option<&EndpointId> {
        match self {
            Via::Direct(endpoint) | Via::GatewayFor(endpoint) => Some(endpoint),
            Via::Gateway => None,
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Direct(endpoint) => write!(f, "direct {endpoint}"),
            Via::Gateway => f.write_str("gateway"),
            Via::GatewayFor(endpoint) => write!(f, "gateway for {endpoint}"),
        }
    }
}

impl Outbound {
    /// Its own addresses, with its ports.
    pub(crate) fn sockets(&self) -> BTreeSet<SocketAddr> {
        let ports = || self.ports.keys().copied();
        self.addresses.iter().flat_map(|ip| ports().map(|port| SocketAddr::new(*ip, port))).collect()
    }
}

impl Snapshot {
    /// Whether any configuration has come.
    pub(crate) fn configured(&self) -> bool {
        self.cluster.is_some()
    }

    /// The import that an address and port belong to.
    pub(crate) fn import_at(&self, address: SocketAddr) -> Option<&Arc<Outbound>> {
        self.outbound.get(self.by_socket.get(&address)?)
    }
}

/// The server name of a service, as the TLS library takes it.
pub(crate) fn tls_name(name: &ServerName) -> Option<rustls::pki_types::ServerName<'static>> {
    rustls::pki_types::ServerName::try_from(name.to_string()).ok()
}

/// The trust domain's gateway identity.
pub(crate) fn gateway_identity(peer: &Peer) -> SpiffeId {
    SpiffeId::gateway(&peer.trust_domain)
}

/// The snapshot in use, and word of each new one.
#[derive(Debug)]
pub(crate) struct Current {
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
}

impl Current {
    /// Empty.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Current {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            version: watch::Sender::new(0),
        })
    }

    /// The one in use.
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another in its place; open connections keep what they have.
    pub(crate) fn store(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.version.send_modify(|n| *n += 1);
    }

    /// Is told of each exchange.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
