//! The replicated state: ground facts only. A view is derived from it and never stored.
//!
//! Maps share structure (`imbl`), so a clone is cheap: readers take a snapshot without a lock, and a slow watcher
//! pins no writer. The state is a set of records ([`RecordKey`] to [`Record`]); the store persists and snapshots
//! just those, so there is one format for disk, snapshot and backup.

use crate::endpoint::{Endpoint, Gateway, Locality};
use crate::identity::{ClusterId, FederationId, InstanceId, ServerId, SessionId};
use crate::name::{
    ClusterName, ClusterUid, EndpointId, Namespace, NetworkName, ServiceAccount, ServiceKey, TrustDomain,
};
use crate::service::Export;
use crate::time::{Millis, Revision};
use crate::trust::Bundle;
use imbl::{OrdMap, OrdSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod admission;
mod grant;
mod query;
mod records;

pub use admission::{
    Admission, Issuer, IssuerKey, MAX_AUTHORITIES, MAX_AUTHORITY_BYTES, MAX_KEY_BYTES, MAX_KEYS, MAX_KID,
    SignatureAlgorithm, TOKEN_SKEW_MS, UsedToken,
};
pub use records::RecordError;

/// The SHA-256 of a secret or of a key; never the secret itself.
pub type Hash = [u8; 32];

/// Everything that the federation agreed on.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Facts about the federation itself.
    pub meta: Meta,
    /// The servers, by id.
    pub servers: OrdMap<ServerId, Arc<Server>>,
    /// Join tokens that were not consumed or that may still be retried by the key that consumed them.
    pub tokens: OrdMap<Hash, Arc<Token>>,
    /// Clusters that may join by tokens of their own issuers, members or not.
    pub admissions: OrdMap<ClusterName, Arc<Admission>>,
    /// The members.
    pub clusters: OrdMap<ClusterId, Arc<Cluster>>,
    /// The catalogs, one shard for each (service, exporting cluster); ordered so that a service's shards are a range.
    pub shards: OrdMap<(ServiceKey, ClusterId), Arc<Shard>>,
    /// Results of the latest administrative commands, so that a retry is not a second write.
    pub admin_results: OrdMap<AdminKey, Arc<AdminResult>>,
    /// Index: the id now bound to a name. Derived from `clusters`.
    pub by_name: OrdMap<ClusterName, ClusterId>,
    /// Index: the cluster bound to a trust domain. Derived from `clusters`.
    pub by_trust_domain: OrdMap<TrustDomain, ClusterId>,
    /// Index: the services that each cluster exports. Derived from `shards`.
    pub exported: OrdSet<(ClusterId, ServiceKey)>,
}

/// Facts about the federation itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Its id.
    pub federation: FederationId,
    /// Its trust domain, of servers, agents and administrators.
    pub trust_domain: TrustDomain,
    /// The generation and the raft index of the last applied command.
    pub revision: Revision,
    /// The version that gates commands; see [`crate::command::Command::min_version`].
    pub cluster_version: u32,
    /// The next cluster id to give.
    pub next_cluster: u64,
    /// The next server id to give; ids are never reused.
    pub next_server: u64,
    /// The next number in "first observed" order.
    pub next_observed: u64,
    /// The greatest time that any command carried.
    pub now: Millis,
    /// Administrators' commands issued before are answered [`crate::command::RefusalCode::Forgotten`]: a result of
    /// that age was evicted.
    pub admin_floor: Millis,
    /// What one cluster may put here.
    pub limits: Limits,
}

/// Bounds on what one cluster may publish. Above them: refused with the reason, the rest untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Exports of one cluster.
    pub services: u32,
    /// Endpoints of one export.
    pub endpoints: u32,
    /// Ports of one export.
    pub ports: u32,
    /// Bytes of all exported labels and annotations of one export.
    pub label_bytes: u32,
    /// Gateways of one cluster.
    pub gateways: u32,
    /// Namespaces in one cluster's interest.
    pub namespaces: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            services: 10_000,
            endpoints: 1_000,
            ports: 100,
            label_bytes: 64 * 1024,
            gateways: 64,
            namespaces: 10_000,
        }
    }
}

/// One federation server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its raft id.
    pub id: ServerId,
    /// Where peers, agents and administrators dial it, `host:port`.
    pub address: String,
    /// Where its status API answers, `host:port`.
    pub status_address: String,
}

/// A single-use permission to join, as its creator stated it. Only the hash of its secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The SHA-256 of the secret.
    pub hash: Hash,
    /// What joins with it.
    pub scope: TokenScope,
    /// When it stops working.
    pub expires: Millis,
    /// Set once it was consumed: the hash of the key that may retry.
    pub consumed: Option<Consumed>,
}

/// What a token admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    /// A cluster: its name, trust domain and grants are fixed here.
    Cluster {
        /// The name it will have.
        name: ClusterName,
        /// The trust domain it will have.
        trust_domain: TrustDomain,
        /// What it may export.
        exports: Grant,
        /// What it may import.
        imports: Grant,
    },
    /// A federation server.
    Server {
        /// The id it will have, given when the token was made.
        id: ServerId,
    },
}

