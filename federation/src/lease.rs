//! Leases: which clusters are heard from. Pure: time comes in, actions come out.
//!
//! The leader alone keeps them, by its own monotonic clock. Law: silence counts only while this server could have
//! heard; a new leader, and one whose loop stood still, grants every lease a full TTL. When more than half of the live
//! leases (and at least two) go silent at once the fault is more likely here: then no lapse is proposed until enough
//! of them are heard again or an operator confirms.

mod watch;

pub use watch::{Contact, Contacts, Leasing, LeasingParts};

use sealane_core::identity::{ClusterId, SessionId};
use sealane_core::state::{Lease, State};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a lease lasts without a sign of life.
pub const TTL: Duration = Duration::from_secs(5);
/// How often an agent sends one.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// A loop that stood still for longer did not hear what was said meanwhile.
pub const STALL: Duration = Duration::from_secs(1);
/// Silence for this long is no longer jitter: it counts towards suspecting ourselves.
const SILENT: Duration = Duration::from_secs(3);
/// A proposal that showed no effect for this long is made again.
const REPEAT: Duration = Duration::from_secs(1);

/// What is to be proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The session was silent for a whole TTL.
    Lapse(ClusterId, SessionId),
    /// The session is silent for a whole TTL while no lapse may be proposed: another instance of the agent may open
    /// one, and nothing is withdrawn.
    Close(ClusterId, SessionId),
    /// A lapsed session was heard.
    Revive(ClusterId, SessionId),
}

/// An instant of the monotonic clock, counted from the start of the process.
pub type Instant = Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    session: SessionId,
    /// Last heard, or granted at.
    fresh: Instant,
    /// Last heard.
    heard: Option<Instant>,
    /// Whether the log says live.
    live: bool,
    /// Whether the log says that its stream ended.
    closed: bool,
    /// When it went from live to lapsed, while that counts towards suspicion.
    lapsed_at: Option<Instant>,
    proposed: Option<Instant>,
    /// An operator said that it is gone: its silence is no evidence against ourselves.
    confirmed: bool,
}

impl Kept {
    /// Whether it is silent for a whole TTL and nothing was proposed just now.
    fn overdue(&self, now: Instant) -> bool {
        self.live && now >= self.fresh + TTL && self.proposed.is_none_or(|at| now >= at + REPEAT)
    }

    /// Whether a revival is due, which then counts as proposed.
    fn revival(&mut self, now: Instant) -> bool {
        let heard = self.heard.is_some_and(|at| now < at + TTL);
        let due = !self.live && heard && self.proposed.is_none_or(|at| now >= at + REPEAT);
        if due {
            self.proposed = Some(now);
        }
        due
    }
}

/// The leases, as a leader keeps them.
#[derive(Debug, Default)]
pub struct Leases {
    /// The term that is led, `None` for a follower.
    term: Option<u64>,
    last_tick: Instant,
    kept: BTreeMap<ClusterId, Kept>,
    suspected: Option<Instant>,
}

impl Leases {
    /// Begins to lead a term: every lease gets a full TTL.
    pub fn lead(&mut self, now: Instant, term: u64, state: &State) {
        *self = Leases { term: Some(term), last_tick: now, kept: BTreeMap::new(), suspected: None };
        self.reconcile(now, state);
    }

    /// Ends leading.
    pub fn follow(&mut self) {
        *self = Leases::default();
    }

    /// The term that is led.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        self.term
    }

    /// Since when this server suspects itself.
    #[must_use]
    pub fn suspected(&self) -> Option<Instant> {
        self.suspected
    }

    /// A sign of life; one from a lapsed session revives it.
    pub fn heard(&mut self, now: Instant, cluster: ClusterId, session: SessionId) -> Option<Action> {
        let kept = self.kept.get_mut(&cluster).filter(|k| k.session == session)?;
        kept.fresh = now;
        kept.heard = Some(now);
        kept.lapsed_at = None;
        kept.confirmed = false;
        kept.revival(now).then_some(Action::Revive(cluster, session))
    }

    /// One beat of the loop: what the log says now, and what time did.
    pub fn tick(&mut self, now: Instant, state: &State) -> Vec<Action> {
        if self.term.is_none() {
            return Vec::new();
        }
        let stalled = now.saturating_sub(self.last_tick) > STALL;
        self.last_tick = now;
        self.reconcile(now, state);
        if stalled {
            self.kept.values_mut().for_each(|k| k.fresh = now);
        }
        self.judge(now);
        let mut actions = self.revivals(now);
        actions.extend(match self.suspected {
            None => self.lapses(now),
            Some(_) => self.closes(now),
        });
        actions
    }

    /// An operator says that the silent clusters are gone indeed: their leases lapse.
    pub fn confirm(&mut self, now: Instant) -> Vec<Action> {
        self.suspected = None;
        let overdue = |k: &&mut Kept| k.live && now >= k.fresh + TTL;
        self.kept.values_mut().filter(overdue).for_each(|k| k.confirmed = true);
        self.lapses(now)
    }

    fn reconcile(&mut self, now: Instant, state: &State) {
        self.kept.retain(|id, kept| {
            let session = state.clusters.get(id).and_then(|c| c.session.as_ref());
            session.is_some_and(|s| s.id == kept.session)
        });
        for cluster in state.clusters.values() {
            let Some(session) = &cluster.session else { continue };
            let live = matches!(cluster.lease, Lease::Live { .. });
            let kept = self.kept.entry(cluster.id).or_insert_with(|| Kept {
                session: session.id,
                fresh: now,
                heard: None,
                live,
                closed: session.closed,
                lapsed_at: None,
                proposed: None,
                confirmed: false,
            });
            kept.closed = session.closed;
            if kept.live != live {
                kept.proposed = None;
                kept.lapsed_at = (!live && !kept.confirmed).then_some(now);
                kept.live = live;
            }
        }
    }

    fn judge(&mut self, now: Instant) {
        let recent = |k: &Kept| k.lapsed_at.is_some_and(|at| now < at + TTL);
        let evidence = || self.kept.values().filter(|k| !k.confirmed);
        let counted = evidence().filter(|k| k.live || recent(k)).count();
        let silent = evidence().filter(|k| recent(k) || k.live && now >= k.fresh + SILENT).count();
        let overdue = evidence().any(|k| k.live && now >= k.fresh + TTL);
        let most = silent >= 2 && silent * 2 > counted;
        self.suspected = match (most, self.suspected) {
            // Suspicion begins when a lapse would be due, not at the first delay.
            (true, None) => overdue.then_some(now),
            (true, since) => since,
            (false, _) => None,
        };
    }

    /// Sessions that were heard while their lapse was on its way into the log.
    fn revivals(&mut self, now: Instant) -> Vec<Action> {
        let due = self.kept.iter_mut().filter_map(|(id, k)| k.revival(now).then_some((id, k)));
        due.map(|(id, kept)| Action::Revive(*id, kept.session)).collect()
    }

    fn lapses(&mut self, now: Instant) -> Vec<Action> {
        let due = self.kept.iter_mut().filter(|(_, k)| k.overdue(now));
        due.map(|(id, kept)| {
            kept.proposed = Some(now);
            Action::Lapse(*id, kept.session)
        })
        .collect()
    }

    /// Sessions that were never closed would shut out every agent that was restarted together with the servers.
    fn closes(&mut self, now: Instant) -> Vec<Action> {
        let due = self.kept.iter_mut().filter(|(_, k)| !k.closed && k.overdue(now));
        due.map(|(id, kept)| {
            kept.proposed = Some(now);
            Action::Close(*id, kept.session)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests;
