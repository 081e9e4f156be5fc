//! What carries effects out: the peers, the state machine and its image, the callers, the snapshot files.

use crate::consensus::driver::snapshots::Snapshots;
use crate::consensus::fault::Fault;
use crate::consensus::inbox::ProposeReply;
use crate::consensus::machine::{Fatal, StateMachine};
use crate::consensus::node::{Committed, Effect, Input, Outcome, Proposal, Token};
use crate::consensus::replica::{AppliedRound, ChangeError, ProposeError, ReadError, Shared};
use crate::consensus::transport::Transport;
use crate::consensus::wire;
use crate::store::log::Position;
use crate::store::snapshot::{Header, SnapshotError};
use crate::store::state::StateStore;
use raft::eraftpb::{ConfState, Message, MessageType, SnapshotMetadata};
use sealane_core::identity::{FederationId, ServerId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A caller that waits.
pub(super) enum Waiter<R> {
    Propose(ProposeReply<R>),
    Read(oneshot::Sender<Result<u64, ReadError>>),
    Change(oneshot::Sender<Result<u64, ChangeError>>),
}

/// The hands of the loop.
pub(crate) struct Actor<M: StateMachine> {
    machine: M,
    applied: SnapshotMetadata,
    image: Box<dyn StateStore>,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared<M>>,
    snapshots: Arc<dyn Snapshots>,
    federation: FederationId,
    version: u32,
    fault: Option<Fault>,
    waiters: HashMap<Token, Waiter<M::Reply>>,
    next_token: Token,
}

/// What an actor starts from.
pub(crate) struct Hands<M: StateMachine> {
    pub(crate) machine: M,
    pub(crate) applied: SnapshotMetadata,
    pub(crate) image: Box<dyn StateStore>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) shared: Arc<Shared<M>>,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    pub(crate) federation: FederationId,
    pub(crate) version: u32,
    pub(crate) fault: Option<Fault>,
}

impl<M: StateMachine> Actor<M> {
    pub(crate) fn new(hands: Hands<M>) -> Self {
        let Hands { machine, applied, image, transport, shared, snapshots, federation, version, fault } =
            hands;
        let (waiters, next_token) = (HashMap::new(), 0);
        Actor {
            machine,
            applied,
            image,
            transport,
            shared,
            snapshots,
            federation,
            version,
            fault,
            waiters,
            next_token,
        }
    }

    /// Takes note of a caller and gives the number that it is known by.
    pub(super) fn wait(&mut self, waiter: Waiter<M::Reply>) -> Token {
        self.next_token += 1;
        self.waiters.insert(self.next_token, waiter);
        self.next_token
    }

    /// Carries one effect out.
    pub(super) fn act(&mut self, effect: Effect) -> Result<(), Fatal> {
        match effect {
            Effect::Send(messages) => messages.into_iter().for_each(|m| self.send(m)),
            Effect::Apply(committed, conf_state) => self.apply(committed, conf_state)?,
            Effect::Install(metadata) => self.install(metadata)?,
            Effect::Answer(token, outcome) => self.answer(token, outcome),
            Effect::BuildSnapshot(truncated) => self.build_snapshot(truncated),
            Effect::Persist(_) | Effect::Compact(_) => {
                return Err(Fatal::new("an effect on the log came to where there is none"));
            }
        }
        Ok(())
    }

    fn send(&self, message: Message) {
        let to = ServerId(message.to);
        if message.get_msg_type() != MessageType::MsgSnapshot {
            if let Some(message) = wire::message_to_wire(message) {
                self.transport.send(to, message);
            }
            return;
        }
        let metadata = message.get_snapshot().get_metadata();
        let at = Position { index: metadata.index, term: metadata.term };
        let Some(message) = wire::message_to_wire(message) else { return };
        if let Err(error) = self.snapshots.send(at, to, message, self.transport.as_ref()) {
            tracing::warn!(%error, peer = %to, "a snapshot can not be sent");
            self.shared.inbox.report(Input::SnapshotSent(to.0, false));
        }
    }

    fn apply(&mut self, committed: Vec<Committed>, conf_state: ConfState) -> Result<(), Fatal> {
        let (Some(first), Some(last)) = (committed.first(), committed.last()) else { return Ok(()) };
        let (first, last, term) = (first.index, last.index, last.term);
        let mut dirty = Vec::new();
        let mut replies = Vec::with_capacity(committed.len());
        let mut waiting = Vec::new();
        for Committed { index, term, command, token } in committed {
            let Some(command) = command else { continue };
            let applied = self.machine.apply(index, term, &command)?;
            dirty.extend(applied.dirty);
            if let Some(token) = token {
                waiting.push((token, index, applied.reply.clone()));
            }
            replies.push((index, applied.reply));
        }
        (self.applied.index, self.applied.term) = (last, term);
        self.applied.set_conf_state(conf_state);
        self.publish(first, replies, false);
        for (token, index, reply) in waiting {
            if let Some(Waiter::Propose(caller)) = self.waiters.remove(&token) {
                // A caller that went away is not an error.
                let _ = caller.send(Ok((index, reply)));
            }
        }
        self.image.apply(dirty, &self.applied, self.machine.min_version()).map_err(Fatal::new)
    }

