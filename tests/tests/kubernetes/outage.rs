//! API servers that are away, or forget: nothing is taken away meanwhile, and what differs afterwards is found.

use super::history;
use super::member::{Member, pair, pair_of};
use super::sink::with_plane;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use sealane::local::wait::until_true;
use sealane_tests::PATIENCE;
use std::time::Duration;

/// For how long API servers are away: twelve leases of the store.
const AWAY: Duration = Duration::from_secs(60);

/// The API server of the exporter, and later that of the importer too, are killed and away for a minute. All that etcd
/// recorded over that time is looked at, in both clusters.
#[test]
fn a_minute_without_api_servers_deletes_and_empties_nothing() {
    with_plane("a_minute_without_api_servers_deletes_and_empties_nothing", async |lab| {
        let (_federation, mut east, mut west) = pair(lab).await?;
        for (name, address) in [("web", "10.1.0.1"), ("cart", "10.1.0.2")] {
            east.serve(name, 80, address).await?;
            east.export(name).await?;
            west.imports(name, &[address]).await?;
            east.imports(name, &[address]).await?;
        }
        for (kind, member) in [("ServiceExport", &east), ("ServiceImport", &west)] {
            let ready = [("kind", kind), ("type", "Ready"), ("status", "True")];
            member.counts("conditions", &ready, 2).await?;
            member.counts("lease_held", &[], 1).await?;
            member.counts("unreadable_kinds", &[], 0).await?;
        }
        let since = [history::now(&east.plane).await?, history::now(&west.plane).await?];
        east.plane.kill_server();
        tokio::time::sleep(AWAY / 2).await;
        west.imports("web", &["10.1.0.1"]).await?;
        west.plane.kill_server();
        for kind in ["services", "pods"] {
            east.counts("unreadable_kinds", &[("by", "source"), ("kind", kind)], 1).await?;
        }
        tokio::time::sleep(AWAY / 2).await;
        east.plane.restart_server().await?;
        west.plane.restart_server().await?;
        for member in [&east, &west] {
            member.says("the outage is over", "a", |s| s["source"]["unavailable"].is_null()).await?;
        }
        // Something passes through, so that the agents have looked.
        east.serve("web", 80, "10.1.0.3").await?;
        for (member, since) in [(&east, &since[0]), (&west, &since[1])] {
            member.imports("web", &["10.1.0.3"]).await?;
            let changes = history::changes(&member.plane.archive(lab).await?, since).await?;
            let taken: Vec<_> = changes.iter().filter(|c| c.takes_away()).collect();
            ensure!(taken.is_empty(), "{}: {taken:#?}", member.plane.name());
            ensure!(!changes.is_empty(), "the change is in the history");
        }
        // The history does hold what is taken away.
        east.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;
        let archive = west.plane.archive(lab).await?;
        until_true("the import's end is in the history", PATIENCE, async || {
            Ok(history::changes(&archive, &since[1]).await?.iter().any(history::Change::takes_away))
        })
        .await?;
        Ok(())
    });
}

/// etcd forgets what was while the agents are cut off: their watches can not go on, and what differs is found all the
/// same, in what is exported and in what was written.
#[test]
fn watches_that_were_compacted_away_find_what_differs() {
    with_plane("watches_that_were_compacted_away_find_what_differs", async |lab| {
        let (_federation, mut east, mut west) = pair_of(lab, &["--etcd-compaction-interval=1s"]).await?;
        for (name, address) in [("web", "10.1.0.1"), ("cart", "10.1.0.2")] {
            east.serve(name, 80, address).await?;
            east.export(name).await?;
            west.imports(name, &[address]).await?;
        }
        let before = history::now(&west.plane).await?;
        for member in [&mut east, &mut west] {
            member.agent("a")?.signal(Signal::STOP)?;
            member.plane.kill_server();
            member.plane.restart_server().await?;
        }
        east.serve("web", 80, "10.1.0.4").await?;
        east.plane.kubectl(&["delete", "serviceexport/cart", "--namespace=shop"]).await?;
        let derived = derived(&west, "web").await?;
        west.plane.kubectl(&["delete", "--namespace=shop", &format!("service/{derived}")]).await?;
        // What the API server itself remembers began with it.
        let archive = west.plane.archive(lab).await?;
        until_true("the history was compacted", PATIENCE, async || {
            Ok(history::changes(&archive, &before).await.is_err())
        })
        .await?;
        drop(archive);
        for member in [&east, &west] {
            member.agent("a")?.signal(Signal::CONT)?;
        }
        for member in [&east, &west] {
            member.imports("web", &["10.1.0.4"]).await?;
            let what = format!("cart is gone from {}", member.plane.name());
            until_true(&what, PATIENCE, async || {
                Ok(member.ours().await?.iter().all(|name| !name.ends_with("/cart")))
            })
            .await?;
            let said = member.agent("a")?.said();
            ensure!(said.contains("the watch expired, listing anew"), "no watch expired:\n{said}");
        }
        Ok(())
    });
}

async fn derived(member: &Member, name: &str) -> Result<String> {
    let annotation =
        "--output=jsonpath={.metadata.annotations.multicluster\\.kubernetes\\.io/derived-service}";
    let import = format!("serviceimport/{name}");
    member.plane.kubectl(&["get", &import, "--namespace=shop", annotation]).await
}
