//! What the status API answers, as data: one set of types for the server, the CLI and the OpenAPI document.
//!
//! Times are RFC 3339 in UTC; ages and spans are milliseconds; a revision is `GENERATION.INDEX`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What every answer says about how current it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Freshness {
    /// The revision that was answered from.
    pub revision: String,
    /// How long ago this server last led or was answered by the leader: the answer is at most about this old. `null`
    /// when it never was since it started.
    pub age_ms: Option<u64>,
    /// The leader that this server knows; `null` when there is none.
    pub leader: Option<u64>,
}

/// The one shape of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// A stable code for programs.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
}

/// Codes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A client certificate of an administrator or a reader is needed.
    Forbidden,
    /// The named thing does not exist.
    NotFound,
    /// The request is not understood.
    Invalid,
    /// Only reads are served here.
    MethodNotAllowed,
    /// There is no leader to confirm a consistent read.
    Unavailable,
    /// Too many requests at once.
    Busy,
    /// A defect of the server.
    Internal,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The federation's id.
    pub federation: String,
    /// The federation's trust domain.
    pub trust_domain: String,
    /// The version of this server's build.
    pub version: String,
    /// This server.
    pub server: u64,
    /// Its role.
    pub role: ServerRole,
    /// The raft term.
    pub term: u64,
    /// The last applied entry.
    pub applied: u64,
    /// The last committed entry known here.
    pub commit: u64,
    /// Whether the servers suspect themselves because most clusters went silent at once; then no lease lapses.
    pub suspected_self: bool,
    /// How many servers there are.
    pub servers: u32,
    /// How many clusters there are, by standing.
    pub clusters: BTreeMap<String, u32>,
    /// How many services anyone exports.
    pub services: u32,
    /// What needs somebody's attention, as sentences.
    pub warnings: Vec<String>,
}

/// A server's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerRole {
    /// It orders the log.
    Leader,
    /// It follows a leader.
    Follower,
    /// It seeks to be elected.
    Candidate,
    /// It receives the log and does not vote yet.
    Learner,
    /// Another server, whose role is not known here.
    Unknown,
}

/// `GET /api/v1/servers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Servers {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The servers, by id.
    pub servers: Vec<Server>,
}

/// One federation server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Server {
    /// Its id.
    pub id: u64,
    /// Where it is dialled; `null` before it recorded that.
    pub address: Option<String>,
    /// Where its status API answers.
    pub status_address: Option<String>,
    /// Its role, as far as the answering server knows.
    pub role: ServerRole,
    /// Whether it votes.
    pub voter: bool,
    /// The last entry that the leader knows to be on its disk; only the leader and the server itself know.
    pub matched: Option<u64>,
    /// Whether the leader hears from it; only the leader knows.
    pub reachable: Option<bool>,
    /// How long ago the leader was last told something by it; only the leader knows.
    pub last_heard_ms: Option<u64>,
    /// Whether it is being sent a snapshot; only the leader knows.
    pub snapshot: Option<bool>,
}

/// `GET /api/v1/clusters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Clusters {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The clusters, by name.
    pub clusters: Vec<Cluster>,
    /// Those that may join by tokens of their own issuers, members or not, by name.
    pub added: Vec<Added>,
}

/// A cluster that may join by tokens of its own issuer, whenever it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// Whether it is a member.
    pub member: bool,
    /// The trust domain that it has, or will have.
    pub trust_domain: String,
    /// What it may export, as namespace patterns.
    pub exports: Vec<String>,
    /// What it may import.
    pub imports: Vec<String>,
    /// What its tokens must name as their issuer; `null` for anything.
    pub issuer: Option<String>,
    /// Whether the servers fetch the issuer's keys; else they were given.
    pub fetched: bool,
    /// The names of the keys that were given; a key without a name has an empty one.
    pub keys: Vec<String>,
    /// Whom its tokens must speak for.
    pub subject: String,
    /// When it last joined by such a token; `null` for never.
    pub last_joined: Option<String>,
}

