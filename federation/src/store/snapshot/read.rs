//! Reading a snapshot in bounded memory.

use super::{DIGEST, END, Header, MAGIC, MAX_CHUNK_BYTES, SnapshotError, io_error};
use crate::consensus::machine::Record;
use crate::consensus::wire;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// A snapshot being read, record by record. It ends without an error only if everything in it was whole.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    digest: Sha256,
    header: Header,
    chunk: Vec<u8>,
    at: usize,
    count: u64,
    done: bool,
}

impl Reader {
    /// Opens a file and reads its head.
    pub(crate) fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let mut reader = Reader {
            path: path.to_owned(),
            file: BufReader::with_capacity(64 << 10, file),
            digest: Sha256::new(),
            header: Header {
                metadata: raft::eraftpb::SnapshotMetadata::default(),
                min_version: 0,
                federation: sealane_core::identity::FederationId([0; 16]),
            },
            chunk: Vec::new(),
            at: 0,
            count: 0,
            done: false,
        };
        if reader.array::<8>()? != *MAGIC {
            return Err(reader.damaged("it is no snapshot"));
        }
        if !reader.next_chunk()? {
            return Err(reader.damaged("it has no head"));
        }
        reader.header = Header::from_wire(wire::decode("snapshot header", &reader.chunk)?, path)?;
        reader.at = reader.chunk.len();
        Ok(reader)
    }

    /// What it covers.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    fn damaged(&self, why: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), why }
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        match self.file.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.damaged("it ends too early")),
            Err(e) => Err(io_error("read", &self.path)(e)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        self.digest.update(bytes);
        Ok(bytes)
    }

    /// Reads the next chunk; false at the end, which it checks.
    fn next_chunk(&mut self) -> Result<bool, SnapshotError> {
        let length = u32::from_le_bytes(self.array()?);
        if length == END {
            self.check_end()?;
            return Ok(false);
        }
        let sum = u32::from_le_bytes(self.array()?);
        if length as usize > MAX_CHUNK_BYTES {
            return Err(self.damaged("a chunk is larger than any written"));
        }
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(length as usize, 0);
        self.read_exact(&mut chunk)?;
        self.digest.update(&chunk);
        if crc32c::crc32c(&chunk) != sum {
            return Err(self.damaged("a chunk does not match its checksum"));
        }
        (self.chunk, self.at) = (chunk, 0);
        Ok(true)
    }

    fn check_end(&mut self) -> Result<(), SnapshotError> {
        let count = u64::from_le_bytes(self.array()?);
        let digest = self.digest.finalize_reset();
        let mut found = [0; DIGEST];
        self.read_exact(&mut found)?;
        if found != *digest {
            return Err(self.damaged("it does not match its checksum"));
        }
        if count != self.count {
            return Err(self.damaged("its count of records is wrong"));
        }
        let mut more = [0; 1];
        if self.file.read(&mut more).map_err(io_error("read", &self.path))? != 0 {
            return Err(self.damaged("something follows its end"));
        }
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<Record>, SnapshotError> {
        if self.at == self.chunk.len() && !self.next_chunk()? {
            return Ok(None);
        }
        let record = split_record(&self.chunk[self.at..]);
        let (key, value) = record.ok_or_else(|| self.damaged("a record overruns its chunk"))?;
        let record = (key.to_vec(), value.to_vec());
        self.at += 8 + record.0.len() + record.1.len();
        self.count += 1;
        Ok(Some(record))
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let (key, value) = (length(0)?, length(4)?);
    Some((bytes.get(8..8 + key)?, bytes.get(8 + key..(8 + key).checked_add(value)?)?))
}

impl Iterator for Reader {
    type Item = Result<Record, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_record().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Reads all of a file, to know that it is whole.
pub(crate) fn verify(path: &Path) -> Result<Header, SnapshotError> {
    let mut reader = Reader::open(path)?;
    for record in reader.by_ref() {
        record?;
    }
    Ok(reader.header)
}
