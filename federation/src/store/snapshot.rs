//! Snapshot files: the whole state at one index, outside sled, streamed, checked before it is believed.
//!
//! ```text
//! "SLSNAP1\n" | chunk(header) | chunk(records)* | end
//! chunk  = length u32 | crc32c u32 | bytes          records = (key length u32 | value length u32 | key | value)*
//! end    = u32::MAX | count of records u64 | sha-256 of everything before these 32 bytes
//! ```
//!
//! Law: a file under its final name was whole and synced when it got it; it is verified again before every use. The
//! two latest are kept, and the log is never compacted above the older one.

mod read;
mod write;

pub(crate) use read::{Reader, verify};
pub(crate) use write::{Incoming, Writer};

use crate::consensus::wire::{self, WireError};
use crate::store::durable;
use crate::store::log::Position;
use raft::eraftpb::SnapshotMetadata;
use sealane_core::identity::FederationId;
use sealane_proto::peer::v1 as pb;
use std::path::{Path, PathBuf};
use std::{fs, io};

const MAGIC: &[u8; 8] = b"SLSNAP1\n";
const FORMAT: u32 = 1;
const END: u32 = u32::MAX;
const DIGEST: usize = 32;
/// What a chunk may hold; a single record may be larger by itself.
const CHUNK_BYTES: usize = 64 << 10;
const MAX_CHUNK_BYTES: usize = 16 << 20;
const EXTENSION: &str = "snap";

/// What a snapshot file covers.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Index, term and configuration.
    pub metadata: SnapshotMetadata,
    /// The lowest version of the command set that reads it.
    pub min_version: u32,
    /// The federation.
    pub federation: FederationId,
}

impl Header {
    /// The place in the log that it covers.
    pub fn position(&self) -> Position {
        Position { index: self.metadata.index, term: self.metadata.term }
    }

    fn to_wire(&self) -> pb::SnapshotHeader {
        pb::SnapshotHeader {
            format: FORMAT,
            metadata: Some(wire::metadata_to_wire(&self.metadata)),
            min_version: self.min_version,
            federation: self.federation.0.to_vec().into(),
        }
    }

    fn from_wire(h: pb::SnapshotHeader, path: &Path) -> Result<Self, SnapshotError> {
        if h.format != FORMAT {
            return Err(SnapshotError::Format { path: path.to_owned(), found: h.format });
        }
        let id = <[u8; 16]>::try_from(h.federation.as_ref()).map_err(|_| WireError::Unknown("federation"))?;
        let metadata = wire::metadata_from_wire(h.metadata.ok_or(WireError::Unknown("metadata"))?)?;
        Ok(Header { metadata, min_version: h.min_version, federation: FederationId(id) })
    }
}

/// A file found by its name, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// What the name says that it covers.
    pub(crate) position: Position,
    /// The file.
    pub(crate) path: PathBuf,
}

/// Why a snapshot can not be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk refused.
    #[error("could not {doing} snapshot {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's complaint.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("snapshot {path} is damaged: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// A newer build wrote it.
    #[error("snapshot {path} has format {found}: start a newer build", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// Its head holds what was never written there.
    #[error("a snapshot's head is not one")]
    Header(#[from] WireError),
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { doing, path, source }
}

/// Where the snapshot of a position is.
pub(crate) fn path_of(dir: &Path, at: Position) -> PathBuf {
    dir.join(format!("{:020}-{:020}.{EXTENSION}", at.index, at.term))
}

fn position_of(path: &Path) -> Option<Position> {
    if path.extension()? != EXTENSION {
        return None;
    }
    let (index, term) = path.file_stem()?.to_str()?.split_once('-')?;
    Some(Position { index: index.parse().ok()?, term: term.parse().ok()? })
}

/// The snapshots of a directory, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<Named>, SnapshotError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        if let Some(position) = position_of(&path) {
            found.push(Named { position, path });
        }
    }
    found.sort_by_key(|named| named.position);
    Ok(found)
}

/// Removes what crashes left unfinished.
pub(crate) fn remove_unfinished(dir: &Path) -> Result<(), SnapshotError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        if path.extension().is_some_and(|e| e == "tmp") {
            durable::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Of the snapshots of a log, oldest first: how many of the oldest are of no more use, because the log does not go on
/// from them or two later ones are there; and the place below which the log may be compacted.
pub fn retention(found: &[Position], truncated: Position) -> (usize, Position) {
    let useless = found.iter().take_while(|p| p.index < truncated.index).count();
    let drop = useless.max(found.len().saturating_sub(2));
    let covered = found.get(drop).filter(|_| found.len() - drop >= 2);
    (drop, covered.copied().unwrap_or(truncated))
}

/// Keeps what [`retention`] keeps; gives the place below which the log may be compacted.
pub(crate) fn prune(dir: &Path, truncated: Position) -> Result<Position, SnapshotError> {
    let found = list(dir)?;
    let (drop, covered) = retention(&found.iter().map(|named| named.position).collect::<Vec<_>>(), truncated);
    for named in &found[..drop] {
        durable::remove_file(&named.path).map_err(io_error("remove", &named.path))?;
    }
    Ok(covered)
}

#[cfg(test)]
mod tests;
