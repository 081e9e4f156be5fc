//! What the servers promise: an acknowledged write is there, whoever dies.

use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, Lab, Site, SiteSpec, inspect, wait};
use sealane_tests::{PATIENCE, in_lab};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A stream of exports from one cluster: each is written, and noted once its cluster was told that it is accepted.
struct Stream {
    acknowledged: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Stream {
    fn start(site: Arc<Site>) -> Self {
        let acknowledged = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&acknowledged);
        let task = tokio::spawn(async move {
            for number in 0.. {
                let name = format!("{}-{number}", site.name());
                site.serve("shop", &name, 80)?;
                site.export("shop", &name)?;
                let out = site.out();
                // Not bound to a thread: polled by hand.
                let start = Instant::now();
                while !inspect::is_exported(&out, "shop", &name)? {
                    ensure!(start.elapsed() < PATIENCE, "{name} was not acknowledged within {PATIENCE:?}");
                    tokio::time::sleep(wait::INTERVAL).await;
                }
                noted.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(format!("shop/{name}"));
            }
            Ok(())
        });
        Stream { acknowledged, task }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().map(|a| a.len()).unwrap_or_default()
    }

    /// Ends the stream; what was acknowledged until then.
    async fn stop(self) -> Result<Vec<String>> {
        if self.task.is_finished() {
            self.task.await.context("the stream broke")??;
            anyhow::bail!("the stream ended by itself");
        }
        self.task.abort();
        let acknowledged = self.acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone();
        Ok(acknowledged)
    }
}

/// Every server that runs has all of these.
async fn all_have(federation: &Federation, services: &[String]) -> Result<()> {
    for (at, server) in federation.servers.iter().enumerate().filter(|(_, s)| s.process.is_some()) {
        let client = federation.client_of(at)?;
        wait::until_true(&format!("{} has every acknowledged export", server.name), PATIENCE, async || {
            let known = client.services().await?.services;
            let known: BTreeSet<String> =
                known.iter().map(|s| format!("{}/{}", s.namespace, s.name)).collect();
            let missing: Vec<&String> = services.iter().filter(|s| !known.contains(*s)).collect();
            ensure!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), services.len());
            Ok(true)
        })
        .await?;
    }
    Ok(())
}

async fn sites(federation: &Federation, lab: &Lab) -> Result<(Arc<Site>, Arc<Site>)> {
    let site = |spec| Site::enrol(federation, lab, spec);
    let (east, west) = tokio::try_join!(site(SiteSpec::new("east", 1)), site(SiteSpec::new("west", 3)))?;
    Ok((Arc::new(east), Arc::new(west)))
}

/// Waits until each stream has got further.
async fn further(streams: &[&Stream], by: usize) -> Result<Duration> {
    let before: Vec<usize> = streams.iter().map(|s| s.count()).collect();
    wait::until_true("every stream goes on", PATIENCE, async || {
        Ok(streams.iter().zip(&before).all(|(s, before)| s.count() >= before + by))
    })
    .await
}

/// The leader dies three times under two streams of exports.
#[test]
fn a_dead_leader_loses_nothing_that_was_acknowledged() {
    in_lab(async |lab| {
        let mut federation = Federation::of(lab, 3).await?;
        let (east, west) = sites(&federation, lab).await?;
        let (first, second) = (Stream::start(east), Stream::start(west));
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
        let mut acknowledged = first.stop().await?;
        acknowledged.extend(second.stop().await?);
        println!("{} exports were acknowledged", acknowledged.len());
        all_have(&federation, &acknowledged).await
    });
}

/// All three die at one moment under a stream of exports, and start again from their disks.
#[test]
fn three_dead_servers_come_back_with_everything_acknowledged() {
    in_lab(async |lab| {
        let mut federation = Federation::of(lab, 3).await?;
        let (east, west) = sites(&federation, lab).await?;
        let (first, second) = (Stream::start(east), Stream::start(west));
        further(&[&first, &second], 10).await?;
        let before = federation.client()?.status().await?.freshness.revision;
        federation.kill_all();
        federation.start_all().await?;
        further(&[&first, &second], 5).await?;
        let mut acknowledged = first.stop().await?;
        acknowledged.extend(second.stop().await?);
        all_have(&federation, &acknowledged).await?;
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
        let (first, second) = (Stream::start(east), Stream::start(west));
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
        let mut acknowledged = first.stop().await?;
        acknowledged.extend(second.stop().await?);
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
