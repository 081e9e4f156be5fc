//! A proxy with an agent of the test's own: identity by token, configuration by stream, restart without either.

use super::*;
use crate::role::tests::{Cluster, LOCALHOST, listener, says};
use clap::Parser;
use sealane_core::identity::SpiffeId;
use sealane_proto::agent::v1 as wire;
use sealane_proto::agent::v1::config_server::{Config, ConfigServer};
use sealane_proto::agent::v1::identity_server::{Identity as IdentityRpc, IdentityServer};
use sealane_proto::convert::Wire;
use sealane_proto::types::v1 as types;
use sealane_trust::acceptor::{Acceptor, Limits as AcceptorLimits};
use sealane_trust::csr::Csr;
use sealane_trust::file::{self, Access};
use sealane_trust::issue::Leaf;
use sealane_trust::tls::{ALPN_H2, ClientAuth, FederationPeers};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// An agent that issues one identity and sends one configuration.
struct Agent {
    cluster: Cluster,
    spiffe_id: SpiffeId,
    lifetime: Duration,
    issued: AtomicUsize,
    renewed: AtomicUsize,
    items: Mutex<Vec<wire::ProxyItem>>,
    revision: AtomicU64,
    applied: Mutex<Vec<(u64, String)>>,
    probes: AtomicUsize,
    streams: AtomicUsize,
}

#[derive(Clone)]
struct Service(Arc<Agent>);

