//! When an object may be written again: what the API server refused, after a while. Other objects of the same service do
//! not wait for it.

use super::effect::{Effect, Target};
use crate::backoff::Backoff;
use sealane_core::name::ServiceKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// The first wait after a refusal, and the longest.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How one part of an object is waited for.
#[derive(Debug)]
struct Rest {
    backoff: Backoff,
    until: Instant,
    why: String,
}

/// What is written at its own pace.
#[derive(Debug, Default)]
pub(super) struct Paces {
    refused: BTreeMap<ServiceKey, BTreeMap<Target, Rest>>,
    /// Services of which a step was kept back, and until when.
    later: BTreeMap<ServiceKey, Instant>,
}

impl Paces {
    /// A step was refused: it rests.
    pub(super) fn refuse(
        &mut self,
        service: &ServiceKey,
        target: Target,
        why: String,
        least: Duration,
        now: Instant,
    ) {
        let fresh = || Rest { backoff: Backoff::new(REFUSED.0, REFUSED.1), until: now, why: String::new() };
        let rest = self.refused.entry(service.clone()).or_default().entry(target).or_insert_with(fresh);
        rest.until = now + rest.backoff.pause().max(least);
        rest.why = why;
    }

    /// A step was taken.
    pub(super) fn took(&mut self, service: &ServiceKey, target: &Target) {
        if let Some(rests) = self.refused.get_mut(service) {
            rests.remove(target);
            if rests.is_empty() {
                self.refused.remove(service);
            }
        }
    }

    /// Forgets the refusals of steps that are not planned any more.
    pub(super) fn keep(&mut self, service: &ServiceKey, planned: &BTreeSet<Target>) {
        if let Some(rests) = self.refused.get_mut(service) {
            rests.retain(|target, _| planned.contains(target));
            if rests.is_empty() {
                self.refused.remove(service);
            }
        }
    }

    /// Keeps steps back that rest still, and those that wait for them.
    pub(super) fn hold(&mut self, service: &ServiceKey, effects: &mut Vec<Effect>, now: Instant) {
        let Some(rests) = self.refused.get(service) else { return };
        let targets = effects.iter().filter_map(Effect::target);
        let resting = |target: &Target| rests.get(target).is_some_and(|rest| rest.until > now);
        let held: BTreeSet<Target> = targets.filter(resting).collect();
        let until = held.iter().filter_map(|target| rests.get(target)).map(|rest| rest.until).min();
        if let Some(until) = until {
            self.later.insert(service.clone(), until);
        }
        effects.retain(|e| !e.waits_for(&held) && e.target().is_none_or(|target| !held.contains(&target)));
    }

    /// When a step that was kept back may be taken.
    pub(super) fn wakes(&self) -> impl Iterator<Item = Instant> {
        self.later.values().copied()
    }

    /// The services of which a step was kept back and may be taken now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ServiceKey> {
        let due: Vec<ServiceKey> =
            self.later.iter().filter(|(_, at)| **at <= now).map(|(service, _)| service.clone()).collect();
        for service in &due {
            self.later.remove(service);
        }
        due
    }

    /// Something that is refused, and why.
    pub(super) fn refusal(&self) -> Option<String> {
        let (target, rest) = self.refused.values().flatten().next()?;
        Some(format!("{}: {}", target.0, rest.why))
    }
}
