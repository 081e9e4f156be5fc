//! A network of nodes in one thread. Crashes keep what was persisted and nothing else.

use super::super::*;
use crate::store::log::LogError;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Kept {
    hard_state: HardState,
    truncated: Position,
    entries: Vec<Entry>,
}

/// A log in memory that outlives its node.
#[derive(Debug, Clone, Default)]
struct MemLog(Arc<Mutex<Kept>>);

impl RaftLog for MemLog {
    fn hard_state(&self) -> HardState {
        self.0.lock().unwrap().hard_state.clone()
    }

    fn truncated(&self) -> Position {
        self.0.lock().unwrap().truncated
    }

    fn last(&self) -> Position {
        let kept = self.0.lock().unwrap();
        kept.entries.last().map_or(kept.truncated, |e| Position { index: e.index, term: e.term })
    }

    fn term(&self, index: u64) -> Option<u64> {
        let kept = self.0.lock().unwrap();
        if index == kept.truncated.index {
            return Some(kept.truncated.term);
        }
        let at = index.checked_sub(kept.truncated.index + 1)?;
        kept.entries.get(at as usize).map(|e| e.term)
    }

    fn entries(&self, low: u64, high: u64, _: u64) -> Result<Vec<Entry>, LogError> {
        let kept = self.0.lock().unwrap();
        let first = kept.truncated.index + 1;
        Ok(kept.entries[(low - first) as usize..(high - first) as usize].to_vec())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), LogError> {
        let mut kept = self.0.lock().unwrap();
        if let Some(position) = batch.reset {
            (kept.truncated, kept.entries) = (position, Vec::new());
        }
        for entry in &batch.entries {
            kept.entries.retain(|e| e.index < entry.index);
            kept.entries.push(entry.clone());
        }
        if let Some(hard_state) = &batch.hard_state {
            kept.hard_state = hard_state.clone();
        }
        Ok(())
    }

    /// What is written is there at once; a disk that forgets is `consensus::sim`'s subject.
    fn sync(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), LogError> {
        let term = self.term(index).unwrap();
        let mut kept = self.0.lock().unwrap();
        kept.entries.retain(|e| e.index > index);
        kept.truncated = Position { index, term };
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.0.lock().unwrap().entries.iter().map(|e| e.data.len() as u64).sum()
    }
}

/// What was applied: index and command.
type History = Vec<(u64, Bytes)>;

struct Server {
    node: Option<Node<MemLog>>,
    log: MemLog,
    history: History,
    /// Files: what they cover and hold.
    snapshots: Vec<(SnapshotMetadata, History)>,
    /// Inputs that the outside owes it.
    owed: Vec<Input>,
    runs: u64,
}

struct Flying {
    from: u64,
    to: u64,
    message: Message,
    /// The file of a snapshot message.
    file: Option<History>,
}

pub(super) struct Sim {
    servers: BTreeMap<u64, Server>,
    network: Vec<Flying>,
    cut: BTreeSet<u64>,
    seed: u64,
    draws: u64,
    tick: u64,
    tokens: Token,
    answers: BTreeMap<Token, Outcome>,
    acknowledged: BTreeMap<Token, u64>,
    /// For each read, the index that it must at least see.
    floors: BTreeMap<Token, u64>,
    /// What stands at each index, by the first who applied it.
    truth: BTreeMap<u64, (u64, Option<Bytes>)>,
    transcript: Option<String>,
    pub(super) installed: usize,
}

fn config() -> NodeConfig {
    NodeConfig { snapshot_entries: 25, tail_entries: 5, ..NodeConfig::default() }
}

fn founding(servers: u64) -> SnapshotMetadata {
    let mut metadata = SnapshotMetadata::default();
    (metadata.index, metadata.term) = (1, 1);
    metadata.mut_conf_state().set_voters((1..=servers).collect());
    metadata
}

impl Sim {
    pub(super) fn new(servers: u64, seed: u64) -> Self {
        let mut sim = Sim {
            servers: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            seed,
            draws: 0,
            tick: 0,
            tokens: 0,
            answers: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            floors: BTreeMap::new(),
            truth: BTreeMap::new(),
            transcript: None,
            installed: 0,
        };
        for id in 1..=servers {
            let log = MemLog::default();
            let mut hard_state = HardState::default();
            (hard_state.term, hard_state.commit) = (1, 1);
            let batch = Batch {
                reset: Some(Position { index: 1, term: 1 }),
                entries: Vec::new(),
                hard_state: Some(hard_state),
            };
            log.clone().write(&batch).unwrap();
            let snapshots = vec![(founding(servers), Vec::new())];
            let (history, owed) = (Vec::new(), Vec::new());
            sim.servers.insert(id, Server { node: None, log, history, snapshots, owed, runs: 0 });
            sim.start(id);
        }
        sim
    }

