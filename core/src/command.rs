//! Commands: the only way that the state changes, and what each is answered.

use crate::endpoint::{Endpoint, Gateway, GatewayAddress, Locality};
use crate::identity::{ClusterId, FederationId, InstanceId, Principal, ServerId, SessionId};
use crate::name::{
    ClusterName, ClusterUid, EndpointId, Namespace, NetworkName, ServiceKey, Subject, TrustDomain,
};
use crate::service::Export;
use crate::state::{Grant, Hash, Issuer, LaneVerdict, Limits, TokenScope};
use crate::time::Millis;
use crate::trust::Bundle;
use std::collections::BTreeSet;

/// The version of the command set that this build understands.
///
/// 2: clusters join by tokens of their issuers ([`AdminAction::AddCluster`], [`Action::JoinByIssuer`]) and state which
/// Kubernetes cluster they are.
pub const VERSION: u32 = 2;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The lowest command version that understands this. A replica below it stops with a message.
    pub min_version: u32,
    /// The proposer's clock; made monotone by `apply`.
    pub at: Millis,
    /// Who asked for it, as the receiving server authenticated them; `None` for the server's own decisions.
    pub principal: Option<Principal>,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes the federation; the first command of every log.
    Found {
        /// Its id.
        federation: FederationId,
        /// Its trust domain.
        trust_domain: TrustDomain,
        /// Bounds for members.
        limits: Limits,
    },
    /// Records or updates a server's addresses.
    PutServer {
        /// Its raft id.
        id: ServerId,
        /// Where peers, agents and administrators dial it.
        address: String,
        /// Where its status API answers.
        status_address: String,
    },
    /// Raises the version that gates commands; a lower one than holds changes nothing.
    RaiseVersion {
        /// The version that every server was found to understand.
        version: u32,
    },
    /// Forgets a server that left the raft group.
    RemoveServer {
        /// Its raft id.
        id: ServerId,
    },
    /// An administrator's command, retried under the same key without a second effect.
    Admin {
        /// Chosen by the caller, unique per intent, by [`admin_key`]. Another administrator's is another key.
        key: [u8; 16],
        /// The command.
        action: AdminAction,
    },
    /// Consumes a join token. The same key may retry; another is refused.
    Join {
        /// The SHA-256 of the token's secret.
        token: Hash,
        /// SHA-256 of the public key in the certificate request.
        key: Hash,
        /// The expiry of the certificate that will be issued.
        not_after: Millis,
    },
    /// Takes a cluster in by a token of its issuer, which the proposing server verified by the cluster's admission.
    JoinByIssuer {
        /// What was proved.
        proof: Proof,
        /// SHA-256 of the public key in the certificate request.
        key: Hash,
        /// The expiry of the certificate that will be issued.
        not_after: Millis,
    },
    /// Records that a cluster's agent renewed its certificate.
    Renew {
        /// The cluster.
        cluster: ClusterId,
        /// SHA-256 of the public key of the new certificate.
        key: Hash,
        /// Its expiry.
        not_after: Millis,
    },
    /// Opens a session: revives the lease, fences the older session, clears lanes. Refused while another instance
    /// holds an open session under a live lease.
    OpenSession {
        /// The cluster.
        cluster: ClusterId,
        /// The new session.
        session: SessionId,
        /// The agent's process.
        instance: InstanceId,
        /// Which Kubernetes cluster this is; `None` where the agent's source has no such thing.
        uid: Option<ClusterUid>,
    },
    /// A write to a cluster's own catalog.
    Catalog {
        /// The cluster.
        cluster: ClusterId,
        /// The session; another than the current one is answered [`CatalogError::Fenced`].
        session: SessionId,
        /// 1 more than the last; the same number again is answered again without effect.
        sequence: u64,
        /// The changes, applied in order; one that is refused leaves the others in effect.
        changes: Vec<CatalogChange>,
    },
    /// The lease of this session lapsed. Ignored for another session.
    Lapse {
        /// The cluster.
        cluster: ClusterId,
        /// The session that was silent.
        session: SessionId,
    },
    /// The stream of this session ended, or nothing is heard of it: another instance may take over. Nothing else
    /// changes. Ignored for another session.
    Close {
        /// The cluster.
        cluster: ClusterId,
        /// The session whose stream ended.
        session: SessionId,
    },
    /// A heartbeat came from a lapsed session. Ignored for another session.
    Revive {
        /// The cluster.
        cluster: ClusterId,
        /// The session that was heard.
        session: SessionId,
    },
}

