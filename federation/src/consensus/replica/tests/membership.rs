use super::cluster::{self, Cluster, deadline};
use crate::consensus::open::Bootstrap;
use crate::consensus::replica::ChangeError;
use sealane_core::identity::ServerId;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_disk_is_replaced_under_a_new_id_by_snapshot() {
    let mut cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    for n in 0..300 {
        leader.propose(cluster::set(&format!("k{n}"), "v")).await.unwrap();
    }
    let lost = cluster.follower().await.id();
    cluster.crash(lost).await;
    std::fs::remove_dir_all(cluster.dir(lost)).unwrap();
    leader.remove_server(lost, deadline(10)).await.unwrap();
    cluster.start(ServerId(4), &Bootstrap::Join).await.unwrap();
    leader.add_server(ServerId(4), deadline(20)).await.unwrap();
    cluster.converged().await;
    let mut expected: Vec<_> = (1..=4).map(ServerId).filter(|id| *id != lost).collect();
    expected.sort_unstable();
    let new = cluster.replicas[&ServerId(4)].clone();
    let mut status = new.status();
    let status = status.wait_for(|s| s.voters == expected && s.learners.is_empty()).await.unwrap().clone();
    assert!(status.first > 2, "it came by snapshot, not by the whole log: {status:?}");
    assert_eq!(new.state().1.len(), 300);
    // And it counts: with the other follower away, the leader commits with it.
    let other = expected.iter().find(|id| **id != leader.id() && **id != ServerId(4)).unwrap();
    cluster.crash(*other).await;
    leader.propose(cluster::set("more", "v")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_grows_to_three_and_leadership_moves() {
    let mut cluster = Cluster::found(1).await;
    let first = cluster.leader().await;
    first.propose(cluster::set("a", "1")).await.unwrap();
    for id in [2, 3].map(ServerId) {
        cluster.start(id, &Bootstrap::Join).await.unwrap();
        first.add_server(id, deadline(20)).await.unwrap();
        // Again, as after an answer that was lost.
        first.add_server(id, deadline(20)).await.unwrap();
    }
    cluster.converged().await;
    let refused = first.remove_server(first.id(), deadline(5)).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused(_)), "{refused}");
    first.transfer_leader(ServerId(2), deadline(10)).await.unwrap();
    let second = cluster.leader_except(first.id()).await;
    let away = first.add_server(ServerId(9), deadline(5)).await.unwrap_err();
    assert!(matches!(away, ChangeError::NotLeader { .. }), "{away}");
    second.remove_server(first.id(), deadline(10)).await.unwrap();
    second.propose(cluster::set("b", "2")).await.unwrap();
    assert_eq!(second.status().borrow().voters, [ServerId(2), ServerId(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_stays_a_learner() {
    let cluster = Cluster::found(1).await;
    let leader = cluster.leader().await;
    let late = leader
        .add_server(ServerId(7), tokio::time::Instant::now() + std::time::Duration::from_millis(400))
        .await;
    assert_eq!(late, Err(ChangeError::NotCaughtUp { server: ServerId(7) }));
    // A learner that is away costs no quorum.
    leader.propose(cluster::set("a", "1")).await.unwrap();
    leader.remove_server(ServerId(7), deadline(5)).await.unwrap();
}
