//! Two importers of one exporter, each in a network of its own, with a road of its own to everybody it dials.

use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, Lab, PodSpec, Relay, Site, SiteSpec, Tally, Traffic, inspect, wait};
use sealane_tests::{PATIENCE, TTL, call};
use std::path::Path;
use std::time::{Duration, Instant};

/// Within what a lost cluster is withdrawn.
pub(super) const WITHDRAWN: Duration = Duration::from_secs(10);

/// East and edge call `shop/echo` of west.
pub(super) struct Trio {
    pub(super) federation: Federation,
    pub(super) east: Site,
    pub(super) edge: Site,
    pub(super) west: Site,
    /// From west to each server.
    pub(super) to_servers: Vec<Relay>,
    /// From east to west's gateway.
    pub(super) east_to_west: Relay,
    /// From edge to west's gateway.
    pub(super) edge_to_west: Relay,
}

fn roads(library: &Path, roads: &[&Relay]) -> Vec<(String, String)> {
    let text: Vec<String> = roads.iter().map(|r| format!("{}>{}", r.target(), r.address())).collect();
    let preload = ("LD_PRELOAD".to_owned(), library.to_string_lossy().into_owned());
    vec![preload, ("SEALANE_ROADS".to_owned(), text.join(","))]
}

async fn client(site: &mut Site, lab: &Lab, host: u8) -> Result<()> {
    let pod = PodSpec::client("client", "client", lab.address(8, host), 15_008);
    site.start_pod(pod.calling("echo", 80, 18_001).calling("cart", 80, 18_002).calling("late", 80, 18_003))
        .await
}

impl Trio {
    pub(super) async fn new(lab: &Lab, library: &Path) -> Result<Self> {
        let federation = Federation::of(lab, 3).await?;
        let mut to_servers = Vec::new();
        for server in &federation.servers {
            to_servers.push(Relay::start(lab.socket(10, server.number, 7443), server.grpc).await?);
        }
        let mut spec = SiteSpec::new("west", 3);
        spec.environment = roads(library, &to_servers.iter().collect::<Vec<_>>());
        let mut west = Site::enrol(&federation, lab, spec).await?;
        let gateway = west.gateway_address();
        let east_to_west = Relay::start(lab.socket(10, 101, 15_443), gateway).await?;
        let edge_to_west = Relay::start(lab.socket(10, 105, 15_443), gateway).await?;
        let importer = |name, block, road| {
            let mut spec = SiteSpec::new(name, block);
            spec.environment = roads(library, &[road]);
            Site::enrol(&federation, lab, spec)
        };
        let (mut east, mut edge) =
            tokio::try_join!(importer("east", 1, &east_to_west), importer("edge", 5, &edge_to_west))?;
        for service in ["echo", "cart"] {
            west.serve("shop", service, 80)?;
            west.export("shop", service)?;
        }
        let echo = PodSpec::server("echo-1", "echo", lab.address(9, 10), 8080, 15_008).of("echo").of("cart");
        tokio::try_join!(client(&mut east, lab, 10), client(&mut edge, lab, 11), west.start_pod(echo))?;
        let trio = Trio { federation, east, edge, west, to_servers, east_to_west, edge_to_west };
        trio.answered().await?;
        Ok(trio)
    }

    pub(super) fn importers(&self) -> [&Site; 2] {
        [&self.east, &self.edge]
    }

    /// Waits until west is live and answers both importers.
    pub(super) async fn answered(&self) -> Result<()> {
        let client = self.federation.client()?;
        wait::until_true("every cluster is live, and west answers both", PATIENCE, async || {
            let clusters = client.clusters().await?.clusters;
            let live = clusters.iter().filter(|c| sealane::client::is_synced(c)).count();
            for site in self.importers() {
                ensure!(call(site, "echo").await?.name == "west/echo-1");
            }
            Ok(live == 3)
        })
        .await?;
        Ok(())
    }

    /// The tier in which an importer's proxy has west's `shop/echo`, if it has it.
    pub(super) async fn tier(&self, importer: &Site) -> Result<Option<String>> {
        let config = inspect::config(importer.pod("client")?.admin).await?;
        Ok(config.candidates("shop/echo").find(|c| c.cluster == "west").map(|c| c.tier.clone()))
    }

    /// Three TTLs under traffic of some importers: neither their proxies nor those of the others lose west for a
    /// moment, and no request fails. `server` is asked what the store has chosen.
    pub(super) async fn nothing_is_withdrawn(&self, server: usize, callers: &[&Site]) -> Result<()> {
        let roads = callers.iter().map(|site| site.pod("client")?.calls("shop/echo:80"));
        let traffic: Vec<Traffic> = roads.map(|road| Ok(Traffic::start(road?))).collect::<Result<_>>()?;
        let start = Instant::now();
        while start.elapsed() < 3 * TTL {
            for site in self.importers() {
                let chosen =
                    self.federation.client_of(server)?.chosen_clusters("shop/echo", site.name()).await?;
                ensure!(
                    chosen.contains("west"),
                    "withdrawn from {} after {:?}",
                    site.name(),
                    start.elapsed()
                );
                let tier = self.tier(site).await?;
                ensure!(tier.is_some(), "withdrawn from a proxy of {}", site.name());
            }
            tokio::time::sleep(wait::INTERVAL).await;
        }
        for (tally, site) in traffic.into_iter().map(Traffic::stop).zip(callers) {
            let Tally { failed, failures, .. } = &tally;
            ensure!(*failed == 0, "{failed} requests of {} failed: {failures:?}", site.name());
            ensure!(tally.answered_by("west") > 100, "{}: {tally:?}", site.name());
        }
        Ok(())
    }

    /// West, lost at that moment, is withdrawn from both importers and their proxies in time.
    pub(super) async fn is_withdrawn(&self, server: usize, lost: Instant) -> Result<Duration> {
        for site in self.importers() {
            let what = format!("west is withdrawn from {}", site.name());
            let left = WITHDRAWN.checked_sub(lost.elapsed()).context("too late")?;
            wait::until_true(&what, left, async || {
                let chosen =
                    self.federation.client_of(server)?.chosen_clusters("shop/echo", site.name()).await?;
                Ok(chosen.is_empty() && self.tier(site).await?.is_none())
            })
            .await?;
        }
        Ok(lost.elapsed())
    }
}
