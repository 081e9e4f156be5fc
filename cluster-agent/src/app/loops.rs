//! The loops of the agent: each waits for what it follows, makes one synchronous call, and passes the result on.

use super::addressing::Addressing;
use crate::backoff::rest_after;
use crate::ca::Ca;
use crate::catalog::{Catalog, Own};
use crate::config::{Changed, Common, Inputs, LaneEvent};
use crate::desired::{Acknowledged, Confirmed, Sources};
use crate::identity::Grants;
use crate::index::{Index, Touched};
use crate::lanes::{Lanes, Verdicts};
use crate::metrics::Metrics;
use crate::sink::files::{self, Desired, Writer};
use crate::source::SourceEvent;
use crate::state::StateDir;
use crate::status::{Reporter, Status};
use crate::view::{Held, Origin};
use sealane_core::command::Refusal;
use sealane_core::name::{ClusterName, ServiceKey};
use sealane_trust::clock;
use sealane_trust::tls::Identity;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The output directory is brought up to date at most this often.
const OUTPUT: Duration = Duration::from_millis(20);
/// `status.json` is written at most this often.
const STATUS: Duration = Duration::from_millis(250);
/// How often rounds of probes are closed.
const ROUNDS: Duration = Duration::from_millis(100);
/// How often the agent's own certificate is looked at.
const UPKEEP: Duration = Duration::from_secs(1);
/// Expired tokens are removed every so many looks.
const SWEEP: u32 = 60;

/// Takes the source's events into the index and the catalog.
pub(super) async fn follow_source(
    mut events: mpsc::Receiver<SourceEvent>,
    index: Arc<RwLock<Index>>,
    own: Arc<Own>,
    published: watch::Sender<Option<Arc<Catalog>>>,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    let mut catalog = Catalog::default();
    let mut ready = false;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        let Some(event) = event else { return };
        match event {
            SourceEvent::Changed(changes) => {
                let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
                let mut touched = Touched::default();
                changes.into_iter().for_each(|change| touched.merge(index.apply(change)));
                if catalog.update(&index, &own, &touched) && ready {
                    published.send_replace(Some(Arc::new(catalog.clone())));
                }
            }
            SourceEvent::Ready => {
                ready = true;
                status.source_ready();
                published.send_replace(Some(Arc::new(catalog.clone())));
                tracing::info!(
                    exports = catalog.shards.len(),
                    namespaces = catalog.interest.len(),
                    "cluster read"
                );
            }
            SourceEvent::Problems(problems) => status.problems(problems),
            SourceEvent::Unavailable(failures) => status.source_unavailable(failures),
        }
    }
}

/// What proxies run by is made of these.
pub(super) struct CommonInputs {
    pub(super) own: Arc<Own>,
    pub(super) held: watch::Receiver<Arc<Held>>,
    pub(super) catalog: watch::Receiver<Option<Arc<Catalog>>>,
    pub(super) verdicts: watch::Receiver<Arc<Verdicts>>,
}

