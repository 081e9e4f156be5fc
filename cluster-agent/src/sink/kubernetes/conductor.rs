//! Which service is worked on when: everything that is not as it should be, each service by one worker at a time, many
//! services at once, and what failed again after a while.

use super::ImportAddresses;
use super::contested;
use super::effect::{Effect, Target};
use super::events::{Limiter, SharedLimiter};
use super::metrics::{Now, SinkMetrics};
use super::misnamed::MisnamedExports;
use super::observed::Observed;
use super::pace::Paces;
use super::plan::{Learnt, Setting, UNSUPPORTED, foreign, plan};
use super::queue::Queue;
use super::seen::{Kind, ObjectKey, Part, Seen};
use super::trouble;
use super::watch::{Found, WatchEvent};
use super::writer::{Done, Outcome};
use crate::backoff::Backoff;
use crate::config::Given;
use crate::desired::Sources;
use crate::map;
use sealane_core::name::ServiceKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many services are worked on at once: as many requests as one API server takes from one client without queueing.
const AT_ONCE: usize = 16;
/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long an object of others is taken to be where it was.
const FOREIGN: Duration = Duration::from_secs(30);
/// The kinds that must have been read before anything is written.
const KINDS: usize = 4;

/// What is waited for before a service is worked on again.
#[derive(Debug)]
struct Wait {
    backoff: Backoff,
    until: Instant,
    error: String,
}

/// The state of the sink.
#[derive(Debug)]
pub(super) struct Conductor {
    pub(super) observed: Observed,
    pub(super) misnamed: MisnamedExports,
    sources: Option<Sources>,
    listed: BTreeSet<Kind>,
    unavailable: BTreeMap<Kind, String>,
    dirty: Queue,
    busy: BTreeSet<ServiceKey>,
    waits: BTreeMap<ServiceKey, Wait>,
    learnt: BTreeMap<ServiceKey, Learnt>,
    foreign_until: BTreeMap<ServiceKey, Instant>,
    limiter: SharedLimiter,
    paces: Paces,
    metrics: Arc<SinkMetrics>,
    /// The clusterset addresses of imports, as they were last seen.
    assigned: ImportAddresses,
    /// What is wrong with services here.
    troubles: Arc<BTreeMap<ServiceKey, String>>,
}

impl Conductor {
    pub(super) fn new(now: Instant, metrics: Arc<SinkMetrics>) -> Self {
        Conductor {
            observed: Observed::default(),
            misnamed: MisnamedExports::default(),
            sources: None,
            listed: BTreeSet::new(),
            unavailable: BTreeMap::new(),
            dirty: Queue::default(),
            busy: BTreeSet::new(),
            waits: BTreeMap::new(),
            learnt: BTreeMap::new(),
            foreign_until: BTreeMap::new(),
            limiter: Arc::new(Mutex::new(Limiter::new(now))),
            paces: Paces::default(),
            metrics,
            assigned: ImportAddresses::new(),
            troubles: Arc::default(),
        }
    }

    /// What bounds the Events.
    pub(super) fn limiter(&self) -> SharedLimiter {
        self.limiter.clone()
    }

    /// Whether everything was read that must be known before a step is taken.
    pub(super) fn knows(&self) -> bool {
        self.listed.len() == KINDS && self.sources.is_some()
    }

    /// Takes in what should be.
    pub(super) fn follow(&mut self, sources: Sources) {
        match &self.sources {
            Some(before) => {
                let changed = sources.changed_since(before);
                self.sources = Some(sources);
                for subject in changed {
                    self.judge(subject.service());
                    self.dirty.insert(subject.service().clone());
                }
            }
            None => {
                self.sources = Some(sources);
                self.doubt();
                let observed: Vec<ServiceKey> = self.observed.services().cloned().collect();
                observed.iter().for_each(|service| self.judge(service));
            }
        }
    }

    /// Finds out what is wrong with a service here.
    fn judge(&mut self, service: &ServiceKey) {
        let wanted = self.sources.as_ref().is_some_and(|sources| sources.import(service).is_some());
        let trouble = trouble::of(&self.observed, service, wanted);
        if self.troubles.get(service) != trouble.as_ref() {
            let troubles = Arc::make_mut(&mut self.troubles);
            match trouble {
                Some(trouble) => troubles.insert(service.clone(), trouble),
                None => troubles.remove(service),
            };
        }
    }

    /// What is wrong with services here.
    pub(super) fn troubles(&self) -> &Arc<BTreeMap<ServiceKey, String>> {
        &self.troubles
    }

    /// Looks at everything anew.
    pub(super) fn doubt(&mut self) {
        let Some(sources) = &self.sources else { return };
        self.dirty.extend(sources.common.outbound.keys().cloned());
        self.dirty.extend(sources.common.catalog.shards.keys().cloned());
        self.dirty.extend(self.observed.services().cloned());
    }

