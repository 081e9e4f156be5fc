//! What raft reads: the log, the configuration, and the latest snapshot file.

use crate::store::log::{LogError, RaftLog};
use raft::eraftpb::{ConfState, Entry, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;

/// A log with what raft wants to know beside it.
pub(crate) struct LogStore<L> {
    pub(crate) log: L,
    /// The configuration at the applied index.
    pub(crate) conf_state: ConfState,
    pub(crate) applied: u64,
    /// The latest verified snapshot file.
    pub(crate) snapshot: Option<SnapshotMetadata>,
    /// Whether raft asked for a snapshot that no file serves.
    pub(crate) wanted: Cell<bool>,
}

fn store_error(error: LogError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

fn includes(conf: &ConfState, server: u64) -> bool {
    [&conf.voters, &conf.learners, &conf.voters_outgoing].iter().any(|ids| ids.contains(&server))
}

impl<L: RaftLog> Storage for LogStore<L> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = self.log.hard_state();
        hard_state.commit = hard_state.commit.max(self.applied).max(self.log.truncated().index);
        Ok(RaftState { hard_state, conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.log.truncated().index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.log.entries(low, high, max_size.into().unwrap_or(u64::MAX)).map_err(store_error)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.log.truncated().index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.log.term(index).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.truncated().index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last().index)
    }

    /// Metadata alone; the file travels on its own. One that lacks the receiver would be ignored there.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let least = request_index.max(self.log.truncated().index);
        let fit = |m: &&SnapshotMetadata| m.index >= least && m.index > 0 && includes(m.get_conf_state(), to);
        if let Some(metadata) = self.snapshot.as_ref().filter(fit) {
            let mut snapshot = Snapshot::default();
            snapshot.set_metadata(metadata.clone());
            return Ok(snapshot);
        }
        self.wanted.set(true);
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
