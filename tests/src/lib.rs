//! The harness of the end-to-end tests: which binary they drive, and one topology at a time.
//!
//! Law: a test sees the product as an operator does, through its commands, its ports and its files; what it waits for
//! has a deadline, and what it can not do here it says loudly (and fails by it with `CI=true`).

pub mod binary;
pub mod charts;
pub mod clusters;
pub mod control_plane;
pub mod flood;
pub mod forge;
pub mod former;
pub mod impostor;
pub mod kubernetes;
pub mod nslookup;
pub mod oci;
pub mod power;
pub mod shim;
pub mod sim;
pub mod tools;
pub mod traffic;
pub mod uplink;

use anyhow::Result;
use sealane::local::{Federation, Lab, PodSpec, Site, SiteSpec};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a change may take to arrive before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The time to live of a lease.
pub const TTL: Duration = Duration::from_secs(5);

/// Runs one test while no other of this process runs, on a runtime of its own: each has a dozen processes, and time is
/// measured.
///
/// # Panics
/// When the test fails.
pub fn alone(test: impl AsyncFnOnce() -> Result<()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that another could stumble over.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(test()));
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

/// Runs one test alone, in a lab of its own; where it fails, its logs are printed.
///
/// # Panics
/// When the test fails.
pub fn in_lab(test: impl AsyncFnOnce(&Lab) -> Result<()>) {
    alone(async || {
        let lab = Lab::new(binary::path()?, &std::env::temp_dir(), "info")?;
        let result = test(&lab).await;
        if result.is_err() {
            sealane::demo::show_logs(&lab);
        }
        result
    });
}

/// Says that a test can not run here, and why; with `CI=true` that is a failure.
///
/// # Panics
/// With `CI=true`.
pub fn skip(test: &str, reason: &str) {
    let line = format!("{test}: {reason}");
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{line}: with CI=true what is skipped is a failure"
    );
    eprintln!("!!!! SKIPPED {line}");
    if let Some(list) = std::env::var_os("SEALANE_SKIPPED")
        && let Ok(mut list) = std::fs::OpenOptions::new().append(true).open(list)
    {
        let _ = writeln!(list, "{line}");
    }
}

/// A caller's cluster and a server's, each in a network of its own: `east` calls `shop/echo` of `west`.
#[derive(Debug)]
pub struct Pair {
    /// The servers.
    pub federation: Federation,
    /// Calls.
    pub east: Site,
    /// Serves.
    pub west: Site,
}

impl Pair {
    /// Sets it up with that many servers; `shop/echo` is exported and answered.
    ///
    /// # Errors
    /// When any part does not come up.
    pub async fn new(lab: &Lab, servers: usize) -> Result<Self> {
        Self::with(lab, servers, SiteSpec::new("east", 1), SiteSpec::new("west", 3)).await
    }

    /// The same, with clusters of another set-up.
    ///
    /// # Errors
    /// When any part does not come up.
    pub async fn with(lab: &Lab, servers: usize, east: SiteSpec, west: SiteSpec) -> Result<Self> {
        Self::of(lab, Federation::of(lab, servers).await?, east, west).await
    }

    /// The same, of a federation that runs.
    ///
    /// # Errors
    /// When any part does not come up.
    pub async fn of(lab: &Lab, federation: Federation, east: SiteSpec, west: SiteSpec) -> Result<Self> {
        let (mut east, mut west) =
            tokio::try_join!(Site::enrol(&federation, lab, east), Site::enrol(&federation, lab, west))?;
        let client =
            PodSpec::client("client", "client", lab.address(8, 10), 15_008).calling("echo", 80, 18_001);
        east.start_pod(client.calling("cart", 80, 18_002)).await?;
        west.serve("shop", "echo", 80)?;
        west.start_pod(PodSpec::server("echo-1", "echo", lab.address(9, 10), 8080, 15_008).of("echo"))
            .await?;
        west.export("shop", "echo")?;
        let pair = Pair { federation, east, west };
        pair.answered("west/echo-1").await?;
        Ok(pair)
    }

    /// Waits until `east`'s call to `shop/echo` is answered by this application.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn answered(&self, by: &str) -> Result<Duration> {
        let what = format!("shop/echo is answered by {by}");
        sealane::local::wait::until_true(&what, PATIENCE, async || {
            Ok(call(&self.east, "echo").await?.name == by)
        })
        .await
    }
}

/// One request of a cluster's client to a service of the namespace `shop`.
///
/// # Errors
/// When there is no good answer.
pub async fn call(site: &Site, service: &str) -> Result<sealane::app::Greeting> {
    sealane::demo::world::World::call(site, service).await
}
