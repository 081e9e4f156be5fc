//! Streams of exports, and what became of those that were acknowledged.

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use sealane::client::StatusClient;
use sealane::local::{Federation, Lab, Site, SiteSpec, inspect, wait};
use sealane_tests::PATIENCE;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A stream of exports from one cluster: each is written, and noted once its cluster was told that it is accepted.
pub(crate) struct Stream {
    acknowledged: Arc<Mutex<Vec<String>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Site>>,
}

impl Stream {
    /// Starts one after those exports.
    pub(crate) fn start(site: Site, acknowledged: Vec<String>) -> Self {
        let acknowledged = Arc::new(Mutex::new(acknowledged));
        let noted = Arc::clone(&acknowledged);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::select! {
                broke = export_all(&site, &noted) => broke?,
                _ = stopped => {}
            }
            Ok(site)
        });
        Stream { acknowledged, stop, task }
    }

    /// How many exports were acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends the stream; what was acknowledged until then, and the cluster.
    pub(crate) async fn stop(self) -> Result<(Vec<String>, Site)> {
        let stopped = self.stop.send(()).is_ok();
        let site = self.task.await.context("the stream broke")??;
        ensure!(stopped, "the stream ended by itself");
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().map_err(|_| anyhow!("poisoned"))?);
        Ok((acknowledged, site))
    }
}

async fn export_all(site: &Site, acknowledged: &Mutex<Vec<String>>) -> Result<()> {
    loop {
        let number = acknowledged.lock().map_err(|_| anyhow!("poisoned"))?.len();
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
        acknowledged.lock().map_err(|_| anyhow!("poisoned"))?.push(format!("shop/{name}"));
    }
}

/// What a cluster was told is accepted.
pub(crate) type Exported = (Vec<String>, Site);

/// Ends a stream, and stops its agent: one that went on would bring its whole catalog again, and heal what was lost.
pub(crate) async fn silence(stream: Stream) -> Result<Exported> {
    let (acknowledged, site) = stream.stop().await?;
    agent(&site, Signal::STOP)?;
    Ok((acknowledged, site))
}

/// Ends both streams and stops both agents.
pub(crate) async fn silence_both([first, second]: [Stream; 2]) -> Result<[Exported; 2]> {
    Ok([silence(first).await?, silence(second).await?])
}

/// Lets both agents go on, and the streams with them.
pub(crate) fn both_again([first, second]: [Exported; 2]) -> Result<[Stream; 2]> {
    Ok([again(first)?, again(second)?])
}

/// The servers that run have everything that silent clusters were told is accepted. Says how much that is.
pub(crate) async fn nothing_is_lost(federation: &Federation, exported: &[Exported; 2]) -> Result<usize> {
    let acknowledged: Vec<String> = exported.iter().flat_map(|(services, _)| services.clone()).collect();
    let lost = lost(federation, &acknowledged).await?;
    ensure!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    println!("{} exports, none lost", acknowledged.len());
    Ok(acknowledged.len())
}

/// Lets the agent go on, and the stream with it.
pub(crate) fn again((acknowledged, site): Exported) -> Result<Stream> {
    agent(&site, Signal::CONT)?;
    Ok(Stream::start(site, acknowledged))
}

fn agent(site: &Site, signal: Signal) -> Result<()> {
    site.agent.as_ref().context("no agent")?.signal(signal)
}

/// Waits until each stream has got further.
pub(crate) async fn further(streams: &[Stream], by: usize) -> Result<Duration> {
    let before: Vec<usize> = streams.iter().map(|s| s.count()).collect();
    wait::until_true("every stream goes on", PATIENCE, async || {
        Ok(streams.iter().zip(&before).all(|(s, before)| s.count() >= before + by))
    })
    .await
}

/// Two clusters.
pub(crate) async fn sites(federation: &Federation, lab: &Lab) -> Result<(Site, Site)> {
    let site = |spec| Site::enrol(federation, lab, spec);
    tokio::try_join!(site(SiteSpec::new("east", 1)), site(SiteSpec::new("west", 3)))
}

/// Which of these services a server does not know.
async fn lacks(client: &StatusClient, services: &[String]) -> Result<Vec<String>> {
    let known = client.services().await?.services;
    let known: BTreeSet<String> = known.iter().map(|s| format!("{}/{}", s.namespace, s.name)).collect();
    Ok(services.iter().filter(|s| !known.contains(*s)).cloned().collect())
}

/// What the servers that run have lost of these: as each says after it has asked the leader, at its first answer.
///
/// Whoever asks sees to it that no agent runs: one that comes back brings its whole catalog again, and heals a loss.
pub(crate) async fn lost(federation: &Federation, services: &[String]) -> Result<BTreeSet<String>> {
    let mut lost = BTreeSet::new();
    for (at, server) in federation.servers.iter().enumerate().filter(|(_, s)| s.process.is_some()) {
        let client = federation.client_of(at)?.consistent(true);
        let what = format!("{} answers for the federation", server.name);
        let (missing, _) =
            wait::until(&what, PATIENCE, async || Ok(Some(lacks(&client, services).await?))).await?;
        lost.extend(missing);
    }
    Ok(lost)
}
