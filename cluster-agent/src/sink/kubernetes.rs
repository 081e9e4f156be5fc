//! The sink of a Kubernetes cluster: ServiceImports, derived Services, EndpointSlices and conditions, by server-side
//! apply.
//!
//! What decides is pure: [`plan`] holds what should be against what was [`seen`], for one service at a time. Laws: only
//! the holder of the Lease writes; nothing is written before everything was read once, and nothing of others is
//! touched; what was written at a higher revision stays; an object is removed only if it has our label and our entry in
//! its `managedFields`. All replicas watch, so that the next holder need not read first.

mod api;
mod conductor;
mod contested;
pub mod derived;
pub mod effect;
mod events;
mod ground;
mod metrics;
mod misnamed;
pub mod observed;
mod pace;
pub mod places;
pub mod plan;
mod queue;
pub mod schema;
pub mod seen;
pub mod slices;
mod tally;
mod trouble;
mod watch;
mod writer;

pub use metrics::SinkMetrics;

use crate::backoff::Backoff;
use crate::config::{Common, Given};
use crate::desired::{Acknowledged, Confirmed, Edition, Sources};
use crate::lease::Leadership;
use crate::map::Shared;
use crate::status::Status;
use crate::view::Held;
use api::Resources;
use conductor::Conductor;
use events::Teller;
use ground::GroundError;
use kube::Client;
use plan::Setting;
use schema::Missing;
use sealane_core::command::{Refusal, RefusalCode};
use sealane_core::identity::FederationId;
use sealane_core::name::{ClusterName, ServiceKey};
use sealane_core::service::IpFamily;
use sealane_core::time::Revision;
use sealane_trust::clock;
use seen::Kind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use watch::{EVENTS, WatchEvent};
use writer::{Done, Writer};

/// Waits between tries to find the ground that the sink stands on.
const GROUND: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// How often status is told at most.
const STATUS: Duration = Duration::from_secs(1);
/// How often it is looked at again whether nobody else federates the cluster: properties change, and CRDs come later.
const LOOK: Duration = Duration::from_secs(15);
/// How many events are taken in before steps are planned.
const BATCH: usize = 256;
/// How many steps that are about no service are under way at once.
const ASIDES: usize = 4;
/// How long steps under way may take to end.
const ENDING: Duration = crate::lease::WRITE;

/// The clusterset addresses of imports.
pub type ImportAddresses = Shared<ServiceKey, Given>;

/// What the sink is made of.
#[derive(Debug)]
pub struct Inputs {
    /// This cluster.
    pub cluster: ClusterName,
    /// The federation.
    pub federation: FederationId,
    /// The namespace that the agent runs in.
    pub namespace: String,
    /// This replica, as Events name it.
    pub replica: String,
    /// The view.
    pub held: channel::Receiver<Arc<Held>>,
    /// What proxies run by.
    pub common: channel::Receiver<Option<Arc<Common>>>,
    /// Exports that the store refused.
    pub refused: channel::Receiver<Arc<BTreeMap<ServiceKey, Refusal>>>,
    /// What the store acknowledged of the exports.
    pub acknowledged: channel::Receiver<Acknowledged>,
    /// Which of that the view is about.
    pub confirmed: Confirmed,
    /// Where the addresses of imports are told, as the API server has them, once they were read: in every replica.
    pub assigned: channel::Sender<ImportAddresses>,
    /// Where it is told how writing goes.
    pub status: Arc<Status>,
    /// Where it is counted.
    pub metrics: Arc<SinkMetrics>,
    /// Whether the federation said goodbye, as of the last look.
    pub over: bool,
}

/// What the exports of a cluster say that was removed.
fn removal() -> Refusal {
    let message = "this cluster was removed from the federation".to_owned();
    Refusal { code: RefusalCode::Forbidden, message }
}

impl Inputs {
    fn sources(&mut self) -> Option<(Sources, Revision)> {
        // What was refused is known before that the store answered, and is read after it.
        let acknowledged = self.acknowledged.borrow_and_update().clone();
        let held = self.held.borrow_and_update().clone();
        let mut confirmed = self.confirmed.follow(&acknowledged, held.revision);
        let mut refused = self.refused.borrow_and_update().clone();
        // Nothing is known as a whole before there is one.
        let common = self.common.borrow_and_update().clone()?;
        let revision = common.revision;
        self.over = held.is_over();
        if self.over {
            let exports = common.catalog.shards.keys().cloned();
            refused = Arc::new(exports.map(|service| (service, removal())).collect());
            // Nobody else has a say in them any more.
            confirmed = Edition::all(&common.catalog.shards);
        }
        Some((Sources { common, exports: held.items.clone(), refused, confirmed }, revision))
    }
}

