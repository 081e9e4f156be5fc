//! Segments: files of one size, filled with zeros before use so that a write changes no metadata, removed whole.

use crate::store::durable;
use crate::store::log::LogError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The size of a segment's own head; frames follow.
pub(crate) const HEAD: usize = 64;
const MAGIC: &[u8; 8] = b"SLWAL\0\0\x01";
const FORMAT: u32 = 1;
const SPARE: &str = "spare.tmp";
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The number of its first frame, and its name.
    pub(crate) first: u64,
    /// What checksums in it start from.
    pub(crate) salt: u32,
    /// Its size.
    pub(crate) len: u64,
    path: PathBuf,
    file: File,
}

/// The error of an operation on a path.
pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { doing, path, source }
}

impl Segment {
    /// Where a segment with this first frame is.
    pub(crate) fn path_of(dir: &Path, first: u64) -> PathBuf {
        dir.join(format!("{first:020}.wal"))
    }

    /// A new segment under its final name, durable.
    pub(crate) fn create(
        dir: &Path,
        first: u64,
        salt: u32,
        zeroed: File,
        len: u64,
    ) -> Result<Self, LogError> {
        let path = Self::path_of(dir, first);
        let spare = dir.join(SPARE);
        zeroed.write_all_at(&head(first, salt), 0).map_err(io_error("write", &spare))?;
        zeroed.sync_all().map_err(io_error("sync", &spare))?;
        durable::rename(&spare, &path).map_err(io_error("rename", &path))?;
        Ok(Segment { first, salt, len, path, file: zeroed })
    }

    /// Opens a segment and reads it whole.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<u8>), LogError> {
        let mut file =
            OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
        let (first, salt) = parse_head(&bytes, path)?;
        let segment = Segment { first, salt, len: bytes.len() as u64, path: path.to_owned(), file };
        Ok((segment, bytes))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes; not durable before [`Segment::sync`].
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> Result<(), LogError> {
        self.file.write_all_at(bytes, at).map_err(io_error("write", &self.path))
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(io_error("sync", &self.path))
    }

    /// Overwrites a torn tail with zeros.
    pub(crate) fn cut(&self, from: u64) -> Result<(), LogError> {
        let mut at = from;
        while at < self.len {
            let n = (self.len - at).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..n as usize], at).map_err(io_error("cut", &self.path))?;
            at += n;
        }
        self.file.sync_data().map_err(io_error("sync", &self.path))
    }

    /// Reads `len` bytes.
    pub(crate) fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).map_err(io_error("read", &self.path))?;
        Ok(bytes)
    }
}

fn head(first: u64, salt: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..16].copy_from_slice(&salt.to_le_bytes());
    head[16..24].copy_from_slice(&first.to_le_bytes());
    let sum = crc32c::crc32c(&head[..24]);
    head[24..28].copy_from_slice(&sum.to_le_bytes());
    head
}

fn parse_head(bytes: &[u8], path: &Path) -> Result<(u64, u32), LogError> {
    let damaged = |why: &str| LogError::Damaged { path: path.to_owned(), offset: 0, why: why.to_owned() };
    let found = bytes.get(..HEAD).ok_or_else(|| damaged("the file is shorter than a segment's head"))?;
    let number = |range: std::ops::Range<usize>| {
        found[range].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    if u64::from(crc32c::crc32c(&found[..24])) != number(24..28) || &found[..8] != MAGIC {
        return Err(damaged("the segment's head does not match its checksum"));
    }
    let format = number(8..12) as u32;
    if format != FORMAT {
        return Err(LogError::Format { path: path.to_owned(), found: format });
    }
    Ok((number(16..24), number(12..16) as u32))
}

/// The segments of a directory by their first frame, and what a crash left of an unfinished one removed.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, LogError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("wal") => found.push(path),
            Some("tmp") => durable::remove_file(&path).map_err(io_error("remove", &path))?,
            _ => {
                let why = "a file that is no segment lies among the segments".to_owned();
                return Err(LogError::Damaged { path, offset: 0, why });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A file of zeros, durable but for its name.
pub(crate) fn zeroed(dir: &Path, len: u64) -> io::Result<File> {
    let path = dir.join(SPARE);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let mut left = len;
    while left > 0 {
        let n = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..n as usize])?;
        left -= n;
    }
    file.sync_all()?;
    Ok(file)
}

/// The next segment's file, filled on a thread of its own while the current one is in use.
#[derive(Debug)]
pub(crate) struct Spare(Option<JoinHandle<io::Result<File>>>);

impl Spare {
    /// Starts filling.
    pub(crate) fn start(dir: &Path, len: u64) -> Self {
        let dir = dir.to_owned();
        Spare(std::thread::Builder::new().name("wal-spare".into()).spawn(move || zeroed(&dir, len)).ok())
    }

    /// The filled file, or one filled now when this one can not be used.
    pub(crate) fn take(mut self, dir: &Path, len: u64, usable: bool) -> Result<File, LogError> {
        let ready = self.0.take().map(JoinHandle::join);
        match ready {
            Some(Ok(Ok(file))) if usable => Ok(file),
            Some(Ok(Err(source))) => Err(io_error("prepare a segment in", dir)(source)),
            _ => zeroed(dir, len).map_err(io_error("prepare a segment in", dir)),
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // So that no thread writes into a directory that its owner believes closed.
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}
