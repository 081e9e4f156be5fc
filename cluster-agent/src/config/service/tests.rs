//! A proxy's whole way: a token, a certificate, a stream; over real TLS.

use super::*;
use crate::ca::Ca;
use crate::config::tests::{World, catalog, exported, held, name, own, pod, shard};
use crate::identity::{Claim, Grants, IdentityService, write_workload_token};
use crate::index::{Change, Part, Pod};
use crate::metrics::Metrics;
use crate::state::{Serving, StateDir};
use sealane_proto::agent::v1::config_client::ConfigClient;
use sealane_proto::agent::v1::config_server::ConfigServer;
use sealane_proto::agent::v1::identity_client::IdentityClient;
use sealane_proto::agent::v1::identity_server::IdentityServer;
use sealane_trust::CertificateDer;
use sealane_trust::acceptor::{Acceptor, Limits};
use sealane_trust::csr::Csr;
use sealane_trust::grpc::{DialOptions, channel, serve};
use sealane_trust::key::PrivateKey;
use sealane_trust::revocation::Revocations;
use sealane_trust::tls::{self, ClientAuth, FederationPeers, Identity};
use tonic::Code;
use tonic::transport::Channel;

struct Agent {
    directory: tempfile::TempDir,
    address: String,
    ca: Arc<Ca>,
    common: watch::Sender<Option<Arc<Common>>>,
    world: World,
    probes: mpsc::Receiver<LaneEvent>,
    stop: CancellationToken,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Agent {
    async fn begin() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path()).unwrap();
        let ca = Arc::new(Ca::open(&state, &name("east.fed")).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (trust_domain, root) = ("east.fed".to_owned(), ca.root_pem());
        let agent = vec![address.clone()];
        state.set_serving(&Serving { agent, trust_domain, root, api_server: None }).unwrap();
        let mut index = Index::default();
        let cart = Pod {
            uid: None,
            account: name("cart"),
            ips: vec![],
            node: None,
            inbound_port: None,
            network: None,
        };
        index.apply(Change::Put(Part::Pod(pod("cart-0"), cart)));
        let mut world = World::new(
            held(1, vec![exported("shop/cart", &["west"])]),
            catalog(&[("shop/cart", shard(&["cart-0"]))]),
        );
        let common = watch::Sender::new(Some(Arc::new(world.make(&Common::default()))));
        let (probes_to, probes) = mpsc::channel(PROBES);
        let stop = CancellationToken::new();
        let config = ConfigService {
            own: Arc::new(own()),
            common: common.subscribe(),
            index: Arc::new(RwLock::new(index)),
            probes: probes_to,
            status: Arc::new(Status::default()),
            stop: stop.clone(),
            connections: Arc::default(),
        };
        let identity = IdentityService {
            ca: ca.clone(),
            grants: Arc::new(Grants::new(state)),
            trust_domain: name("east.fed"),
            ttl: Duration::from_secs(600),
            metrics: Arc::new(Metrics::default()),
        };
        let policy = Arc::new(FederationPeers::matching(ca.bundle().clone(), |_| true));
        let own_identity = ca.own_identity(Duration::from_secs(600)).unwrap();
        let acceptor = Acceptor {
            listener,
            tls: tls::server_config(&own_identity, ClientAuth::Optional(policy), &[tls::ALPN_H2]),
            limits: Limits::default(),
            revocations: Revocations::none(),
            shutdown: stop.clone(),
        };
        let routes =
            tonic::service::Routes::new(IdentityServer::new(identity)).add_service(ConfigServer::new(config));
        tokio::spawn(serve(acceptor, routes));
        Agent { directory, address, ca, common, world, probes, stop }
    }

    fn dial(&self, identity: Option<&Identity>) -> Channel {
        let agent = SpiffeId::cluster_agent(&name("east.fed"));
        let policy = FederationPeers::matching(self.ca.bundle().clone(), move |s| s.spiffe_id == agent);
        let tls = tls::client_config(identity, Arc::new(policy), &[tls::ALPN_H2]);
        channel(std::slice::from_ref(&self.address), tls, &DialOptions::default()).unwrap()
    }

