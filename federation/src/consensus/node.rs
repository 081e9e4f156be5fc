//! The step machine: raft's `RawNode` between inputs and one ordered list of effects.
//!
//! No clock, no I/O, no randomness: time is [`Input::Tick`], the disk is [`Effect::Persist`], and election timeouts
//! are drawn from a seed. The law of the list: effects are carried out in order, and a [`Effect::Persist`] is the last
//! of its list; when it is durable, [`Input::Persisted`] gives what may only follow then. [`run`] does exactly this.
//!
//! A proposal is answered when it is applied. It is refused as [`Outcome::NotLeader`] or [`Outcome::Busy`] only if it
//! was never appended; once it was, and leadership is lost, its fate is unknown and it is answered so.

mod reads;
mod storage;

use crate::consensus::fault::Fault;
use crate::consensus::machine::Fatal;
use crate::consensus::wire;
use crate::store::log::{Batch, Position, RaftLog};
use bytes::Bytes;
use raft::eraftpb::{
    ConfChangeType, ConfState, Entry, EntryType, HardState, Message, MessageType, SnapshotMetadata,
};
use raft::{LightReady, RawNode, Ready, SnapshotStatus, StateRole};
use reads::Reads;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use storage::LogStore;

/// Ticks that pass after a snapshot could not be written.
const BUILD_RETRY_TICKS: u64 = 400;

/// Whom an outcome is for; the caller's number.
pub(crate) type Token = u64;

/// Sizes and times of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeConfig {
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// The least ticks without a leader before an election; the most is twice that.
    pub election_ticks: usize,
    /// Entries applied since the last snapshot that call for the next.
    pub snapshot_entries: u64,
    /// Bytes applied since the last snapshot that call for the next.
    pub snapshot_bytes: u64,
    /// Entries kept below a snapshot for followers that were away for a short time.
    pub tail_entries: u64,
    /// The most bytes of such entries.
    pub tail_bytes: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            heartbeat_ticks: 4,
            election_ticks: 20,
            snapshot_entries: 10_000,
            snapshot_bytes: 32 << 20,
            tail_entries: 5_000,
            tail_bytes: 32 << 20,
        }
    }
}

/// What a node starts from.
#[derive(Debug)]
pub(crate) struct Start<L> {
    pub(crate) id: u64,
    pub(crate) log: L,
    /// How far the state machine has come, and the configuration there.
    pub(crate) applied: SnapshotMetadata,
    /// The latest verified snapshot file.
    pub(crate) snapshot: Option<SnapshotMetadata>,
    /// Another in every run.
    pub(crate) seed: u64,
    /// A deliberate defect, for the simulator to find.
    pub(crate) fault: Option<Fault>,
}

/// A command to append.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    pub(crate) token: Token,
    pub(crate) command: Bytes,
}

/// What happens to a node.
#[derive(Debug)]
pub(crate) enum Input {
    /// Time went on.
    Tick,
    /// A peer's message, already validated. A snapshot only when its file is verified on the disk.
    Message(Box<Message>),
    /// Commands.
    Propose(Vec<Proposal>),
    /// Reads that want an index.
    Read(Vec<Token>),
    /// A change of membership.
    Change(Token, ConfChangeType, u64),
    /// Leadership should go to this server.
    Transfer(u64),
    /// There is nobody else to wait for.
    Campaign,
    /// A message to this server was lost.
    Unreachable(u64),
    /// A snapshot was delivered to this server, or not.
    SnapshotSent(u64, bool),
    /// A snapshot file is there, and files cover the log up to the index; or none could be made.
    SnapshotBuilt(Option<(SnapshotMetadata, u64)>),
    /// The batch of the last list is durable.
    Persisted,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Never appended: another leads, or nobody.
    NotLeader(Option<u64>),
    /// Never appended: too much is waiting.
    Busy,
    /// It may be applied yet, or never.
    Unknown,
    /// A change of membership was applied at this index.
    Changed(u64),
    /// A change of membership makes no sense on this configuration.
    Refused(String),
    /// The state holds everything that was acknowledged before the read came, up to this index.
    Read(u64),
    /// No leader confirmed the read in time.
    ReadExpired,
}

/// An entry to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// `None` for entries of raft's own.
    pub(crate) command: Option<Bytes>,
    /// The proposal that waits for it.
    pub(crate) token: Option<Token>,
}