    pub(super) fn record(&mut self) {
        self.transcript = Some(String::new());
    }

    pub(super) fn transcript(&self) -> String {
        self.transcript.clone().unwrap_or_default()
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(transcript) = &mut self.transcript {
            let _ = writeln!(transcript, "{:4} {}", self.tick, line());
        }
    }

    fn chance(&mut self, of: u64) -> u64 {
        self.draws += 1;
        draw(self.seed.wrapping_mul(31) ^ 0xfeed, self.draws) % of
    }

    /// From the latest snapshot that the log goes on from, as after a loss of the restart image.
    fn start(&mut self, id: u64) {
        let seed = self.seed;
        let server = self.servers.get_mut(&id).unwrap();
        let truncated = server.log.truncated().index;
        let last = server.log.last().index;
        let usable = |m: &SnapshotMetadata| m.index >= truncated && m.index <= last;
        let (metadata, history) = server.snapshots.iter().rev().find(|(m, _)| usable(m)).unwrap().clone();
        server.history = history;
        server.runs += 1;
        let start = Start {
            id,
            log: server.log.clone(),
            applied: metadata.clone(),
            snapshot: Some(metadata),
            seed: seed.wrapping_add(server.runs << 32),
            fault: None,
        };
        server.node = Some(Node::new(start, config()).unwrap());
    }

    fn step(&mut self, id: u64, mut inputs: Vec<Input>) {
        let server = self.servers.get_mut(&id).unwrap();
        let Some(mut node) = server.node.take() else { return };
        inputs.append(&mut server.owed);
        let before = (node.raft().term, node.raft().state);
        let done = run(&mut node, inputs, &mut |effect| {
            self.act(id, effect);
            Ok(())
        });
        done.unwrap();
        let after = (node.raft().term, node.raft().state);
        self.servers.get_mut(&id).unwrap().node = Some(node);
        if before != after {
            self.say(|| format!("{id} is {:?} in term {}", after.1, after.0));
            self.one_leader_a_term();
        }
    }