/// `GET /api/v1/clusters/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneCluster {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The cluster.
    pub cluster: Cluster,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its id, never reused.
    pub id: u64,
    /// Its trust domain.
    pub trust_domain: String,
    /// The UID of its namespace kube-system; `null` where it is not known or not a Kubernetes cluster.
    pub uid: Option<String>,
    /// The store's verdict.
    pub standing: Standing,
    /// Its proof of life in the store.
    pub lease: Lease,
    /// How long ago it was last heard, by the clock of the server that heard it; `null` when not known.
    pub last_heard_ms: Option<u64>,
    /// When it joined.
    pub joined: String,
    /// When its agent's certificate expires.
    pub certificate_not_after: String,
    /// Its agent's session; `null` before the first.
    pub session: Option<Session>,
    /// The default network of its endpoints.
    pub network: String,
    /// Its default locality.
    pub locality: Locality,
    /// Its gateways.
    pub gateways: Vec<Gateway>,
    /// Where its liveness is probed.
    pub probes: Vec<String>,
    /// The namespaces that it imports into.
    pub interest: Vec<String>,
    /// The sequence of its trust bundle; `null` before it published one.
    pub bundle_sequence: Option<u64>,
    /// How many services it exports.
    pub exports: u32,
    /// How many services it imports.
    pub imports: u32,
    /// What it says of its ways to other clusters.
    pub lanes: Vec<Lane>,
    /// Who could bear witness about it.
    pub witnesses: Vec<Witness>,
    /// What its agent last said about its view; `null` when nothing is known.
    pub view: Option<AppliedView>,
}

/// The store's verdict on a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It joined, and has opened no session yet: nothing of it can be lost.
    Joining,
    /// Its lease is live.
    Live,
    /// Its lease lapsed, but the witnesses do not outvote it: nothing is withdrawn.
    Suspect,
    /// Its lease lapsed and more witnesses say down than up: withdrawn from the others.
    Withdrawn,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// Its state.
    pub state: LeaseState,
    /// For how long, by the log's time; `null` for a cluster that never opened a session.
    pub since_ms: Option<u64>,
    /// Since when; `null` as above.
    pub since: Option<String>,
}

/// The state of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// The cluster never opened a session.
    Never,
    /// It is renewed.
    Live,
    /// Nothing was heard for a whole TTL.
    Lapsed,
}

/// An agent's session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The agent's instance: one for each start of its process.
    pub instance: String,
    /// When it was opened.
    pub opened: String,
    /// Whether its first full catalog was synced.
    pub synced: bool,
    /// The last applied write.
    pub sequence: u64,
    /// Whom it shut out, if another instance.
    pub fenced: Option<Fenced>,
    /// Whether its stream ended: another instance may take over.
    pub closed: bool,
    /// The other instance that was refused last because this one holds the session, since when.
    pub refused: Option<Fenced>,
}

/// An instance that was shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fenced {
    /// The instance.
    pub instance: String,
    /// When.
    pub at: String,
}

/// A region and a zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Locality {
    /// The region.
    pub region: Option<String>,
    /// The zone.
    pub zone: Option<String>,
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gateway {
    /// Where importers dial it.
    pub address: String,
    /// The network that it reaches.
    pub network: String,
    /// Where it is.
    pub locality: Locality,
    /// Its share.
    pub weight: u32,
    /// Whether it takes new connections.
    pub ready: bool,
}

/// A way to another cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lane {
    /// The other cluster.
    pub to: String,
    /// Whether probes pass.
    pub verdict: LaneVerdict,
    /// Since when.
    pub since: String,
    /// The round-trip time at the last report, in microseconds.
    pub rtt_us: Option<u32>,
}

/// Whether probes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaneVerdict {
    /// They do.
    Up,
    /// They do not.
    Down,
}

/// A cluster that could bear witness about another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Witness {
    /// Who.
    pub cluster: String,
    /// What it says.
    pub says: WitnessSays,
    /// Since when, if it counts.
    pub since: Option<String>,
}

/// What a witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WitnessSays {
    /// Its probes pass.
    Up,
    /// Its probes fail.
    Down,
    /// Nothing that counts: its own lease is not live.
    NoLease,
    /// Nothing that counts: it has not reported in this session.
    NoReport,
}

/// What an agent said about its view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedView {
    /// The revision that it applied last.
    pub revision: String,
    /// What went wrong, empty if nothing.
    pub error: String,
    /// The server that it is connected to.
    pub server: u64,
}

/// `GET /api/v1/services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The services, by namespace and name.
    pub services: Vec<Service>,
}

/// `GET /api/v1/services/{namespace}/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneService {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The service.
    pub service: Service,
}

/// A service that somebody exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ClusterSetIP` or `Headless`; `null` while no export is valid.
    #[serde(rename = "type")]
    pub service_type: Option<String>,
    /// The union of ports.
    pub ports: Vec<Port>,
    /// The exports, oldest first.
    pub exports: Vec<Export>,
    /// Where the exports disagree.
    pub conflicts: Vec<Conflict>,
    /// The clusters that import it.
    pub importers: Vec<String>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// Its name, empty where the only port has none.
    pub name: String,
    /// The number.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The application protocol, if stated.
    pub app_protocol: Option<String>,
}