/// What a token of an issuer proves, as the server that verified it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The cluster that it lets join.
    pub cluster: ClusterName,
    /// The admission by which it was verified: [`crate::state::Admission::put`].
    pub admission: u64,
    /// The SHA-256 of what the issuer signed.
    pub token: Hash,
    /// When the token runs out.
    pub expires: Millis,
    /// Which Kubernetes cluster the joiner says that it is.
    pub uid: Option<ClusterUid>,
}

impl Action {
    /// The lowest command version that has all of it.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            // A new federation begins with all that its first server understands.
            Action::Found { .. } => VERSION,
            Action::JoinByIssuer { .. }
            | Action::Admin { action: AdminAction::AddCluster(_), .. }
            | Action::OpenSession { uid: Some(_), .. } => 2,
            _ => 1,
        }
    }
}

/// How far an administrator's clock may be ahead of the servers'.
pub const ADMIN_SKEW_MS: u64 = 600_000;

/// The key of an administrator's command: when it was issued, by the caller's clock, and bytes that are no other
/// command's. What was issued so long ago that its answer is not kept is known by its key, and never run again.
#[must_use]
pub fn admin_key(issued: Millis, unique: [u8; 10]) -> [u8; 16] {
    let mut key = [0; 16];
    key[..6].copy_from_slice(&issued.0.to_be_bytes()[2..]);
    key[6..].copy_from_slice(&unique);
    key
}

/// When the command of a key was issued.
#[must_use]
pub fn issued(key: &[u8; 16]) -> Millis {
    Millis(key[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte)))
}

/// What administrators do.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminAction {
    /// Makes a join token.
    CreateToken {
        /// The SHA-256 of its secret.
        hash: Hash,
        /// What it admits; a server's id is given by `apply` when 0.
        scope: TokenScope,
        /// When it stops working.
        expires: Millis,
    },
    /// Removes a cluster: revokes, drops exports and bundle from every view, and takes back that it may join.
    RemoveCluster {
        /// Its name.
        name: ClusterName,
    },
    /// Lets a cluster join by tokens of its issuer, or changes by which.
    AddCluster(AddCluster),
}

/// What an administrator says of a cluster that joins by tokens of its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCluster {
    /// Its name.
    pub name: ClusterName,
    /// Its trust domain; `None` for the usual one, or the one that it has.
    pub trust_domain: Option<TrustDomain>,
    /// What it may export; `None` for the default, or what it may already.
    pub exports: Option<Grant>,
    /// What it may import; the same.
    pub imports: Option<Grant>,
    /// Whose tokens.
    pub issuer: Issuer,
    /// Whom they must speak for.
    pub subject: Subject,
}

/// One change to a cluster's own catalog.
#[derive(Debug, Clone, PartialEq)]
pub enum CatalogChange {
    /// The cluster's default network and locality, and where its liveness is probed.
    PutProfile {
        /// The default network of its endpoints.
        network: NetworkName,
        /// Its default locality.
        locality: Locality,
        /// Probe endpoints.
        probes: Vec<GatewayAddress>,
    },
    /// Creates or replaces an export; its endpoints stay.
    PutExport {
        /// The service.
        service: ServiceKey,
        /// The export.
        export: Export,
    },
    /// Removes an export with its endpoints.
    RemoveExport {
        /// The service.
        service: ServiceKey,
    },
    /// Creates or replaces endpoints, at most 100 a change.
    PutEndpoints {
        /// The service.
        service: ServiceKey,
        /// The endpoints.
        endpoints: Vec<Endpoint>,
    },
    /// Removes endpoints.
    RemoveEndpoints {
        /// The service.
        service: ServiceKey,
        /// Their ids.
        ids: BTreeSet<EndpointId>,
    },
    /// Removes every endpoint but these (the end of a shard's resync).
    RetainEndpoints {
        /// The service.
        service: ServiceKey,
        /// The ids that stay.
        ids: BTreeSet<EndpointId>,
    },
    /// Replaces the gateways.
    PutGateways {
        /// The gateways.
        gateways: Vec<Gateway>,
    },
    /// Replaces the trust bundle.
    PutBundle {
        /// The bundle.
        bundle: Bundle,
    },
    /// Replaces the interest.
    PutInterest {
        /// The namespaces.
        namespaces: BTreeSet<Namespace>,
    },
    /// Lane transitions, or the whole lane state at session start.
    PutLanes {
        /// The lanes: probed cluster, verdict, round-trip time in microseconds.
        lanes: Vec<(ClusterName, LaneVerdict, Option<u32>)>,
    },
    /// Takes back what was said of these clusters: nobody here probes them now.
    RemoveLanes {
        /// The clusters that were probed.
        targets: BTreeSet<ClusterName>,
    },
    /// The session's catalog is complete: exports not named here are dropped.
    Synced {
        /// Every service that the cluster exports.
        services: BTreeSet<ServiceKey>,
    },
}