impl Agent {
    fn issue(&self, csr: &[u8]) -> Result<Response<wire::IssueReply>, Status> {
        let csr = Csr::parse(csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let validity = sealane_trust::issue::Validity {
            not_before: sealane_trust::clock::now(),
            not_after: sealane_trust::clock::now().plus(self.lifetime.as_millis().try_into().unwrap()),
        };
        let leaf =
            Leaf { spiffe_id: self.spiffe_id.clone(), cluster_id: None, validity, dns_sans: Vec::new() };
        let issued = self.cluster.ca.authority().issue(csr.public_key(), &leaf).unwrap();
        Ok(Response::new(wire::IssueReply {
            spiffe_id: self.spiffe_id.to_string(),
            chain: issued.chain.iter().map(|c| c.to_vec()).collect(),
            not_after_ms: issued.not_after.0,
            bundle: None,
        }))
    }
}

#[tonic::async_trait]
impl IdentityRpc for Service {
    async fn issue(
        &self,
        request: Request<wire::IssueRequest>,
    ) -> Result<Response<wire::IssueReply>, Status> {
        let request = request.into_inner();
        if request.token != b"secret" {
            return Err(Status::permission_denied("an unknown token"));
        }
        self.0.issued.fetch_add(1, Ordering::Relaxed);
        self.0.issue(&request.csr)
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::IssueReply>, Status> {
        self.0.renewed.fetch_add(1, Ordering::Relaxed);
        self.0.issue(&request.into_inner().csr)
    }
}

#[tonic::async_trait]
impl Config for Service {
    type WatchStream = ReceiverStream<Result<wire::ProxyReply, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::ProxyRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        use wire::proxy_reply::Kind;
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = mpsc::channel(4);
        let welcome = wire::ProxyWelcome {
            hello: Some(sealane_proto::hello::hello(None)),
            cluster: "west".into(),
            trust_domain: "west.test".into(),
            ..Default::default()
        };
        let delta = wire::ProxyDelta {
            version: 3,
            revision: Some(types::Revision { generation: 1, index: self.0.revision.load(Ordering::Relaxed) }),
            full: true,
            upserts: self.0.items.lock().unwrap().clone(),
            deletes: Vec::new(),
        };
        for kind in [Kind::Welcome(welcome), Kind::Delta(delta)] {
            sender.send(Ok(wire::ProxyReply { kind: Some(kind) })).await.unwrap();
        }
        let agent = Arc::clone(&self.0);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match request.kind {
                    Some(wire::proxy_request::Kind::Applied(a)) => {
                        agent.applied.lock().unwrap().push((a.version, a.error));
                    }
                    Some(wire::proxy_request::Kind::Probes(p)) => {
                        agent.probes.fetch_add(p.results.len(), Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
            drop(sender);
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

struct Setup {
    agent: Arc<Agent>,
    address: SocketAddr,
    stop: CancellationToken,
    directory: tempfile::TempDir,
}

impl Setup {
    async fn new(lifetime: Duration, items: impl FnOnce(&Cluster) -> Vec<wire::ProxyItem>) -> Self {
        let cluster = Cluster::new("west");
        let agent = Arc::new(Agent {
            spiffe_id: cluster.id("ns/shop/sa/cart"),
            lifetime,
            issued: AtomicUsize::new(0),
            renewed: AtomicUsize::new(0),
            items: Mutex::new(items(&cluster)),
            revision: AtomicU64::new(9),
            applied: Mutex::default(),
            probes: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            cluster,
        });
        let (listener, address) = listener().await;
        let peers = Arc::new(FederationPeers::matching(agent.cluster.ca.bundle(), |_| true));
        let identity = agent.cluster.ca.identity("sealane/agent");
        let stop = CancellationToken::new();
        let acceptor = Acceptor {
            listener,
            tls: sealane_trust::tls::server_config(&identity, ClientAuth::Optional(peers), &[ALPN_H2]),
            limits: AcceptorLimits { drain: Duration::ZERO, ..AcceptorLimits::default() },
            revocations: sealane_trust::revocation::Revocations::default(),
            shutdown: stop.clone(),
        };
        let service = Service(Arc::clone(&agent));
        let routes = tonic::service::Routes::new(IdentityServer::new(service.clone()))
            .add_service(ConfigServer::new(service));
        tokio::spawn(sealane_trust::grpc::serve(acceptor, routes));
        let setup = Setup { agent, address, stop, directory: tempfile::tempdir().unwrap() };
        setup.token("c2VjcmV0");
        setup
    }

    fn token_path(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    fn token(&self, secret: &str) {
        let roots = [sealane_trust::pem::encode_certificates(self.agent.cluster.ca.bundle().roots())];
        let token = serde_json::json!({
            "v": 1, "agent": [self.address.to_string()], "trust_domain": "west.test", "roots": roots, "secret": secret,
        });
        file::write(&self.token_path(), token.to_string().as_bytes(), Access::Private).unwrap();
    }

    /// A proxy with a free port for each listener.
    async fn args(&self, extra: &[&str]) -> (Args, SocketAddr) {
        let (_, admin) = listener().await;
        let state = self.directory.path().join("state");
        let (admin_text, inbound) = (admin.to_string(), SocketAddr::new(LOCALHOST, 0).to_string());
        let fixed = [
            "sealane-proxy",
            "--role",
            "sidecar",
            "--token-file",
            self.directory.path().join("token").to_str().unwrap(),
            "--dir",
            state.to_str().unwrap(),
            "--inbound",
            &inbound,
            "--admin",
            &admin_text,
        ]
        .map(str::to_owned);
        let all = fixed.into_iter().chain(extra.iter().map(|s| (*s).to_owned()));
        (Args::try_parse_from(all).unwrap(), admin)
    }
}

/// A GET of the admin listener: status and body.
async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn peer_item(cluster: &Cluster) -> wire::ProxyItem {
    let peer = cluster.peer(true);
    wire::ProxyItem {
        kind: Some(wire::proxy_item::Kind::Peer(wire::TrustedPeer {
            name: peer.name.to_string(),
            trust_domain: peer.trust_domain.to_string(),
            bundle: peer.bundle.map(|b| b.to_wire()),
            exports_to_us: true,
            imports_from_us: true,
            probes: Vec::new(),
            own: true,
        })),
    }
}

fn service_key() -> Option<types::ServiceKey> {
    Some(types::ServiceKey { namespace: "shop".into(), name: "cart".into() })
}

#[tokio::test]
async fn a_proxy_gets_its_identity_and_configuration_and_restarts_without_its_agent() {
    let app = says("hello").await;
    let bad = wire::ProxyItem {
        kind: Some(wire::proxy_item::Kind::Inbound(wire::Inbound {
            service: service_key(),
            ports: vec![wire::InboundPort { port: 0, ..Default::default() }],
            importers: Vec::new(),
        })),
    };
    let setup = Setup::new(Duration::from_secs(3600), |cluster| vec![peer_item(cluster), bad]).await;
    let (args, admin) = setup.args(&[]).await;
    let background = serve(args, Drain::default()).await.unwrap();
    assert_eq!(get(admin, "/readyz").await, (200, "ok\n".into()));
    let (status, config) = get(admin, "/config").await;
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((status, &config["revision"], &config["version"]), (200, &"1.9".into(), &3.into()));
    assert_eq!(config["identity"]["spiffe_id"], "spiffe://west.test/ns/shop/sa/cart");
    assert_eq!(config["inbound"], serde_json::json!([]), "a bad item is not in use");
    eventually("the applied version arrives", || !setup.agent.applied.lock().unwrap().is_empty()).await;
    let applied = setup.agent.applied.lock().unwrap()[0].clone();
    let error = "upserts[1].inbound.ports.port: must be a port from 1 to 65535, not 0";
    assert_eq!(
        (applied.0, applied.1.contains("upserts[1].inbound.ports.port")),
        (3, true),
        "{} like {error}",
        applied.1
    );
    let saved = setup.directory.path().join("state/config.bin");
    eventually("the configuration is saved", || saved.exists()).await;

    drop(background);
    setup.stop.cancel();
    std::fs::remove_file(setup.token_path()).unwrap();
    let (args, admin) = setup.args(&[]).await;
    let background = serve(args, Drain::default()).await.unwrap();
    assert_eq!(get(admin, "/readyz").await.0, 200);
    let (_, again) = get(admin, "/config").await;
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["identity"], &again["revision"]), (&config["identity"], &config["revision"]));
    assert_eq!(setup.agent.issued.load(Ordering::Relaxed), 1, "the token was used once");
    assert!(get(admin, "/metrics").await.1.contains("sealane_proxy_config_version 3"));
    assert_eq!(get(admin, "/connections").await, (200, "[]".into()));
    assert_eq!(get(admin, "/nothing").await.0, 404);
    drop((background, app));
}

#[tokio::test]
async fn an_agent_that_went_back_takes_nothing_away() {
    let setup = Setup::new(Duration::from_secs(3600), |cluster| vec![peer_item(cluster)]).await;
    let (args, _) = setup.args(&[]).await;
    let background = serve(args, Drain::default()).await.unwrap();
    let saved = setup.directory.path().join("state/config.bin");
    eventually("the configuration is saved", || saved.exists()).await;
    drop(background);

    let peers = setup.agent.items.lock().unwrap().split_off(0);
    setup.agent.revision.store(8, Ordering::Relaxed);
    let (args, admin) = setup.args(&[]).await;
    let background = serve(args, Drain::default()).await.unwrap();
    let config =
        async || -> serde_json::Value { serde_json::from_str(&get(admin, "/config").await.1).unwrap() };
    let first = config().await;
    assert_eq!((&first["revision"], first["peers"].as_array().unwrap().len()), (&"1.9".into(), 1));
    let refused = || setup.agent.streams.load(Ordering::Relaxed) >= 3;
    eventually("the older configuration is refused, and asked for again", refused).await;
    assert_eq!(config().await["peers"], first["peers"]);

    setup.agent.revision.store(10, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(20);
    while config().await["revision"] != "1.10" {
        assert!(Instant::now() < end, "the newer configuration is not taken: {}", config().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(config().await["peers"], serde_json::json!([]));
    drop((background, peers));
}

#[tokio::test]
async fn a_refused_token_is_final_and_says_what_to_do() {
    let setup = Setup::new(Duration::from_secs(60), |_| Vec::new()).await;
    setup.token("b3RoZXI");
    let (args, _) = setup.args(&[]).await;
    let refused = serve(args, Drain::default()).await.unwrap_err().to_string();
    let expected = "the agent refuses to issue an identity: an unknown token. Make a new token with \
                    `sealane-agent workload-token`";
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn a_token_that_is_not_there_yet_is_waited_for_where_that_is_asked_for() {
    let setup = Setup::new(Duration::from_secs(60), |cluster| vec![peer_item(cluster)]).await;
    std::fs::remove_file(setup.token_path()).unwrap();
    let (args, _) = setup.args(&[]).await;
    let refused = serve(args, Drain::default()).await.unwrap_err().to_string();
    assert!(refused.contains(setup.token_path().to_str().unwrap()), "{refused}");

    let (args, admin) = setup.args(&["--wait-for-token"]).await;
    let proxy = tokio::spawn(serve(args, Drain::default()));
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(admin).await.is_err() {
        assert!(Instant::now() < deadline && !proxy.is_finished(), "it does not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((get(admin, "/livez").await.0, get(admin, "/readyz").await.0), (200, 503));
    setup.token("c2VjcmV0");
    let background = proxy.await.unwrap().unwrap();
    assert_eq!(get(admin, "/readyz").await.0, 200);
    drop(background);
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_life() {
    let setup = Setup::new(Duration::from_secs(2), |cluster| vec![peer_item(cluster)]).await;
    let (args, admin) = setup.args(&[]).await;
    let background = serve(args, Drain::default()).await.unwrap();
    let serial = |config: &str| {
        serde_json::from_str::<serde_json::Value>(config).unwrap()["identity"]["serial"].to_string()
    };
    let first = serial(&get(admin, "/config").await.1);
    eventually("renewed", || setup.agent.renewed.load(Ordering::Relaxed) >= 2).await;
    assert_ne!(serial(&get(admin, "/config").await.1), first);
    assert_eq!(get(admin, "/readyz").await.0, 200);
    drop(background);
}

#[tokio::test]
async fn draining_is_told_before_it_is_done() {
    let setup = Setup::new(Duration::from_secs(60), |cluster| vec![peer_item(cluster)]).await;
    let (args, admin) = setup.args(&[]).await;
    let drain = Drain::default();
    let background = serve(args, drain.clone()).await.unwrap();
    drain.begin();
    assert_eq!(get(admin, "/readyz").await, (503, "draining\n".into()));
    assert_eq!(get(admin, "/livez").await, (200, "ok\n".into()));
    drop(background);
}
