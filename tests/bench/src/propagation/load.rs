//! The other changes that go on meanwhile, evenly spaced.

use super::manifests::Manifests;
use crate::agents::member::Registrar;
use crate::agents::session::Session;
use crate::agents::{catalog, key};
use crate::listener::NAMESPACE;
use anyhow::{Context, Result};
use sealane::demo::world::World;
use sealane::local::Site;
use sealane_core::name::ServiceKey;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The simulated clusters: each has one write under way at a time, as a real agent has.
const CLUSTERS: u32 = 16;
/// The services of each.
const SERVICES: usize = 4;

/// What goes on beside the measured changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Nothing.
    Rest,
    /// Other services of `west` change, by their manifests.
    West(u32),
    /// Services of simulated clusters change, each by a write of its own.
    Elsewhere(u32),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Rest => f.write_str("at rest"),
            Load::West(rate) => write!(f, "{rate}/s in west"),
            Load::Elsewhere(rate) => write!(f, "{rate}/s in {CLUSTERS} other clusters"),
        }
    }
}

impl Load {
    /// Rest, each rate in `west`, and the highest one from elsewhere.
    pub(super) fn all(rates: &[u32]) -> Vec<Load> {
        let rates: Vec<u32> = rates.iter().copied().filter(|rate| *rate > 0).collect();
        let west = rates.iter().copied().map(Load::West);
        let elsewhere = rates.iter().copied().max().map(Load::Elsewhere);
        std::iter::once(Load::Rest).chain(west).chain(elsewhere).collect()
    }
}

/// What the loads are made with.
pub(super) struct Work {
    /// The services of `west`.
    pub(super) manifests: Arc<Manifests>,
    /// The simulated clusters: enrolled, in one network with `east`, exporting into the same namespace.
    others: Vec<Other>,
    made: Arc<AtomicU64>,
}

impl Work {
    /// Enrols the simulated clusters, spread over the servers.
    pub(super) async fn new(manifests: Manifests, world: &World) -> Result<Self> {
        let registrar = Registrar::of(&world.federation)?;
        let mut others = Vec::new();
        for number in 0..CLUSTERS {
            others.push(Other::enrol(&registrar, number).await?);
        }
        Ok(Work { manifests: Arc::new(manifests), others, made: Arc::default() })
    }

    /// Begins one.
    pub(super) fn begin(&self, load: Load, west: &Site) -> Result<Going> {
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        match load {
            Load::Rest => {}
            Load::West(rate) => {
                let (place, manifests) = (west.root().to_owned(), self.manifests.clone());
                let pace = Pace { first: Instant::now(), between: Duration::from_secs(1) / rate };
                let act = async move || manifests.another().write_at(&place);
                tasks.spawn(every(pace, self.made.clone(), stopped, act));
            }
            Load::Elsewhere(rate) => {
                let between = Duration::from_secs(1) / rate;
                for (number, other) in (0..).zip(&self.others) {
                    // One after another, so that all together are evenly spaced.
                    let pace = Pace { first: Instant::now() + between * number, between: between * CLUSTERS };
                    tasks.spawn(flapping(other.clone(), pace, self.made.clone(), stopped.clone()));
                }
            }
        }
        Ok(Going { made: self.made.clone(), stop, tasks })
    }
}

/// A simulated cluster.
#[derive(Debug, Clone)]
struct Other {
    session: Arc<Mutex<Session>>,
    services: Arc<Vec<ServiceKey>>,
}

impl Other {
    async fn enrol(registrar: &Registrar, number: u32) -> Result<Self> {
        let member = registrar.enrol(&format!("other-{number}")).await?;
        let server = usize::try_from(number)? % registrar.servers.len();
        let mut session = Session::open(&member, member.channel(&registrar.servers[server])?).await?;
        let names = (0..SERVICES).map(|n| key(NAMESPACE, &format!("elsewhere-{number}-{n}")));
        let services = names.collect::<Result<Vec<_>>>()?;
        session.write(&catalog::whole(&member, "lan", &[], &services)?).await?;
        Ok(Other { session: Arc::new(Mutex::new(session)), services: Arc::new(services) })
    }
}

/// One service of a cluster after the other changes its address.
async fn flapping(
    other: Other,
    pace: Pace,
    made: Arc<AtomicU64>,
    stopped: watch::Receiver<()>,
) -> Result<()> {
    let (mut session, services) = (other.session.lock_owned().await, other.services);
    let mut count = 0;
    let act = async move || {
        let value = if (count / SERVICES).is_multiple_of(2) { 2 } else { 1 };
        let change = catalog::endpoint(&services[count % SERVICES], value)?;
        count += 1;
        session.write(&[change]).await
    };
    every(pace, made, stopped, act).await
}

/// When something is done.
#[derive(Debug, Clone, Copy)]
struct Pace {
    first: Instant,
    between: Duration,
}

/// Does something again and again; what was late is made up for at once.
async fn every(
    pace: Pace,
    made: Arc<AtomicU64>,
    mut stopped: watch::Receiver<()>,
    mut act: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let mut ticks = interval_at(pace.first, pace.between);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            // The sender is gone when it is over.
            _ = stopped.changed() => return Ok(()),
            _ = ticks.tick() => {}
        }
        act().await?;
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// A load that goes on.
pub(super) struct Going {
    made: Arc<AtomicU64>,
    stop: watch::Sender<()>,
    tasks: JoinSet<Result<()>>,
}

impl Going {
    /// How many changes were made so far, by all loads.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends it; says when it had ended by itself.
    pub(super) async fn end(self) -> Result<()> {
        drop(self.stop);
        let ended = self.tasks.join_all().await.into_iter().collect::<Result<Vec<()>>>();
        ended.map(|_| ()).context("the other changes broke off")
    }
}
