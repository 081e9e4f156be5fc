//! Where snapshots rest and how they leave for peers: a directory of files, or a simulated disk.

use crate::consensus::machine::Record;
use crate::consensus::transport::Transport;
use crate::store::log::Position;
use crate::store::snapshot::{self, Header, Reader, SnapshotError, Writer};
use sealane_core::identity::ServerId;
use sealane_proto::peer::v1::RaftMessage;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A snapshot's records; whole only if none of them is an error.
pub type Records = Box<dyn Iterator<Item = Result<Record, SnapshotError>>>;

/// The seam between the consensus and where snapshots rest.
pub trait Snapshots: Send + Sync + 'static {
    /// Writes one, durable and verified, and drops those of no more use; gives the place below which the log may be
    /// compacted.
    fn write(
        &self,
        header: &Header,
        records: &mut dyn Iterator<Item = Record>,
        truncated: Position,
    ) -> Result<Position, SnapshotError>;
    /// Opens one.
    fn read(&self, at: Position) -> Result<(Header, Records), SnapshotError>;
    /// Sends one with its message.
    fn send(
        &self,
        at: Position,
        to: ServerId,
        message: RaftMessage,
        by: &dyn Transport,
    ) -> Result<(), SnapshotError>;
    /// Does something beside the loop.
    fn aside(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), SnapshotError>;
}

/// Snapshot files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    /// The files of a directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Files { dir: dir.to_owned() }
    }
}

impl Snapshots for Files {
    fn write(
        &self,
        header: &Header,
        records: &mut dyn Iterator<Item = Record>,
        truncated: Position,
    ) -> Result<Position, SnapshotError> {
        let mut writer = Writer::create(&self.dir, header)?;
        for record in records {
            writer.push(&record)?;
        }
        let path = writer.finish()?;
        snapshot::verify(&path)?;
        tracing::info!(index = header.metadata.index, "wrote a snapshot");
        snapshot::prune(&self.dir, truncated)
    }

    fn read(&self, at: Position) -> Result<(Header, Records), SnapshotError> {
        let reader = Reader::open(&snapshot::path_of(&self.dir, at))?;
        Ok((reader.header().clone(), Box::new(reader)))
    }

    fn send(
        &self,
        at: Position,
        to: ServerId,
        message: RaftMessage,
        by: &dyn Transport,
    ) -> Result<(), SnapshotError> {
        let path = snapshot::path_of(&self.dir, at);
        // Open before it leaves the loop: a later snapshot may remove the name.
        let file = File::open(&path).map_err(snapshot::io_error("open", &path))?;
        by.send_snapshot(to, message, file);
        Ok(())
    }

    fn aside(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), SnapshotError> {
        let thread = std::thread::Builder::new().name("snapshot".into());
        thread.spawn(job).map(drop).map_err(snapshot::io_error("start a thread for a", &self.dir))
    }
}
