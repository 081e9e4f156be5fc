//! Writing a snapshot: our own from records, or a peer's as it arrives.

use super::{CHUNK_BYTES, END, Header, MAGIC, SnapshotError, io_error, path_of, verify};
use crate::consensus::machine::Record;
use crate::store::durable;
use crate::store::log::Position;
use prost::Message as _;
use sealane_core::identity::{FederationId, ServerId};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A snapshot of our own state under construction; what is not finished is removed.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: PathBuf,
    tmp: PathBuf,
    position: Position,
    file: BufWriter<File>,
    digest: Sha256,
    chunk: Vec<u8>,
    count: u64,
    finished: bool,
}

impl Writer {
    /// Starts a file.
    pub(crate) fn create(dir: &Path, header: &Header) -> Result<Self, SnapshotError> {
        let position = header.position();
        let tmp = path_of(dir, position).with_extension("tmp");
        let file = File::create(&tmp).map_err(io_error("create", &tmp))?;
        let mut writer = Writer {
            dir: dir.to_owned(),
            tmp,
            position,
            file: BufWriter::with_capacity(CHUNK_BYTES, file),
            digest: Sha256::new(),
            chunk: header.to_wire().encode_to_vec(),
            count: 0,
            finished: false,
        };
        writer.raw(MAGIC)?;
        writer.flush_chunk()?;
        Ok(writer)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.digest.update(bytes);
        self.file.write_all(bytes).map_err(io_error("write", &self.tmp))
    }

    fn flush_chunk(&mut self) -> Result<(), SnapshotError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.raw(&(chunk.len() as u32).to_le_bytes())?;
        self.raw(&crc32c::crc32c(&chunk).to_le_bytes())?;
        self.raw(&chunk)
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, (key, value): &Record) -> Result<(), SnapshotError> {
        self.chunk.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.chunk.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(value);
        self.count += 1;
        if self.chunk.len() >= CHUNK_BYTES { self.flush_chunk() } else { Ok(()) }
    }

    /// Ends the file, makes it durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<PathBuf, SnapshotError> {
        self.flush_chunk()?;
        self.raw(&END.to_le_bytes())?;
        self.raw(&self.count.to_le_bytes())?;
        let digest = self.digest.finalize_reset();
        self.file.write_all(&digest).map_err(io_error("write", &self.tmp))?;
        self.file.flush().map_err(io_error("write", &self.tmp))?;
        self.file.get_ref().sync_all().map_err(io_error("sync", &self.tmp))?;
        let path = path_of(&self.dir, self.position);
        durable::rename(&self.tmp, &path).map_err(io_error("rename", &path))?;
        self.finished = true;
        Ok(path)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.tmp);
        }
    }
}

/// A peer's snapshot as it arrives; what is not finished is removed.
#[derive(Debug)]
pub(crate) struct Incoming {
    dir: PathBuf,
    tmp: PathBuf,
    file: File,
    left: u64,
    expected: Position,
    finished: bool,
}

impl Incoming {
    /// Starts to receive `size` bytes from a peer; one at a time from each.
    pub(crate) fn create(
        dir: &Path,
        from: ServerId,
        expected: Position,
        size: u64,
    ) -> Result<Self, SnapshotError> {
        let tmp = dir.join(format!("from-{from}.tmp"));
        let file = File::create(&tmp).map_err(io_error("create", &tmp))?;
        Ok(Incoming { dir: dir.to_owned(), tmp, file, left: size, expected, finished: false })
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let len = bytes.len() as u64;
        if len > self.left {
            let why = "it is longer than announced";
            return Err(SnapshotError::Damaged { path: self.tmp.clone(), why });
        }
        self.left -= len;
        self.file.write_all(bytes).map_err(io_error("write", &self.tmp))
    }

    /// Verifies all of it, makes it durable and gives it its name.
    pub(crate) fn finish(mut self, federation: FederationId) -> Result<(Header, PathBuf), SnapshotError> {
        let damaged = |why| SnapshotError::Damaged { path: self.tmp.clone(), why };
        if self.left > 0 {
            return Err(damaged("it is shorter than announced"));
        }
        self.file.sync_all().map_err(io_error("sync", &self.tmp))?;
        let header = verify(&self.tmp)?;
        if header.federation != federation {
            return Err(damaged("it is of another federation"));
        }
        if header.position() != self.expected {
            return Err(damaged("it covers another index than announced"));
        }
        let path = path_of(&self.dir, self.expected);
        durable::rename(&self.tmp, &path).map_err(io_error("rename", &path))?;
        self.finished = true;
        Ok((header, path))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.tmp);
        }
    }
}
