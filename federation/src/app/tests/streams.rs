use super::bench::{Bench, Session, endpoints, export, subscribe};
use sealane_core::name::ServiceKey;
use sealane_core::view::Path;
use sealane_proto::Wire;
use sealane_proto::federation::v1 as pb;
use tonic::Code;

fn cart() -> ServiceKey {
    ServiceKey::parse("shop/cart").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_cluster_exports_another_is_sent_and_it_goes_again() {
    let bench = Bench::new().await;
    let (east, west) = (bench.member(1, "east").await, bench.member(1, "west").await);
    let _east = east.publish(&bench, 1, 1, &[]).await;
    let mut watching = east.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    assert!(watching.synced().await);
    assert_eq!(watching.import("shop/cart"), None);
    let mut session = west.publish(&bench, 1, 2, &["shop/cart"]).await;
    watching.until("the import", |w| w.import("shop/cart").is_some()).await;
    let import = watching.import("shop/cart").unwrap();
    assert_eq!(import.clusters.iter().map(ToString::to_string).collect::<Vec<_>>(), ["west"]);
    let gone = sealane_core::command::CatalogChange::RemoveExport { service: cart() };
    let written = session.write(2, &[gone]).await.unwrap();
    watching.until("the deletion", |w| w.import("shop/cart").is_none()).await;
    let seen = watching.token.revision.unwrap();
    assert_eq!(seen, written.revision.unwrap(), "the delta carries the revision of the write");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_with_the_difference_or_is_refused_and_resyncs_by_digests() {
    let bench = Bench::new().await;
    let (east, west) = (bench.member(1, "east").await, bench.member(1, "west").await);
    let mut session = west.publish(&bench, 1, 2, &["shop/cart", "shop/pay"]).await;
    let _east = east.publish(&bench, 1, 1, &["shop/own"]).await;
    let mut first = east.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    assert!(first.synced().await);
    let (token, items) = (first.token.clone(), first.items.clone());
    drop(first);
    session
        .write(2, &[sealane_core::command::CatalogChange::RemoveExport { service: cart() }])
        .await
        .unwrap();

    let resume = pb::Subscribe { resume: Some(token.clone()), ..subscribe(&bench) };
    let mut again = east.watch(&bench, 1, resume).await.unwrap();
    again.items = items.clone();
    assert!(!again.synced().await, "resumed, not resynced");
    assert!(again.import("shop/cart").is_none() && again.import("shop/pay").is_some());

    let foreign = pb::ResumeToken { federation: vec![7; 16], ..token };
    let resume = pb::Subscribe { resume: Some(foreign), ..subscribe(&bench) };
    let mut refused = east.watch(&bench, 1, resume).await.unwrap();
    let pb::watch_reply::Kind::ResumeRefused(_) = refused.step().await.unwrap() else { panic!("resumed") };
    refused.items = items;
    let kind =
        pb::watch_request::Kind::Subscribe(pb::Subscribe { held: refused.held(), ..subscribe(&bench) });
    refused.requests.send(pb::WatchRequest { kind: Some(kind) }).await.unwrap();
    let pb::watch_reply::Kind::Subscribed(_) = refused.step().await.unwrap() else {
        panic!("not subscribed")
    };
    let pb::watch_reply::Kind::Delta(delta) = refused.step().await.unwrap() else { panic!("no delta") };
    assert!(delta.upserts.len() <= 1, "only what changed is sent: {:?}", delta.upserts);
    assert!(refused.synced().await);
    assert_eq!(refused.items, again.items);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_answered_in_order_and_a_repeated_one_has_no_second_effect() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let mut session = east.session(&bench, 1, 1).await.unwrap();
    for n in 1..=100 {
        let change = if n == 1 { export(&cart()) } else { endpoints(&cart(), n) };
        session.post(u64::from(n), &[change]).await;
    }
    for n in 1..=100 {
        assert_eq!(session.written().await.unwrap().sequence, n);
    }
    let again = session.write(100, &[endpoints(&cart(), 100)]).await.unwrap();
    assert_eq!(again.sequence, 100);
    let gap = session.write(102, &[]).await.unwrap_err();
    assert_eq!(gap.code(), Code::FailedPrecondition, "{gap}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_find_what_the_store_lacks_and_nothing_else() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let session = east.publish(&bench, 1, 1, &["shop/cart"]).await;
    drop(session);
    let state = bench.replica(1).state();
    let cluster = &state.1.state.clusters[&east.id];
    let shard = state.1.state.shard(&cart(), east.id).unwrap();
    use sealane_proto::digest;
    let digests = pb::Digests {
        shards: vec![
            pb::ShardDigest { service: Some(cart().to_wire()), digest: digest::of_shard(shard).to_vec() },
            pb::ShardDigest {
                service: Some(ServiceKey::parse("shop/new").unwrap().to_wire()),
                digest: vec![0; 32],
            },
        ],
        profile: digest::profile(&cluster.network, &cluster.locality, &cluster.probes).to_vec(),
        gateways: digest::gateways(&cluster.gateways).to_vec(),
        bundle: vec![0; 32],
        interest: digest::interest(&cluster.interest).to_vec(),
    };
    let mut session = east.session(&bench, 1, 2).await.unwrap();
    session.send(pb::export_request::Kind::Digests(digests)).await;
    let pb::export_reply::Kind::Want(want) = session.answer().await.unwrap() else { panic!("no want") };
    let shards = vec![ServiceKey::parse("shop/new").unwrap().to_wire()];
    assert_eq!(want, pb::Want { shards, bundle: true, ..Default::default() });
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_of_one_agent_shuts_its_older_one_out() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let mut older = east.session(&bench, 1, 1).await.unwrap();
    let _newer = east.session(&bench, 1, 2).await.unwrap();
    let fenced = older.write(1, &[]).await.unwrap_err();
    assert_eq!(fenced.code(), Code::FailedPrecondition);
    assert!(fenced.message().starts_with("fenced"), "{fenced}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloned_agent_is_refused_and_named_until_the_holders_stream_ends() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let mut holder = east.session(&bench, 1, 1).await.unwrap();
    let mut clone = Session::open(&bench, 1, &east, 2, 2).await.unwrap();
    let refused = clone.answer().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("held"), "{refused}");
    let holder_id = sealane_core::identity::InstanceId([1; 16]).to_string();
    assert!(refused.message().contains(&holder_id), "{refused}");
    assert!(refused.message().contains("two agents run under one identity"), "{refused}");
    let session = bench.replica(1).state().1.state.clusters[&east.id].session.clone().unwrap();
    assert_eq!(session.refused.map(|(instance, _)| instance.0), Some([2; 16]));
    holder.write(1, &[]).await.unwrap();
    // What a dead agent leaves is a stream that ended: a new process of it gets in before the lease is over.
    drop(holder);
    let began = std::time::Instant::now();
    loop {
        let mut again = Session::open(&bench, 1, &east, 3, 2).await.unwrap();
        match again.answer().await {
            Ok(_) => break,
            Err(refused) => assert!(refused.message().starts_with("held"), "{refused}"),
        }
        assert!(began.elapsed() < crate::lease::TTL, "it waited for the lease's end");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_federation_or_protocol_is_told() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    for hello in [
        pb::Hello { federation: vec![7; 16], ..sealane_proto::hello::hello(None) },
        pb::Hello { min_protocol: 90, max_protocol: 91, ..Default::default() },
    ] {
        let refused = east.watch(&bench, 1, pb::Subscribe { hello: Some(hello), ..Default::default() }).await;
        assert_eq!(refused.err().unwrap().code(), Code::FailedPrecondition);
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_lease_lapses_and_a_heartbeat_revives_it() {
    use sealane_core::state::Lease;
    let bench = Bench::new().await;
    let (east, west) = (bench.member(1, "east").await, bench.member(1, "west").await);
    let silent = east.publish(&bench, 1, 1, &[]).await;
    let beating = west.publish(&bench, 1, 2, &[]).await;
    let lease = || bench.replica(1).state().1.state.clusters[&east.id].lease;
    let mut n = 0;
    while matches!(lease(), Lease::Live { .. }) {
        n += 1;
        assert!(n < 200, "the lease of a silent agent lapses");
        beating.beat(n).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(n >= 40, "not before its TTL");
    silent.beat(1).await;
    super::bench::eventually("the lease is live again", || async {
        matches!(lease(), Lease::Live { .. }).then_some(())
    })
    .await;
    let live = bench.replica(1).state().1.state.clusters[&west.id].lease;
    assert!(matches!(live, Lease::Live { .. }), "who beats does not lapse");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_the_same_network_is_direct() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let _session = east.publish(&bench, 1, 1, &["shop/cart"]).await;
    let mut watching = east.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    watching.until("the import", |w| w.import("shop/cart").is_some()).await;
    let import = watching.import("shop/cart").unwrap();
    assert!(matches!(import.candidates[0].path, Path::Direct { inbound_port: None, .. }), "{import:?}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_of_a_session_that_was_replaced_is_no_sign_of_life() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    let mut older = east.session(&bench, 1, 1).await.unwrap();
    let _newer = east.session(&bench, 1, 2).await.unwrap();
    older.beat(1).await;
    let fenced = older.answer().await.unwrap_err();
    assert_eq!(fenced.code(), Code::FailedPrecondition, "{fenced}");
    assert!(fenced.message().starts_with("fenced"), "{fenced}");
    bench.stop().await;
}