/// What is to be done, in the order of the list.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send these.
    Send(Vec<Message>),
    /// Make this durable, then step [`Input::Persisted`].
    Persist(Batch),
    /// Replace the state machine by what the snapshot file holds.
    Install(SnapshotMetadata),
    /// Apply these; the configuration is the one after them.
    Apply(Vec<Committed>, ConfState),
    /// Answer.
    Answer(Token, Outcome),
    /// Write the state machine as it is now into a snapshot file, then step [`Input::SnapshotBuilt`]. Files below this
    /// truncation point of the log are of no more use.
    BuildSnapshot(Position),
    /// Forget the log up to here.
    Compact(u64),
}

/// A `Ready` that waits for its batch.
struct InFlight {
    ready: Ready,
    snapshot: Option<SnapshotMetadata>,
}

/// The step machine.
pub(crate) struct Node<L: RaftLog> {
    raw: RawNode<LogStore<L>>,
    config: NodeConfig,
    effects: Vec<Effect>,
    in_flight: Option<InFlight>,
    /// A commit index not yet written; it rides with the next batch.
    unsaved: Option<HardState>,
    applied: Position,
    pending: BTreeMap<u64, Token>,
    reads: Reads,
    building: bool,
    ticks: u64,
    /// No snapshot is called for before this tick.
    build_after: u64,
    bytes_since_snapshot: u64,
    seed: u64,
    draws: u64,
    timeout: usize,
    turned: (u64, StateRole),
    fault: Option<Fault>,
}

/// Carries a node's effects out, in their order. The driver and the simulator differ in what acts, not in this.
pub(crate) fn run<L: RaftLog>(
    node: &mut Node<L>,
    inputs: Vec<Input>,
    act: &mut impl FnMut(Effect) -> Result<(), Fatal>,
) -> Result<(), Fatal> {
    let mut effects = VecDeque::from(node.step(inputs));
    while let Some(effect) = effects.pop_front() {
        match effect {
            Effect::Persist(batch) => {
                node.log_mut().write(&batch).map_err(Fatal::new)?;
                if node.fault != Some(Fault::NoFsync) {
                    node.log_mut().sync().map_err(Fatal::new)?;
                }
                effects.extend(node.step(vec![Input::Persisted]));
            }
            Effect::Compact(index) => node.log_mut().compact(index).map_err(Fatal::new)?,
            other => act(other)?,
        }
    }
    Ok(())
}

fn raft_config(id: u64, applied: u64, config: &NodeConfig) -> raft::Config {
    raft::Config {
        id,
        applied,
        heartbeat_tick: config.heartbeat_ticks,
        election_tick: config.election_ticks,
        min_election_tick: config.election_ticks,
        max_election_tick: config.election_ticks * 2,
        max_size_per_msg: 256 << 10,
        max_inflight_msgs: 128,
        check_quorum: true,
        pre_vote: true,
        read_only_option: raft::ReadOnlyOption::Safe,
        max_uncommitted_size: 32 << 20,
        max_committed_size_per_ready: 4 << 20,
        ..raft::Config::default()
    }
}

/// A timeout from `ticks` to below twice that. Voters, by their places among all, draw from ticks that are nobody
/// else's and, where there is room, two apart: two who stand at the same moment split the votes, and everybody waits
/// for another timeout.
fn election_timeout(ticks: usize, place: Option<(usize, usize)>, drawn: u64) -> usize {
    let drawn = |below: usize| usize::try_from(drawn % below.max(1) as u64).unwrap_or(0);
    ticks
        + match place {
            Some((at, voters)) => {
                let apart = (ticks / voters).clamp(1, 2);
                let laps = ticks / (apart * voters);
                apart * (at + voters * drawn(laps)) % ticks
            }
            None => drawn(ticks),
        }
}

