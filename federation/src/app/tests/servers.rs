use super::bench::{Bench, PATIENCE, endpoints, eventually, export, subscribe};
use futures::StreamExt;
use sealane_core::command::Action;
use sealane_core::identity::{Principal, ServerId};
use sealane_core::name::ServiceKey;
use sealane_proto::federation::v1 as pb;
use sealane_proto::peer::v1::forwarded::Kind;
use sealane_proto::peer::v1::peer_client::PeerClient;
use sealane_proto::peer::v1::{Forward, ForwardBatch};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

fn cart() -> ServiceKey {
    ServiceKey::parse("shop/cart").unwrap()
}

async fn three() -> Bench {
    let mut bench = Bench::new().await;
    assert_eq!((bench.grow().await, bench.grow().await), (2, 3));
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_takes_writes_and_serves_views() {
    let bench = three().await;
    let follower = bench.follower().await;
    let (east, west) = (bench.member(follower, "east").await, bench.member(follower, "west").await);
    let _east = east.publish(&bench, follower, 1, &[]).await;
    let mut watching = east.watch(&bench, bench.leader().await, subscribe(&bench)).await.unwrap();
    let mut session = west.publish(&bench, follower, 2, &["shop/cart"]).await;
    watching.until("the import", |w| w.import("shop/cart").is_some()).await;
    for n in 2..=60 {
        session.post(u64::from(n), &[endpoints(&cart(), n)]).await;
    }
    for n in 2..=60 {
        assert_eq!(session.written().await.unwrap().sequence, n, "in order, through the follower");
    }
    let (status, body) = bench.get(follower, "/api/v1/servers?consistent=true").await;
    assert_eq!(status, 200);
    let servers: crate::rest::types::Servers = serde_json::from_slice(&body).unwrap();
    assert_eq!(servers.servers.iter().filter(|s| s.voter && s.address.is_some()).count(), 3);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_survives_a_leader_that_hands_over() {
    let mut bench = three().await;
    let leader = bench.leader().await;
    let follower = bench.follower().await;
    let east = bench.member(follower, "east").await;
    let mut session = east.session(&bench, follower, 1).await.unwrap();
    session.write(1, &[export(&cart())]).await.unwrap();
    let home = bench.dir.path().join(leader.to_string());
    let stopping = tokio::spawn(bench.servers.remove(&leader).unwrap().stop());
    let mut longest = Duration::ZERO;
    for n in 2..=40 {
        let begun = Instant::now();
        let written = session.write(n, &[endpoints(&cart(), u8::try_from(n).unwrap())]).await.unwrap();
        assert_eq!(written.sequence, n);
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "writes resumed after {longest:?}");
    stopping.await.unwrap();
    // Acknowledged is what the leader applied; its followers may be a moment behind.
    bench.replica(follower).read_index(Instant::now() + PATIENCE).await.unwrap();
    let state = bench.replica(follower).state();
    let shard = state.1.state.shard(&cart(), east.id).unwrap().clone();
    assert_eq!(shard.endpoints.values().next().unwrap().address.to_string(), "10.0.0.40");
    bench.restart(leader, home).await;
    eventually("the restarted server has caught up", || async {
        let state = bench.replica(leader).state();
        (state.1.state.shard(&cart(), east.id) == Some(&shard)).then_some(())
    })
    .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_through_a_follower_keep_a_lease_and_show_in_every_status() {
    let bench = three().await;
    let (leader, follower) = (bench.leader().await, bench.follower().await);
    let east = bench.member(follower, "east").await;
    let session = east.publish(&bench, follower, 1, &["shop/cart"]).await;
    let mut watching = east.watch(&bench, follower, subscribe(&bench)).await.unwrap();
    watching.synced().await;
    let revision = watching.token.revision;
    let applied = pb::Applied { revision, error: String::new() };
    let kind = Some(pb::watch_request::Kind::Applied(applied));
    watching.requests.send(pb::WatchRequest { kind }).await.unwrap();
    let end = Instant::now() + Duration::from_secs(7);
    let mut n = 0;
    while Instant::now() < end {
        n += 1;
        session.beat(n).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for server in [leader, follower, 6 - leader - follower] {
        let cluster = eventually("the contact is known everywhere", || async {
            let (status, body) = bench.get(server, "/api/v1/clusters/east").await;
            assert_eq!(status, 200);
            let one: crate::rest::types::OneCluster = serde_json::from_slice(&body).unwrap();
            (one.cluster.view.is_some() && one.cluster.last_heard_ms.is_some()).then_some(one.cluster)
        })
        .await;
        assert_eq!(cluster.lease.state, crate::rest::types::LeaseState::Live, "server {server}");
        assert!(cluster.last_heard_ms.unwrap() < 4_000, "{:?}", cluster.last_heard_ms);
        assert_eq!(cluster.view.unwrap().server, follower);
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_token_waited_is_taken_in() {
    let mut bench = Bench::new().await;
    // Longer than what is revoked takes to be refused: being admitted must count as soon as it happens.
    bench.grow_after(Duration::from_secs(3)).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_removed_through_a_follower_and_does_not_come_back() {
    let mut bench = three().await;
    let (leader, follower) = (bench.leader().await, bench.follower().await);
    let gone = 6 - leader - follower;
    let request = pb::RemoveServerRequest { key: vec![5; 16], id: gone };
    bench.admin(follower).remove_server(request).await.unwrap();
    let mut status = bench.replica(leader).status();
    let two = status.wait_for(|s| s.voters.len() == 2);
    tokio::time::timeout(PATIENCE, two).await.unwrap().unwrap();
    eventually("its record is gone", || async {
        let state = bench.replica(leader).state();
        (!state.1.state.servers.contains_key(&sealane_core::identity::ServerId(gone))).then_some(())
    })
    .await;
    let mut removed = bench.servers.remove(&gone).unwrap();
    let why =
        tokio::time::timeout(PATIENCE, removed.stopped()).await.expect("it goes on, and calls itself ready");
    assert!(why.contains(&format!("server {gone} was removed from the federation")), "{why}");
    removed.stop().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_passes_on_no_other_servers_commands() {
    let bench = three().await;
    let (leader, follower) = (bench.leader().await, bench.follower().await);
    let mut peer = PeerClient::new(bench.servers[&follower].serving.peers.channel(ServerId(leader)).unwrap());
    let put = |principal: u64| {
        let (address, status_address) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
        let action = Action::PutServer { id: ServerId(principal), address, status_address };
        crate::writer::command(Some(Principal::Server(ServerId(principal))), action).unwrap()
    };
    let commands = vec![
        Forward { number: 7, command: put(leader) },
        Forward { number: 8, command: "no command".into() },
        Forward { number: 9, command: put(follower) },
    ];
    let mut outcomes = peer
        .forward(futures::stream::iter([ForwardBatch { commands }]).chain(futures::stream::pending()))
        .await
        .unwrap()
        .into_inner();
    let mut decided = BTreeMap::new();
    while decided.len() < 3 {
        let batch = outcomes.message().await.unwrap().unwrap();
        decided.extend(batch.outcomes.into_iter().map(|o| (o.number, o.kind.unwrap())));
    }
    assert!(matches!(&decided[&7], Kind::Refused(r) if r.reason.contains("its own only")), "{decided:?}");
    assert!(matches!(&decided[&8], Kind::Refused(_)), "{decided:?}");
    assert!(matches!(&decided[&9], Kind::Committed(_)), "{decided:?}");
    bench.stop().await;
}
