//! What one cluster receives: its imports, its exports' standing, its peers. Computed, never typed in.
//!
//! A view is a map of independent items, so that a delta is a set of items and cost follows change.

use crate::command::Refusal;
use crate::endpoint::{Gateway, GatewayAddress, Locality};
use crate::identity::{ClusterId, SpiffeId};
use crate::name::{ClusterName, EndpointId, Hostname, NetworkName, PortName, ServiceKey, TrustDomain};
use crate::reach::Unreached;
use crate::service::{InternalTrafficPolicy, IpFamily, Port, ServiceType, SessionAffinity};
use crate::trust::Bundle;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The key of one item of a view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViewKey {
    /// A service that the cluster imports.
    Import(ServiceKey),
    /// A service that the cluster exports: how that export stands.
    Export(ServiceKey),
    /// A cluster that this one imports from, exports to or probes.
    Peer(ClusterName),
}

/// One item of a view. Shared items compare as fast as their pointers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewItem {
    /// See [`ViewKey::Import`].
    Import(Arc<Import>),
    /// See [`ViewKey::Export`].
    Export(Arc<ExportStatus>),
    /// See [`ViewKey::Peer`].
    Peer(Arc<Peer>),
}

/// A view: every item by its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The items.
    pub items: BTreeMap<ViewKey, ViewItem>,
}

/// A service that the cluster imports, merged from all its exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The service.
    pub service: ServiceKey,
    /// Headless or not, from the oldest export.
    pub service_type: ServiceType,
    /// The union of ports.
    pub ports: Vec<Port>,
    /// From the oldest export.
    pub session_affinity: SessionAffinity,
    /// From the oldest export.
    pub session_affinity_timeout_s: Option<u32>,
    /// From the oldest export.
    pub internal_traffic_policy: InternalTrafficPolicy,
    /// From the oldest export.
    pub traffic_distribution: Option<String>,
    /// From the oldest export that has any, in its order.
    pub ip_families: Vec<IpFamily>,
    /// The exported labels of the oldest export, as a whole.
    pub labels: BTreeMap<String, String>,
    /// The exported annotations of the oldest export, as a whole.
    pub annotations: BTreeMap<String, String>,
    /// The clusters that export it, whether or not they are withdrawn now.
    pub clusters: BTreeSet<ClusterName>,
    /// Where connections may go, best tier first, in a stable order.
    pub candidates: Vec<Candidate>,
    /// The exporters that have ready endpoints of which none is among the candidates, though their cluster is not withdrawn.
    pub unreached: BTreeMap<ClusterName, Unreached>,
}

/// The tier of a candidate: connections go to the lowest tier that has a working candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// In the importer's own cluster.
    Local,
    /// In another cluster.
    Remote,
    /// In another cluster whose lane this importer sees down: a last resort, instead of nothing.
    Avoided,
}

/// One place that a connection to an import may go to. In their order the best tier is first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its tier.
    pub tier: Tier,
    /// The cluster that serves it.
    pub cluster: ClusterName,
    /// How it is reached.
    pub path: Path,
}

/// How a candidate is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// The endpoint itself: same cluster or same network.
    Direct {
        /// The endpoint.
        id: EndpointId,
        /// Its address.
        address: IpAddr,
        /// The target port for each Service port name.
        ports: BTreeMap<PortName, u16>,
        /// Where it is.
        locality: Locality,
        /// The identity that its inbound proxy must prove.
        spiffe_id: Option<SpiffeId>,
        /// The port of its inbound proxy, `None` where it has none.
        inbound_port: Option<u16>,
        /// Its hostname in a headless service.
        hostname: Option<Hostname>,
    },
    /// A gateway of the exporting cluster, across networks.
    Gateway {
        /// Where the gateway is dialled.
        address: GatewayAddress,
        /// Where the gateway is.
        locality: Locality,
        /// For each Service port name, this gateway's share: the shares of a cluster's gateways sum to its ready
        /// endpoints for that port. Zero is left out.
        weights: BTreeMap<PortName, u32>,
        /// The identities that may answer behind it: those that the export's ready endpoints publish.
        identities: BTreeSet<SpiffeId>,
        /// The endpoints behind it that a client may ask for by name (headless), with their hostnames.
        endpoints: Vec<(EndpointId, Option<Hostname>)>,
    },
}

/// How one of the cluster's own exports stands: the source of its ServiceExport conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportStatus {
    /// The service.
    pub service: ServiceKey,
    /// Whether it is exported, and if not, why (a grant, a limit, an invalid Service).
    pub ready: Result<(), Refusal>,
    /// The conflicts it takes part in; empty means `NoConflicts`.
    pub conflicts: Vec<Conflict>,
    /// The clusters that import it: the inbound proxies admit these and the cluster's own.
    pub importers: BTreeSet<ClusterName>,
}

/// A property in which the exports of one service disagree (KEP-1645, conflict resolution).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The property.
    pub field: ConflictField,
    /// Names the field, the winner and the count.
    pub message: String,
}

/// The properties that can conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictField {
    /// Port lists differ.
    Port,
    /// Headlessness differs.
    Type,
    /// Session affinity differs.
    SessionAffinity,
    /// Session affinity configuration differs.
    SessionAffinityConfig,
    /// Internal traffic policy differs.
    InternalTrafficPolicy,
    /// Traffic distribution differs.
    TrafficDistribution,
    /// Exported labels differ.
    Labels,
    /// Exported annotations differ.
    Annotations,
    /// A family would reach only a part of the backends.
    IpFamily,
}

impl ConflictField {
    /// The standard reason of the condition `Conflict`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            ConflictField::Port => "PortConflict",
            ConflictField::Type => "TypeConflict",
            ConflictField::SessionAffinity => "SessionAffinityConflict",
            ConflictField::SessionAffinityConfig => "SessionAffinityConfigConflict",
            ConflictField::InternalTrafficPolicy => "InternalTrafficPolicyConflict",
            ConflictField::TrafficDistribution => "TrafficDistributionConflict",
            ConflictField::Labels => "LabelsConflict",
            ConflictField::Annotations => "AnnotationsConflict",
            ConflictField::IpFamily => "IPFamilyConflict",
        }
    }
}

/// Another cluster as this one needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its roots, once it published them.
    pub bundle: Option<Arc<Bundle>>,
    /// Its default network.
    pub network: NetworkName,
    /// Its gateways.
    pub gateways: Arc<Vec<Gateway>>,
    /// Where to probe it (SNI `probe.<cluster>.sealane.internal`, its gateway identity); also when withdrawn.
    pub probes: Arc<Vec<GatewayAddress>>,
    /// Whether this cluster imports from it.
    pub exports_to_us: bool,
    /// Whether it imports from this cluster.
    pub imports_from_us: bool,
    /// The store's verdict on it.
    pub standing: Standing,
}

/// The store's verdict on a cluster; see [`crate::liveness`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its lease is live.
    Live,
    /// Its lease lapsed, but the witnesses do not outvote it: nothing is withdrawn.
    Suspect,
    /// Its lease lapsed and more witnesses say down than up: withdrawn from the others.
    Withdrawn,
}
