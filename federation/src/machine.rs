//! The domain as the consensus sees it: bytes in, records out.
//!
//! Beside the replicated state it keeps a journal of what the latest commands changed, so that the publisher
//! recomputes nothing but that. The journal is no part of the state: a restored machine begins with an empty one, and
//! whoever followed the former sees that it is another.

use crate::consensus::machine::{Applied, Fatal, Record, StateMachine};
use sealane_core::command::{Command, Reply};
use sealane_core::events::Events;
use sealane_core::state::{self, State};
use sealane_core::time::Revision;
use sealane_proto::{Wire, key};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Commands whose changes are kept for a publisher that lags; one that lags more recomputes everything.
const JOURNAL: usize = 4_096;

/// The replicated state with its journal. Clones share structure.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The state.
    pub state: State,
    journal: Arc<Journal>,
}

/// What the latest commands changed, in order.
#[derive(Debug, Default)]
struct Journal(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    entries: VecDeque<(u64, Events)>,
    /// Everything up to this index was dropped or taken.
    taken: u64,
}

impl Machine {
    fn of(state: State) -> Self {
        let taken = state.meta.revision.index;
        let journal = Journal(Mutex::new(Entries { entries: VecDeque::new(), taken }));
        Machine { state, journal: Arc::new(journal) }
    }

    /// The revision of the state.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.meta.revision
    }

    /// What changed from an earlier state of the same machine to this one; `None` when that is not known.
    #[must_use]
    pub fn changes_since(&self, before: &Machine) -> Option<Events> {
        if !Arc::ptr_eq(&self.journal, &before.journal) {
            return None;
        }
        self.journal.take(before.revision().index, self.revision().index)
    }
}

impl Journal {
    fn push(&self, index: u64, events: Events) {
        if events.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entries.push_back((index, events));
        if kept.entries.len() > JOURNAL {
            kept.taken = kept.entries.pop_front().map_or(kept.taken, |(index, _)| index);
        }
    }

    /// Takes the changes after one index up to another.
    fn take(&self, after: u64, to: u64) -> Option<Events> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.taken > after {
            return None;
        }
        let mut all = Events::default();
        while kept.entries.front().is_some_and(|(index, _)| *index <= to) {
            if let Some((index, events)) = kept.entries.pop_front()
                && index > after
            {
                all.merge(events);
            }
        }
        kept.taken = kept.taken.max(to);
        Some(all)
    }
}

impl StateMachine for Machine {
    type Reply = Reply;

    fn apply(&mut self, index: u64, _term: u64, command: &[u8]) -> Result<Applied<Reply>, Fatal> {
        let command = Command::decode(command)
            .map_err(|e| Fatal::new(format_args!("entry {index} of the log is not understood: {e}")))?;
        let applied = self.state.apply(index, &command).map_err(Fatal::new)?;
        let dirty = applied.dirty.iter().map(|k| (key::encode(k), self.state.record(k).map(|r| r.encode())));
        let dirty = dirty.collect();
        self.journal.push(index, applied.events);
        Ok(Applied { reply: applied.reply, dirty })
    }

    fn records(&self) -> Box<dyn Iterator<Item = Record> + Send + '_> {
        Box::new(self.state.record_keys().filter_map(|k| {
            let record = self.state.record(&k)?;
            Some((key::encode(&k), record.encode()))
        }))
    }

    fn restore<I>(records: I) -> Result<Self, Fatal>
    where
        I: Iterator<Item = Result<Record, Fatal>>,
    {
        let mut parsed = Vec::new();
        for record in records {
            let (name, bytes) = record?;
            let record = state::Record::decode(&bytes)
                .map_err(|e| Fatal::new(format_args!("a record of the state is not understood: {e}")))?;
            if key::encode(&record.key()) != name {
                return Err(Fatal::new("a record of the state stands under another's key"));
            }
            parsed.push(record);
        }
        if parsed.is_empty() {
            return Ok(Machine::of(State::empty()));
        }
        State::from_records(parsed).map(Machine::of).map_err(Fatal::new)
    }

    fn min_version(&self) -> u32 {
        self.state.meta.cluster_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_core::command::Action;
    use sealane_core::identity::{FederationId, ServerId};
    use sealane_core::name::TrustDomain;
    use sealane_core::state::Limits;
    use sealane_core::time::Millis;

    fn command(action: Action) -> Vec<u8> {
        Command { min_version: 1, at: Millis(1), principal: None, action }.encode()
    }

    fn founded() -> Machine {
        let mut machine = Machine::restore(std::iter::empty()).unwrap();
        let trust_domain = TrustDomain::parse("fed").unwrap();
        let found =
            Action::Found { federation: FederationId([1; 16]), trust_domain, limits: Limits::default() };
        machine.apply(1, 1, &command(found)).unwrap();
        machine
    }

    fn server(id: u64) -> Vec<u8> {
        let (address, status_address) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
        command(Action::PutServer { id: ServerId(id), address, status_address })
    }

    #[test]
    fn the_restored_machine_is_the_same() {
        let mut machine = founded();
        machine.apply(2, 1, &server(1)).unwrap();
        let restored = Machine::restore(machine.records().map(Ok)).unwrap();
        assert_eq!(restored.state, machine.state);
    }

    #[test]
    fn dirty_records_bring_a_copy_up_to_date() {
        let mut machine = founded();
        let mut copy: std::collections::BTreeMap<_, _> = machine.records().collect();
        for (key, value) in machine.apply(2, 1, &server(1)).unwrap().dirty {
            match value {
                Some(value) => copy.insert(key, value),
                None => copy.remove(&key),
            };
        }
        assert_eq!(copy, machine.records().collect());
    }

    #[test]
    fn what_is_not_understood_stops_the_replica() {
        let mut machine = founded();
        assert!(machine.apply(2, 1, b"\xff\xff").is_err());
        assert!(Machine::restore(std::iter::once(Ok((vec![1], vec![9, 9])))).is_err());
    }

    #[test]
    fn changes_are_known_within_one_machine_only() {
        let mut machine = founded();
        let before = machine.clone();
        machine.apply(2, 1, &server(1)).unwrap();
        assert_eq!(machine.changes_since(&before), Some(Events::default()));
        let restored = Machine::restore(machine.records().map(Ok)).unwrap();
        assert_eq!(restored.changes_since(&machine), None);
    }
}
