//! Three replicas over real connections on loopback. Who a peer is stands in a header here; certificates are tested
//! where they are checked.

use super::*;
use crate::consensus::open::{Bootstrap, open};
use crate::consensus::replica::tests::cluster::{self, Cluster, FEDERATION, Kv, deadline};
use crate::consensus::replica::{ChangeError, Replica};
use sealane_proto::peer::v1 as pb;
use sealane_proto::peer::v1::peer_server::{Peer as PeerApi, PeerServer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response};

#[derive(Clone, Default)]
struct Service(Arc<OnceLock<Link>>);

impl Service {
    fn link(&self) -> Result<&Link, Status> {
        self.0.get().ok_or_else(|| Status::unavailable("not yet"))
    }
}

fn sender<T>(request: &Request<T>) -> ServerId {
    let agent = request.metadata().get("user-agent").unwrap().to_str().unwrap();
    ServerId(agent.split(' ').next().unwrap().parse().unwrap())
}

#[tonic::async_trait]
impl PeerApi for Service {
    async fn raft(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<RaftAck>, Status> {
        let peer = sender(&request);
        serve_raft(self.link()?, peer, request.into_inner()).await.map(Response::new)
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotAck>, Status> {
        let peer = sender(&request);
        serve_snapshot(self.link()?, peer, request.into_inner()).await.map(Response::new)
    }

    type ForwardStream = ReceiverStream<Result<pb::ForwardedBatch, Status>>;

    async fn forward(
        &self,
        _: Request<Streaming<pb::ForwardBatch>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// The ways between servers, which can be cut.
#[derive(Clone, Default)]
struct Ways {
    addresses: Arc<Mutex<BTreeMap<ServerId, String>>>,
    cut: Arc<Mutex<BTreeSet<ServerId>>>,
}

impl Ways {
    async fn listen(&self, id: ServerId) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        self.addresses.lock().unwrap().insert(id, address);
        let service = Service::default();
        let server = Server::builder().add_service(PeerServer::new(service.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        service
    }

    fn channel(&self, from: ServerId, to: ServerId) -> Option<Channel> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&from) || cut.contains(&to) {
            return None;
        }
        let address = self.addresses.lock().unwrap().get(&to)?.clone();
        Some(Endpoint::from_shared(address).unwrap().user_agent(from.to_string()).unwrap().connect_lazy())
    }

    fn dial(&self, from: ServerId) -> Dial {
        let ways = self.clone();
        Arc::new(move |to| ways.channel(from, to))
    }
}

async fn start(cluster: &mut Cluster, ways: &Ways, id: ServerId, bootstrap: Bootstrap) -> Replica<Kv> {
    let service = ways.listen(id).await;
    let (config, dial, runtime) = (cluster.config(id), ways.dial(id), Handle::current());
    let opened = tokio::task::spawn_blocking(move || {
        open::<Kv>(&config, &bootstrap, |link| Arc::new(GrpcTransport::new(link, dial, runtime)))
    });
    let replica = opened.await.unwrap().unwrap();
    service.0.set(replica.link()).ok().unwrap();
    cluster.replicas.insert(id, replica.clone());
    replica
}

async fn three() -> (Cluster, Ways) {
    let mut cluster = Cluster::found(0).await;
    let ways = Ways::default();
    let voters: BTreeSet<_> = (1..=3).map(ServerId).collect();
    for id in voters.clone() {
        start(&mut cluster, &ways, id, Bootstrap::Found { voters: voters.clone() }).await;
    }
    (cluster, ways)
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_reach_everyone_and_large_snapshots_a_newcomer() {
    let (mut cluster, ways) = three().await;
    let leader = cluster.leader().await;
    let value = "x".repeat(40_000);
    for n in 0..150 {
        leader.propose(cluster::set(&format!("k{n}"), &value)).await.unwrap();
    }
    cluster.converged().await;
    start(&mut cluster, &ways, ServerId(4), Bootstrap::Join).await;
    // On a busy machine leadership may move meanwhile.
    let end = deadline(30);
    while let Err(error) = cluster.leader().await.add_server(ServerId(4), end).await {
        assert!(matches!(error, ChangeError::NotLeader { .. } | ChangeError::Unknown), "{error}");
    }
    cluster.converged().await;
    assert_eq!(cluster.replicas[&ServerId(4)].state().1.len(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_and_comes_back_catches_up() {
    let (mut cluster, ways) = three().await;
    let leader = cluster.leader().await;
    let away = cluster.follower().await.id();
    cluster.stop(away).await;
    for n in 0..20 {
        leader.propose(cluster::set(&format!("k{n}"), "v")).await.unwrap();
    }
    // On another port, as after a move: the address is asked for at every dial.
    start(&mut cluster, &ways, away, Bootstrap::Restart).await;
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_may_not_say_is_refused() {
    let (cluster, ways) = three().await;
    let leader = cluster.leader().await;
    let (me, to) = (ServerId(2), ServerId(1));
    let message = RaftMessage {
        r#type: pb::MessageType::Heartbeat.into(),
        from: me.0,
        to: to.0,
        term: 1,
        ..RaftMessage::default()
    };
    let federation = Bytes::copy_from_slice(&FEDERATION.0);
    let whole = RaftBatch { federation, messages: vec![message] };
    let spoil = |spoil: fn(&mut RaftBatch)| {
        let mut batch = whole.clone();
        spoil(&mut batch);
        batch
    };
    let cases = [
        (whole.clone(), None),
        (spoil(|b| b.messages[0].from = 3), Some(Code::PermissionDenied)),
        (spoil(|b| b.federation = Bytes::from_static(&[9; 16])), Some(Code::PermissionDenied)),
        (spoil(|b| b.messages[0].to = 3), Some(Code::InvalidArgument)),
        (spoil(|b| b.messages[0].r#type = 99), Some(Code::InvalidArgument)),
        (spoil(|b| b.messages[0].r#type = pb::MessageType::Snapshot.into()), Some(Code::InvalidArgument)),
    ];
    for (batch, refused) in cases {
        let mut client = PeerClient::new(ways.channel(me, to).unwrap());
        let answer = client.raft(tokio_stream::once(batch)).await;
        assert_eq!(answer.err().map(|s| s.code()), refused);
    }
    // Half a snapshot leaves nothing and reaches nobody.
    let mut head = whole.messages[0].clone();
    head.r#type = pb::MessageType::Snapshot.into();
    let conf_state = pb::ConfState { voters: vec![1, 2, 3], ..pb::ConfState::default() };
    head.snapshot = Some(pb::SnapshotMetadata { conf_state: Some(conf_state), index: 999, term: 1 });
    let begin = SnapshotBegin { federation: whole.federation, message: Some(head), size: 100 };
    let chunk = |kind| SnapshotChunk { kind: Some(kind) };
    let half = vec![chunk(Kind::Begin(begin)), chunk(Kind::Data(Bytes::from_static(&[1; 60])))];
    let mut client = PeerClient::new(ways.channel(me, to).unwrap());
    let status = client.snapshot(tokio_stream::iter(half)).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    let files = std::fs::read_dir(cluster.dir(to).join("snapshots")).unwrap();
    let left: Vec<_> =
        files.map(|f| f.unwrap().file_name()).filter(|f| f.to_str().unwrap().contains("from")).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
    leader.propose(cluster::set("still", "alive")).await.unwrap();
}
