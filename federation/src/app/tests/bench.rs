//! Servers, and clients of every kind.

use crate::app::{Directory, Listeners, Running, init, join, start};
use crate::args::{Addresses, InitArgs, JoinArgs};
use crate::consensus::replica::Replica;
use crate::machine::Machine;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use sealane_core::command::CatalogChange;
use sealane_core::endpoint::Endpoint;
use sealane_core::identity::{ClusterId, FederationId};
use sealane_core::name::{EndpointId, Namespace, PortName, ServiceKey, TrustDomain};
use sealane_core::service::{
    Export, ExportSpec, InternalTrafficPolicy, Port, Protocol, ServiceType, SessionAffinity,
};
use sealane_core::time::Millis;
use sealane_proto::Wire;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::admin_client::AdminClient;
use sealane_proto::federation::v1::catalog_client::CatalogClient;
use sealane_proto::federation::v1::discovery_client::DiscoveryClient;
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_proto::{digest, hello};
use sealane_trust::bundle::{Bundle, RootHash};
use sealane_trust::csr::Csr;
use sealane_trust::grpc::{DialOptions, channel};
use sealane_trust::join::{JoinToken, PinnedRoot, TokenKind};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::{ALPN_H2, ALPN_HTTP1, FederationPeers, Identity, client_config};
use sealane_trust::{CertificateDer, pem};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// How long anything may take in a test on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until something holds.
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come to pass");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The key of an administrator's command that is issued now.
pub(super) fn admin_key() -> Vec<u8> {
    let unique = sealane_trust::random::<10>().unwrap();
    sealane_core::command::admin_key(sealane_trust::clock::now(), unique).to_vec()
}

/// A federation under test.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) servers: BTreeMap<u64, Running>,
    bundle: Bundle,
    federation: FederationId,
    admin: Identity,
}

async fn listeners() -> Listeners {
    let bind = || TcpListener::bind("127.0.0.1:0");
    Listeners { grpc: bind().await.unwrap(), status: bind().await.unwrap(), metrics: bind().await.unwrap() }
}

fn addresses(listeners: &Listeners) -> Addresses {
    let text = |l: &TcpListener| l.local_addr().unwrap().to_string();
    Addresses { address: text(&listeners.grpc), status_address: text(&listeners.status) }
}

