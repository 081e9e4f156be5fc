//! The restart image: batches that reach the disk in their order, some time after they were written.

use super::Disk;
use crate::sim::random::Random;
use raft::eraftpb::SnapshotMetadata;
use sealane_federation::consensus::machine::Record;
use sealane_federation::consensus::sim::{Dirty, StateError, StateStore};
use std::collections::{BTreeMap, VecDeque};

/// Batches after which the system has written the oldest back by itself.
const WRITTEN_BACK: usize = 12;

#[derive(Debug, Clone, Default)]
struct Content {
    applied: Option<SnapshotMetadata>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug)]
enum Write {
    Batch(Dirty, SnapshotMetadata),
    Replace(Vec<Record>, SnapshotMetadata),
}

/// What a crash leaves, and the writes that it may leave out.
#[derive(Debug, Default)]
pub(super) struct Image {
    durable: Content,
    unsynced: VecDeque<Write>,
}

impl Content {
    fn take(&mut self, write: Write) {
        match write {
            Write::Batch(dirty, applied) => {
                for (key, value) in dirty {
                    match value {
                        Some(value) => self.records.insert(key, value),
                        None => self.records.remove(&key),
                    };
                }
                self.applied = Some(applied);
            }
            Write::Replace(records, applied) => {
                self.records = records.into_iter().collect();
                self.applied = Some(applied);
            }
        }
    }
}

impl Image {
    fn write(&mut self, write: Write) {
        self.unsynced.push_back(write);
        while self.unsynced.len() > WRITTEN_BACK {
            self.sync(1);
        }
    }

    fn sync(&mut self, writes: usize) {
        for write in self.unsynced.drain(..writes) {
            self.durable.take(write);
        }
    }

    pub(super) fn crash(&mut self, random: &mut Random) {
        let kept = random.below(self.unsynced.len() as u64 + 1);
        self.sync(kept as usize);
        self.unsynced.clear();
        // Now and then it does not open, as sled may not.
        if random.permille(50) {
            self.durable = Content::default();
        }
    }

    fn load(&self) -> Option<(SnapshotMetadata, Vec<Record>)> {
        let applied = self.durable.applied.clone()?;
        Some((applied, self.durable.records.clone().into_iter().collect()))
    }
}

/// The image as the replica has it.
#[derive(Debug)]
pub(in crate::sim) struct SimImage(pub(in crate::sim) Disk);

fn gone() -> StateError {
    StateError::Panicked("the process crashed".to_owned())
}

impl StateStore for SimImage {
    fn apply(&mut self, dirty: Dirty, applied: &SnapshotMetadata, _: u32) -> Result<(), StateError> {
        let mut inner = self.0.lock();
        inner.burn().map_err(|_| gone())?;
        inner.image.write(Write::Batch(dirty, applied.clone()));
        Ok(())
    }

    /// Read when a process starts, so nothing waits to be written.
    fn load(&self, _: u32) -> Result<Option<(SnapshotMetadata, Vec<Record>)>, StateError> {
        Ok(self.0.lock().image.load())
    }

    fn replace(
        &mut self,
        records: &mut dyn Iterator<Item = Record>,
        applied: &SnapshotMetadata,
        _: u32,
    ) -> Result<(), StateError> {
        let mut inner = self.0.lock();
        inner.burn().map_err(|_| gone())?;
        // A crash in the middle leaves an image without its head, which counts as none.
        inner.image.durable = Content::default();
        inner.image.unsynced.clear();
        inner.image.write(Write::Replace(records.collect(), applied.clone()));
        inner.burn().map_err(|_| gone())
    }
}
