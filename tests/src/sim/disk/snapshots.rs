//! Snapshots: durable under their name, two kept; and the jobs that write them beside the loop.

use super::Disk;
use crate::sim::network::Outbox;
use raft::eraftpb::SnapshotMetadata;
use sealane_core::identity::ServerId;
use sealane_federation::consensus::machine::Record;
use sealane_federation::consensus::sim::{
    Header, Position, RaftLog, Records, SnapshotError, Snapshots, retention,
};
use sealane_federation::consensus::transport::Transport;
use sealane_proto::peer::v1::RaftMessage;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Something to do beside the loop.
pub(in crate::sim) struct Job(pub(in crate::sim) Box<dyn FnOnce() + Send>);

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// One snapshot.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Snapshot {
    pub(in crate::sim) header: Header,
    pub(in crate::sim) records: Arc<Vec<Record>>,
}

/// All of a server's.
#[derive(Debug)]
pub(super) struct Shelf {
    found: BTreeMap<Position, Snapshot>,
    jobs: VecDeque<Job>,
}

impl Shelf {
    pub(super) fn new(metadata: &SnapshotMetadata, records: Vec<Record>) -> Self {
        let header = Header {
            metadata: metadata.clone(),
            min_version: 1,
            federation: crate::sim::genesis::FEDERATION,
        };
        let first = Snapshot { header, records: Arc::new(records) };
        Shelf { found: BTreeMap::from([(first.header.position(), first)]), jobs: VecDeque::new() }
    }

    pub(super) fn crash(&mut self) {
        self.jobs.clear();
    }
}

/// The snapshots as the replica has them.
#[derive(Debug)]
pub(in crate::sim) struct SimSnapshots {
    disk: Disk,
    outbox: Outbox,
}

fn error(doing: &'static str, kind: io::ErrorKind) -> SnapshotError {
    SnapshotError::Io { doing, path: PathBuf::from("simulated"), source: kind.into() }
}

impl SimSnapshots {
    pub(in crate::sim) fn new(disk: Disk, outbox: Outbox) -> Self {
        SimSnapshots { disk, outbox }
    }

    fn find(&self, at: Position) -> Result<Snapshot, SnapshotError> {
        let found = self.disk.lock().shelf.found.get(&at).cloned();
        found.ok_or_else(|| error("open", io::ErrorKind::NotFound))
    }
}

impl Disk {
    /// Jobs that were begun.
    pub(in crate::sim) fn take_jobs(&self) -> VecDeque<Job> {
        std::mem::take(&mut self.lock().shelf.jobs)
    }

    /// A peer's snapshot, verified and under its name.
    pub(in crate::sim) fn keep(&self, snapshot: Snapshot) {
        self.lock().shelf.found.insert(snapshot.header.position(), snapshot);
    }

    /// The latest that the log goes on from; what is beyond the log was never taken up and is removed.
    pub(in crate::sim) fn latest_usable(&self, log: &impl RaftLog) -> Option<Snapshot> {
        let (first, last) = (log.truncated().index, log.last().index);
        let mut inner = self.lock();
        inner.shelf.found.retain(|at, _| at.index <= last);
        let found: Vec<Snapshot> = inner.shelf.found.values().rev().cloned().collect();
        drop(inner);
        found.into_iter().find(|s| {
            let at = s.header.position();
            at.index >= first && log.term(at.index) == Some(at.term)
        })
    }
}

impl Snapshots for SimSnapshots {
    fn write(
        &self,
        header: &Header,
        records: &mut dyn Iterator<Item = Record>,
        truncated: Position,
    ) -> Result<Position, SnapshotError> {
        let gone = |_| error("write", io::ErrorKind::BrokenPipe);
        let snapshot = Snapshot { header: header.clone(), records: Arc::new(records.collect()) };
        let mut inner = self.disk.lock();
        inner.burn().map_err(gone)?;
        inner.shelf.found.insert(header.position(), snapshot);
        inner.burn().map_err(gone)?;
        let positions: Vec<Position> = inner.shelf.found.keys().copied().collect();
        let (drop, covered) = retention(&positions, truncated);
        for position in &positions[..drop] {
            inner.shelf.found.remove(position);
        }
        Ok(covered)
    }

    fn read(&self, at: Position) -> Result<(Header, Records), SnapshotError> {
        let Snapshot { header, records } = self.find(at)?;
        Ok((header, Box::new((0..records.len()).map(move |n| Ok(records[n].clone())))))
    }

    fn send(
        &self,
        at: Position,
        to: ServerId,
        message: RaftMessage,
        _: &dyn Transport,
    ) -> Result<(), SnapshotError> {
        self.outbox.push(to, message, Some(self.find(at)?));
        Ok(())
    }

    fn aside(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), SnapshotError> {
        self.disk.lock().shelf.jobs.push_back(Job(job));
        Ok(())
    }
}
