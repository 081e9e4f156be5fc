//! The log: what can be read, and what a crash leaves.

use super::{Disk, Inner};
use crate::sim::random::Random;
use raft::eraftpb::{Entry, HardState};
use sealane_federation::consensus::sim::{Batch, LogError, Position, RaftLog};
use std::collections::VecDeque;

#[derive(Debug, Clone, Default)]
struct Content {
    hard_state: HardState,
    truncated: Position,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
enum Write {
    Batch(Batch),
    Truncate(Position),
}

/// Both contents, and the writes between them.
#[derive(Debug)]
pub(super) struct Log {
    visible: Content,
    durable: Content,
    unsynced: VecDeque<Write>,
}

impl Content {
    fn last(&self) -> Position {
        self.entries.back().map_or(self.truncated, |e| Position { index: e.index, term: e.term })
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.truncated.index {
            return Some(self.truncated.term);
        }
        self.get(index).map(|e| e.term)
    }

    fn take(&mut self, write: &Write) -> Result<(), LogError> {
        match write {
            Write::Batch(batch) => self.batch(batch),
            Write::Truncate(to) => {
                while self.entries.front().is_some_and(|e| e.index <= to.index) {
                    self.entries.pop_front();
                }
                self.truncated = *to;
                Ok(())
            }
        }
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), LogError> {
        if let Some(position) = batch.reset {
            self.entries.clear();
            self.truncated = position;
        }
        for entry in &batch.entries {
            if entry.index <= self.truncated.index || entry.index > self.last().index + 1 {
                let (index, last) = (entry.index, self.last().index);
                return Err(LogError::Misuse(format!("write entry {index} after entry {last}")));
            }
            while self.last().index >= entry.index {
                self.entries.pop_back();
            }
            self.entries.push_back(entry.clone());
        }
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state = hard_state.clone();
        }
        Ok(())
    }
}

impl Log {
    pub(super) fn new(truncated: Position, hard_state: &HardState) -> Self {
        let visible = Content { hard_state: hard_state.clone(), truncated, entries: VecDeque::new() };
        Log { durable: visible.clone(), visible, unsynced: VecDeque::new() }
    }

    fn write(&mut self, write: Write) -> Result<(), LogError> {
        self.visible.take(&write)?;
        self.unsynced.push_back(write);
        Ok(())
    }

    fn sync(&mut self, writes: usize) {
        for write in self.unsynced.drain(..writes) {
            // The same write was taken by the same content before.
            let taken = self.durable.take(&write);
            debug_assert!(taken.is_ok());
        }
    }

    pub(super) fn crash(&mut self, random: &mut Random) {
        // Mostly all of it is gone; now and then the system had written some of it back.
        let kept = if random.permille(300) { random.below(self.unsynced.len() as u64 + 1) } else { 0 };
        self.sync(kept as usize);
        self.unsynced.clear();
        self.visible = self.durable.clone();
    }
}

/// The log as the replica has it.
#[derive(Debug)]
pub(in crate::sim) struct SimLog(pub(in crate::sim) Disk);

impl SimLog {
    fn read<T>(&self, read: impl FnOnce(&Content) -> T) -> T {
        read(&self.0.lock().log.visible)
    }
}

fn alive(inner: &mut Inner) -> Result<(), LogError> {
    inner.burn().map_err(|_| LogError::Stopped)
}

impl RaftLog for SimLog {
    fn hard_state(&self) -> HardState {
        self.read(|log| log.hard_state.clone())
    }

    fn truncated(&self) -> Position {
        self.read(|log| log.truncated)
    }

    fn last(&self) -> Position {
        self.read(Content::last)
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.read(|log| log.term(index))
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, LogError> {
        self.read(|log| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for index in low..high {
                let missing = || LogError::Misuse(format!("read entry {index}, which it has not"));
                let entry = log.get(index).ok_or_else(missing)?;
                bytes += entry.data.len() as u64 + 16;
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push(entry.clone());
            }
            Ok(found)
        })
    }

    fn write(&mut self, batch: &Batch) -> Result<(), LogError> {
        let mut inner = self.0.lock();
        alive(&mut inner)?;
        if batch.is_empty() { Ok(()) } else { inner.log.write(Write::Batch(batch.clone())) }
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let mut inner = self.0.lock();
        alive(&mut inner)?;
        let all = inner.log.unsynced.len();
        inner.log.sync(all);
        inner.syncs += 1;
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), LogError> {
        let mut inner = self.0.lock();
        alive(&mut inner)?;
        let missing = || LogError::Misuse(format!("forget entries up to {index}, which it has not"));
        let term = inner.log.visible.term(index).ok_or_else(missing)?;
        inner.log.write(Write::Truncate(Position { index, term }))?;
        alive(&mut inner)?;
        let all = inner.log.unsynced.len();
        inner.log.sync(all);
        inner.syncs += 1;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.read(|log| log.entries.iter().map(|e| e.data.len() as u64 + 16).sum())
    }
}