impl Bench {
    /// One server.
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listeners = listeners().await;
        let trust_domain = TrustDomain::parse("fed.test").unwrap();
        let (home, admin_out) = (dir.path().join("1"), dir.path().join("admin"));
        let addresses = addresses(&listeners);
        init(InitArgs { dir: home.clone(), addresses, trust_domain, admin_out: admin_out.clone() })
            .await
            .unwrap();
        let running = start(Directory::load(&home).unwrap(), listeners).await.unwrap();
        let read = |name: &str| std::fs::read(admin_out.join(name)).unwrap();
        let chain = pem::certificates(&read("identity.pem")).unwrap();
        let admin = Identity::new(chain, &PrivateKey::from_pem(&read("identity.key")).unwrap()).unwrap();
        let bundle = running.serving.pki.bundle.clone();
        let federation = running.serving.federation;
        let bench = Bench { dir, servers: BTreeMap::from([(1, running)]), bundle, federation, admin };
        bench.leader().await;
        bench
    }

    /// Adds a server and waits until it votes.
    pub(super) async fn grow(&mut self) -> u64 {
        self.grow_after(Duration::ZERO).await
    }

    /// The same, by a token that waits for so long before it is used.
    pub(super) async fn grow_after(&mut self, pause: Duration) -> u64 {
        let token = self.token(1, None).await;
        tokio::time::sleep(pause).await;
        let file = self.dir.path().join("server-token");
        std::fs::write(&file, token.to_text().as_bytes()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let listeners = listeners().await;
        let home = self.dir.path().join(format!("{}", self.servers.len() + 1));
        let addresses = addresses(&listeners);
        join(JoinArgs { dir: home.clone(), token_file: file, addresses }).await.unwrap();
        let directory = Directory::load(&home).unwrap();
        let id = directory.identity.server;
        let running = start(directory, listeners).await.unwrap();
        let mut status = running.serving.replica.status();
        let voter = status.wait_for(|s| s.voters.contains(&id) && s.leader.is_some());
        timeout(PATIENCE, voter).await.expect("it becomes a voter in time").unwrap();
        self.servers.insert(id.0, running);
        id.0
    }

    /// Starts a server again from its directory, on other ports but for the same addresses where they are free.
    pub(super) async fn restart(&mut self, id: u64, home: PathBuf) {
        let directory = Directory::load(&home).unwrap();
        let bind = async |address: &str| {
            let address = address.to_owned();
            eventually("the port is free", || async { TcpListener::bind(&address).await.ok() }).await
        };
        let listeners = Listeners {
            grpc: bind(&directory.identity.address).await,
            status: bind(&directory.identity.status_address).await,
            metrics: bind("127.0.0.1:0").await,
        };
        self.servers.insert(id, start(directory, listeners).await.unwrap());
    }

    pub(super) fn replica(&self, server: u64) -> &Replica<Machine> {
        &self.servers[&server].serving.replica
    }

    /// The leader, once there is one.
    pub(super) async fn leader(&self) -> u64 {
        eventually("a leader is elected", || async {
            let leads = |r: &Running| r.serving.replica.status().borrow().is_leader();
            self.servers.iter().find(|(_, r)| leads(r)).map(|(id, _)| *id)
        })
        .await
    }

    /// Any server that follows.
    pub(super) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.servers.keys().find(|id| **id != leader).unwrap()
    }

    pub(super) async fn stop(self) {
        for running in self.servers.into_values() {
            running.stop().await;
        }
    }

    /// A channel to one server under an identity, or under none.
    pub(super) fn channel(&self, server: u64, identity: Option<&Identity>) -> Channel {
        let policy = Arc::new(FederationPeers::servers(self.bundle.clone()));
        let tls = client_config(identity, policy, &[ALPN_H2]);
        channel(&[self.servers[&server].address.to_string()], tls, &DialOptions::default()).unwrap()
    }

    pub(super) fn admin(&self, server: u64) -> AdminClient<Channel> {
        AdminClient::new(self.channel(server, Some(&self.admin)))
    }

    /// A token for a cluster, or for a server.
    pub(super) async fn token(&self, server: u64, cluster: Option<&str>) -> JoinToken {
        use pb::create_token_request::Scope;
        let kind = if cluster.is_some() { TokenKind::Cluster } else { TokenKind::Server };
        let endpoints = self.servers.values().map(|r| r.address.to_string()).collect();
        let pin = self.servers[&server].serving.pki.root_hash();
        let token = JoinToken::new(self.federation, kind, pin, endpoints).unwrap();
        let scope = match cluster {
            Some(name) => Scope::Cluster(pb::ClusterScope { name: name.to_owned(), ..Default::default() }),
            None => Scope::Server(pb::ServerScope {}),
        };
        let request = pb::CreateTokenRequest {
            key: admin_key(),
            secret_hash: token.secret_hash().to_vec(),
            ttl_s: 600,
            scope: Some(scope),
        };
        let reply = self.admin(server).create_token(request).await.unwrap().into_inner();
        assert_eq!(RootHash(reply.root_hash.try_into().unwrap()), pin);
        token
    }

    /// Uses a token with a key.
    pub(super) async fn enroll(
        &self,
        server: u64,
        token: &JoinToken,
        key: &PrivateKey,
    ) -> Result<pb::JoinReply, Status> {
        let policy = Arc::new(PinnedRoot::new(token.root_hash));
        let tls = client_config(None, policy, &[ALPN_H2]);
        let channel =
            channel(&[self.servers[&server].address.to_string()], tls, &DialOptions::default()).unwrap();
        let csr = Csr::create(key).unwrap().der().to_vec();
        let request = pb::JoinRequest { secret: token.secret().to_vec(), csr, projected: None };
        EnrollClient::new(channel).join(request).await.map(tonic::Response::into_inner)
    }

    /// A new member.
    pub(super) async fn member(&self, server: u64, name: &str) -> Member {
        let token = self.token(server, Some(name)).await;
        let key = PrivateKey::generate().unwrap();
        let reply = self.enroll(server, &token, &key).await.unwrap();
        Member::of(name, reply, &key)
    }

    /// `GET` on the status API.
    pub(super) async fn get(&self, server: u64, path: &str) -> (u16, Vec<u8>) {
        self.get_as(server, path, Some(&self.admin)).await
    }

    pub(super) async fn get_as(
        &self,
        server: u64,
        path: &str,
        identity: Option<&Identity>,
    ) -> (u16, Vec<u8>) {
        let policy = Arc::new(FederationPeers::servers(self.bundle.clone()));
        let tls = tokio_rustls::TlsConnector::from(client_config(identity, policy, &[ALPN_HTTP1]));
        let stream = TcpStream::connect(self.servers[&server].status_address).await.unwrap();
        let stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let (mut http, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::get(path).header("host", "status").body(axum::body::Body::empty()).unwrap();
        let response = http.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }
}

/// A cluster that joined.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) id: ClusterId,
    pub(super) identity: Identity,
}

impl Member {
    pub(super) fn of(name: &str, reply: pb::JoinReply, key: &PrivateKey) -> Self {
        let chain = reply.chain.into_iter().map(CertificateDer::from).collect();
        let Some(pb::join_reply::Joined::Cluster(joined)) = reply.joined else { panic!("not a cluster") };
        assert_eq!(joined.name, name);
        let identity = Identity::new(chain, key).unwrap();
        Member { name: name.to_owned(), id: ClusterId(joined.id), identity }
    }

