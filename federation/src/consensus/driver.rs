//! The only loop, on a thread of its own so that ticks wait behind no task.
//!
//! The order law, which [`node::run`] and the actor below keep for every round:
//!
//! 1. messages that need nothing from the disk are sent (a leader's appends travel while it writes its own);
//! 2. entries and hard state are written in one frame and synced;
//! 3. messages that promise what was written are sent;
//! 4. committed entries are applied, and the new state is published;
//! 5. proposals and reads are answered;
//! 6. the restart image takes the round up.
//!
//! Group commit is the loop itself: everything that came in during one round's fsync is the next round.

mod actor;
mod snapshots;

use crate::consensus::fault::Fault;
use crate::consensus::inbox::{Control, Work};
use crate::consensus::machine::{Fatal, StateMachine};
use crate::consensus::node::{self, Effect, Input, Node, Proposal};
use crate::consensus::replica::Shared;
use crate::consensus::status::{Progress, RaftStatus, Role};
use crate::store::log::RaftLog;
use actor::Waiter;
pub(crate) use actor::{Actor, Hands, restore};
use raft::{ProgressState, StateRole};
use sealane_core::identity::ServerId;
pub(crate) use snapshots::Files;
pub use snapshots::{Records, Snapshots};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A loop that did not tick for so long may have missed what others took for granted, leases above all.
const STALL: Duration = Duration::from_secs(1);
/// How long a leader that ends waits for another to take over.
const HAND_OVER: Duration = Duration::from_millis(500);

/// A node, what carries its effects out, and the time.
pub(crate) struct Driver<M: StateMachine, L: RaftLog> {
    pub(crate) node: Node<L>,
    pub(crate) actor: Actor<M>,
    pub(crate) shared: Arc<Shared<M>>,
    pub(crate) tick: Duration,
    /// How many ticks are made up for after a pause; more would only hold elections against the past.
    pub(crate) catch_up: u32,
    pub(crate) status: RaftStatus,
    /// When the last tick was.
    pub(crate) last_tick: Instant,
    /// A deliberate defect, for the simulator to find.
    pub(crate) fault: Option<Fault>,
    /// Holds the directory, where there is one.
    pub(crate) _lock: Option<std::fs::File>,
}