/// One draw of a sequence that the seed and the number of the draw determine (splitmix64).
fn draw(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<L: RaftLog> Node<L> {
    /// A node that goes on where its log and state machine stand.
    pub(crate) fn new(start: Start<L>, config: NodeConfig) -> Result<Self, Fatal> {
        let Start { id, log, applied, snapshot, seed, fault } = start;
        let position = Position { index: applied.index, term: applied.term };
        let store = LogStore {
            log,
            conf_state: applied.get_conf_state().clone(),
            applied: applied.index,
            snapshot,
            wanted: Cell::new(false),
        };
        let raft = raft_config(id, applied.index, &config);
        let raw = RawNode::new(&raft, store, &crate::consensus::logger::logger()).map_err(Fatal::new)?;
        let mut node = Node {
            raw,
            config,
            effects: Vec::new(),
            in_flight: None,
            unsaved: None,
            applied: position,
            pending: BTreeMap::new(),
            reads: Reads::new(id, draw(seed, u64::MAX)),
            building: false,
            ticks: 0,
            build_after: 0,
            bytes_since_snapshot: 0,
            seed: seed ^ id.wrapping_mul(0xa24b_aed4_963e_e407),
            draws: 0,
            timeout: 0,
            turned: (0, StateRole::Follower),
            fault,
        };
        node.redraw();
        node.fix_timeout();
        Ok(node)
    }

    /// Takes inputs, then gives everything that follows from them.
    pub(crate) fn step(&mut self, inputs: Vec<Input>) -> Vec<Effect> {
        for input in inputs {
            self.take(input);
            self.turn();
        }
        self.advance();
        self.call_for_snapshot();
        std::mem::take(&mut self.effects)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => self.tick(),
            // Raft would pass it on in the asker's name, which the leader refuses of another. The asker asks again.
            Input::Message(m) if m.get_msg_type() == MessageType::MsgReadIndex && !self.leads() => {}
            Input::Message(message) => {
                // A stranger's answer, a stale term: raft says which it does not take, and nothing follows from it.
                if let Err(error) = self.raw.step(*message) {
                    tracing::debug!(%error, "raft did not take a message");
                }
            }
            Input::Propose(proposals) => self.propose(proposals),
            Input::Read(tokens) if self.fault == Some(Fault::ReadUnconfirmed) => {
                let index = self.applied.index;
                self.effects.extend(tokens.into_iter().map(|t| Effect::Answer(t, Outcome::Read(index))));
            }
            Input::Read(tokens) => {
                let context = self.reads.open(tokens);
                self.raw.read_index(context);
            }
            Input::Change(token, kind, server) => self.change(token, kind, server),
            Input::Transfer(to) => self.raw.transfer_leader(to),
            Input::Campaign => {
                if let Err(error) = self.raw.campaign() {
                    tracing::debug!(%error, "raft did not campaign");
                }
            }
            Input::Unreachable(server) => self.raw.report_unreachable(server),
            Input::SnapshotSent(to, true) => self.raw.report_snapshot(to, SnapshotStatus::Finish),
            Input::SnapshotSent(to, false) => self.raw.report_snapshot(to, SnapshotStatus::Failure),
            Input::SnapshotBuilt(built) => self.snapshot_built(built),
            Input::Persisted => self.persisted(),
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.raw.tick();
        let (expired, again) = self.reads.tick();
        self.effects.extend(expired.into_iter().map(|t| Effect::Answer(t, Outcome::ReadExpired)));
        if let Some(context) = again {
            self.raw.read_index(context);
        }
        self.leave_joint_if_stuck();
    }

    /// Raft leaves a joint configuration by itself, unless the leader that entered it was lost before it applied that.
    fn leave_joint_if_stuck(&mut self) {
        let raft = &self.raw.raft;
        let stuck = !self.raw.store().conf_state.voters_outgoing.is_empty()
            && raft.state == StateRole::Leader
            && !raft.has_pending_conf();
        if stuck {
            // Refused only while too much is uncommitted; the next tick tries again.
            let _ = self.append(vec![change_entry(Vec::new())]);
        }
    }

    fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Appends as leader; gives the first index, or `None` when raft drops them all.
    fn append(&mut self, entries: Vec<Entry>) -> Option<u64> {
        let first = self.raw.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        message.set_entries(entries.into());
        // Through raft, not `RawNode::propose`: one message makes one append to each follower, however many entries.
        self.raw.raft.step(message).ok().map(|()| first)
    }

    fn propose(&mut self, proposals: Vec<Proposal>) {
        if proposals.is_empty() {
            return;
        }
        if !self.leads() {
            let leader = self.leader();
            let refused = proposals.into_iter().map(|p| Effect::Answer(p.token, Outcome::NotLeader(leader)));
            self.effects.extend(refused);
            return;
        }
        let (tokens, entries): (Vec<_>, Vec<_>) =
            proposals.into_iter().map(|p| (p.token, command_entry(p.command))).unzip();
        match self.append(entries) {
            Some(first) => self.pending.extend((first..).zip(tokens)),
            None => self.effects.extend(tokens.into_iter().map(|t| Effect::Answer(t, Outcome::Busy))),
        }
    }

    fn change(&mut self, token: Token, kind: ConfChangeType, server: u64) {
        let raft = &self.raw.raft;
        let joint = !self.raw.store().conf_state.voters_outgoing.is_empty();
        let outcome = if !self.leads() {
            Outcome::NotLeader(self.leader())
        } else if joint || raft.has_pending_conf() {
            Outcome::Busy
        } else if kind == ConfChangeType::RemoveNode && server == raft.id {
            Outcome::Refused("a leader does not remove itself: transfer leadership first".to_owned())
        } else {
            match self.append(vec![change_entry(wire::conf_change_bytes(kind, server))]) {
                Some(index) => {
                    self.pending.insert(index, token);
                    return;
                }
                None => Outcome::Busy,
            }
        };
        self.effects.push(Effect::Answer(token, outcome));
    }

    /// Notices changes of term and role: draws the next election timeout, gives up proposals that leadership left.
    fn turn(&mut self) {
        let now = (self.raw.raft.term, self.raw.raft.state);
        if now != self.turned {
            self.turned = now;
            self.redraw();
            if now.1 != StateRole::Leader {
                let lost = std::mem::take(&mut self.pending);
                self.effects.extend(lost.into_values().map(|t| Effect::Answer(t, Outcome::Unknown)));
            }
        }
        self.fix_timeout();
    }

    fn redraw(&mut self) {
        self.draws += 1;
        let drawn = draw(self.seed, self.draws);
        let voters: BTreeSet<u64> = self.raw.raft.prs().conf().voters().ids().iter().collect();
        // Another is the first in each term, whom all agree on without a word.
        let turn = usize::try_from(self.raw.raft.term % voters.len().max(1) as u64).unwrap_or(0);
        let at = voters.iter().position(|id| *id == self.raw.raft.id);
        let place = at.map(|at| ((at + turn) % voters.len(), voters.len()));
        self.timeout = election_timeout(self.config.election_ticks, place, drawn);
    }

    /// Raft draws its timeouts from the thread's own randomness; ours replaces it wherever it did.
    fn fix_timeout(&mut self) {
        if self.raw.raft.randomized_election_timeout() != self.timeout {
            self.raw.raft.set_randomized_election_timeout(self.timeout);
        }
    }

    /// Turns everything raft has ready into effects, up to the first batch that must be durable.
    fn advance(&mut self) {
        while self.in_flight.is_none() && self.raw.has_ready() {
            let mut ready = self.raw.ready();
            self.send(ready.take_messages());
            for read in ready.take_read_states() {
                self.reads.confirm(&read.request_ctx, read.index);
            }
            let snapshot = Some(ready.snapshot()).filter(|s| s.get_metadata().index > 0);
            let snapshot = snapshot.map(|s| s.get_metadata().clone());
            if let Some(hard_state) = ready.hs() {
                self.unsaved = Some(hard_state.clone());
            }
            let entries = ready.take_entries();
            let vote_alone = entries.is_empty() && self.fault == Some(Fault::VoteNotPersisted);
            let must_sync = (ready.must_sync() && !vote_alone) || snapshot.is_some();
            if self.fault == Some(Fault::PromisedBeforePersisted) {
                self.send(ready.take_persisted_messages());
            }
            let flight = InFlight { ready, snapshot };
            if must_sync {
                let reset = flight.snapshot.as_ref().map(|m| Position { index: m.index, term: m.term });
                let batch = Batch { reset, entries, hard_state: self.unsaved.take() };
                self.in_flight = Some(flight);
                self.effects.push(Effect::Persist(batch));
                return;
            }
            self.finish(flight);
        }
        self.answer_reads();
    }

    fn persisted(&mut self) {
        if let Some(flight) = self.in_flight.take() {
            self.finish(flight);
        }
    }

    fn finish(&mut self, InFlight { mut ready, snapshot }: InFlight) {
        if let Some(metadata) = snapshot {
            self.install(metadata);
        }
        self.send(ready.take_persisted_messages());
        let committed = ready.take_committed_entries();
        self.apply(committed);
        let light = self.raw.advance_append(ready);
        self.finish_light(light);
        self.raw.advance_apply_to(self.applied.index);
        self.turn();
    }

    fn finish_light(&mut self, mut light: LightReady) {
        if self.fault == Some(Fault::LightReadyDropped) {
            return;
        }
        if light.commit_index().is_some() {
            self.unsaved = Some(self.raw.raft.hard_state());
        }
        self.send(light.take_messages());
        let committed = light.take_committed_entries();
        self.apply(committed);
    }

    fn send(&mut self, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.effects.push(Effect::Send(messages));
        }
    }

    fn install(&mut self, metadata: SnapshotMetadata) {
        self.applied = Position { index: metadata.index, term: metadata.term };
        self.bytes_since_snapshot = 0;
        let store = self.raw.mut_store();
        store.conf_state = metadata.get_conf_state().clone();
        store.snapshot = Some(metadata.clone());
        self.effects.push(Effect::Install(metadata));
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last() else { return };
        self.applied = Position { index: last.index, term: last.term };
        let mut answers = Vec::new();
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            self.bytes_since_snapshot += entry.data.len() as u64;
            let token = self.pending.remove(&entry.index);
            let (index, term) = (entry.index, entry.term);
            let normal = entry.get_entry_type() == EntryType::EntryNormal;
            let (command, token) = if normal && !entry.data.is_empty() {
                (Some(entry.data), token)
            } else {
                // Raft puts an empty entry where it refuses a change of membership.
                let outcome = if normal { Outcome::Busy } else { self.apply_change(&entry) };
                answers.extend(token.map(|t| Effect::Answer(t, outcome)));
                (None, None)
            };
            committed.push(Committed { index, term, command, token });
        }
        let conf_state = self.raw.store().conf_state.clone();
        self.effects.push(Effect::Apply(committed, conf_state));
        self.effects.append(&mut answers);
    }

    fn apply_change(&mut self, entry: &Entry) -> Outcome {
        let change = match wire::conf_change_from_bytes(&entry.data) {
            Ok(change) => change,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        match self.raw.apply_conf_change(&change) {
            Ok(conf_state) => {
                self.raw.mut_store().conf_state = conf_state;
                Outcome::Changed(entry.index)
            }
            Err(error) => {
                tracing::warn!(%error, index = entry.index, "a change of membership does not fit the configuration");
                Outcome::Refused(error.to_string())
            }
        }
    }

    fn answer_reads(&mut self) {
        let ready = self.reads.ready(self.applied.index);
        self.effects
            .extend(ready.into_iter().map(|(token, index)| Effect::Answer(token, Outcome::Read(index))));
    }

    fn call_for_snapshot(&mut self) {
        let wanted = self.raw.store().wanted.take();
        let covered = self.raw.store().snapshot.as_ref().map_or(0, |m| m.index);
        let since = self.applied.index.saturating_sub(covered);
        let due =
            since >= self.config.snapshot_entries || self.bytes_since_snapshot >= self.config.snapshot_bytes;
        let able = !self.building && self.in_flight.is_none() && self.ticks >= self.build_after;
        if able && self.applied.index > 0 && (wanted || due) {
            self.building = true;
            self.bytes_since_snapshot = 0;
            let truncated = self.raw.store().log.truncated();
            self.effects.push(Effect::BuildSnapshot(truncated));
        }
    }

    fn snapshot_built(&mut self, built: Option<(SnapshotMetadata, u64)>) {
        self.building = false;
        let Some((metadata, covered)) = built else {
            self.build_after = self.ticks + BUILD_RETRY_TICKS;
            return;
        };
        let store = self.raw.mut_store();
        // One that was installed in the meantime is newer.
        if store.snapshot.as_ref().is_none_or(|m| m.index < metadata.index) {
            store.snapshot = Some(metadata);
        }
        let log = &store.log;
        let held = log.last().index - log.truncated().index;
        let tail = match log.bytes().checked_div(held) {
            Some(average) => self.config.tail_entries.min(self.config.tail_bytes / average.max(1)),
            None => 0,
        };
        let to = covered.min(self.applied.index.saturating_sub(tail));
        if to > log.truncated().index {
            self.effects.push(Effect::Compact(to));
        }
    }

    /// The batch that a clean end should write: a commit index that no other batch took along.
    pub(crate) fn last_batch(&mut self) -> Option<Batch> {
        let hard_state = self.unsaved.take()?;
        Some(Batch { hard_state: Some(hard_state), ..Batch::default() })
    }

    /// The log.
    pub(crate) fn log(&self) -> &L {
        &self.raw.store().log
    }

    /// The log, for [`run`] to write.
    pub(crate) fn log_mut(&mut self) -> &mut L {
        &mut self.raw.mut_store().log
    }

    /// How far the state machine has come, and the configuration there.
    pub(crate) fn applied(&self) -> SnapshotMetadata {
        let mut metadata = SnapshotMetadata::default();
        (metadata.index, metadata.term) = (self.applied.index, self.applied.term);
        metadata.set_conf_state(self.raw.store().conf_state.clone());
        metadata
    }

    /// What the latest snapshot file covers.
    pub(crate) fn snapshot_index(&self) -> u64 {
        self.raw.store().snapshot.as_ref().map_or(0, |m| m.index)
    }

    /// Raft itself, to be looked at.
    pub(crate) fn raft(&self) -> &raft::Raft<LogStore<L>> {
        &self.raw.raft
    }
}

fn command_entry(command: Bytes) -> Entry {
    Entry { data: command, ..Entry::default() }
}

fn change_entry(change: Vec<u8>) -> Entry {
    Entry { entry_type: EntryType::EntryConfChangeV2, data: change.into(), ..Entry::default() }
}

#[cfg(test)]
mod tests;