    async fn token(&self, claim: Claim) -> Vec<u8> {
        let out = self.directory.path().join("token");
        write_workload_token(self.directory.path(), claim, Duration::from_secs(60), &out).await.unwrap();
        let token: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        std::fs::remove_file(out).unwrap();
        data_encoding::BASE64URL_NOPAD.decode(token["secret"].as_str().unwrap().as_bytes()).unwrap()
    }

    async fn identity(&self, claim: Claim) -> Identity {
        let token = self.token(claim).await;
        let key = PrivateKey::generate().unwrap();
        let csr = Csr::create(&key).unwrap().der().to_vec();
        let issue = wire::IssueRequest { token, csr };
        let reply = IdentityClient::new(self.dial(None)).issue(issue).await.unwrap().into_inner();
        let chain = reply.chain.into_iter().map(CertificateDer::from).collect();
        let identity = Identity::new(chain, &key).unwrap();
        assert_eq!(identity.current().spiffe_id.to_string(), reply.spiffe_id);
        identity
    }

    async fn watch(
        &self,
        identity: Option<&Identity>,
        role: wire::Role,
        pod: &str,
    ) -> Result<(mpsc::Sender<wire::ProxyRequest>, Streaming<wire::ProxyReply>), Refusal> {
        let hello = wire::ProxyHello {
            hello: Some(hello::hello(None)),
            role: role.into(),
            pod_namespace: "shop".to_owned(),
            pod_name: pod.to_owned(),
            inbound_address: "127.0.0.1:15008".to_owned(),
        };
        let (sender, requests) = mpsc::channel(8);
        sender.send(wire::ProxyRequest { kind: Some(Request::Hello(hello)) }).await.unwrap();
        let mut client = ConfigClient::new(self.dial(identity));
        Ok((sender, client.watch(ReceiverStream::new(requests)).await?.into_inner()))
    }
}

fn cart() -> Claim {
    Claim::workload(&name("shop"), &name("cart"))
}

async fn next(replies: &mut Streaming<wire::ProxyReply>) -> Reply {
    let message = tokio::time::timeout(Duration::from_secs(10), replies.message()).await.unwrap();
    message.unwrap().unwrap().kind.unwrap()
}