/// Writes what follows from the view into the cluster, while the leadership lasts, until `stop`.
pub async fn run(client: Client, inputs: Inputs, leadership: Leadership, stop: CancellationToken) {
    let status = inputs.status.clone();
    let ground = stop.run_until_cancelled(stand(&client, &inputs.namespace, &status)).await;
    let Some((resources, standing)) = ground else { return };
    let (sender, events) = mpsc::channel(EVENTS);
    let mut watches = JoinSet::new();
    for kind in [Kind::Import, Kind::Export, Kind::Service, Kind::Slice] {
        watches.spawn(watch::watch(resources.clone(), kind, sender.clone()));
    }
    drop(sender);
    let conductor = Conductor::new(Instant::now(), inputs.metrics.clone());
    let teller = Teller::new(resources.clone(), &inputs.replica, conductor.limiter());
    let setting = Setting {
        cluster: inputs.cluster.clone(),
        families: standing.families,
        api: standing.api,
        missing: standing.missing,
        federation: inputs.federation,
        revision: Revision::default(),
        now: clock::now(),
    };
    let sink = Sink {
        client,
        conductor,
        setting,
        writer: Writer { resources, teller, leadership: leadership.clone() },
        leadership,
        inputs,
        cleared: false,
        workers: JoinSet::new(),
        asides: JoinSet::new(),
    };
    sink.serve(events, stop).await;
}

/// What the cluster serves.
struct Standing {
    families: Vec<IpFamily>,
    api: String,
    missing: Missing,
}

/// Finds out what the cluster serves, for as long as that takes.
async fn stand(client: &Client, namespace: &str, status: &Status) -> (Resources, Standing) {
    let mut backoff = Backoff::new(GROUND.0, GROUND.1);
    loop {
        let found = async {
            let (resources, api) = ground::resources(client).await?;
            let missing = ground::missing(client, &api).await?;
            let families = ground::families(client, namespace).await?;
            Ok::<_, GroundError>((resources, Standing { families, api, missing }))
        };
        match found.await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(error = %error, "can not write into the cluster yet");
                status.output(0, Vec::new(), Some(error.to_string()));
            }
        }
        sleep(backoff.pause()).await;
    }
}

struct Sink {
    client: Client,
    inputs: Inputs,
    leadership: Leadership,
    conductor: Conductor,
    setting: Setting,
    writer: Writer,
    /// Whether it was seen in this term that nobody else federates the cluster.
    cleared: bool,
    workers: JoinSet<Done>,
    /// What is written beside the services.
    asides: JoinSet<Done>,
}

/// What the sink wakes for.
enum Wake {
    Stop,
    Observed(Option<WatchEvent>),
    Done(Result<Done, JoinError>),
    Sources,
    Leadership,
    Time,
}

