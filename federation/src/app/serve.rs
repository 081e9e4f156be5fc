//! A running server: what is started, in which order, and how it ends.

use super::directory::Directory;
use super::{membership, plain};
use crate::consensus::node::NodeConfig;
use crate::consensus::open::{Bootstrap, Config, open};
use crate::consensus::replica::Replica;
use crate::consensus::transport::grpc::GrpcTransport;
use crate::issuers::Issuers;
use crate::lease::{Leasing, LeasingParts};
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::pki::{LEAST_BETWEEN, LOOK, MEMBER_VALIDITY, Pki, RENEW_GRACE};
use crate::publish::Publisher;
use crate::rest;
use crate::rpc::{self, Serving};
use crate::store::log::wal::WalConfig;
use crate::writer::Writer;
use sealane_core::identity::Principal;
use sealane_core::state::State;
use sealane_proto::federation::v1::admin_server::AdminServer;
use sealane_proto::federation::v1::catalog_server::CatalogServer;
use sealane_proto::federation::v1::discovery_server::DiscoveryServer;
use sealane_proto::federation::v1::enroll_server::EnrollServer;
use sealane_proto::peer::v1::peer_server::PeerServer;
use sealane_proto::servers::v1::servers_server::ServersServer;
use sealane_trust::acceptor::{Acceptor, Limits};
use sealane_trust::clock;
use sealane_trust::grpc::{serve, serve_http};
use sealane_trust::revocation::Revocations;
use sealane_trust::svid::Svid;
use sealane_trust::tls::{ALPN_H2, ALPN_HTTP1, ClientAuth, FederationPeers, server_config};
use sealane_trust::verify::Expiry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a leader may take to hand over.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long a removed member's streams, or the connection by which it comes back, may tell it so before its connections
/// are closed.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// Where a server listens.
#[derive(Debug)]
pub struct Listeners {
    /// Servers, agents and administrators.
    pub grpc: TcpListener,
    /// The status API.
    pub status: TcpListener,
    /// Metrics, over plain HTTP.
    pub metrics: TcpListener,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its status API listens.
    pub status_address: SocketAddr,
    /// Where its metrics are.
    pub metrics_address: SocketAddr,
    /// What its handlers work with.
    pub serving: Serving,
    tasks: TaskTracker,
    /// Why the federation does not take this server in.
    refused: watch::Receiver<Option<String>>,
    /// Ends what accepts connections, and the loops.
    stop: CancellationToken,
}

impl Running {
    /// Waits until this server can not go on, and says why.
    pub async fn stopped(&mut self) -> String {
        let refused = async {
            match self.refused.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_default(),
                // It was taken in, and nobody will say otherwise.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = self.serving.replica.stopped() => format!("the replica stopped: {reason}"),
            why = refused => format!("the federation does not take this server in: {why}"),
        }
    }

    /// Ends in order: agents' streams, leadership, other servers' streams, listeners.
    pub async fn stop(self) {
        self.serving.drain.cancel();
        if timeout(HAND_OVER, self.serving.replica.shutdown()).await.is_err() {
            tracing::warn!("the replica did not end in time");
        }
        self.serving.closing.cancel();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        tracing::info!("stopped");
    }
}

/// Starts a server from its directory.
///
/// # Errors
/// When its keys, its storage or a listener refuse.
pub async fn start(directory: Directory, listeners: Listeners) -> anyhow::Result<Running> {
    start_with(directory, listeners, Settings::default()).await
}

/// What an operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Sizes and times of the consensus.
    pub node: NodeConfig,
    /// Sizes of the log.
    pub wal: WalConfig,
    /// How long the certificates of agents and of this server last.
    pub certificate_ttl: Duration,
    /// An administrator's context whose certificate this server keeps from ending.
    pub renew_admin: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let (node, wal) = (NodeConfig::default(), WalConfig::default());
        Settings { node, wal, certificate_ttl: MEMBER_VALIDITY, renew_admin: None }
    }
}