    /// Takes in what is.
    pub(super) fn observe(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Listed(kind, found) => {
                let there = found.iter().map(|(key, ..)| (key.namespace.clone(), key.name.clone())).collect();
                let gone = self.observed.retain(kind, &there);
                self.readdress(gone.iter());
                self.dirty.extend(gone);
                found.into_iter().for_each(|found| self.put(found));
                self.unavailable.remove(&kind);
                self.listed.insert(kind);
            }
            WatchEvent::Put(found) => {
                self.unavailable.remove(&found.0.kind);
                self.put(*found);
            }
            WatchEvent::Gone(key) => {
                self.unavailable.remove(&key.kind);
                self.misnamed.remove(&key);
                self.gone(&key);
            }
            WatchEvent::ListedMisnamed(all) => self.misnamed.list(all),
            WatchEvent::PutMisnamed(one) => self.misnamed.put(*one),
            WatchEvent::Unavailable(kind, error) => {
                tracing::warn!(kind = kind.as_str(), error, "can not read objects from the API server");
                self.unavailable.insert(kind, error);
            }
        }
    }

    fn put(&mut self, (key, service, seen): Found) {
        let touched = self.observed.put(key, service, seen);
        self.readdress(touched.iter());
        self.dirty.extend(touched);
    }

    fn gone(&mut self, key: &ObjectKey) {
        if let Some(service) = self.observed.remove(key) {
            self.readdress(std::iter::once(&service));
            self.dirty.insert(service);
        }
    }

    fn readdress<'a>(&mut self, services: impl Iterator<Item = &'a ServiceKey>) {
        for service in services {
            let given = self.observed.import(service).map(given);
            map::set(&mut self.assigned, service, given);
            self.judge(service);
        }
    }

    /// The addresses of imports, once they were read.
    pub(super) fn assigned(&self) -> Option<&ImportAddresses> {
        self.listed.contains(&Kind::Import).then_some(&self.assigned)
    }

    /// The next service to work on, with its steps.
    pub(super) fn next(&mut self, setting: &Setting, now: Instant) -> Option<(ServiceKey, Vec<Effect>)> {
        let sources = self.sources.as_ref()?;
        if self.busy.len() >= AT_ONCE {
            return None;
        }
        while let Some(service) = self.free(now) {
            self.dirty.remove(&service);
            let scene = self.observed.scene(&service);
            let learnt = self.learnt.entry(service.clone()).or_default();
            learnt.contested.clear();
            let mut effects = plan(sources, setting, &service, &scene, learnt);
            learnt.contested = self.paces.contested(&effects, now);
            if !learnt.contested.is_empty() {
                // What its status says does not wait for it.
                effects = plan(sources, setting, &service, &scene, learnt);
            }
            let planned: BTreeSet<Target> = effects.iter().filter_map(Effect::target).collect();
            self.paces.keep(&service, &planned);
            let refusals = learnt.refused.len();
            learnt.refused.retain(|key, _| planned.contains(&(key.clone(), Part::Main)));
            if learnt.refused.len() < refusals {
                effects = plan(sources, setting, &service, &scene, learnt);
            }
            if *learnt == Learnt::default() {
                self.learnt.remove(&service);
            }
            let fought_over = self.paces.hold(&service, &mut effects, now);
            effects.extend(
                fought_over.iter().filter_map(|target| contested::note(&scene, target)).map(Effect::Tell),
            );
            let limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            effects.retain(|effect| match effect {
                Effect::Tell(note) => limiter.is_news(note, now),
                _ => true,
            });
            drop(limiter);
            if effects.is_empty() {
                self.waits.remove(&service);
                continue;
            }
            self.busy.insert(service.clone());
            return Some((service, effects));
        }
        None
    }

    /// The first service to look at that nobody works on and nothing is waited for.
    fn free(&self, now: Instant) -> Option<ServiceKey> {
        let rests = |service: &ServiceKey| self.waits.get(service).is_some_and(|wait| wait.until > now);
        self.dirty.iter().find(|service| !self.busy.contains(*service) && !rests(service)).cloned()
    }

    /// Takes in what came of a service's steps.
    pub(super) fn done(&mut self, done: Done, now: Instant) {
        let Done { service, outcomes } = done;
        self.busy.remove(&service);
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Outcome::Seen(found) => self.put(*found),
                Outcome::Gone(key) => self.gone(&key),
                Outcome::Foreign(key, writers) => {
                    tracing::warn!(object = %key, ?writers, "an object of somebody else is in the way and stays");
                    self.learnt.entry(service.clone()).or_default().foreign.insert(key, writers);
                    self.foreign_until.insert(service.clone(), now + FOREIGN);
                    self.dirty.insert(service.clone());
                }
                Outcome::Taken(addresses) => {
                    tracing::warn!(%service, ?addresses, "the addresses of an import are another Service's now");
                    self.learnt.entry(service.clone()).or_default().taken = Some(addresses);
                    self.dirty.insert(service.clone());
                }
                Outcome::Took(target, content) => {
                    if self.paces.took(&service, &target, content, now) {
                        self.metrics.repair(&target);
                    }
                    let learnt = self.learnt.get_mut(&service);
                    let over = target.1 == Part::Main
                        && learnt.is_some_and(|learnt| learnt.refused.remove(&target.0).is_some());
                    if over {
                        self.dirty.insert(service.clone());
                    }
                }
                Outcome::Refused { target, error, reason, wait } => {
                    self.metrics.refuse(target.0.kind, reason);
                    tracing::warn!(object = %target.0, error, "the API server refuses an object");
                    if target.1 == Part::Main {
                        let learnt = self.learnt.entry(service.clone()).or_default();
                        learnt.refused.insert(target.0.clone(), error.clone());
                    }
                    self.paces.refuse(&service, target, error, wait, now);
                    self.dirty.insert(service.clone());
                }
                Outcome::Conflict => failure = Some(("it was changed meanwhile".to_owned(), Duration::ZERO)),
                Outcome::Lost => self.dirty.insert(service.clone()),
                Outcome::Failed { key, error, reason, wait } => {
                    self.metrics.refuse(key.kind, reason);
                    tracing::warn!(object = %key, error, "can not write an object");
                    failure = Some((format!("{key}: {error}"), wait));
                }
            }
        }
        match failure {
            Some((error, least)) => self.wait(service, error, least, now),
            None => drop(self.waits.remove(&service)),
        }
    }

    fn wait(&mut self, service: ServiceKey, error: String, least: Duration, now: Instant) {
        let fresh = || Wait { backoff: Backoff::new(WAITS.0, WAITS.1), until: now, error: String::new() };
        let wait = self.waits.entry(service.clone()).or_insert_with(fresh);
        wait.until = now + wait.backoff.pause().max(least);
        wait.error = error;
        self.dirty.insert(service);
    }

    /// When something is to be looked at again, though nothing happens.
    pub(super) fn wakes(&self, now: Instant) -> Option<Instant> {
        let waits = self.waits.iter().filter(|(service, _)| self.dirty.contains(service));
        let times = waits.map(|(_, wait)| wait.until).chain(self.foreign_until.values().copied());
        let times = times.chain(self.paces.wakes());
        times.filter(|at| *at > now).min()
    }

    /// Looks again where others' objects were, and where steps were kept back.
    pub(super) fn forgive(&mut self, now: Instant) {
        let over: Vec<ServiceKey> =
            self.foreign_until.iter().filter(|(_, until)| **until <= now).map(|(s, _)| s.clone()).collect();
        for service in over {
            self.foreign_until.remove(&service);
            if let Some(learnt) = self.learnt.get_mut(&service) {
                learnt.foreign.clear();
            }
            self.dirty.insert(service);
        }
        self.dirty.extend(self.paces.due(now));
    }

    /// What is so now, as metrics show it.
    pub(super) fn counted(&self, now: Instant) -> Now {
        let objects: BTreeSet<&ObjectKey> = self.paces.fought_over(now).map(|(key, _)| key).collect();
        let mut contested = BTreeMap::new();
        for key in objects {
            *contested.entry(key.kind).or_default() += 1;
        }
        Now {
            conditions: self.observed.standings().clone(),
            contested,
            unreadable: self.unavailable.keys().copied().collect(),
        }
    }

    /// How many objects are kept, whose stand in the way, and the first thing that went wrong.
    pub(super) fn told(&self) -> (usize, Vec<String>, Option<String>) {
        let learnt = self.learnt.values().flat_map(|learnt| &learnt.foreign);
        let foreign = learnt.map(|(key, writers)| foreign(key, writers));
        let unavailable = self.unavailable.iter().next();
        let unavailable =
            unavailable.map(|(kind, error)| format!("can not read {}s: {error}", kind.as_str()));
        let failed = || self.waits.values().next().map(|wait| wait.error.clone());
        let failed = || failed().or_else(|| self.paces.refusal());
        (self.observed.len(), foreign.collect(), unavailable.or_else(failed))
    }
}

/// The addresses of an import. None will come where this cluster has no family of it, until it says otherwise.
fn given(import: &Seen) -> Given {
    let unsupported = import.conditions.iter().any(|c| c.kind == "Ready" && c.reason == UNSUPPORTED);
    let given = Given::so_far(import.addresses.clone());
    Given { settled: given.settled || unsupported, ..given }
}
