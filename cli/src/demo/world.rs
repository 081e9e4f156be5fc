//! The demo's world: three servers, and the clusters `east`, `west` and `edge`.
//!
//! `east` and `edge` share the network `lan`; `west` has its own, and its pods have the very addresses of `east`'s.

use crate::app::Greeting;
use crate::local::{Federation, Lab, PodSpec, Site, SiteSpec, http};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a change may take to arrive before the demo gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The networks of the block.
const EAST: u8 = 1;
const WEST: u8 = 3;
const EDGE: u8 = 5;
/// The pods of `east`, and of `west` under the same addresses.
const SHARED_PODS: u8 = 8;
const EDGE_PODS: u8 = 9;

/// Where a pod called `client` listens for what it calls.
const ECHO: u16 = 18_001;
const CART: u16 = 18_002;
const STOCK: u16 = 18_003;

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    /// Its piece of the machine.
    pub lab: Lab,
    /// The servers.
    pub federation: Federation,
    /// Calls the others.
    pub east: Site,
    /// Far away: reached only through its gateway.
    pub west: Site,
    /// In one network with `east`.
    pub edge: Site,
}

impl World {
    /// The clusters without their pods.
    ///
    /// # Errors
    /// When any command fails or a process does not become ready.
    pub async fn enrol(federation: Federation, lab: &Lab) -> Result<Self> {
        let site = |spec| Site::enrol(&federation, lab, spec);
        let (east, west, edge) = tokio::try_join!(
            site(SiteSpec::new("east", EAST).in_network("lan")),
            site(SiteSpec::new("west", WEST).tapped()),
            site(SiteSpec::new("edge", EDGE).in_network("lan")),
        )?;
        Ok(World { lab: lab.clone(), federation, east, west, edge })
    }

    /// Starts every pod, and writes every Service; nothing is exported yet.
    ///
    /// # Errors
    /// When a process does not become ready.
    pub async fn populate(&mut self) -> Result<()> {
        let lab = self.lab.clone();
        let shared = |host| lab.address(SHARED_PODS, host);
        let client = |address| {
            let pod = PodSpec::client("client", "client", address, 15_008);
            pod.calling("echo", 80, ECHO).calling("cart", 80, CART).calling("stock", 80, STOCK)
        };
        let (east, west, edge) = (&mut self.east, &mut self.west, &mut self.edge);
        let first = async {
            east.serve("shop", "cart", 80)?;
            east.start_pod(PodSpec::server("cart-1", "cart", shared(10), 8080, 15_008).of("cart")).await?;
            east.start_pod(client(shared(11))).await
        };
        let second = async {
            west.serve("shop", "cart", 80)?;
            west.serve("shop", "echo", 80)?;
            west.start_pod(PodSpec::server("cart-1", "cart", shared(10), 8081, 15_018).of("cart")).await?;
            let echo = PodSpec::server("echo-1", "echo", shared(11), 8081, 15_018).of("echo").tapped(15_028);
            west.start_pod(echo).await
        };
        let third = async {
            edge.serve("shop", "stock", 80)?;
            let stock =
                PodSpec::server("stock-1", "stock", lab.address(EDGE_PODS, 10), 8080, 15_008).of("stock");
            edge.start_pod(stock).await?;
            edge.start_pod(client(lab.address(EDGE_PODS, 11))).await
        };
        tokio::try_join!(first, second, third)?;
        Ok(())
    }

    /// Where the client pod of a cluster calls a service of the namespace `shop`.
    ///
    /// # Errors
    /// When it does not call it.
    pub fn road(site: &Site, service: &str) -> Result<SocketAddr> {
        site.pod("client")?.calls(&format!("shop/{service}:80"))
    }

    /// One request from a cluster's client to a service, and who answered.
    ///
    /// # Errors
    /// When nobody answered well.
    pub async fn call(site: &Site, service: &str) -> Result<Greeting> {
        let marker = marker()?;
        let answer = http::ask(Self::road(site, service)?, &marker, Duration::from_secs(5)).await?;
        let greeting: Greeting = answer.json()?;
        anyhow::ensure!(
            greeting.marker.as_deref() == Some(&marker),
            "{} gave another marker back",
            greeting.name
        );
        Ok(greeting)
    }

    /// The clusters.
    #[must_use]
    pub fn sites(&self) -> [&Site; 3] {
        [&self.east, &self.west, &self.edge]
    }

    /// The clusters, to be changed.
    pub fn sites_mut(&mut self) -> [&mut Site; 3] {
        [&mut self.east, &mut self.west, &mut self.edge]
    }

    /// Every process that ended though it should run.
    pub fn ended(&mut self) -> Vec<String> {
        let mut names: Vec<String> = self.sites_mut().into_iter().flat_map(Site::ended).collect();
        let servers = self.federation.servers.iter_mut().filter_map(|s| s.process.as_mut());
        names.extend(servers.filter_map(|p| p.ended().map(|_| p.name().to_owned())));
        names
    }
}

/// A text that is nowhere else.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn marker() -> Result<String> {
    let bytes = sealane_trust::random::<16>().context("no random bytes for a marker")?;
    Ok(format!("marker-{:032x}", u128::from_be_bytes(bytes)))
}