/// The consumption of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// SHA-256 of the public key of the certificate request.
    pub key: Hash,
    /// The cluster that came of it, for a cluster token.
    pub cluster: Option<ClusterId>,
}

/// A list of namespace patterns; `*` matches any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The patterns; empty grants nothing.
    pub namespaces: Vec<String>,
}

/// One member.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its id, never reused.
    pub id: ClusterId,
    /// Its name.
    pub name: ClusterName,
    /// Its trust domain: unique and immutable.
    pub trust_domain: TrustDomain,
    /// Which Kubernetes cluster it is, once its agent has said so.
    pub uid: Option<ClusterUid>,
    /// What it may export.
    pub exports: Grant,
    /// What it may import.
    pub imports: Grant,
    /// When it joined.
    pub joined: Millis,
    /// SHA-256 of the public key that last enrolled or renewed, and the expiry of that certificate.
    pub certificate: CertificateRecord,
    /// The agent's session; `None` before its first one.
    pub session: Option<Session>,
    /// Its proof of life.
    pub lease: Lease,
    /// The default network of its endpoints.
    pub network: NetworkName,
    /// Its default locality.
    pub locality: Locality,
    /// Its trust bundle, once published.
    pub bundle: Option<Arc<Bundle>>,
    /// Its gateways.
    pub gateways: Arc<Vec<Gateway>>,
    /// Where its liveness is probed (served under its gateway identity); in a flat network too.
    pub probes: Arc<Vec<crate::endpoint::GatewayAddress>>,
    /// The namespaces that exist in it and that it imports into.
    pub interest: Arc<BTreeSet<Namespace>>,
    /// Its lanes: what it says of the clusters that it probes, in this session.
    pub lanes: BTreeMap<ClusterId, Lane>,
}

/// The certificate that a cluster's agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateRecord {
    /// SHA-256 of its public key (SPKI).
    pub key: Hash,
    /// When it expires.
    pub not_after: Millis,
}

/// One run of an agent's uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session id; also the client of every write in it.
    pub id: SessionId,
    /// The agent process that opened it.
    pub instance: InstanceId,
    /// When it was opened.
    pub opened: Millis,
    /// Whether its first full catalog was synced: before that nothing of the older catalog is dropped.
    pub synced: bool,
    /// The sequence of the last applied write, 0 before the first.
    pub sequence: u64,
    /// What that write was answered.
    pub last_result: Arc<crate::command::CatalogResult>,
    /// The session that this one shut out, if another instance's: (instance, when). Shown in status.
    pub fenced: Option<(InstanceId, Millis)>,
    /// Whether its stream ended: another instance may open the next session although the lease lives.
    pub closed: bool,
    /// The other instance that was refused last because this one holds the session: (instance, since when). Shown in status.
    pub refused: Option<(InstanceId, Millis)>,
}

/// A cluster's proof of life in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It never opened a session.
    Never,
    /// Renewed, as far as the log knows.
    Live {
        /// Since when.
        since: Millis,
    },
    /// The leader heard nothing for a whole TTL.
    Lapsed {
        /// Since when.
        since: Millis,
    },
}

/// What a cluster says of its way to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// Whether probes pass.
    pub verdict: LaneVerdict,
    /// When the verdict last changed, by the log's time.
    pub since: Millis,
    /// The round-trip time of a probe at the last report, in microseconds.
    pub rtt_us: Option<u32>,
}

/// The verdict of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneVerdict {
    /// Probes pass.
    Up,
    /// Probes fail (after the debounce: 3 failures).
    Down,
}

/// One service of one exporting cluster: its export and its endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    /// The export.
    pub export: Arc<Export>,
    /// Its place in "first observed" order: smaller is older. Kept over resync and restore.
    pub observed: u64,
    /// The exporter's endpoints, by id.
    pub endpoints: OrdMap<EndpointId, Arc<Endpoint>>,
    /// When the meaning of this shard last changed.
    pub changed: Revision,
}

/// The key of an administrative command's result: its place in log order, so that the oldest is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdminKey(pub u64);

/// The result of an administrative command, kept in a bounded ring.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminResult {
    /// Who asked: a key is its administrator's own.
    pub by: ServiceAccount,
    /// The idempotency key that the caller chose.
    pub key: [u8; 16],
    /// What it was answered.
    pub reply: crate::command::Reply,
}

/// How many administrative results are kept.
pub const ADMIN_RESULTS: usize = 1024;

/// The key of one record of the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// [`State::meta`].
    Meta,
    /// One of [`State::servers`].
    Server(ServerId),
    /// One of [`State::tokens`].
    Token(Hash),
    /// One of [`State::clusters`].
    Cluster(ClusterId),
    /// One of [`State::shards`].
    Shard(ServiceKey, ClusterId),
    /// One of [`State::admin_results`].
    AdminResult(AdminKey),
    /// One of [`State::admissions`].
    Admission(ClusterName),
}

/// One record of the state.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The federation's facts.
    Meta(Meta),
    /// A server.
    Server(Arc<Server>),
    /// A token.
    Token(Arc<Token>),
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// A shard, with its key.
    Shard(ServiceKey, ClusterId, Arc<Shard>),
    /// An administrative result, with its key.
    AdminResult(AdminKey, Arc<AdminResult>),
    /// An admission.
    Admission(Arc<Admission>),
}