    /// An open session at a server.
    pub(super) async fn session(&self, bench: &Bench, server: u64, session: u8) -> Result<Session, Status> {
        let mut opened = Session::open(bench, server, self, session, 1).await?;
        match opened.answer().await? {
            pb::export_reply::Kind::Opened(_) => Ok(opened),
            other => panic!("{other:?}"),
        }
    }

    /// A session that published its interest and some services, and synced.
    pub(super) async fn publish(
        &self,
        bench: &Bench,
        server: u64,
        session: u8,
        services: &[&str],
    ) -> Session {
        let mut session = self.session(bench, server, session).await.unwrap();
        let keys: Vec<_> = services.iter().map(|s| ServiceKey::parse(s).unwrap()).collect();
        let mut changes = vec![interest(&["shop"]), bundle(&self.name)];
        for key in &keys {
            changes.push(export(key));
            changes.push(endpoints(key, 1));
        }
        changes.push(CatalogChange::Synced { services: keys.into_iter().collect() });
        let written = session.write(1, &changes).await.unwrap();
        assert_eq!(written.result.unwrap().refused, []);
        session
    }

    pub(super) async fn watch(
        &self,
        bench: &Bench,
        server: u64,
        subscribe: pb::Subscribe,
    ) -> Result<Watching, Status> {
        Watching::open(bench, server, self, subscribe).await
    }
}

pub(super) fn interest(namespaces: &[&str]) -> CatalogChange {
    let namespaces = namespaces.iter().map(|n| Namespace::parse(n).unwrap()).collect::<BTreeSet<_>>();
    CatalogChange::PutInterest { namespaces }
}

fn bundle(cluster: &str) -> CatalogChange {
    let trust_domain = TrustDomain::parse(&format!("{cluster}.fed.test")).unwrap();
    let roots = vec![vec![1, 2, 3]];
    CatalogChange::PutBundle {
        bundle: sealane_core::trust::Bundle { trust_domain, sequence: 1, refresh_hint_s: 60, roots },
    }
}