    fn publish(&self, first: u64, replies: Vec<(u64, M::Reply)>, reset: bool) {
        let last = self.applied.index;
        self.shared.state.store(Arc::new((last, self.machine.clone())));
        self.shared.applied.send_replace(last);
        let round = AppliedRound { first, last, machine: self.machine.clone(), replies, reset };
        // Nobody has to listen.
        let _ = self.shared.rounds.send(Arc::new(round));
    }

    fn install(&mut self, metadata: SnapshotMetadata) -> Result<(), Fatal> {
        let at = Position { index: metadata.index, term: metadata.term };
        tracing::info!(index = at.index, term = at.term, "installing a snapshot");
        self.machine = restore(self.snapshots.as_ref(), at, self.version)?;
        self.applied = metadata;
        let needs = self.machine.min_version();
        self.image.replace(&mut self.machine.records(), &self.applied, needs).map_err(Fatal::new)?;
        self.publish(at.index, Vec::new(), true);
        Ok(())
    }

    fn answer(&mut self, token: Token, outcome: Outcome) {
        let Some(waiter) = self.waiters.remove(&token) else { return };
        // A caller that went away is not an error.
        match waiter {
            Waiter::Propose(caller) => drop(caller.send(Err(propose_error(outcome)))),
            Waiter::Read(caller) => drop(caller.send(match outcome {
                Outcome::Read(index) => Ok(index),
                Outcome::Busy => Err(ReadError::Busy),
                _ => Err(ReadError::Expired),
            })),
            Waiter::Change(caller) => drop(caller.send(change_result(outcome))),
        }
    }

    /// Writes the machine as it is now, from a clone, on a thread of its own.
    fn build_snapshot(&self, truncated: Position) {
        let (machine, mut metadata) = (self.machine.clone(), self.applied.clone());
        if self.fault == Some(Fault::SnapshotWithoutConfState) {
            metadata.set_conf_state(ConfState::default());
        }
        let (snapshots, federation, shared) = (self.snapshots.clone(), self.federation, self.shared.clone());
        let write = move || {
            let header = Header { metadata, min_version: machine.min_version(), federation };
            let built = snapshots.write(&header, &mut machine.records(), truncated);
            let built = built.map(|covered| (header.metadata, covered.index));
            shared.inbox.report(Input::SnapshotBuilt(built.map_err(|error| complain(&error)).ok()));
        };
        if let Err(error) = self.snapshots.aside(Box::new(write)) {
            complain(&error);
            self.shared.inbox.report(Input::SnapshotBuilt(None));
        }
    }

    /// What must never be done: answers commands by a machine that runs ahead of what is committed.
    pub(super) fn answer_early(
        &mut self,
        mut index: u64,
        term: u64,
        proposals: &[Proposal],
    ) -> Result<(), Fatal> {
        let mut ahead = self.machine.clone();
        for Proposal { token, command } in proposals {
            index += 1;
            let reply = ahead.apply(index, term, command)?.reply;
            if let Some(Waiter::Propose(caller)) = self.waiters.remove(token) {
                let _ = caller.send(Ok((index, reply)));
            }
        }
        Ok(())
    }
}

fn complain(error: &SnapshotError) {
    tracing::warn!(%error, "a snapshot could not be written; the log grows until one is");
}

/// The machine that a snapshot holds.
pub(crate) fn restore<M: StateMachine>(
    snapshots: &dyn Snapshots,
    at: Position,
    version: u32,
) -> Result<M, Fatal> {
    let (header, records) = snapshots.read(at).map_err(Fatal::new)?;
    let min_version = header.min_version;
    if min_version > version {
        return Err(Fatal::new(format!(
            "the snapshot at entry {} needs version {min_version} of the command set, and this build has {version}: \
             start a newer build",
            at.index
        )));
    }
    M::restore(records.map(|record| record.map_err(Fatal::new)))
}

fn propose_error(outcome: Outcome) -> ProposeError {
    match outcome {
        Outcome::NotLeader(leader) => ProposeError::NotLeader { leader: leader.map(ServerId) },
        Outcome::Busy => ProposeError::Busy,
        _ => ProposeError::Unknown,
    }
}

fn change_result(outcome: Outcome) -> Result<u64, ChangeError> {
    match outcome {
        Outcome::Changed(index) => Ok(index),
        Outcome::NotLeader(leader) => Err(ChangeError::NotLeader { leader: leader.map(ServerId) }),
        Outcome::Busy => Err(ChangeError::Busy),
        Outcome::Refused(why) => Err(ChangeError::Refused(why)),
        Outcome::Unknown | Outcome::Read(_) | Outcome::ReadExpired => Err(ChangeError::Unknown),
    }
}