/// What a command is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done, with nothing to say.
    Done,
    /// A token was made; for a server, the id that it will have.
    TokenCreated {
        /// The id of the server to be.
        server: Option<ServerId>,
    },
    /// A join was admitted.
    Joined(Joined),
    /// A session was opened or refused.
    Session(Result<(), SessionError>),
    /// A catalog write was applied or refused.
    Catalog(Result<CatalogResult, CatalogError>),
    /// Refused, with the reason and the way out as a sentence.
    Refused(Refusal),
}

/// What a joiner becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// A member.
    Cluster {
        /// Its id.
        id: ClusterId,
        /// Its name.
        name: ClusterName,
        /// Its trust domain.
        trust_domain: TrustDomain,
    },
    /// A federation server.
    Server {
        /// Its raft id.
        id: ServerId,
    },
}

/// Why a command was refused: a stable code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: RefusalCode,
    /// Names the input and the way out.
    pub message: String,
}

impl Refusal {
    /// A refusal with its code and its sentence.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }
}

/// Codes of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    Exists,
    /// The principal may not do this.
    Forbidden,
    /// The token or certificate ran out.
    Expired,
    /// The token was consumed by another key.
    Consumed,
    /// The input breaks a rule or a limit.
    Invalid,
    /// The outcome of so old a command is no longer kept.
    Forgotten,
}

/// Why a session was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Removed, or never joined.
    #[error("the cluster is not a member of this federation")]
    NotMember,
    /// Another instance holds the session, or took it from this one less than one TTL ago: two agents share one
    /// identity.
    #[error(
        "agent instance {by} holds the session of this cluster, opened {since_ms} ms ago; two agents run under one \
         identity: stop one of them"
    )]
    Fenced {
        /// The instance that holds the session now.
        by: InstanceId,
        /// How long ago it opened it.
        since_ms: u64,
    },
    /// The agent runs in another Kubernetes cluster than the member of this name.
    #[error("{0}")]
    OtherCluster(OtherCluster),
}

/// Two Kubernetes clusters under one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster {name} of the federation is the Kubernetes cluster with the kube-system UID {known}, and this one has {stated}: \
     if that one is gone for good, remove it (`sealane cluster remove {name}`) and let this one join anew; if it lives, let \
     this one join under another name"
)]
pub struct OtherCluster {
    /// The name.
    pub name: ClusterName,
    /// The UID of the member.
    pub known: ClusterUid,
    /// The UID of who came under its name.
    pub stated: ClusterUid,
}

/// The result of a catalog write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatalogResult {
    /// Changes that were refused, by their place in the write; the others are in effect.
    pub refused: Vec<(u32, Refusal)>,
}

/// Why a whole catalog write had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The cluster is not a member.
    #[error("the cluster is not a member of this federation")]
    NotMember,
    /// A newer session writes this catalog.
    #[error("a newer session writes this catalog")]
    Fenced,
    /// A write in between is missing.
    #[error("expected write {expected}, got {got}")]
    Gap {
        /// The next expected sequence.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// The write is older than the last, whose result alone is kept.
    #[error("the result of this write is no longer kept")]
    Expired,
}
