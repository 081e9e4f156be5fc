//! The domain's machine as the simulator watches it: what every command was and did, and a hash of the whole state
//! that costs no more than what changed.

use super::trace::{digest, mix};
use sealane_core::command::{Action, AdminAction, Command, Reply};
use sealane_core::identity::SessionId;
use sealane_core::state::State;
use sealane_federation::consensus::machine::{Applied, Fatal, Record, StateMachine};
use sealane_federation::machine::Machine;
use sealane_proto::Wire;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Commands between two looks at the whole state.
const LOOK_EVERY: u64 = 64;
/// The record of the revision and the clock, which every command changes.
const META: &[u8] = &[1];

/// What a client asked for, however often it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Op {
    /// A write in a session.
    Write(SessionId, u64),
    /// A session.
    Open(SessionId),
    /// An administrator's command.
    Admin([u8; 16]),
    /// Anything else.
    Other,
}

impl Op {
    /// What an action is.
    pub(super) fn of(action: &Action) -> Op {
        match action {
            Action::Catalog { session, sequence, .. } => Op::Write(*session, *sequence),
            Action::OpenSession { session, .. } => Op::Open(*session),
            Action::Admin { key, action: AdminAction::CreateToken { .. } } => Op::Admin(*key),
            _ => Op::Other,
        }
    }
}

/// One command as a replica applied it.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) op: Op,
    pub(super) digest: u64,
    /// Whether it changed more than the revision.
    pub(super) effect: bool,
    /// The state after it.
    pub(super) hash: u64,
    /// What `core::check` has to say.
    pub(super) notes: Vec<String>,
}

/// What a server applied in this round.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Vec<Noted>>>);

impl Journal {
    pub(super) fn take(&self) -> Vec<Noted> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, noted: Noted) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
    }
}

thread_local! {
    /// The journal of the server whose round it is: a machine is made where nothing can be handed to it.
    static CURRENT: RefCell<Journal> = RefCell::default();
}

/// The next machines are this server's.
pub(super) fn enter(journal: &Journal) {
    CURRENT.with_borrow_mut(|current| *current = journal.clone());
}

/// The watched machine. A clone is for readers and is not watched.
#[derive(Debug)]
pub(super) struct Observed {
    machine: Machine,
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    journal: Journal,
    sums: BTreeMap<Vec<u8>, u64>,
    sum: u64,
}

impl Watch {
    fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let new = value.map(|value| mix(digest(key) ^ mix(digest(value))));
        let old = match new {
            Some(new) => self.sums.insert(key.to_vec(), new),
            None => self.sums.remove(key),
        };
        self.sum = self.sum.wrapping_sub(old.unwrap_or(0)).wrapping_add(new.unwrap_or(0));
    }
}

impl Clone for Observed {
    fn clone(&self) -> Self {
        Observed { machine: self.machine.clone(), watch: None }
    }
}

/// The hash of a state from all of its records.
pub(super) fn hash_of(records: impl Iterator<Item = Record>) -> u64 {
    let mut watch = Watch { journal: Journal::default(), sums: BTreeMap::new(), sum: 0 };
    records.for_each(|(key, value)| watch.set(&key, Some(&value)));
    watch.sum
}

impl Observed {
    /// The state.
    pub(super) fn state(&self) -> &State {
        &self.machine.state
    }
}

fn look(state: &State) -> Vec<String> {
    sealane_core::check::check(state).iter().map(ToString::to_string).collect()
}

impl StateMachine for Observed {
    type Reply = Reply;

    fn apply(&mut self, index: u64, term: u64, command: &[u8]) -> Result<Applied<Reply>, Fatal> {
        let applied = self.machine.apply(index, term, command)?;
        let Some(watch) = &mut self.watch else { return Ok(applied) };
        for (key, value) in &applied.dirty {
            watch.set(key, value.as_deref());
        }
        let op = Command::decode(command).map(|c| Op::of(&c.action)).map_err(Fatal::new)?;
        let effect = applied.dirty.iter().any(|(key, _)| key != META);
        let notes = if index.is_multiple_of(LOOK_EVERY) { look(&self.machine.state) } else { Vec::new() };
        watch.journal.push(Noted {
            index,
            term,
            op,
            digest: digest(command),
            effect,
            hash: watch.sum,
            notes,
        });
        Ok(applied)
    }

    fn records(&self) -> Box<dyn Iterator<Item = Record> + Send + '_> {
        self.machine.records()
    }

    fn restore<I>(records: I) -> Result<Self, Fatal>
    where
        I: Iterator<Item = Result<Record, Fatal>>,
    {
        let machine = Machine::restore(records)?;
        let mut watch = Watch { journal: CURRENT.with_borrow(Clone::clone), sums: BTreeMap::new(), sum: 0 };
        machine.records().for_each(|(key, value)| watch.set(&key, Some(&value)));
        Ok(Observed { machine, watch: Some(watch) })
    }

    fn min_version(&self) -> u32 {
        self.machine.min_version()
    }
}