    fn act(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Send(messages) => messages.into_iter().for_each(|m| self.send(id, m)),
            Effect::Apply(committed, conf_state) => self.apply(id, committed, &conf_state),
            Effect::Install(metadata) => {
                self.say(|| format!("{id} installs a snapshot at {}", metadata.index));
                self.installed += 1;
                let server = self.servers.get_mut(&id).unwrap();
                let file = server.snapshots.iter().find(|(m, _)| *m == metadata).unwrap();
                server.history = file.1.clone();
            }
            Effect::Answer(token, outcome) => {
                self.say(|| format!("{id} answers {token}: {outcome:?}"));
                if let (Outcome::Read(index), Some(floor)) = (&outcome, self.floors.get(&token)) {
                    assert!(index >= floor, "seed {}: read {token} at {index}, below {floor}", self.seed);
                }
                assert_eq!(self.answers.insert(token, outcome), None);
            }
            Effect::BuildSnapshot(_) => self.build(id),
            Effect::Persist(_) | Effect::Compact(_) => unreachable!("carried out by `run`"),
        }
    }

    fn send(&mut self, from: u64, message: Message) {
        let to = message.to;
        self.say(|| {
            let kind = message.get_msg_type();
            let (term, index, entries) = (message.term, message.index, message.entries.len());
            format!(
                "{from} -> {to} {kind:?} term {term} index {index} entries {entries} reject {}",
                message.reject
            )
        });
        let metadata = message.get_snapshot().get_metadata();
        let file = self.servers[&from].snapshots.iter().find(|(m, _)| m == metadata).map(|f| f.1.clone());
        self.network.push(Flying { from, to, message, file });
    }

    fn apply(&mut self, id: u64, committed: Vec<Committed>, _: &ConfState) {
        for Committed { index, term, command, token } in committed {
            let told = self.truth.entry(index).or_insert_with(|| (term, command.clone()));
            assert_eq!(*told, (term, command.clone()), "seed {}: server {id} at {index}", self.seed);
            if let Some(token) = token {
                self.say(|| format!("{id} acknowledges {token} at {index}"));
                self.acknowledged.insert(token, index);
            }
            if let Some(command) = command {
                let history = &mut self.servers.get_mut(&id).unwrap().history;
                assert!(history.last().is_none_or(|(last, _)| *last < index), "applied twice");
                history.push((index, command));
            }
        }
    }

    fn build(&mut self, id: u64) {
        // The node is out while it is stepped; what it has applied is told by the metadata it gives after.
        let server = self.servers.get_mut(&id).unwrap();
        server.owed.push(Input::SnapshotBuilt(None));
    }

    /// Makes the snapshots that were called for, now that the node is at rest.
    fn make_snapshots(&mut self, id: u64) {
        let server = self.servers.get_mut(&id).unwrap();
        let Some(node) = &server.node else { return };
        for input in &mut server.owed {
            if matches!(input, Input::SnapshotBuilt(None)) {
                let metadata = node.applied();
                server.snapshots.push((metadata.clone(), server.history.clone()));
                let older = server.snapshots[server.snapshots.len() - 2].0.index;
                *input = Input::SnapshotBuilt(Some((metadata, older)));
            }
        }
    }

    fn one_leader_a_term(&self) {
        let mut terms = BTreeSet::new();
        for server in self.servers.values() {
            let Some(node) = &server.node else { continue };
            if node.leads() {
                assert!(terms.insert(node.raft().term), "seed {}: two leaders in one term", self.seed);
            }
        }
    }

    fn deliver(&mut self, Flying { from, to, message, file }: Flying) {
        let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let lost = self.cut.contains(&from) || self.cut.contains(&to) || !self.servers.contains_key(&to);
        if lost || self.servers[&to].node.is_none() {
            let report = if snapshot { Input::SnapshotSent(to, false) } else { Input::Unreachable(to) };
            self.step(from, vec![report]);
            return;
        }
        if snapshot {
            let metadata = message.get_snapshot().get_metadata().clone();
            let server = self.servers.get_mut(&to).unwrap();
            if server.snapshots.iter().all(|(m, _)| *m != metadata) {
                server.snapshots.push((metadata, file.unwrap()));
                server.snapshots.sort_by_key(|(m, _)| m.index);
            }
            self.step(from, vec![Input::SnapshotSent(to, true)]);
        }
        self.step(to, vec![Input::Message(Box::new(message))]);
    }

    /// Delivers everything, in order, until nothing is under way.
    pub(super) fn settle(&mut self) {
        while !self.network.is_empty() {
            let next = self.network.remove(0);
            self.deliver(next);
            self.tend();
        }
    }

    fn tend(&mut self) {
        let ids: Vec<u64> = self.servers.keys().copied().collect();
        for id in ids {
            self.make_snapshots(id);
            if !self.servers[&id].owed.is_empty() {
                self.step(id, Vec::new());
            }
        }
    }

    fn tick_all(&mut self) {
        self.tick += 1;
        let ids: Vec<u64> = self.servers.keys().copied().collect();
        for id in ids {
            self.step(id, vec![Input::Tick]);
        }
        self.tend();
    }

    pub(super) fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            self.tick_all();
            self.settle();
        }
    }

    pub(super) fn until_leader(&mut self) {
        while self.leaders().is_empty() {
            assert!(self.tick < 10_000, "seed {}: no leader", self.seed);
            self.ticks(1);
        }
    }

    fn leaders(&self) -> Vec<(u64, u64)> {
        let nodes = self.servers.iter().filter_map(|(id, s)| s.node.as_ref().map(|n| (id, n)));
        let mut leaders: Vec<_> =
            nodes.filter(|(_, n)| n.leads()).map(|(id, n)| (n.raft().term, *id)).collect();
        leaders.sort_unstable();
        leaders
    }

    pub(super) fn leader(&self) -> u64 {
        self.leaders().last().unwrap().1
    }

    pub(super) fn term(&self, id: u64) -> u64 {
        self.servers[&id].node.as_ref().unwrap().raft().term
    }

    pub(super) fn cut(&mut self, id: u64) {
        self.cut.insert(id);
    }

    pub(super) fn heal(&mut self, id: u64) {
        self.cut.remove(&id);
    }

    pub(super) fn propose(&mut self, id: u64, command: &str) -> Token {
        self.tokens += 1;
        let token = self.tokens;
        let command = Bytes::from(format!("{command}-{token}"));
        self.step(id, vec![Input::Propose(vec![Proposal { token, command }])]);
        token
    }

    pub(super) fn read(&mut self, id: u64) -> Token {
        self.tokens += 1;
        self.floors.insert(self.tokens, self.acknowledged.values().max().copied().unwrap_or(0));
        self.step(id, vec![Input::Read(vec![self.tokens])]);
        self.tokens
    }

    pub(super) fn change(&mut self, id: u64, kind: ConfChangeType, server: u64) -> Token {
        self.tokens += 1;
        self.step(id, vec![Input::Change(self.tokens, kind, server)]);
        self.tokens
    }

    pub(super) fn answer(&self, token: Token) -> Option<&Outcome> {
        self.answers.get(&token)
    }

    pub(super) fn acknowledged(&self, token: Token) -> bool {
        self.acknowledged.contains_key(&token)
    }

    pub(super) fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    pub(super) fn unknown_count(&self) -> usize {
        self.answers.values().filter(|o| **o == Outcome::Unknown).count()
    }

    fn crash(&mut self, id: u64) {
        self.say(|| format!("{id} crashes"));
        let server = self.servers.get_mut(&id).unwrap();
        (server.node, server.owed) = (None, Vec::new());
    }

    /// Random faults and requests for so many steps.
    pub(super) fn weather(&mut self, steps: u64, seed: u64) {
        self.seed = seed;
        let servers = self.servers.len() as u64;
        for _ in 0..steps {
            let id = 1 + self.chance(servers);
            match self.chance(100) {
                0 => self.cut(id),
                1..4 => self.heal(id),
                4 => self.crash(id),
                5..10 if self.servers[&id].node.is_none() => self.start(id),
                10..30 => {
                    let leader = self.leaders().last().map_or(id, |(_, leader)| *leader);
                    let to = if self.chance(4) == 0 { id } else { leader };
                    self.propose(to, "w");
                }
                30..34 => {
                    self.read(id);
                }
                34..38 => self.lose(),
                38..42 => self.repeat(),
                42..60 => self.tick_all(),
                _ => self.deliver_any(),
            }
            // A network holds only so much.
            while self.network.len() > 200 {
                self.lose();
            }
            self.tend();
        }
    }

    fn lose(&mut self) {
        if !self.network.is_empty() {
            let at = self.chance(self.network.len() as u64) as usize;
            let Flying { from, to, message, .. } = self.network.remove(at);
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.step(from, vec![Input::SnapshotSent(to, false)]);
            }
        }
    }

    fn repeat(&mut self) {
        if !self.network.is_empty() {
            let at = self.chance(self.network.len() as u64) as usize;
            let Flying { from, to, ref message, ref file } = self.network[at];
            let again = Flying { from, to, message: message.clone(), file: file.clone() };
            self.network.push(again);
        }
    }

    fn deliver_any(&mut self) {
        for _ in 0..6 {
            if self.network.is_empty() {
                return;
            }
            // Mostly in order, sometimes not.
            let within = if self.chance(5) == 0 { self.network.len() as u64 } else { 1 };
            let at = self.chance(within) as usize;
            let next = self.network.remove(at);
            self.deliver(next);
        }
    }

    /// All faults end; then everybody must agree within bounded time.
    pub(super) fn calm(&mut self) {
        self.cut.clear();
        let down: Vec<u64> =
            self.servers.iter().filter(|(_, s)| s.node.is_none()).map(|(id, _)| *id).collect();
        for id in down {
            self.start(id);
        }
        self.ticks(200);
        self.until_leader();
        let last = self.propose(self.leader(), "last");
        self.ticks(20);
        assert!(self.acknowledged(last), "seed {}: no progress in calm weather", self.seed);
        self.assert_converged();
    }

    pub(super) fn assert_converged(&self) {
        let histories: Vec<&History> = self.servers.values().map(|s| &s.history).collect();
        for history in &histories {
            assert_eq!(history, &histories[0], "seed {}", self.seed);
        }
        let present: BTreeSet<u64> = histories[0].iter().map(|(index, _)| *index).collect();
        let lost = self.acknowledged.iter().find(|(_, index)| !present.contains(index));
        assert_eq!(lost, None, "seed {}: an acknowledged write is lost", self.seed);
    }
}
