//! Three nodes and the messages between them, which arrive in their order when a test lets them. What goes wrong by
//! chance is `consensus::sim`'s subject; here a test says what happens.

use super::super::*;
use crate::store::log::LogError;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// A log in memory. These tests are too short for snapshots, so nothing is ever forgotten.
#[derive(Debug)]
struct MemLog {
    hard_state: HardState,
    entries: Vec<Entry>,
}

impl RaftLog for MemLog {
    fn hard_state(&self) -> HardState {
        self.hard_state.clone()
    }

    fn truncated(&self) -> Position {
        Position { index: 1, term: 1 }
    }

    fn last(&self) -> Position {
        self.entries.last().map_or(self.truncated(), |e| Position { index: e.index, term: e.term })
    }

    fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(2) {
            Some(at) => self.entries.get(at as usize).map(|e| e.term),
            None => (index == 1).then_some(1),
        }
    }

    fn entries(&self, low: u64, high: u64, _: u64) -> Result<Vec<Entry>, LogError> {
        Ok(self.entries[low as usize - 2..high as usize - 2].to_vec())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), LogError> {
        assert_eq!(batch.reset, None);
        for entry in &batch.entries {
            self.entries.truncate(entry.index as usize - 2);
            self.entries.push(entry.clone());
        }
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state = hard_state.clone();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), LogError> {
        panic!("forget entries up to {index}");
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.data.len() as u64).sum()
    }
}

/// What was applied: index and command.
type History = Vec<(u64, Bytes)>;

/// See the file.
#[derive(Default)]
pub(super) struct Net {
    nodes: BTreeMap<u64, Node<MemLog>>,
    histories: BTreeMap<u64, History>,
    under_way: VecDeque<Message>,
    cut: BTreeSet<u64>,
    tick: u64,
    tokens: Token,
    answers: BTreeMap<Token, Outcome>,
    acknowledged: BTreeSet<Token>,
    transcript: String,
}

fn node(id: u64, seed: u64) -> Node<MemLog> {
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.commit) = (1, 1);
    let mut founding = SnapshotMetadata::default();
    (founding.index, founding.term) = (1, 1);
    founding.mut_conf_state().set_voters(vec![1, 2, 3]);
    let log = MemLog { hard_state, entries: Vec::new() };
    let start = Start { id, log, applied: founding.clone(), snapshot: Some(founding), seed, fault: None };
    Node::new(start, NodeConfig::default()).unwrap()
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let nodes = (1..=3).map(|id| (id, node(id, seed))).collect();
        let histories = (1..=3).map(|id| (id, History::new())).collect();
        Net { nodes, histories, ..Net::default() }
    }

    pub(super) fn transcript(&self) -> &str {
        &self.transcript
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.transcript, "{:4} {line}", self.tick).unwrap();
    }

    fn step(&mut self, id: u64, inputs: Vec<Input>) {
        let mut node = self.nodes.remove(&id).unwrap();
        let before = (node.raft().term, node.raft().state);
        run(&mut node, inputs, &mut |effect| {
            self.act(id, effect);
            Ok(())
        })
        .unwrap();
        let after = (node.raft().term, node.raft().state);
        self.nodes.insert(id, node);
        if before != after {
            self.say(format_args!("{id} is {:?} in term {}", after.1, after.0));
        }
    }

    fn act(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Send(messages) => messages.into_iter().for_each(|m| self.send(id, m)),
            Effect::Apply(committed, _) => committed.into_iter().for_each(|c| self.apply(id, c)),
            Effect::Answer(token, outcome) => {
                self.say(format_args!("{id} answers {token}: {outcome:?}"));
                assert_eq!(self.answers.insert(token, outcome), None);
            }
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, from: u64, message: Message) {
        let (to, kind) = (message.to, message.get_msg_type());
        let (term, index, entries) = (message.term, message.index, message.entries.len());
        self.say(format_args!(
            "{from} -> {to} {kind:?} term {term} index {index} entries {entries} reject {}",
            message.reject
        ));
        self.under_way.push_back(message);
    }

    fn apply(&mut self, id: u64, Committed { index, command, token, .. }: Committed) {
        if let Some(token) = token {
            self.say(format_args!("{id} acknowledges {token} at {index}"));
            self.acknowledged.insert(token);
        }
        let history = self.histories.get_mut(&id).unwrap();
        history.extend(command.map(|command| (index, command)));
    }

    fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        if self.cut.contains(&from) || self.cut.contains(&to) || !self.nodes.contains_key(&to) {
            self.step(from, vec![Input::Unreachable(to)]);
        } else {
            self.step(to, vec![Input::Message(Box::new(message))]);
        }
    }

    /// Delivers everything, in order, until nothing is under way.
    pub(super) fn settle(&mut self) {
        while let Some(next) = self.under_way.pop_front() {
            self.deliver(next);
        }
    }

    pub(super) fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            self.tick += 1;
            (1..=3).for_each(|id| self.step(id, vec![Input::Tick]));
            self.settle();
        }
    }

    pub(super) fn until_leader(&mut self) {
        while !self.nodes.values().any(Node::leads) {
            assert!(self.tick < 1_000, "no leader");
            self.ticks(1);
        }
    }

    /// Who leads in the latest term.
    pub(super) fn leader(&self) -> u64 {
        let leaders = self.nodes.iter().filter(|(_, node)| node.leads());
        *leaders.max_by_key(|(_, node)| node.raft().term).unwrap().0
    }

    pub(super) fn term(&self, id: u64) -> u64 {
        self.nodes[&id].raft().term
    }

    pub(super) fn cut(&mut self, id: u64) {
        self.cut.insert(id);
    }

    pub(super) fn heal(&mut self, id: u64) {
        self.cut.remove(&id);
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        self.tokens
    }

    pub(super) fn propose(&mut self, id: u64, command: &str) -> Token {
        let token = self.token();
        let command = Bytes::from(format!("{command}-{token}"));
        self.step(id, vec![Input::Propose(vec![Proposal { token, command }])]);
        token
    }

    pub(super) fn read(&mut self, id: u64) -> Token {
        let token = self.token();
        self.step(id, vec![Input::Read(vec![token])]);
        token
    }

    pub(super) fn change(&mut self, id: u64, kind: ConfChangeType, server: u64) -> Token {
        let token = self.token();
        self.step(id, vec![Input::Change(token, kind, server)]);
        token
    }

    pub(super) fn answer(&self, token: Token) -> Option<&Outcome> {
        self.answers.get(&token)
    }

    pub(super) fn acknowledged(&self, token: Token) -> bool {
        self.acknowledged.contains(&token)
    }

    /// The commands that every node has applied.
    pub(super) fn agreed(&self) -> Vec<&[u8]> {
        let histories: Vec<&History> = self.histories.values().collect();
        assert!(histories.iter().all(|history| *history == histories[0]), "{histories:?}");
        histories[0].iter().map(|(_, command)| &command[..]).collect()
    }
}