/// Makes what proxies run by, once both the catalog and a view are known, and whenever one of its parts changes.
pub(super) async fn make_common(
    mut inputs: CommonInputs,
    mut addresses: Addressing,
    published: watch::Sender<Option<Arc<Common>>>,
    stop: CancellationToken,
) {
    loop {
        let before = published.borrow().clone();
        let retry = match inputs.make(&mut addresses, &before.unwrap_or_default()) {
            Ok(Some(common)) => {
                published.send_replace(Some(Arc::new(common)));
                false
            }
            Ok(None) => false,
            Err(error) => {
                tracing::error!(error = %error, "can not keep the addresses of imports; nothing new is handed out");
                true
            }
        };
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY), if retry => Ok(()),
            changed = inputs.held.changed() => changed,
            changed = inputs.catalog.changed() => changed,
            changed = inputs.verdicts.changed() => changed,
            () = addresses.changed() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

impl CommonInputs {
    /// `None` when nothing differs, or not all is known yet.
    fn make(
        &mut self,
        addresses: &mut Addressing,
        before: &Common,
    ) -> Result<Option<Common>, crate::addresses::AddressError> {
        let held = self.held.borrow_and_update().clone();
        let catalog = self.catalog.borrow_and_update().clone();
        let verdicts = self.verdicts.borrow_and_update().clone();
        let Some(catalog) = catalog else { return Ok(None) };
        if held.origin == Origin::Nothing {
            return Ok(None);
        }
        let inputs = Inputs { own: &self.own, held: &held, catalog: &catalog, verdicts: &verdicts };
        let mut changed = Changed::since(before, &inputs);
        let given = addresses.follow(&changed, &held)?;
        changed.readdressed(given);
        Ok(before.next(&inputs, &changed, |service| addresses.of(service)))
    }
}

/// What the output directory is made of.
pub(super) struct OutputInputs {
    pub(super) held: watch::Receiver<Arc<Held>>,
    pub(super) common: watch::Receiver<Option<Arc<Common>>>,
    pub(super) refused: watch::Receiver<Arc<BTreeMap<ServiceKey, Refusal>>>,
    pub(super) acknowledged: watch::Receiver<Acknowledged>,
    pub(super) confirmed: Confirmed,
}

/// Keeps the output directory as it should be.
pub(super) async fn write_output(
    mut inputs: OutputInputs,
    mut writer: Writer,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    let mut desired = Desired::default();
    loop {
        // What was refused is known before that the store answered, and is read after it.
        let acknowledged = inputs.acknowledged.borrow_and_update().clone();
        let held = inputs.held.borrow_and_update().clone();
        let confirmed = inputs.confirmed.follow(&acknowledged, held.revision);
        let refused = inputs.refused.borrow_and_update().clone();
        let common = inputs.common.borrow_and_update().clone();
        let mut retry = None;
        let began = Instant::now();
        if let Some(common) = common {
            let sources = Sources { common, exports: held.items.clone(), refused, confirmed };
            let task = tokio::task::spawn_blocking(move || {
                let result = write_once(&mut writer, &mut desired, sources);
                (writer, desired, result)
            });
            let result;
            (writer, desired, result) = match task.await {
                Ok(done) => done,
                Err(error) => {
                    tracing::error!(%error, "writing the output panicked");
                    return;
                }
            };
            retry = told(&status, &writer, result);
        }
        let took = began.elapsed();
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY), if retry.is_some() => Ok(()),
            changed = inputs.common.changed() => changed,
            changed = inputs.refused.changed() => changed,
            changed = inputs.acknowledged.changed() => changed,
            changed = inputs.held.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let pause = rest_after(took).max(OUTPUT);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn write_once(writer: &mut Writer, desired: &mut Desired, sources: Sources) -> Result<Vec<String>, String> {
    let touched = desired.follow(sources, writer.transitions(), clock::now()).map_err(|e| e.to_string())?;
    writer.apply(desired.output(), touched).map_err(|e| e.to_string())
}

/// Says how writing went; `Some` when it should be tried again.
fn told(status: &Status, writer: &Writer, result: Result<Vec<String>, String>) -> Option<()> {
    match result {
        Ok(foreign) => {
            for path in &foreign {
                tracing::warn!(path, "a file of somebody else is in the way and stays");
            }
            status.output(writer.files(), foreign, None);
            None
        }
        Err(error) => {
            tracing::error!(error, "can not write the output directory");
            status.output(writer.files(), Vec::new(), Some(error));
            Some(())
        }
    }
}

/// Keeps `status.json` as the status is.
pub(super) async fn write_status(mut reporter: Reporter, path: PathBuf, stop: CancellationToken) {
    let mut told = reporter.status.subscribe();
    let mut written = String::new();
    loop {
        match serde_json::to_string_pretty(&reporter.report()) {
            Ok(text) if text != written => match files::replace(&path, &text) {
                Ok(()) => written = text,
                Err(error) => tracing::warn!(error = %error, "can not write status.json"),
            },
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "can not encode the status"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = told.changed() => if changed.is_err() { return },
            changed = reporter.held.changed() => if changed.is_err() { return },
            changed = reporter.catalog.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(STATUS).await;
    }
}

/// Keeps on disk that the cluster was removed, for the next start to know.
pub(super) async fn keep_removed(state: StateDir, status: Arc<Status>, stop: CancellationToken) {
    let mut told = status.subscribe();
    // What can not be read is written anew.
    let mut kept = state.removed().ok().flatten();
    loop {
        let now = status.removal();
        if now != kept {
            if let Err(error) = state.set_removed(now.as_deref()) {
                tracing::warn!(error = %error, "can not keep on disk that the cluster was removed");
            }
            kept = now;
        }
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = told.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Counts probes into lanes.
pub(super) async fn keep_lanes(
    mut events: mpsc::Receiver<LaneEvent>,
    mut held: watch::Receiver<Arc<Held>>,
    published: watch::Sender<Arc<Lanes>>,
    verdicts: watch::Sender<Arc<Verdicts>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut lanes = Lanes::default();
    let mut rounds = interval(ROUNDS);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let transitions = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => on_event(&mut lanes, event),
                None => return,
            },
            _ = rounds.tick() => lanes.tick(clock::now().0),
            changed = held.changed() => {
                if changed.is_err() {
                    return;
                }
                let peers: BTreeSet<ClusterName> =
                    held.borrow_and_update().peers().map(|p| p.name.clone()).collect();
                lanes.retain(&peers);
                Vec::new()
            }
        };
        for t in &transitions {
            tracing::info!(cluster = %t.cluster, verdict = ?t.verdict, rtt_us = t.rtt_us, "lane");
            metrics.lane_transitions.inc();
        }
        let judged = |v: &Verdicts| v.iter().map(|(c, (v, _))| (c.clone(), *v)).collect::<Vec<_>>();
        verdicts.send_if_modified(|now| {
            let next = lanes.verdicts();
            let differs = judged(&next) != judged(now);
            if differs {
                *now = Arc::new(next);
            }
            differs
        });
        published.send_if_modified(|now| {
            let differs = **now != lanes;
            if differs {
                *now = Arc::new(lanes.clone());
            }
            differs
        });
    }
}

fn on_event(lanes: &mut Lanes, event: LaneEvent) -> Vec<crate::lanes::Transition> {
    match event {
        LaneEvent::Join(reporter) => {
            lanes.join(reporter);
            Vec::new()
        }
        LaneEvent::Leave(reporter) => {
            lanes.leave(reporter);
            Vec::new()
        }
        LaneEvent::Report(reporter, probes) => {
            let now = clock::now().0;
            probes.into_iter().flat_map(|probe| lanes.report(reporter, probe, now)).collect()
        }
    }
}

/// Renews the agent's own certificate and removes expired tokens.
pub(super) async fn upkeep(
    ca: Arc<Ca>,
    serving: Identity,
    ttl: Duration,
    grants: Arc<Grants>,
    stop: CancellationToken,
) {
    let mut looks = interval(UPKEEP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        if serving.current().half_life() <= clock::now() {
            let renewed = ca.own(ttl).and_then(|(issued, key)| Ok(serving.replace(issued.chain, &key)?));
            if let Err(error) = renewed {
                tracing::error!(error = %error, "can not renew the certificate towards proxies");
            }
        }
        if number.is_multiple_of(SWEEP)
            && let Err(error) = grants.sweep()
        {
            tracing::warn!(%error, "can not remove expired tokens");
        }
        number = number.wrapping_add(1);
    }
}

/// Says once that proxies are served.
pub(super) async fn announce(mut reporter: Reporter, stop: CancellationToken) {
    let mut told = reporter.status.subscribe();
    while reporter.not_ready().is_some() {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = told.changed() => if changed.is_err() { return },
            changed = reporter.held.changed() => if changed.is_err() { return },
        }
    }
    tracing::info!(cluster = %reporter.store.membership().cluster, "ready");
}