/// One cluster's export of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Export {
    /// The exporting cluster.
    pub cluster: String,
    /// Whether it exports anything.
    pub valid: bool,
    /// The standard reason why not.
    pub reason: Option<String>,
    /// Its place in the order of first observation: smaller is older.
    pub observed: u64,
    /// Its endpoints.
    pub endpoints: u32,
    /// Those that take new connections.
    pub ready: u32,
    /// The revision at which it last changed.
    pub changed: String,
}

/// A disagreement between exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conflict {
    /// The standard reason of the condition, such as `PortConflict`.
    pub reason: String,
    /// Names the field, the winner and the count.
    pub message: String,
}

/// `GET /api/v1/services/{namespace}/{name}/endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoints {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// The importing cluster that is asked about.
    pub from: String,
    /// Where its connections may go, best tier first.
    pub candidates: Vec<Candidate>,
}

/// One place that a connection may go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// The cluster that serves it.
    pub cluster: String,
    /// Its tier.
    pub tier: Tier,
    /// How it is reached.
    pub path: CandidatePath,
    /// The endpoint's address, or the gateway's `host:port`.
    pub address: String,
    /// The endpoint's id, for a direct path.
    pub endpoint: Option<String>,
    /// Target ports (direct) or weights (gateway) by port name.
    pub ports: BTreeMap<String, u32>,
    /// Where it is.
    pub locality: Locality,
    /// The identities that may answer.
    pub identities: Vec<String>,
    /// The port of the endpoint's inbound proxy, for a direct path.
    pub inbound_port: Option<u16>,
    /// The endpoint's hostname in a headless service.
    pub hostname: Option<String>,
}

/// The tier of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// In the importer's own cluster.
    Local,
    /// In another cluster.
    Remote,
    /// In a cluster that the importer's own probes do not reach.
    Avoided,
}

/// How a candidate is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CandidatePath {
    /// The endpoint itself.
    Direct,
    /// A gateway of its cluster.
    Gateway,
}

/// `GET /api/v1/explain/{namespace}/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// How current this is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// The importing cluster.
    pub from: String,
    /// Whether it gets the service.
    pub imported: bool,
    /// Why not, as a sentence.
    pub not_imported: Option<String>,
    /// Every exporting cluster, oldest export first.
    pub exports: Vec<ExplainedExport>,
    /// Where the exports disagree.
    pub conflicts: Vec<Conflict>,
    /// Every endpoint and gateway of every exporter, chosen or not, and why.
    pub decisions: Vec<Decision>,
    /// What agents say is wrong with the service in their clusters: a refused export, somebody else's object in the way.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
}

/// What an agent says is wrong with a service in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trouble {
    /// The cluster.
    pub cluster: String,
    /// What is wrong, as a sentence.
    pub message: String,
}

/// An exporting cluster in an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedExport {
    /// The cluster.
    pub cluster: String,
    /// Its place in the order of first observation.
    pub observed: u64,
    /// Whether the export counts for this importer.
    pub counted: bool,
    /// Why not, as a sentence.
    pub reason: Option<String>,
    /// The verdict on the cluster.
    pub standing: Standing,
    /// Its lease.
    pub lease: Lease,
    /// The evidence.
    pub witnesses: Vec<Witness>,
    /// The verdict with its evidence, as a sentence.
    pub liveness: String,
}

/// A decision on one place that a connection could go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// The cluster that has it.
    pub cluster: String,
    /// What it is.
    pub kind: SubjectKind,
    /// Its address; for a gateway `host:port`.
    pub address: String,
    /// The endpoint's id.
    pub endpoint: Option<String>,
    /// Where it is.
    pub locality: Locality,
    /// The endpoint's identity.
    pub spiffe_id: Option<String>,
    /// What became of it.
    pub outcome: DecisionOutcome,
    /// Why, as a sentence.
    pub reason: String,
    /// The candidate, if chosen.
    pub candidate: Option<Candidate>,
}

/// What a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// An endpoint.
    Endpoint,
    /// A gateway.
    Gateway,
}

/// What became of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecisionOutcome {
    /// It is in the view.
    Chosen,
    /// It is reached through the chosen gateways of its cluster.
    BehindGateway,
    /// It is not in the view.
    Rejected,
}
