//! The durable raft log: its seam, and what its caller may rely on.
//!
//! A [`RaftLog`] holds the entries after a truncation point, and the hard state. `write` is atomic: after a crash
//! either the whole batch is there or nothing of it. It is durable once `sync` has returned: only then may anything
//! that promises it leave the server. The first error ends the log: what an fsync failed to write may be gone from the
//! page cache too, so nothing after it is believed.

pub(crate) mod frame;
pub(crate) mod segment;
pub(crate) mod wal;

use crate::consensus::wire::WireError;
use raft::eraftpb::{Entry, HardState};
use std::io;
use std::path::PathBuf;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
}

/// What one `write` takes up, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Forget every entry; the log goes on after this position, which a snapshot file covers.
    pub reset: Option<Position>,
    /// Entries in order; the first may overwrite a suffix.
    pub entries: Vec<Entry>,
    /// The new hard state.
    pub hard_state: Option<HardState>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.reset.is_none() && self.entries.is_empty() && self.hard_state.is_none()
    }
}

/// The seam between the consensus and a disk, real or simulated.
pub trait RaftLog: Send + 'static {
    /// The last hard state written.
    fn hard_state(&self) -> HardState;
    /// The last position that is no longer in the log.
    fn truncated(&self) -> Position;
    /// The last entry, or the truncation point when there is none.
    fn last(&self) -> Position;
    /// The term of an entry or of the truncation point.
    fn term(&self, index: u64) -> Option<u64>;
    /// The entries `low..high`, at least one and then as many as fit `max_bytes`.
    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, LogError>;
    /// Takes a batch up, whole or not at all. It can be read at once, and is not durable yet.
    fn write(&mut self, batch: &Batch) -> Result<(), LogError>;
    /// Makes everything written durable.
    fn sync(&mut self) -> Result<(), LogError>;
    /// Forgets entries up to `index`, which a snapshot file covers, durably.
    fn compact(&mut self, index: u64) -> Result<(), LogError>;
    /// The size of the entries held.
    fn bytes(&self) -> u64;
}

/// Why the log can not be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused. The replica stops.
    #[error("the log could not {doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's complaint.
        source: io::Error,
    },
    /// What is on the disk is not what was written.
    #[error(
        "the log is damaged at byte {offset} of {path}: {why}. The server does not start, because entries it \
         acknowledged may be lost. Rejoin it as a new server, or, if this is the last disk of the federation, run \
         `sealane-federation recover --force-new-cluster`",
        path = path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A newer build wrote it.
    #[error("{path} has log format {found}: start a newer build", path = path.display())]
    Format {
        /// The segment.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// A record holds what was never written there.
    #[error("the log holds a record that no build of this version writes")]
    Record(#[from] WireError),
    /// An earlier write failed.
    #[error("the log stopped at an earlier error")]
    Stopped,
    /// The caller asked for what can not be: a defect.
    #[error("the log was asked to {0}")]
    Misuse(String),
}
