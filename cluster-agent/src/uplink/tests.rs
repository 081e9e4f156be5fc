//! The streams against a server that follows a script: what the real one does seldom.

use super::*;
use crate::config::tests::{catalog, exported, name, own, shard};
use crate::enroll;
use crate::lease::Leadership;
use crate::state::{Membership, StateDir};
use crate::status::{Reporter, Status};
use crate::store::Store;
use crate::vault::{Credentials, Vault};
use crate::view::{Held, Origin};
use prost::Message;
use sealane_core::command::{CatalogResult, Refusal, RefusalCode};
use sealane_core::identity::{ClusterId, FederationId, InstanceId, ServerId, SpiffeId};
use sealane_core::name::{ClusterName, TrustDomain};
use sealane_core::time::Revision;
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as wire;
use sealane_proto::federation::v1::catalog_server::{Catalog, CatalogServer};
use sealane_proto::federation::v1::discovery_server::{Discovery, DiscoveryServer};
use sealane_proto::federation::v1::enroll_server::{Enroll, EnrollServer};
use sealane_proto::federation::v1::{export_reply, export_request, watch_reply, watch_request};
use sealane_proto::{Wire, hello};
use sealane_trust::acceptor::{Acceptor, Limits};
use sealane_trust::bundle::Bundle;
use sealane_trust::csr::Csr;
use sealane_trust::issue::{Authority, Issued, Leaf, Validity};
use sealane_trust::key::{PrivateKey, PublicKey};
use sealane_trust::revocation::Revocations;
use sealane_trust::statement::Signed;
use sealane_trust::tls::{self, ClientAuth, FederationPeers, Identity};
use sealane_trust::{clock, file};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status as Refused, Streaming};

const FEDERATION: FederationId = FederationId([7; 16]);

/// One stream as the script sees it.
struct Turn<Q, A> {
    requests: Streaming<Q>,
    answers: mpsc::Sender<Result<A, Refused>>,
}

impl<Q, A> Turn<Q, A> {
    async fn next(&mut self) -> Q {
        let message = tokio::time::timeout(Duration::from_secs(10), self.requests.message()).await;
        message.expect("a message in time").expect("a message").expect("no end")
    }

    async fn say(&self, answer: A) {
        self.answers.send(Ok(answer)).await.expect("the client listens");
    }
}

type ExportTurn = Turn<wire::ExportRequest, wire::ExportReply>;
type WatchTurn = Turn<wire::WatchRequest, wire::WatchReply>;

#[derive(Clone)]
struct Server {
    exports: mpsc::Sender<ExportTurn>,
    watches: mpsc::Sender<WatchTurn>,
    authority: Arc<Authority>,
}

fn turn<Q, A>(requests: Streaming<Q>) -> (Turn<Q, A>, ReceiverStream<Result<A, Refused>>) {
    let (answers, stream) = mpsc::channel(8);
    (Turn { requests, answers }, ReceiverStream::new(stream))
}

#[tonic::async_trait]
impl Catalog for Server {
    type ExportStream = ReceiverStream<Result<wire::ExportReply, Refused>>;
    async fn export(
        &self,
        request: Request<Streaming<wire::ExportRequest>>,
    ) -> Result<Response<Self::ExportStream>, Refused> {
        let (turn, stream) = turn(request.into_inner());
        self.exports.send(turn).await.map_err(|_| Refused::unavailable("the script is over"))?;
        Ok(Response::new(stream))
    }
}