/// The same, with other settings.
///
/// # Errors
/// As [`start`].
pub async fn start_with(
    directory: Directory,
    listeners: Listeners,
    settings: Settings,
) -> anyhow::Result<Running> {
    let renew_admin = settings.renew_admin.clone();
    let serving = assemble(&directory, settings).await?;
    let (address, status_address) = (listeners.grpc.local_addr()?, listeners.status.local_addr()?);
    let metrics_address = listeners.metrics.local_addr()?;
    let (tasks, stop, revocations) = (TaskTracker::new(), CancellationToken::new(), Revocations::none());
    tasks.spawn(serving.publisher.clone().follow(serving.replica.clone(), stop.clone()));
    tasks.spawn(serving.leasing.clone().run(stop.clone()));
    tasks.spawn(until(stop.clone(), keep_leaf(serving.pki.clone())));
    if let Some(context) = renew_admin {
        tasks.spawn(until(stop.clone(), keep_admin(serving.pki.clone(), context)));
    }
    tasks.spawn(until(stop.clone(), revoke(serving.clone(), revocations.clone())));
    let (refusing, refused) = watch::channel(None);
    tasks.spawn(until(stop.clone(), membership::settle(serving.clone(), directory, refusing)));
    tasks.spawn(plain::serve(listeners.metrics, serving.clone(), stop.clone()));
    tasks.spawn(serve(grpc(&serving, listeners.grpc, &revocations, &stop), routes(&serving)));
    let router = rest::router(serving.clone());
    tasks.spawn(serve_http(status(&serving, listeners.status, &revocations, &stop), router));
    Ok(Running { address, status_address, metrics_address, serving, tasks, refused, stop })
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = task => {}
    }
}

async fn assemble(directory: &Directory, settings: Settings) -> anyhow::Result<Serving> {
    let me = &directory.identity;
    let pki = Arc::new(Pki::load(&directory.path, me.server)?.issuing_for(settings.certificate_ttl)?);
    let peers = Peers::new(pki.identity.clone(), pki.bundle.clone(), me.peers.clone());
    let replica = open_replica(directory, &settings, peers.clone()).await?;
    peers.attach(replica.clone());
    let metrics = Metrics::new();
    let writer = Writer::new(replica.clone(), peers.clone(), metrics.clone());
    let parts = LeasingParts { replica: replica.clone(), writer: writer.clone(), peers: peers.clone() };
    Ok(Serving::new(rpc::Parts {
        federation: me.federation,
        trust_domain: me.trust_domain.clone(),
        id: me.server,
        pki,
        publisher: Publisher::new(replica.state().1.clone()),
        leasing: Leasing::new(parts),
        replica,
        writer,
        peers,
        issuers: Issuers::default(),
        metrics,
        reads: Arc::new(Semaphore::new(rest::READS)),
        drain: CancellationToken::new(),
        closing: CancellationToken::new(),
    }))
}

async fn open_replica(
    directory: &Directory,
    settings: &Settings,
    peers: Arc<Peers>,
) -> anyhow::Result<Replica<Machine>> {
    let me = &directory.identity;
    let Settings { node, wal, .. } = settings.clone();
    let config = Config { node, wal, ..Config::new(directory.storage(), me.server, me.federation) };
    let runtime = Handle::current();
    let dial = Arc::new(move |server| peers.channel(server).ok());
    let opened = tokio::task::spawn_blocking(move || {
        open::<Machine>(&config, &Bootstrap::Restart, |link| {
            Arc::new(GrpcTransport::new(link, dial, runtime))
        })
    });
    Ok(opened.await??)
}

fn routes(serving: &Serving) -> tonic::service::Routes {
    let s = || serving.clone();
    let max = rpc::MAX_REQUEST;
    tonic::service::Routes::new(
        EnrollServer::new(rpc::EnrollService::new(s())).max_decoding_message_size(64 * 1024),
    )
    .add_service(CatalogServer::new(rpc::CatalogService::new(s())).max_decoding_message_size(max))
    .add_service(DiscoveryServer::new(rpc::DiscoveryService::new(s())).max_decoding_message_size(max))
    .add_service(AdminServer::new(rpc::AdminService::new(s())).max_decoding_message_size(64 * 1024))
    .add_service(ServersServer::new(rpc::ServersService::new(s())).max_decoding_message_size(max))
    .add_service(PeerServer::new(rpc::PeerService::new(s())).max_decoding_message_size(4 * max))
}

