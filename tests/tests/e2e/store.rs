//! What the servers promise: an acknowledged write is there, whoever dies.

use crate::exports::{Stream, again, all_have, further, lost, silence, sites};
use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, inspect};
use sealane_tests::in_lab;

/// Ends both streams; everything that they were told is accepted.
async fn acknowledged(first: Stream, second: Stream) -> Result<Vec<String>> {
    let (mut all, _) = first.stop().await?;
    all.extend(second.stop().await?.0);
    println!("{} exports were acknowledged", all.len());
    Ok(all)
}

/// The leader dies three times under two streams of exports.
#[test]
fn a_dead_leader_loses_nothing_that_was_acknowledged() {
    in_lab(async |lab| {
        let mut federation = Federation::of(lab, 3).await?;
        let (east, west) = sites(&federation, lab).await?;
        let (first, second) = (Stream::start(east, Vec::new()), Stream::start(west, Vec::new()));
        further(&[&first, &second], 5).await?;
        for round in 1..=3 {
            let leader = federation.leader().await?;
            federation.kill(leader);
            let took = further(&[&first, &second], 1).await?;
            println!("round {round}: exports of both clusters went on {took:?} after the leader's death");
            further(&[&first, &second], 5).await?;
            federation.start(leader).await?;
            federation.voting(3).await?;
        }
        all_have(&federation, &acknowledged(first, second).await?).await
    });
}

/// All three die at one moment under a stream of exports, and start again from their disks.
#[test]
fn three_dead_servers_come_back_with_everything_acknowledged() {
    in_lab(async |lab| {
        let mut federation = Federation::of(lab, 3).await?;
        let (east, west) = sites(&federation, lab).await?;
        let (first, second) = (Stream::start(east, Vec::new()), Stream::start(west, Vec::new()));
        further(&[&first, &second], 10).await?;
        let before = federation.client()?.status().await?.freshness.revision;
        federation.kill_all();
        // No agent brings its catalog again: the servers answer from their disks alone.
        let (first, second) = (silence(first).await?, silence(second).await?);
        federation.start_all().await?;
        let acknowledged = [&first.0[..], &second.0[..]].concat();
        let lost = lost(&federation, &acknowledged).await?;
        ensure!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
        let (first, second) = (again(first)?, again(second)?);
        further(&[&first, &second], 5).await?;
        let after = federation.client()?.status().await?.freshness.revision;
        ensure!(inspect::revision(&after)? > inspect::revision(&before)?, "revision {after} after {before}");
        Ok(())
    });
}

/// A server's disk is lost: it is removed, and a new one joins under a new id. The log no longer reaches back to the
/// beginning, so what it has came by snapshot.
#[test]
fn a_server_is_rebuilt_from_an_empty_disk_by_snapshot() {
    in_lab(async |lab| {
        let mut federation = Federation::with_options(lab, 3, &["--snapshot-entries", "40"]).await?;
        let (east, west) = sites(&federation, lab).await?;
        let (first, second) = (Stream::start(east, Vec::new()), Stream::start(west, Vec::new()));
        further(&[&first, &second], 60).await?;
        let leader = federation.leader().await?;
        let victim = (0..3).find(|at| *at != leader).context("no follower")?;
        federation.kill(victim);
        let id = federation.id_of(victim).await?;
        federation.sealane(&["server", "remove", &id.to_string()]).await?;
        std::fs::remove_dir_all(&federation.servers[victim].directory)?;
        let new = federation.join().await?;
        federation.servers.remove(victim);
        let new = new - 1;
        federation.voting(3).await?;
        let new_id = federation.id_of(new).await?;
        ensure!(new_id > id.max(3), "the new server has the id {new_id}");
        further(&[&first, &second], 5).await?;
        let acknowledged = acknowledged(first, second).await?;
        all_have(&federation, &acknowledged).await?;
        let metrics = federation.servers[new].metrics;
        let covered = inspect::metric(metrics, "sealane_federation_raft_snapshot_index", &[]).await?;
        ensure!(covered > 0, "the new server has no snapshot: it was rebuilt by the log alone");
        // It is a full member: the cluster survives the leader's death with it.
        let leader = federation.leader().await?;
        federation.kill(leader);
        federation.leader().await?;
        all_have(&federation, &acknowledged).await
    });
}