pub(super) fn spec() -> ExportSpec {
    let http = Port {
        name: PortName::parse("http").unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
        app_protocol: None,
    };
    ExportSpec {
        service_type: ServiceType::ClusterSetIp,
        ports: vec![http],
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: vec![sealane_core::service::IpFamily::V4],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

pub(super) fn export(key: &ServiceKey) -> CatalogChange {
    let export = Export { spec: Ok(spec()), importers: None, created: Millis(1) };
    CatalogChange::PutExport { service: key.clone(), export }
}

/// One ready endpoint; `n` is the last byte of its address.
pub(super) fn endpoints(key: &ServiceKey, n: u8) -> CatalogChange {
    let endpoint = Endpoint {
        id: EndpointId::parse("e-abcdefghij234").unwrap(),
        address: std::net::Ipv4Addr::new(10, 0, 0, n).into(),
        ports: BTreeMap::from([(PortName::parse("http").unwrap(), 8080)]),
        ready: true,
        locality: Default::default(),
        spiffe_id: None,
        inbound_port: None,
        hostname: None,
        network: None,
    };
    CatalogChange::PutEndpoints { service: key.clone(), endpoints: vec![endpoint] }
}

/// An export stream.
pub(super) struct Session {
    requests: mpsc::Sender<pb::ExportRequest>,
    answers: Streaming<pb::ExportReply>,
}

impl Session {
    pub(super) async fn open(
        bench: &Bench,
        server: u64,
        member: &Member,
        session: u8,
        instance: u8,
    ) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(256);
        let open = pb::Open {
            hello: Some(hello::hello(Some(bench.federation))),
            session: vec![session; 16],
            instance: vec![instance; 16],
            uid: None,
        };
        requests.send(pb::ExportRequest { kind: Some(pb::export_request::Kind::Open(open)) }).await.unwrap();
        let channel = bench.channel(server, Some(&member.identity));
        let answers = CatalogClient::new(channel).export(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Session { requests, answers })
    }

    pub(super) async fn send(&self, kind: pb::export_request::Kind) {
        // A stream that ended is found out by the answer.
        let _ = self.requests.send(pb::ExportRequest { kind: Some(kind) }).await;
    }

    pub(super) async fn answer(&mut self) -> Result<pb::export_reply::Kind, Status> {
        let reply = timeout(PATIENCE, self.answers.message()).await.expect("an answer in time")?;
        Ok(reply.ok_or_else(|| Status::cancelled("the stream ended"))?.kind.unwrap())
    }

    /// Sends a write without waiting.
    pub(super) async fn post(&self, sequence: u64, changes: &[CatalogChange]) {
        let changes = changes.iter().map(Wire::to_wire).collect();
        self.send(pb::export_request::Kind::Write(pb::Write { sequence, changes })).await;
    }

    pub(super) async fn written(&mut self) -> Result<pb::Written, Status> {
        loop {
            match self.answer().await? {
                pb::export_reply::Kind::Written(written) => return Ok(written),
                pb::export_reply::Kind::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) async fn write(
        &mut self,
        sequence: u64,
        changes: &[CatalogChange],
    ) -> Result<pb::Written, Status> {
        self.post(sequence, changes).await;
        self.written().await
    }

    pub(super) async fn beat(&self, number: u64) {
        self.send(pb::export_request::Kind::Heartbeat(pb::Heartbeat { number })).await;
    }
}

/// A watch stream, with what it was sent so far.
pub(super) struct Watching {
    pub(super) requests: mpsc::Sender<pb::WatchRequest>,
    replies: Streaming<pb::WatchReply>,
    pub(super) items: BTreeMap<sealane_core::view::ViewKey, sealane_core::view::ViewItem>,
    pub(super) token: pb::ResumeToken,
}

pub(super) fn subscribe(bench: &Bench) -> pb::Subscribe {
    pb::Subscribe { hello: Some(hello::hello(Some(bench.federation))), resume: None, held: Vec::new() }
}

impl Watching {
    async fn open(bench: &Bench, server: u64, member: &Member, first: pb::Subscribe) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(8);
        let kind = Some(pb::watch_request::Kind::Subscribe(first));
        requests.send(pb::WatchRequest { kind }).await.unwrap();
        let channel = bench.channel(server, Some(&member.identity));
        let replies = DiscoveryClient::new(channel).watch(ReceiverStream::new(stream)).await?.into_inner();
        let token = pb::ResumeToken { federation: bench.federation.0.to_vec(), ..Default::default() };
        let mut watching = Watching { requests, replies, items: BTreeMap::new(), token };
        match watching.reply().await? {
            pb::watch_reply::Kind::Subscribed(subscribed) => watching.token.scope = subscribed.scope,
            other => panic!("{other:?}"),
        }
        Ok(watching)
    }

    pub(super) async fn reply(&mut self) -> Result<pb::watch_reply::Kind, Status> {
        let reply = timeout(PATIENCE, self.replies.message()).await.expect("a reply in time")?;
        Ok(reply.ok_or_else(|| Status::cancelled("the stream ended"))?.kind.unwrap())
    }

    /// Takes one reply into the held items; gives it.
    pub(super) async fn step(&mut self) -> Result<pb::watch_reply::Kind, Status> {
        let reply = self.reply().await?;
        match &reply {
            pb::watch_reply::Kind::Delta(delta) => {
                for key in &delta.deletes {
                    self.items.remove(&Wire::from_wire(key.clone()).unwrap());
                }
                for item in &delta.upserts {
                    let item = sealane_core::view::ViewItem::from_wire(item.clone()).unwrap();
                    self.items.insert(key_of(&item), item);
                }
                if !delta.more {
                    self.token.revision = delta.revision;
                }
            }
            pb::watch_reply::Kind::Synced(synced) => self.token.revision = synced.revision,
            _ => {}
        }
        Ok(reply)
    }

    /// Goes on until the first `Synced`; says whether it was a full one.
    pub(super) async fn synced(&mut self) -> bool {
        loop {
            if let pb::watch_reply::Kind::Synced(synced) = self.step().await.unwrap() {
                return synced.full;
            }
        }
    }

    /// Goes on until the items satisfy.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "{what} was not seen; the view has {:#?}", self.items.keys());
            self.step().await.unwrap();
        }
    }

    pub(super) fn import(&self, service: &str) -> Option<Arc<sealane_core::view::Import>> {
        let key = sealane_core::view::ViewKey::Import(ServiceKey::parse(service).unwrap());
        match self.items.get(&key) {
            Some(sealane_core::view::ViewItem::Import(import)) => Some(import.clone()),
            _ => None,
        }
    }

    /// Digests of what it holds.
    pub(super) fn held(&self) -> Vec<pb::ItemDigest> {
        let one = |(key, item): (&sealane_core::view::ViewKey, _)| pb::ItemDigest {
            key: Some(key.to_wire()),
            digest: digest::view_item(item).to_vec(),
        };
        self.items.iter().map(one).collect()
    }
}

pub(super) fn key_of(item: &sealane_core::view::ViewItem) -> sealane_core::view::ViewKey {
    use sealane_core::view::{ViewItem, ViewKey};
    match item {
        ViewItem::Import(import) => ViewKey::Import(import.service.clone()),
        ViewItem::Export(export) => ViewKey::Export(export.service.clone()),
        ViewItem::Peer(peer) => ViewKey::Peer(peer.name.clone()),
    }
}