async fn delta_of(replies: &mut Streaming<wire::ProxyReply>) -> wire::ProxyDelta {
    match next(replies).await {
        Reply::Delta(delta) => delta,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_entitles_to_its_own_part() {
    let agent = Agent::begin().await;
    let (gateway, cart, other) = (
        agent.identity(Claim::Gateway).await,
        agent.identity(cart()).await,
        agent.identity(Claim::workload(&name("shop"), &name("other"))).await,
    );
    let table = [
        (None, wire::Role::Gateway, "", Some(Code::Unauthenticated)),
        (Some(&gateway), wire::Role::Gateway, "", None),
        (Some(&cart), wire::Role::Gateway, "", Some(Code::PermissionDenied)),
        (Some(&cart), wire::Role::Sidecar, "cart-0", None),
        (Some(&cart), wire::Role::Sidecar, "cart-9", Some(Code::NotFound)),
        (Some(&other), wire::Role::Sidecar, "cart-0", Some(Code::PermissionDenied)),
        (Some(&other), wire::Role::Sidecar, "", None),
        (Some(&gateway), wire::Role::Sidecar, "", Some(Code::PermissionDenied)),
        (Some(&cart), wire::Role::Node, "cart-0", Some(Code::InvalidArgument)),
    ];
    for (at, (identity, role, pod, expected)) in table.into_iter().enumerate() {
        let found = agent.watch(identity, role, pod).await.err().map(|e| e.code());
        assert_eq!(found, expected, "row {at}");
    }
}

#[tokio::test]
async fn a_proxy_gets_all_then_changes_and_reports_back() {
    let mut agent = Agent::begin().await;
    let identity = agent.identity(Claim::Gateway).await;
    let (sender, mut replies) = agent.watch(Some(&identity), wire::Role::Gateway, "").await.unwrap();
    let Reply::Welcome(welcome) = next(&mut replies).await else { panic!("no welcome") };
    assert_eq!((welcome.cluster.as_str(), welcome.trust_domain.as_str()), ("east", "east.fed"));
    let first = delta_of(&mut replies).await;
    assert_eq!((first.version, first.full, first.upserts.len(), first.deletes.len()), (1, true, 2, 0));
    assert_eq!(agent.probes.recv().await, Some(LaneEvent::Join(Reporter(0))));

    // A revision without a change for it sends nothing; the next change is the next thing that it hears.
    let before = agent.common.borrow().clone().unwrap();
    agent.world.held = held(2, vec![exported("shop/cart", &["west"])]);
    let second = Arc::new(agent.world.make(&before));
    agent.common.send_replace(Some(second.clone()));
    agent.world.held = held(3, vec![exported("shop/cart", &["west"]), crate::config::tests::peer("west")]);
    agent.world.catalog = catalog(&[]);
    agent.common.send_replace(Some(Arc::new(agent.world.make(&second))));
    let change = delta_of(&mut replies).await;
    assert_eq!((change.version, change.full, change.upserts.len(), change.deletes.len()), (2, false, 1, 1));
    assert_eq!(change.revision, Some(Revision { generation: 1, index: 3 }.to_wire()));

    let probe = |cluster: &str, ok| wire::ProbeResult {
        cluster: cluster.to_owned(),
        address: "10.0.0.1:1".to_owned(),
        ok,
        rtt_us: 7,
        error: "refused".to_owned(),
    };
    let results =
        vec![probe("west", false), probe("west", true), probe("east", false), probe("nobody", false)];
    let report = Request::Probes(wire::ProbeReport { results });
    sender.send(wire::ProxyRequest { kind: Some(report) }).await.unwrap();
    let counted = Probe { cluster: name("west"), result: Ok(7) };
    assert_eq!(agent.probes.recv().await, Some(LaneEvent::Report(Reporter(0), vec![counted])));
    drop(sender);
    assert_eq!(agent.probes.recv().await, Some(LaneEvent::Leave(Reporter(0))));
}

#[tokio::test]
async fn a_certificate_is_renewed_by_itself_alone() {
    let agent = Agent::begin().await;
    let identity = agent.identity(cart()).await;
    let key = PrivateKey::generate().unwrap();
    let request = || wire::RenewRequest { csr: Csr::create(&key).unwrap().der().to_vec() };
    let renewed =
        IdentityClient::new(agent.dial(Some(&identity))).renew(request()).await.unwrap().into_inner();
    assert_eq!(renewed.spiffe_id, "spiffe://east.fed/ns/shop/sa/cart");
    let stranger = IdentityClient::new(agent.dial(None)).renew(request()).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    let itself = agent.ca.own_identity(Duration::from_secs(60)).unwrap();
    let refused = IdentityClient::new(agent.dial(Some(&itself))).renew(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let token = agent.token(cart()).await;
    let issue = |token: Vec<u8>| wire::IssueRequest { token, csr: Csr::create(&key).unwrap().der().to_vec() };
    let forged = IdentityClient::new(agent.dial(None)).issue(issue(vec![1; 32])).await.unwrap_err();
    assert_eq!(forged.code(), Code::PermissionDenied);
    let garbage = wire::IssueRequest { token, csr: vec![1, 2, 3] };
    let garbage = IdentityClient::new(agent.dial(None)).issue(garbage).await.unwrap_err();
    assert_eq!(garbage.code(), Code::InvalidArgument, "and the token is still good");
}