impl<M: StateMachine, L: RaftLog> Driver<M, L> {
    /// Runs until asked to end or until it must stop; says which.
    pub(crate) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.turn()));
        let clean = matches!(ended, Ok(Ok(())));
        let reason = match ended {
            Ok(Ok(())) => "it was shut down".to_owned(),
            Ok(Err(fatal)) => fatal.to_string(),
            Err(panic) => format!("consensus met what must not be: {}", panic_text(panic.as_ref())),
        };
        if clean {
            tracing::info!(server = %self.status.id, "replica ended");
        } else {
            tracing::error!(server = %self.status.id, reason, "replica stopped");
        }
        self.shared.inbox.close(&reason);
        let shared = self.shared.clone();
        // The files are closed before anyone learns that the replica ended, and might open them again.
        drop(self);
        shared.stopped.send_replace(Some(reason.into()));
    }

    fn turn(&mut self) -> Result<(), Fatal> {
        let mut hand_over: Option<Instant> = None;
        self.begin()?;
        loop {
            let work = self.shared.inbox.take(self.next_tick());
            if work.shutdown && hand_over.is_none() {
                hand_over = Some(Instant::now() + HAND_OVER);
                self.hand_over()?;
            }
            self.step(work, Instant::now(), &mut |_| Ok(()))?;
            if hand_over.is_some_and(|until| !self.leads_others() || Instant::now() >= until) {
                return self.end();
            }
        }
    }

    /// A server that is all of the federation waits for nobody.
    pub(crate) fn begin(&mut self) -> Result<(), Fatal> {
        if self.node.applied().get_conf_state().voters == [self.status.id.0] {
            self.round(vec![Input::Campaign])?;
        }
        Ok(())
    }

    /// When the next tick is due.
    pub(crate) fn next_tick(&self) -> Instant {
        self.last_tick + self.tick
    }

    /// One round: what came in, and the ticks that are due. `before` sees every effect before it is carried out, and
    /// may end the replica there.
    pub(crate) fn step(
        &mut self,
        work: Work<M::Reply>,
        now: Instant,
        before: &mut impl FnMut(&Effect) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let mut inputs = self.inputs(work)?;
        let ticks = self.ticks(now);
        inputs.extend((0..ticks).map(|_| Input::Tick));
        let Driver { node, actor, .. } = self;
        node::run(node, inputs, &mut |effect| {
            before(&effect)?;
            actor.act(effect)
        })?;
        self.publish(ticks > 0);
        Ok(())
    }

    fn round(&mut self, inputs: Vec<Input>) -> Result<(), Fatal> {
        let Driver { node, actor, .. } = self;
        node::run(node, inputs, &mut |effect| actor.act(effect))
    }

    fn end(&mut self) -> Result<(), Fatal> {
        match self.node.last_batch() {
            Some(batch) => {
                let log = self.node.log_mut();
                log.write(&batch).and_then(|()| log.sync()).map_err(Fatal::new)
            }
            None => Ok(()),
        }
    }

    /// The ticks that are due, and how long the loop stood still if it did.
    fn ticks(&mut self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.last_tick);
        let due = u32::try_from(since.as_nanos() / self.tick.as_nanos().max(1)).unwrap_or(u32::MAX);
        if due == 0 {
            return 0;
        }
        if since > STALL {
            self.status.stalls += 1;
            self.status.stalled_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(server = %self.status.id, stalled_ms = self.status.stalled_ms, "the raft loop stood still");
        }
        let ticks = due.min(self.catch_up);
        self.last_tick = if due > ticks { now } else { self.last_tick + self.tick * ticks };
        self.status.ticked = now;
        ticks
    }

    /// What came in, messages first: they may say that the leader lives before a tick doubts it.
    fn inputs(&mut self, work: Work<M::Reply>) -> Result<Vec<Input>, Fatal> {
        let mut inputs: Vec<Input> = Vec::with_capacity(work.messages.len() + 4);
        inputs.extend(work.messages.into_iter().map(|m| Input::Message(Box::new(m))));
        for control in work.controls {
            inputs.push(match control {
                Control::Input(input) => input,
                Control::Change(kind, server, reply) => {
                    Input::Change(self.actor.wait(Waiter::Change(reply)), kind, server)
                }
            });
        }
        if !work.proposals.is_empty() {
            let proposals = work
                .proposals
                .into_iter()
                .map(|w| Proposal { token: self.actor.wait(Waiter::Propose(w.reply)), command: w.command });
            let proposals: Vec<Proposal> = proposals.collect();
            if self.fault == Some(Fault::AnsweredBeforeApplied) && self.node.raft().state == StateRole::Leader
            {
                self.actor.answer_early(self.node.log().last().index, self.node.raft().term, &proposals)?;
            }
            inputs.push(Input::Propose(proposals));
        }
        if !work.reads.is_empty() {
            let tokens = work.reads.into_iter().map(|reply| self.actor.wait(Waiter::Read(reply)));
            inputs.push(Input::Read(tokens.collect()));
        }
        Ok(inputs)
    }

    fn leads_others(&self) -> bool {
        self.status.is_leader() && self.status.voters.len() > 1
    }

    /// A leader that ends names its successor, so that nobody waits for an election timeout.
    fn hand_over(&mut self) -> Result<(), Fatal> {
        self.publish(true);
        let others = self.status.progress.iter().filter(|(id, p)| {
            **id != self.status.id && p.active && !p.snapshot && self.status.voters.contains(id)
        });
        let best = others.max_by_key(|(_, p)| p.matched).map(|(id, _)| id.0);
        match best {
            Some(to) if self.leads_others() => self.round(vec![Input::Transfer(to)]),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, ticked: bool) {
        self.refresh();
        let status = &self.status;
        self.shared.status.send_if_modified(|published| {
            let turned = published.turned(status);
            if turned {
                tracing::info!(
                    server = %status.id,
                    role = ?status.role,
                    term = status.term,
                    leader = status.leader.map(|l| l.0),
                    voters = ?status.voters,
                    learners = ?status.learners,
                    "consensus turned"
                );
            }
            let news = turned || ticked;
            if news {
                published.clone_from(status);
            }
            news
        });
    }

    fn refresh(&mut self) {
        let raft = self.node.raft();
        let log = self.node.log();
        let status = &mut self.status;
        status.role = role(raft.state);
        status.term = raft.term;
        status.leader = Some(raft.leader_id).filter(|id| *id != raft::INVALID_ID).map(ServerId);
        status.commit = raft.raft_log.committed;
        status.last = log.last().index;
        status.first = log.truncated().index + 1;
        status.snapshot = self.node.snapshot_index();
        let conf = self.node.applied();
        status.applied = conf.index;
        let conf = conf.get_conf_state();
        let mut voters: Vec<ServerId> =
            conf.voters.iter().chain(&conf.voters_outgoing).copied().map(ServerId).collect();
        voters.sort_unstable();
        voters.dedup();
        status.voters = voters;
        status.learners = conf.learners.iter().chain(&conf.learners_next).copied().map(ServerId).collect();
        status.learners.sort_unstable();
        let leads = raft.state == StateRole::Leader;
        let progress = raft.prs().iter().filter(|_| leads).map(|(id, p)| {
            let active = p.recent_active || *id == status.id.0;
            let snapshot = p.state == ProgressState::Snapshot;
            (ServerId(*id), Progress { matched: p.matched, active, snapshot })
        });
        status.progress = progress.collect();
    }
}

fn role(state: StateRole) -> Role {
    match state {
        StateRole::Follower => Role::Follower,
        StateRole::PreCandidate => Role::PreCandidate,
        StateRole::Candidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a panic".to_owned())
}
