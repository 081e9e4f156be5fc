//! A server's disk: what was synced stays, what was only written may be gone after a crash.
//!
//! The log keeps a prefix of its unsynced writes, as a file with torn tails cut does; the restart image, which nobody
//! syncs, a prefix of its batches; snapshots are durable when they get their name.

mod image;
mod log;
mod snapshots;

pub(super) use image::SimImage;
pub(super) use log::SimLog;
pub(super) use snapshots::{Job, SimSnapshots, Snapshot};

use super::random::Random;
use image::Image;
use log::Log;
use raft::eraftpb::{HardState, SnapshotMetadata};
use sealane_federation::consensus::machine::Record;
use sealane_federation::consensus::sim::Position;
use snapshots::Shelf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is on a disk, and the process that uses it.
#[derive(Debug)]
pub(super) struct Inner {
    log: Log,
    image: Image,
    shelf: Shelf,
    /// Operations left until the process crashes.
    fuse: Option<u32>,
    /// The process crashed: nothing it still does has any effect.
    dead: bool,
    /// How often something was synced since it was asked last.
    syncs: u64,
}

/// A handle on a disk. One thread uses it; the lock is there because the seams are made for several.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

/// The process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dead;

impl Inner {
    /// One operation: it happens, or the process crashes before it.
    fn burn(&mut self) -> Result<(), Dead> {
        match &mut self.fuse {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.dead { Err(Dead) } else { Ok(()) }
    }
}

impl Disk {
    /// The disk of a founding server.
    pub(super) fn new(metadata: &SnapshotMetadata, hard_state: &HardState, records: Vec<Record>) -> Self {
        let at = Position { index: metadata.index, term: metadata.term };
        let shelf = Shelf::new(metadata, records);
        let (log, image) = (Log::new(at, hard_state), Image::default());
        Disk(Arc::new(Mutex::new(Inner { log, image, shelf, fuse: None, dead: false, syncs: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One effect that is not on the disk.
    pub(super) fn burn(&self) -> Result<(), Dead> {
        self.lock().burn()
    }

    /// The process crashes after so many operations.
    pub(super) fn set_fuse(&self, operations: u32) {
        self.lock().fuse = Some(operations);
    }

    /// The process goes on.
    pub(super) fn no_fuse(&self) {
        self.lock().fuse = None;
    }

    /// Whether the process crashed.
    pub(super) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// How often something was synced since this was asked last.
    pub(super) fn take_syncs(&self) -> u64 {
        std::mem::take(&mut self.lock().syncs)
    }

    /// The power is cut: what was not synced is decided on now.
    pub(super) fn crash(&self, random: &mut Random) {
        let mut inner = self.lock();
        inner.log.crash(random);
        inner.image.crash(random);
        inner.shelf.crash();
        (inner.fuse, inner.dead) = (None, false);
    }
}
