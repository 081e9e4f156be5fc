//! Sealane's chain: a real federation of two clusters whose networks do not meet.

use super::hop::Hops;
use super::load;
use anyhow::{Context, Result};
use sealane::local::{Federation, Lab, Launcher, PodSpec, Process, Site, SiteSpec, wait};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How long the export may take to become callable.
const PATIENCE: Duration = Duration::from_secs(20);
/// The networks of the block.
const EAST: u8 = 1;
const WEST: u8 = 3;
const EAST_PODS: u8 = 8;
const WEST_PODS: u8 = 9;

/// Where the backend of every chain listens.
pub(crate) fn backend(lab: &Lab) -> SocketAddr {
    lab.socket(WEST_PODS, 10, 8080)
}

/// What runs of it.
#[derive(Debug)]
pub(crate) struct Chain {
    _federation: Federation,
    east: Site,
    west: Site,
}

impl Chain {
    /// Starts all of it but the backend.
    pub(crate) async fn start(lab: &Lab) -> Result<Self> {
        let federation = Federation::of(lab, 1).await?;
        let site = |name, block| {
            let mut spec = SiteSpec::new(name, block);
            spec.proxies = vec!["--workers".into(), "1".into()];
            Site::enrol(&federation, lab, spec)
        };
        let (mut east, mut west) = tokio::try_join!(site("east", EAST), site("west", WEST))?;
        west.serve("shop", "echo", 80)?;
        let echo = PodSpec::server("echo-1", "echo", lab.address(WEST_PODS, 10), 8080, 15_008).of("echo");
        west.start_pod(echo).await?;
        west.export("shop", "echo")?;
        let client = PodSpec::client("client", "client", lab.address(EAST_PODS, 10), 15_008);
        east.start_pod(client.calling("echo", 80, 18_001)).await?;
        // The application of the demo is not what is measured: the backend takes its place.
        west.pod_mut("echo-1")?.kill_app()?;
        Ok(Chain { _federation: federation, east, west })
    }

    /// Waits until the backend, which runs by now, answers through it, and gives where the client connects.
    pub(crate) async fn stand(&self) -> Result<SocketAddr> {
        let entry = self.east.pod("client")?.calls("shop/echo:80")?;
        let answered = async || load::once(entry).await.map(Some);
        wait::until("Sealane's chain answers", PATIENCE, answered).await?;
        Ok(entry)
    }

    /// A second sidecar of the caller's, of the program that is a proxy and nothing else: what it holds after its first
    /// request, in bytes. `None` where that program was not built.
    pub(crate) async fn small(&self, lab: &Lab, sealane: &Path) -> Result<Option<u64>> {
        let program = sealane.with_file_name("sealane-proxy");
        if !program.exists() {
            return Ok(None);
        }
        let whom = ["--namespace", "shop", "--service-account", "client"];
        let token = self.east.workload_token("small", &whom).await?;
        let at = |port| lab.socket(EAST_PODS, 11, port);
        let entry = at(18_001);
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let options = [
            ("--token-file", path(&token)),
            ("--dir", path(&self.east.root().join("sidecar-small"))),
            ("--inbound", at(15_008).to_string()),
            ("--admin", at(15_100).to_string()),
            ("--outbound", format!("shop/echo:80={entry}")),
            ("--workers", "1".to_owned()),
        ];
        let mut arguments = vec!["--pdeathsig".to_owned(), "KILL".to_owned(), path(&program)];
        arguments.extend(["--role".to_owned(), "sidecar".to_owned()]);
        arguments.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        let launcher = Launcher::new("setpriv".into(), lab.launcher().logs().into(), "info");
        let mut process = launcher.start("sidecar-small", &arguments)?;
        process.ready().await?;
        let answered = async || load::once(entry).await.map(Some);
        wait::until("the small sidecar's way answers", PATIENCE, answered).await?;
        process.resident().map(Some)
    }

    /// Its three proxies: the caller's sidecar, the gateway of the called, its sidecar.
    pub(crate) fn hops(&self) -> Result<Hops> {
        let running = |process: &Option<Process>| process.as_ref().map(Process::id).context("a proxy ended");
        Ok(Hops::new([
            running(&self.east.pod("client")?.sidecar)?,
            running(&self.west.gateway)?,
            running(&self.west.pod("echo-1")?.sidecar)?,
        ]))
    }
}
