use super::bench::{Bench, Member, Session, admin_key, subscribe};
use crate::app::serve::FAREWELL;
use prost::Message;
use sealane_proto::GOODBYE;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_trust::csr::Csr;
use sealane_trust::key::PrivateKey;
use sealane_trust::statement::Signed;
use sealane_trust::{CertificateDer, clock};
use tonic::{Code, Status};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_admits_one_key_which_may_retry() {
    let bench = Bench::new().await;
    let token = bench.token(1, Some("east")).await;
    let key = PrivateKey::generate().unwrap();
    let first = bench.enroll(1, &token, &key).await.unwrap();
    let second = bench.enroll(1, &token, &key).await.unwrap();
    assert_eq!(first.joined, second.joined);
    assert_eq!(first.servers, [bench.servers[&1].address.to_string()]);
    let other = bench.enroll(1, &token, &PrivateKey::generate().unwrap()).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition, "{other}");
    assert!(other.message().contains("consumed by another key"), "{other}");
    let member = Member::of("east", second, &key);
    assert_eq!(member.identity.current().spiffe_id.to_string(), "spiffe://fed.test/agent/east");
    assert_eq!(member.identity.current().cluster_id, Some(member.id));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_open_to_its_own_principal_only() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let removal = || pb::RemoveClusterRequest { key: admin_key(), name: "east".to_owned() };
    let mut stranger = pb::admin_client::AdminClient::new(bench.channel(1, None));
    assert_eq!(stranger.remove_cluster(removal()).await.unwrap_err().code(), Code::Unauthenticated);
    let mut agent = pb::admin_client::AdminClient::new(bench.channel(1, Some(&east.identity)));
    assert_eq!(agent.remove_cluster(removal()).await.unwrap_err().code(), Code::PermissionDenied);
    let channel = bench.channel(1, Some(&east.identity));
    let mut peer = sealane_proto::peer::v1::peer_client::PeerClient::new(channel.clone());
    let forward = futures::stream::iter([sealane_proto::peer::v1::ForwardBatch::default()]);
    assert_eq!(peer.forward(forward).await.unwrap_err().code(), Code::PermissionDenied);
    let csr = Csr::create(&PrivateKey::generate().unwrap()).unwrap().der().to_vec();
    let renewed =
        EnrollClient::new(channel).renew(pb::RenewRequest { csr: csr.clone() }).await.unwrap().into_inner();
    assert_eq!(renewed.chain.len(), 3);
    let refused =
        EnrollClient::new(bench.channel(1, None)).renew(pb::RenewRequest { csr }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_cluster_is_told_and_its_old_certificate_never_works_again() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let mut session = east.publish(&bench, 1, 1, &["shop/cart"]).await;
    let mut watching = east.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    assert!(watching.synced().await);
    let removal = pb::RemoveClusterRequest { key: admin_key(), name: "east".to_owned() };
    let from_the_future = pb::RemoveClusterRequest { key: vec![255; 16], ..removal.clone() };
    let refused = bench.admin(1).remove_cluster(from_the_future).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let first = bench.admin(1).remove_cluster(removal.clone()).await.unwrap().into_inner();
    assert!(first.revision.is_some());
    bench.admin(1).remove_cluster(removal).await.expect("a retry under the same key is no second removal");
    let told = loop {
        if let Err(status) = watching.step().await {
            break status;
        }
    };
    assert_eq!(told.code(), Code::PermissionDenied, "{told}");
    let goodbye = |status: &Status| {
        assert_ne!(status.details(), [0; 0], "{status}");
        let goodbye = pb::Goodbye::decode(status.details()).unwrap();
        let chain = goodbye.chain.into_iter().map(CertificateDer::from).collect();
        let signed = Signed { statement: goodbye.departure, signature: goodbye.signature, chain };
        signed.verify(&bench.servers[&1].serving.pki.bundle, GOODBYE, clock::now()).unwrap();
        let departure = pb::Departure::decode(&signed.statement[..]).unwrap();
        (departure.federation, departure.cluster_id, departure.cluster)
    };
    let expected = (bench.servers[&1].serving.federation.0.to_vec(), east.id.0, "east".to_owned());
    assert_eq!(goodbye(&told), expected);
    // Who was away is told when it comes back, however long after.
    tokio::time::sleep(2 * FAREWELL).await;
    let told = match east.watch(&bench, 1, subscribe(&bench)).await {
        Err(status) => status,
        Ok(_) => panic!("a removed cluster watches"),
    };
    assert_eq!(goodbye(&told), expected);
    assert!(session.write(2, &[]).await.is_err());
    // The name is given again, to another cluster.
    let again = bench.member(1, "east").await;
    assert_ne!(again.id, east.id);
    assert!(Session::open(&bench, 1, &east, 7, 1).await.is_err());
    again.session(&bench, 1, 8).await.unwrap();
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_token_admits_no_cluster_and_nonsense_is_refused() {
    let bench = Bench::new().await;
    let mut enroll = EnrollClient::new(bench.channel(1, None));
    for (secret, csr) in [(vec![1; 31], vec![]), (vec![1; 32], vec![1, 2, 3])] {
        let refused = enroll.join(pb::JoinRequest { secret, csr, projected: None }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let csr = Csr::create(&PrivateKey::generate().unwrap()).unwrap().der().to_vec();
    let unknown =
        enroll.join(pb::JoinRequest { secret: vec![1; 32], csr, projected: None }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_without_a_secret_writes_nothing() {
    const TRIES: u64 = 40;
    let bench = Bench::new().await;
    let mut enroll = EnrollClient::new(bench.channel(1, None));
    let csr = Csr::create(&PrivateKey::generate().unwrap()).unwrap().der().to_vec();
    let before = bench.replica(1).state().0;
    for n in 0..TRIES {
        let secret = vec![u8::try_from(n).unwrap(); 32];
        let unknown =
            enroll.join(pb::JoinRequest { secret, csr: csr.clone(), projected: None }).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    }
    let written = bench.replica(1).state().0 - before;
    assert!(written < TRIES / 4, "{written} entries were written meanwhile");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_a_few_streams_of_a_kind_and_no_more() {
    const MOST: usize = 4;
    let bench = Bench::new().await;
    let (east, west) = (bench.member(1, "east").await, bench.member(1, "west").await);
    let mut watching = Vec::new();
    for _ in 0..MOST {
        watching.push(east.watch(&bench, 1, subscribe(&bench)).await.unwrap());
    }
    let refused = east.watch(&bench, 1, subscribe(&bench)).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("cluster east has 4 streams"), "{refused}");
    west.watch(&bench, 1, subscribe(&bench)).await.expect("another cluster has its own");
    let _session = east.session(&bench, 1, 1).await.expect("another kind has its own");
    watching.pop();
    super::bench::eventually("a place that was given back", || async {
        east.watch(&bench, 1, subscribe(&bench)).await.ok()
    })
    .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_opens_renew_and_nothing_else() {
    use sealane_core::time::Millis;
    use sealane_trust::issue::Validity;
    use sealane_trust::tls::Identity;
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let now = sealane_trust::clock::now();
    // Not longer ago than the federation is backdated: a chain is verified as of when its leaf expired.
    let validity = Validity { not_before: Millis(now.0 - 50_000), not_after: Millis(now.0 - 30_000) };
    let key = PrivateKey::generate().unwrap();
    let name = east.name.parse().unwrap();
    let issued = bench.servers[&1].serving.pki.issue_agent(key.public(), (east.id, &name), validity).unwrap();
    let expired = Identity::new(issued.chain, &key).unwrap();

    let mut catalog = pb::catalog_client::CatalogClient::new(bench.channel(1, Some(&expired)));
    let refused = catalog.export(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let csr = || Csr::create(&PrivateKey::generate().unwrap()).unwrap().der().to_vec();
    let mut enroll = EnrollClient::new(bench.channel(1, Some(&expired)));
    assert_eq!(enroll.renew(pb::RenewRequest { csr: csr() }).await.unwrap().into_inner().chain.len(), 3);
    bench.stop().await;
}
