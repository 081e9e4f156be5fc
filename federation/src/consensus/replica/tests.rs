//! Real replicas with real disks in one process, over a network that can be cut.

pub(crate) mod cluster;
mod membership;
mod recovery;

use super::*;
use cluster::{Cluster, deadline};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_acknowledged_every_server_has() {
    let cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let mut last = 0;
    for n in 0..50 {
        let (index, reply) = leader.propose(cluster::set(&format!("k{n}"), "v")).await.unwrap();
        assert_eq!(reply, None);
        assert!(index > last);
        last = index;
    }
    let (_, reply) = leader.propose(cluster::set("k7", "w")).await.unwrap();
    assert_eq!(reply, Some("v".to_owned()));
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_proposals_at_once_are_one_round_after_another_in_one_order() {
    let cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let mut rounds = leader.subscribe();
    let before = leader.state().0;
    let writers: Vec<_> = (0..500)
        .map(|n| {
            let leader = leader.clone();
            tokio::spawn(async move { leader.propose(cluster::set(&format!("k{n}"), "v")).await.unwrap().0 })
        })
        .collect();
    let mut indices = Vec::new();
    for writer in writers {
        indices.push(writer.await.unwrap());
    }
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), 500);
    let (mut seen, mut count, mut at) = (Vec::new(), 0, before);
    while seen.len() < 500 {
        let round = rounds.recv().await.unwrap();
        assert_eq!(round.first, at + 1);
        at = round.last;
        count += 1;
        seen.extend(round.replies.iter().map(|(index, _)| *index));
    }
    assert_eq!(seen, indices);
    assert!(count < 400, "500 proposals took {count} rounds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_names_the_leader_and_reads_what_was_acknowledged() {
    let cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let refused = follower.propose(cluster::set("a", "1")).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: Some(leader.id()) });
    for n in 0..20 {
        let (index, _) = leader.propose(cluster::set("a", &n.to_string())).await.unwrap();
        let read = follower.read_index(deadline(5)).await.unwrap();
        assert!(read >= index);
        assert_eq!(follower.state().1.get("a"), Some(n.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_too_large_is_refused_before_the_log() {
    let cluster = Cluster::found(1).await;
    let leader = cluster.leader().await;
    let large = Bytes::from(vec![b'x'; MAX_COMMAND_BYTES + 1]);
    assert_eq!(leader.propose(large).await.unwrap_err(), ProposeError::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_nobody_knows_stops_the_replica_with_its_reason() {
    let cluster = Cluster::found(1).await;
    let leader = cluster.leader().await;
    let lost = leader.propose(Bytes::from_static(b"dance")).await.unwrap_err();
    assert_eq!(lost, ProposeError::Unknown);
    assert_eq!(leader.stopped().await, "unknown command \"dance\"");
    let refused = leader.propose(cluster::set("a", "1")).await.unwrap_err();
    assert_eq!(refused, ProposeError::Stopped("unknown command \"dance\"".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_replaced_and_no_acknowledged_write_is_lost() {
    let mut cluster = Cluster::found(3).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let leader = cluster.leader().await;
        for n in 0..30 {
            let key = format!("r{round}-{n}");
            leader.propose(cluster::set(&key, "v")).await.unwrap();
            acknowledged.push(key);
        }
        cluster.crash(leader.id()).await;
        let next = cluster.leader().await;
        assert_ne!(next.id(), leader.id());
        next.propose(cluster::set(&format!("after{round}"), "v")).await.unwrap();
        cluster.restart(leader.id()).await;
        cluster.converged().await;
    }
    let state = cluster.leader().await.state();
    assert_eq!(acknowledged.iter().filter(|k| state.1.get(k).is_none()).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_answers_unknown_and_what_it_did_not_commit_is_gone() {
    let cluster = Cluster::found(3).await;
    let old = cluster.leader().await;
    cluster.net.cut(old.id());
    let stuck = old.propose(cluster::set("lost", "1")).await.unwrap_err();
    assert_eq!(stuck, ProposeError::Unknown);
    let new = cluster.leader_except(old.id()).await;
    new.propose(cluster::set("kept", "1")).await.unwrap();
    // Without a quorum a read is not answered from an old state.
    let stale = old.read_index(Instant::now() + Duration::from_millis(300)).await;
    assert_eq!(stale, Err(ReadError::Expired));
    cluster.net.heal(old.id());
    cluster.converged().await;
    assert_eq!(old.state().1.get("lost"), None);
    assert_eq!(old.state().1.get("kept"), Some("1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_is_sent_a_snapshot() {
    let cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let away = cluster.follower().await;
    cluster.net.cut(away.id());
    for n in 0..400 {
        leader.propose(cluster::set(&format!("k{}", n % 50), &n.to_string())).await.unwrap();
    }
    let mut status = leader.status();
    status.wait_for(|s| s.first > away.state().0 + 1).await.unwrap();
    let mut rounds = away.subscribe();
    cluster.net.heal(away.id());
    cluster.converged().await;
    let mut reset = false;
    while let Ok(round) = rounds.try_recv() {
        reset |= round.reset;
    }
    assert!(reset);
    leader.propose(cluster::set("after", "1")).await.unwrap();
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_hands_over_without_an_election_timeout() {
    let mut cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    cluster.converged().await;
    let other = cluster.follower().await;
    let mut status = other.status();
    let started = Instant::now();
    cluster.stop(leader.id()).await;
    status.wait_for(|s| s.leader.is_some_and(|l| l != leader.id())).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}