fn grpc(
    serving: &Serving,
    listener: TcpListener,
    revocations: &Revocations,
    stop: &CancellationToken,
) -> Acceptor {
    let grace = Expiry::Grace(RENEW_GRACE);
    let policy = FederationPeers::principals(serving.pki.bundle.clone(), |_| true).with_expiry(grace);
    Acceptor {
        listener,
        tls: server_config(&serving.pki.identity, ClientAuth::Optional(Arc::new(policy)), &[ALPN_H2]),
        limits: Limits { farewell: FAREWELL, ..Limits::default() },
        revocations: revocations.clone(),
        shutdown: stop.clone(),
    }
}

fn status(
    serving: &Serving,
    listener: TcpListener,
    revocations: &Revocations,
    stop: &CancellationToken,
) -> Acceptor {
    let policy = FederationPeers::principals(serving.pki.bundle.clone(), |_| true);
    let auth = ClientAuth::Optional(Arc::new(policy));
    Acceptor {
        listener,
        tls: server_config(&serving.pki.identity, auth, &[ALPN_H2, ALPN_HTTP1]),
        limits: Limits { connections: 512, streams: 64, ..Limits::default() },
        revocations: revocations.clone(),
        shutdown: stop.clone(),
    }
}

/// Exchanges this server's leaf at half of its life.
async fn keep_leaf(pki: Arc<Pki>) {
    loop {
        let left = Duration::from_millis(pki.identity.current().half_life().since(clock::now()));
        sleep(left.clamp(LEAST_BETWEEN, LOOK)).await;
        match pki.renew(clock::now()) {
            Ok(true) => tracing::info!(not_after = pki.identity.current().not_after.0, "certificate renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "can not renew this server's certificate"),
        }
    }
}

/// Exchanges the certificate of an administrator's context at half of its life.
async fn keep_admin(pki: Arc<Pki>, context: PathBuf) {
    loop {
        match pki.renew_admin(&context, clock::now()) {
            Ok(true) => {
                tracing::info!(context = %context.display(), "the administrator's certificate renewed")
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(context = %context.display(), %error, "can not renew the administrator's certificate");
            }
        }
        sleep(LOOK).await;
    }
}

/// Keeps the rule by which connections of removed members are closed.
async fn revoke(serving: Serving, revocations: Revocations) {
    // Membership changes move at least one of these; ids are never given twice.
    let shape = |s: &State| {
        let used = s.tokens.values().filter(|t| t.consumed.is_some()).count();
        let next = (s.meta.next_cluster, s.meta.next_server);
        (s.clusters.len(), s.servers.len(), next, s.tokens.len(), used)
    };
    let mut applied = serving.replica.applied();
    let mut known = None;
    loop {
        let state = serving.state();
        if known != Some(shape(&state)) {
            sleep(FAREWELL).await;
            // As it is now: a member that came meanwhile must not be judged by a state that does not know it.
            let state = serving.state();
            known = Some(shape(&state));
            let federation = serving.trust_domain.clone();
            // The maps alone: the rule must not hold on to old catalogs.
            let rule = State { shards: Default::default(), exported: Default::default(), ..state };
            revocations.set(move |svid| is_removed(&rule, svid, svid.spiffe_id.principal(&federation)));
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

fn is_removed(state: &State, svid: &Svid, principal: Option<Principal>) -> bool {
    match principal {
        Some(Principal::Agent(name)) => {
            let id = svid.cluster_id;
            let member = state.by_name.get(&name).copied() == id;
            // A server that lags does not know the newest members yet.
            !member && id.is_none_or(|id| id.0 < state.meta.next_cluster)
        }
        Some(Principal::Server(id)) => !rpc::is_member_server(state, id),
        _ => false,
    }
}
