//! What the servers promise: an acknowledged write is there, whoever dies.

use crate::exports::{Stream, both_again, further, nothing_is_lost, silence_both, sites};
use anyhow::{Context, ensure};
use sealane::local::{Federation, inspect};
use sealane_tests::in_lab;

/// The leader dies six times: under two streams of exports, and with both agents standing still just before, so that
/// nobody brings again what it had acknowledged.
#[test]
fn a_dead_leader_loses_nothing_that_was_acknowledged() {
    in_lab(async |lab| {
        let mut federation = Federation::of(lab, 3).await?;
        let (east, west) = sites(&federation, lab).await?;
        let mut streams = [Stream::start(east, Vec::new()), Stream::start(west, Vec::new())];
        further(&streams, 5).await?;
        for round in 1..=3 {
            let leader = federation.leader().await?;
            federation.kill(leader);
            let took = further(&streams, 1).await?;
            println!("round {round}: exports of both clusters went on {took:?} after the leader's death");
            further(&streams, 5).await?;
            federation.start(leader).await?;
            federation.voting(3).await?;
            let leader = federation.leader().await?;
            let exported = silence_both(streams).await?;
            federation.kill(leader);
            nothing_is_lost(&federation, &exported).await?;
            streams = both_again(exported)?;
            further(&streams, 1).await?;
            federation.start(leader).await?;
            federation.voting(3).await?;
        }
        let exported = silence_both(streams).await?;
        nothing_is_lost(&federation, &exported).await?;
        Ok(())
    });
}

/// All three die at one moment under a stream of exports, and start again from their disks.
#[test]
fn three_dead_servers_come_back_with_everything_acknowledged() {
    in_lab(async |lab| {
        let mut federation = Federation::of(lab, 3).await?;
        let (east, west) = sites(&federation, lab).await?;
        let streams = [Stream::start(east, Vec::new()), Stream::start(west, Vec::new())];
        further(&streams, 10).await?;
        let before = federation.client()?.status().await?.freshness.revision;
        federation.kill_all();
        // No agent brings its catalog again: the servers answer from their disks alone.
        let exported = silence_both(streams).await?;
        federation.start_all().await?;
        nothing_is_lost(&federation, &exported).await?;
        let streams = both_again(exported)?;
        further(&streams, 5).await?;
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
        let streams = [Stream::start(east, Vec::new()), Stream::start(west, Vec::new())];
        further(&streams, 60).await?;
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
        further(&streams, 5).await?;
        // From here on nobody brings anything again.
        let exported = silence_both(streams).await?;
        nothing_is_lost(&federation, &exported).await?;
        let metrics = federation.servers[new].metrics;
        let covered = inspect::metric(metrics, "sealane_federation_raft_snapshot_index", &[]).await?;
        ensure!(covered > 0, "the new server has no snapshot: it was rebuilt by the log alone");
        // It is a full member: the cluster survives the leader's death with it.
        let leader = federation.leader().await?;
        federation.kill(leader);
        federation.leader().await?;
        nothing_is_lost(&federation, &exported).await?;
        Ok(())
    });
}