impl Sink {
    async fn serve(mut self, mut events: mpsc::Receiver<WatchEvent>, stop: CancellationToken) {
        let mut refused = Backoff::new(GROUND.0, GROUND.1);
        let mut told = Instant::now();
        let mut again = None;
        self.follow();
        loop {
            let (leads, now) = (self.leadership.may_write(), Instant::now());
            if !leads {
                (self.cleared, again) = (false, None);
            } else if self.conductor.knows() && again.is_none_or(|at| at <= now) {
                again = Some(now + self.clear(&mut refused).await);
            }
            if leads && self.cleared {
                self.dispatch();
            }
            if told <= now {
                told = now + STATUS;
                if self.cleared || !leads {
                    self.tell();
                }
                self.inputs.metrics.tell(self.conductor.counted(now));
            }
            let wakes =
                [again, self.conductor.wakes(now), Some(told)].into_iter().flatten().min().unwrap_or(told);
            match self.wake(&mut events, wakes, leads, &stop).await {
                Wake::Stop => break,
                Wake::Observed(None) | Wake::Done(Err(_)) => {
                    // A part of it panicked, and was logged: what does not write must not hold the Lease.
                    stop.cancel();
                    break;
                }
                Wake::Observed(Some(event)) => self.observe(event, &mut events),
                Wake::Done(Ok(done)) => self.conductor.done(done, Instant::now()),
                Wake::Sources => {
                    let cleared = self.cleared;
                    self.follow();
                    if self.cleared != cleared {
                        again = None;
                    }
                }
                Wake::Leadership => self.conductor.doubt(),
                Wake::Time => self.conductor.forgive(Instant::now()),
            }
        }
        // What was sent is answered, or given up, before the Lease is.
        let ended = async {
            while self.workers.join_next().await.is_some() {}
            while self.asides.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(ENDING, ended).await;
    }

    async fn wake(
        &mut self,
        events: &mut mpsc::Receiver<WatchEvent>,
        wakes: Instant,
        leads: bool,
        stop: &CancellationToken,
    ) -> Wake {
        tokio::select! {
            () = stop.cancelled() => Wake::Stop,
            event = events.recv() => Wake::Observed(event),
            Some(done) = self.workers.join_next() => Wake::Done(done),
            Ok(()) = self.inputs.common.changed() => Wake::Sources,
            Ok(()) = self.inputs.held.changed() => Wake::Sources,
            Ok(()) = self.inputs.refused.changed() => Wake::Sources,
            Ok(()) = self.inputs.acknowledged.changed() => Wake::Sources,
            () = self.leadership.writable(), if !leads => Wake::Leadership,
            () = sleep_until(wakes) => Wake::Time,
        }
    }

    fn follow(&mut self) {
        let before = self.inputs.over;
        if let Some((sources, revision)) = self.inputs.sources() {
            // Who the cluster says that it is changes with that.
            self.cleared &= self.inputs.over == before;
            self.setting.revision = revision;
            self.conductor.follow(sources);
        }
    }

    fn observe(&mut self, first: WatchEvent, events: &mut mpsc::Receiver<WatchEvent>) {
        self.conductor.observe(first);
        for _ in 1..BATCH {
            match events.try_recv() {
                Ok(event) => self.conductor.observe(event),
                Err(_) => break,
            }
        }
        let Some(assigned) = self.conductor.assigned() else { return };
        self.inputs.assigned.send_if_modified(|told| {
            let differs = told != assigned;
            if differs {
                told.clone_from(assigned);
            }
            differs
        });
        self.inputs.status.addresses_read();
    }

    /// Sees to it that nobody else federates this cluster. Gives how long it may be before the next look.
    async fn clear(&mut self, refused: &mut Backoff) -> Duration {
        let error = match self.look().await {
            Ok(()) => {
                refused.reset();
                if !self.cleared {
                    self.cleared = true;
                    self.conductor.doubt();
                    tracing::info!(objects = self.conductor.observed.len(), "writing into the cluster");
                }
                return LOOK;
            }
            Err(error) => error,
        };
        if self.cleared && !error.is_somebody_else() {
            tracing::debug!(error = %error, "can not look whether somebody else federates the cluster");
            return LOOK;
        }
        self.cleared = false;
        tracing::error!(error = %error, "nothing is written into the cluster");
        self.inputs.status.output(self.conductor.observed.len(), Vec::new(), Some(error.to_string()));
        refused.pause()
    }

    async fn look(&self) -> Result<(), GroundError> {
        ground::other_controller(&self.conductor.observed)?;
        if self.inputs.over {
            return ground::disown(&self.client, &self.leadership).await;
        }
        let (cluster, federation) = (self.setting.cluster.to_string(), self.inputs.federation.to_string());
        ground::properties(&self.client, &self.leadership, [&cluster, &federation]).await
    }

    fn dispatch(&mut self) {
        self.setting.now = clock::now();
        while let Some((service, effects)) = self.conductor.next(&self.setting, Instant::now()) {
            self.workers.spawn(self.writer.clone().work(service, effects));
        }
        // They are about no service: what comes of it is seen by the watch, and tried again where it is not.
        while self.asides.try_join_next().is_some() {}
        let room = ASIDES - self.asides.len();
        for (key, effects) in self.conductor.misnamed.due(&self.setting, Instant::now(), room) {
            let nobody = ServiceKey::first_of(&key.namespace);
            self.asides.spawn(self.writer.clone().work(nobody, effects));
        }
    }

    fn tell(&self) {
        let (objects, foreign, error) = self.conductor.told();
        self.inputs.status.output_if_new(objects, foreign, error);
        self.inputs.status.troubled(self.conductor.troubles());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{World, catalog, exported, held, import, name, shard};
    use crate::desired::conditions;

    #[test]
    fn after_a_goodbye_nothing_is_imported_and_exports_say_so() {
        let catalog = catalog(&[("shop/web", shard(&["web-0"]))]);
        let items = vec![
            sealane_core::view::ViewItem::Import(import("shop/web", vec![])),
            exported("shop/web", &["west"]),
        ];
        let mut world = World::new(held(7, items), catalog);
        let before = world.make(&Common::default());
        let (telling, common) = channel::channel(Some(Arc::new(before.clone())));
        let (saying, held) = channel::channel(Arc::new(world.held.clone()));
        let mut inputs = Inputs {
            cluster: name("east"),
            federation: FederationId([7; 16]),
            namespace: "sealane-system".to_owned(),
            replica: "replica".to_owned(),
            held,
            common,
            refused: channel::channel(Arc::default()).1,
            acknowledged: channel::channel(Acknowledged::default()).1,
            confirmed: Confirmed::default(),
            assigned: channel::Sender::new(ImportAddresses::new()),
            status: Arc::default(),
            metrics: Arc::default(),
            over: false,
        };
        let (sources, _) = inputs.sources().unwrap();
        assert_eq!((sources.import(&name("shop/web")).is_some(), inputs.over), (true, false));

        world.held = Held::over(Revision { generation: 1, index: 9 });
        saying.send_replace(Arc::new(world.held.clone()));
        telling.send_replace(Some(Arc::new(world.make(&before))));
        let (sources, revision) = inputs.sources().unwrap();
        assert_eq!((sources.import(&name("shop/web")), revision.index, inputs.over), (None, 9, true));
        let web: ServiceKey = name("shop/web");
        let shard = &sources.common.catalog.shards[&web];
        let (ready, _) = &conditions(&sources, &name("shop/web"), shard, &[])[1];
        let expected = ("False", "Failed", "this cluster was removed from the federation");
        assert_eq!((ready.status, ready.reason.as_str(), ready.message.as_str()), expected);
    }
}