#[tonic::async_trait]
impl Discovery for Server {
    type WatchStream = ReceiverStream<Result<wire::WatchReply, Refused>>;
    async fn watch(
        &self,
        request: Request<Streaming<wire::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Refused> {
        let (turn, stream) = turn(request.into_inner());
        self.watches.send(turn).await.map_err(|_| Refused::unavailable("the script is over"))?;
        Ok(Response::new(stream))
    }
}

#[tonic::async_trait]
impl Enroll for Server {
    async fn join(&self, _: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Refused> {
        Err(Refused::unimplemented("not in this script"))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewReply>, Refused> {
        let csr = Csr::parse(&request.into_inner().csr).unwrap();
        let issued = agent_certificate(&self.authority, csr.public_key(), Duration::from_secs(600));
        Ok(Response::new(wire::RenewReply {
            chain: issued.chain.iter().map(|c| c.to_vec()).collect(),
            roots: vec![self.authority.root_certificate().to_vec()],
            servers: vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
        }))
    }
}

fn fed() -> TrustDomain {
    name("fed")
}

fn agent_certificate(authority: &Authority, key: &PublicKey, ttl: Duration) -> Issued {
    let spiffe_id = SpiffeId::agent(&fed(), &name("east"));
    let validity = Validity::starting(clock::now(), ttl);
    authority
        .issue(key, &Leaf { spiffe_id, cluster_id: Some(ClusterId(3)), validity, dns_sans: vec![] })
        .unwrap()
}

/// A store that does what the test says, and an agent's way to it.
struct Script {
    store: Arc<Store>,
    status: Arc<Status>,
    server: Identity,
    exports: mpsc::Receiver<ExportTurn>,
    watches: mpsc::Receiver<WatchTurn>,
    stop: CancellationToken,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Script {
    async fn begin(ttl: Duration) -> Self {
        let validity = Validity::starting(clock::now(), Duration::from_secs(3600));
        let authority = Arc::new(Authority::root(&fed(), "root", validity).unwrap());
        let bundle = Bundle::new(fed(), vec![authority.root_certificate().clone()]).unwrap();
        let key = PrivateKey::generate().unwrap();
        let leaf = Leaf {
            spiffe_id: SpiffeId::server(&fed(), ServerId(1)),
            cluster_id: None,
            validity,
            dns_sans: vec![],
        };
        let identity = Identity::new(authority.issue(key.public(), &leaf).unwrap().chain, &key).unwrap();
        let grace = sealane_trust::verify::Expiry::Grace(Duration::from_secs(30 * 86_400));
        let policy = Arc::new(FederationPeers::matching(bundle.clone(), |_| true).with_expiry(grace));
        let stop = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = Acceptor {
            listener,
            tls: tls::server_config(&identity, ClientAuth::Required(policy), &[tls::ALPN_H2]),
            limits: Limits::default(),
            revocations: Revocations::none(),
            shutdown: stop.clone(),
        };
        let ((exports_to, exports), (watches_to, watches)) = (mpsc::channel(8), mpsc::channel(8));
        let server = Server { exports: exports_to, watches: watches_to, authority: authority.clone() };
        let routes = tonic::service::Routes::new(CatalogServer::new(server.clone()))
            .add_service(DiscoveryServer::new(server.clone()))
            .add_service(EnrollServer::new(server));
        tokio::spawn(sealane_trust::grpc::serve(acceptor, routes));

        let key = PrivateKey::generate().unwrap();
        let own = Identity::new(agent_certificate(&authority, key.public(), ttl).chain, &key).unwrap();
        let membership = Membership {
            federation: FEDERATION,
            federation_domain: fed(),
            cluster_id: ClusterId(3),
            cluster: name("east"),
            trust_domain: name("east.fed"),
            servers: vec![address],
        };
        let store = Arc::new(Store::new(membership, own, bundle));
        Script { store, status: Arc::new(Status::default()), server: identity, exports, watches, stop }
    }

    async fn export(&mut self) -> ExportTurn {
        tokio::time::timeout(Duration::from_secs(10), self.exports.recv()).await.unwrap().unwrap()
    }

    async fn watch(&mut self) -> WatchTurn {
        tokio::time::timeout(Duration::from_secs(10), self.watches.recv()).await.unwrap().unwrap()
    }

    fn reporter(&self, held: &watch::Sender<Arc<Held>>) -> Reporter {
        Reporter {
            status: self.status.clone(),
            store: self.store.clone(),
            serving: self.store.identity().clone(),
            instance: InstanceId([1; 16]),
            held: held.subscribe(),
            catalog: watch::Sender::new(None).subscribe(),
            lanes: watch::Sender::new(Arc::default()).subscribe(),
            ending: CancellationToken::new(),
        }
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn greeting() -> Option<wire::Hello> {
    Some(hello::hello(Some(FEDERATION)))
}

fn at(index: u64) -> Revision {
    Revision { generation: 1, index }
}

async fn opened(turn: &mut ExportTurn) -> (Vec<u8>, wire::Digests) {
    let Some(export_request::Kind::Open(open)) = turn.next().await.kind else { panic!("no open") };
    let opened = export_reply::Kind::Opened(wire::Opened { hello: greeting() });
    turn.say(wire::ExportReply { kind: Some(opened) }).await;
    let Some(export_request::Kind::Digests(digests)) = turn.next().await.kind else { panic!("no digests") };
    (open.session, digests)
}

async fn next_write(turn: &mut ExportTurn) -> wire::Write {
    loop {
        match turn.next().await.kind {
            Some(export_request::Kind::Write(write)) => return write,
            Some(export_request::Kind::Heartbeat(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_write_of_unknown_fate_is_left_to_the_next_sessions_digests() {
    let mut script = Script::begin(Duration::from_secs(600)).await;
    let published = watch::Sender::new(None);
    let (lanes, refused) = (watch::Sender::new(Arc::default()), script.status.refused());
    let export = ExportLoop {
        opened: 0,
        leadership: Leadership::alone(),
        store: script.store.clone(),
        instance: InstanceId([1; 16]),
        own: Arc::new(own()),
        uid: None,
        catalog: published.subscribe(),
        lanes: lanes.subscribe(),
        status: script.status.clone(),
    };
    tokio::spawn(keep_exporting(export, script.stop.clone()));
    published.send_replace(Some(catalog(&[("shop/a", shard(&["a-0"]))])));

    let mut first = script.export().await;
    let (first_session, digests) = opened(&mut first).await;
    let want =
        wire::Want { shards: vec![digests.shards[0].service.clone().unwrap()], ..wire::Want::default() };
    first.say(wire::ExportReply { kind: Some(export_reply::Kind::Want(want.clone())) }).await;
    let write = next_write(&mut first).await;
    assert_eq!((write.sequence, write.changes.len()), (1, 4));
    first.answers.send(Err(Refused::aborted("unknown"))).await.unwrap();
    drop(first);

    let mut second = script.export().await;
    let (second_session, _) = opened(&mut second).await;
    assert_ne!(first_session, second_session);
    second.say(wire::ExportReply { kind: Some(export_reply::Kind::Want(want)) }).await;
    assert_eq!(next_write(&mut second).await.sequence, 1, "a new session counts anew");
    let refusal = Refusal { code: RefusalCode::Forbidden, message: "not granted".to_owned() };
    let result = Some(CatalogResult { refused: vec![(0, refusal.clone())] }.to_wire());
    let written = wire::Written { sequence: 1, revision: Some(at(9).to_wire()), result };
    second.say(wire::ExportReply { kind: Some(export_reply::Kind::Written(written)) }).await;
    let expected = BTreeMap::from([(name("shop/a"), refusal)]);
    until("the refusal is told", || **refused.borrow() == expected).await;
}

#[tokio::test]
async fn a_refused_resume_becomes_a_comparison_and_the_past_is_refused() {
    let mut script = Script::begin(Duration::from_secs(600)).await;
    let (a, b) = (exported("shop/a", &["west"]), exported("shop/b", &["west"]));
    let start = crate::config::tests::held(5, vec![a.clone()]);
    let held = watch::Sender::new(Arc::new(Held { origin: Origin::Disk, ..start }));
    let watcher =
        WatchLoop { store: script.store.clone(), held: held.clone(), status: script.status.clone() };
    tokio::spawn(keep_watching(watcher, script.stop.clone()));

    let mut turn = script.watch().await;
    let say = |kind| wire::WatchReply { kind: Some(kind) };
    let subscribed = || {
        let subscribed = wire::Subscribed { hello: greeting(), cluster: "east".to_owned(), scope: vec![1] };
        say(watch_reply::Kind::Subscribed(subscribed))
    };
    let Some(watch_request::Kind::Subscribe(first)) = turn.next().await.kind else { panic!("no subscribe") };
    assert_eq!(first.resume.and_then(|r| r.revision), Some(at(5).to_wire()));
    turn.say(subscribed()).await;
    let reason = "compacted".to_owned();
    turn.say(say(watch_reply::Kind::ResumeRefused(wire::ResumeRefused { reason }))).await;
    let Some(watch_request::Kind::Subscribe(again)) = turn.next().await.kind else { panic!("no subscribe") };
    assert_eq!((again.resume, again.held.len()), (None, 1));
    turn.say(subscribed()).await;
    let upserts = field::to_list([&b]);
    let delta = wire::ViewDelta { revision: Some(at(7).to_wire()), upserts, deletes: vec![], more: false };
    turn.say(say(watch_reply::Kind::Delta(delta))).await;
    let synced = |index| {
        say(watch_reply::Kind::Synced(wire::Synced { revision: Some(at(index).to_wire()), full: true }))
    };
    turn.say(synced(7)).await;
    let Some(watch_request::Kind::Applied(applied)) = turn.next().await.kind else { panic!("no applied") };
    assert_eq!((applied.revision, applied.error), (Some(at(7).to_wire()), String::new()));
    let expected = crate::config::tests::held(7, vec![a, b]).items;
    assert_eq!((held.borrow().revision, held.borrow().items.clone()), (at(7), expected.clone()));

    turn.say(synced(6)).await;
    let Some(watch_request::Kind::Applied(refused)) = turn.next().await.kind else { panic!("no applied") };
    assert!(refused.error.contains("behind"), "{}", refused.error);
    let reporter = script.reporter(&held);
    until("the refusal is told", || reporter.report().view.error.is_some_and(|e| e.contains("behind"))).await;
    assert_eq!(held.borrow().items, expected, "the last view stands");
    let mut later = script.watch().await;
    assert!(matches!(later.next().await.kind, Some(watch_request::Kind::Subscribe(_))), "and it tries again");
}

#[tokio::test]
async fn what_is_wrong_with_services_is_told_when_it_changes_and_on_every_new_stream() {
    let mut script = Script::begin(Duration::from_secs(600)).await;
    let held = watch::Sender::new(Arc::new(crate::config::tests::held(5, vec![])));
    let watcher =
        WatchLoop { store: script.store.clone(), held: held.clone(), status: script.status.clone() };
    tokio::spawn(keep_watching(watcher, script.stop.clone()));
    let told = async |turn: &mut WatchTurn| match turn.next().await.kind {
        Some(watch_request::Kind::Applied(applied)) => (applied.revision.unwrap(), applied.error),
        other => panic!("{other:?}"),
    };
    let mut turn = script.watch().await;
    assert!(matches!(turn.next().await.kind, Some(watch_request::Kind::Subscribe(_))));
    let troubles = Arc::new(BTreeMap::from([(name("shop/web"), "somebody's is in the way".to_owned())]));
    script.status.troubled(&troubles);
    let in_the_way = "shop/web: somebody's is in the way".to_owned();
    assert_eq!(told(&mut turn).await, (at(5).to_wire(), in_the_way.clone()));
    let refusal = Refusal { code: RefusalCode::Forbidden, message: "not granted".to_owned() };
    let refused = BTreeMap::from([(name("shop/a"), Some(refusal))]);
    script.status.written(at(6), refused, vec![], true);
    let both = format!("shop/a: the federation refuses the export: not granted\n{in_the_way}");
    assert_eq!(told(&mut turn).await, (at(5).to_wire(), both.clone()));
    turn.answers.send(Err(Refused::unavailable("this server shuts down"))).await.unwrap();
    let mut later = script.watch().await;
    assert!(matches!(later.next().await.kind, Some(watch_request::Kind::Subscribe(_))));
    assert_eq!(told(&mut later).await.1, both, "a server that did not hear of it");
    script.status.troubled(&Arc::default());
    script.status.written(at(7), BTreeMap::from([(name("shop/a"), None)]), vec![], true);
    until_told(&mut later, "").await;
}

/// Goes on until this is told.
async fn until_told(turn: &mut WatchTurn, expected: &str) {
    loop {
        match turn.next().await.kind {
            Some(watch_request::Kind::Applied(applied)) if applied.error == expected => return,
            Some(watch_request::Kind::Applied(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn another_federation_is_refused_on_both_streams() {
    let mut script = Script::begin(Duration::from_secs(600)).await;
    let held = watch::Sender::new(Arc::new(Held::nothing()));
    let watcher =
        WatchLoop { store: script.store.clone(), held: held.clone(), status: script.status.clone() };
    tokio::spawn(keep_watching(watcher, script.stop.clone()));
    let mut turn = script.watch().await;
    turn.next().await;
    let hello = Some(hello::hello(Some(FederationId([8; 16]))));
    let subscribed = wire::Subscribed { hello, cluster: "east".to_owned(), scope: vec![] };
    turn.say(wire::WatchReply { kind: Some(watch_reply::Kind::Subscribed(subscribed)) }).await;
    let reporter = script.reporter(&held);
    let told = || reporter.report().view.error.is_some_and(|e| e.contains("of the federation 0808"));
    until("the stranger is told", told).await;
    assert_eq!(held.borrow().origin, Origin::Nothing);
}

#[tokio::test]
async fn only_a_signed_goodbye_takes_away_what_was_imported() {
    let mut script = Script::begin(Duration::from_secs(600)).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("view");
    let before = crate::config::tests::held(5, vec![exported("shop/a", &["west"])]);
    let held = watch::Sender::new(Arc::new(before.clone()));
    let watcher =
        WatchLoop { store: script.store.clone(), held: held.clone(), status: script.status.clone() };
    tokio::spawn(keep_watching(watcher, script.stop.clone()));
    tokio::spawn(persist(
        path.clone(),
        FEDERATION,
        held.subscribe(),
        script.status.clone(),
        script.stop.clone(),
    ));

    let removed = "the cluster was removed from the federation";
    let departure = wire::Departure {
        federation: FEDERATION.0.to_vec(),
        cluster_id: 3,
        cluster: "east".to_owned(),
        revision: Some(at(9).to_wire()),
    };
    let signed = Signed::new(&script.server, sealane_proto::GOODBYE, departure.encode_to_vec()).unwrap();
    let chain = signed.chain.iter().map(|c| c.to_vec()).collect();
    let goodbye = wire::Goodbye { departure: signed.statement, signature: signed.signature, chain };
    let forged = wire::Goodbye { signature: vec![0; 70], ..goodbye.clone() };
    for details in [Vec::new(), forged.encode_to_vec()] {
        let turn = script.watch().await;
        let refused = Refused::with_details(tonic::Code::PermissionDenied, removed, details.into());
        turn.answers.send(Err(refused)).await.unwrap();
    }
    let turn = script.watch().await;
    assert_eq!(**held.borrow(), before, "neither words nor a forged goodbye do anything");
    assert!(script.status.removal().is_some());
    let details = goodbye.encode_to_vec().into();
    let refused = Refused::with_details(tonic::Code::PermissionDenied, removed, details);
    turn.answers.send(Err(refused)).await.unwrap();
    until("the goodbye is heeded", || held.borrow().is_over()).await;
    assert_eq!(**held.borrow(), Held::over(at(9)));
    let kept = || crate::view::load(&path, FEDERATION).ok().flatten().is_some_and(|kept| kept.is_over());
    until("it is kept", kept).await;

    let mut later = script.watch().await;
    let Some(watch_request::Kind::Subscribe(again)) = later.next().await.kind else { panic!("no subscribe") };
    assert_eq!(again.resume.map(|resume| resume.scope), Some(Vec::new()), "no store goes on from there");
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_and_kept() {
    let script = Script::begin(Duration::from_secs(1)).await;
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::create(directory.path()).unwrap();
    let before = script.store.identity().current();
    until("the certificate expired", || clock::now() > before.not_after).await;
    let vault = Vault::Directory(state.clone());
    let kept = Credentials {
        membership: script.store.membership(),
        identity: Vec::new().into(),
        roots: String::new(),
    };
    let renewal = enroll::Renewal {
        vault: vault.clone(),
        kept,
        store: script.store.clone(),
        leadership: Leadership::alone(),
        status: script.status.clone(),
        state: state.clone(),
        projected: None,
    };
    tokio::spawn(enroll::keep_renewed(renewal, script.stop.clone()));
    until("it is renewed", || script.store.identity().current().serial != before.serial).await;
    let servers = script.store.membership().servers;
    assert_eq!(servers, ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(state.membership().unwrap().unwrap().servers, servers);
    let (kept, roots) = enroll::load(&vault.credentials().await.unwrap().unwrap()).unwrap();
    assert_eq!(kept.current(), script.store.identity().current());
    assert_eq!(roots, script.store.roots());
    assert!(file::read_private(&state.identity(), 1 << 20).is_ok(), "nobody else may read it");
    let _: ClusterName = script.store.membership().cluster;
}
