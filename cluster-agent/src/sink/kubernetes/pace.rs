//! When an object may be written again: what the API server refused, after a while; what somebody else keeps changing, at a
//! bounded rate. Other objects of the same service do not wait for it.

mod contests;

use super::effect::{Effect, Target};
use super::seen::{Digest, ObjectKey, Part};
use crate::backoff::Backoff;
use contests::Contests;
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
    contests: Contests,
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

    /// A step was taken: this was written, or an object removed. Says whether it puts back what somebody else changed.
    pub(super) fn took(
        &mut self,
        service: &ServiceKey,
        target: &Target,
        content: Option<Digest>,
        now: Instant,
    ) -> bool {
        if let Some(rests) = self.refused.get_mut(service) {
            rests.remove(target);
            if rests.is_empty() {
                self.refused.remove(service);
            }
        }
        self.contests.wrote(target.clone(), content, now)
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

    /// The objects whose main part is kept back because somebody else keeps changing it.
    pub(super) fn contested(&self, effects: &[Effect], now: Instant) -> BTreeSet<ObjectKey> {
        let held = effects.iter().filter(|effect| self.contest(effect, now).is_some());
        held.filter_map(Effect::target).filter(|(_, part)| *part == Part::Main).map(|(key, _)| key).collect()
    }

    /// Until when a step is kept back because somebody else keeps changing what it writes.
    fn contest(&self, effect: &Effect, now: Instant) -> Option<Instant> {
        let Effect::Apply(apply) = effect else { return None };
        self.contests.until(&effect.target()?, apply.content, now)
    }

    /// Keeps steps back that rest still, and those that wait for them. Gives what is fought over.
    pub(super) fn hold(
        &mut self,
        service: &ServiceKey,
        effects: &mut Vec<Effect>,
        now: Instant,
    ) -> Vec<Target> {
        let rests = self.refused.get(service);
        let refused =
            |target: &Target| rests?.get(target).map(|rest| rest.until).filter(|until| *until > now);
        let until = |effect: &Effect| {
            let target = effect.target()?;
            let until = refused(&target).max(self.contest(effect, now))?;
            Some((target, until))
        };
        let held: BTreeMap<Target, Instant> = effects.iter().filter_map(until).collect();
        if let Some(until) = held.values().min() {
            self.later.insert(service.clone(), *until);
        }
        let held: BTreeSet<Target> = held.into_keys().collect();
        effects.retain(|e| !e.waits_for(&held) && e.target().is_none_or(|target| !held.contains(&target)));
        held.into_iter().filter(|target| self.contests.is_fought_over(target, now)).collect()
    }

    /// Everything that is fought over.
    pub(super) fn fought_over(&self, now: Instant) -> impl Iterator<Item = &Target> {
        self.contests.fought_over(now)
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
