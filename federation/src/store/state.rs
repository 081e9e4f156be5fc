//! The restart image: the applied state in sled, so that a restart need not read a snapshot and replay.
//!
//! Law: an image is whole or it is not used. How far it has come rides in the same batch as what it holds. It is not
//! synced for its own sake: after a power cut it may be older than the log's end, and raft applies the rest again;
//! older than the log's beginning, or unreadable, it is moved aside and made anew. Newer than the log's end means that
//! the log lost what it had promised, and the server does not start.

use crate::consensus::machine::Record;
use crate::consensus::wire::{self, WireError};
use prost::Message as _;
use raft::eraftpb::SnapshotMetadata;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sealane_proto::peer::v1 as pb;
use std::fs::File;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

const APPLIED: &[u8] = b"a";
const RECORDS: &[u8] = b"r";
/// What every build reads.
const FORMAT: u32 = 1;
/// With the version of the command set that it needs. Builds that understand none but the first read no such image.
const VERSIONED: u32 = 2;
/// How much one batch holds while an image is made anew.
const REBUILD_BATCH: usize = 1024;

/// How often, and how far apart, one looks whether sled's file was let go: for five seconds in all.
const LET_GO_TRIES: u32 = 500;
const LET_GO_PAUSE: Duration = Duration::from_millis(10);

/// Records that changed; `None` deletes.
pub type Dirty = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Why the image can not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// sled refused.
    #[error("the restart image: {0}")]
    Sled(#[from] sled::Error),
    /// sled met what it can not bear, and panicked.
    #[error("the restart image is damaged: {0}")]
    Panicked(String),
    /// It says nowhere how far it has come, but holds records.
    #[error("the restart image has records, and not how far it has come")]
    Headless,
    /// A newer build wrote it.
    #[error("the restart image has format {0}")]
    Format(u32),
    /// A newer build wrote it, since the federation's version was raised.
    #[error(
        "the restart image needs version {needs} of the command set, and this build has {version}: start a newer build"
    )]
    TooNew {
        /// The version that it needs.
        needs: u32,
        /// The one that this build understands.
        version: u32,
    },
    /// Its head holds what was never written there.
    #[error("the restart image's head is not one")]
    Head(#[from] WireError),
}

/// The seam between the consensus and where the image is kept.
pub trait StateStore: Send + 'static {
    /// Takes up a round of changes, how far they lead, and the version of the command set that the result needs, as one.
    fn apply(&mut self, dirty: Dirty, applied: &SnapshotMetadata, min_version: u32)
    -> Result<(), StateError>;
    /// How far the image has come, and its records; `None` when it is empty. A build of this version reads it.
    fn load(&self, version: u32) -> Result<Option<(SnapshotMetadata, Vec<Record>)>, StateError>;
    /// Replaces all of it.
    fn replace(
        &mut self,
        records: &mut dyn Iterator<Item = Record>,
        applied: &SnapshotMetadata,
        min_version: u32,
    ) -> Result<(), StateError>;
}

/// The image in sled.
#[derive(Debug)]
pub(crate) struct Image {
    db: sled::Db,
}

/// sled 0.34 panics on some damage.
fn guarded<T>(act: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(StateError::Panicked(text.unwrap_or_else(|| "sled panicked".to_owned())))
    })
}

/// Waits until no one holds sled's file. The directory's lock keeps other processes away, but sled's own threads, and
/// a child between fork and exec, hold the file for a moment after it was closed; sled would refuse at once, and an
/// image that is refused is made anew for nothing.
fn let_go(db: &Path) -> Result<(), StateError> {
    let file = match File::open(db) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(sled::Error::Io(e).into()),
    };
    for _ in 0..LET_GO_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LET_GO_PAUSE),
            Err(e) => return Err(sled::Error::Io(e.into()).into()),
            // Said, and not left to the end of the file: a child of this moment would hold it on.
            Ok(()) => {
                return flock(&file, FlockOperation::Unlock).map_err(|e| sled::Error::Io(e.into()).into());
            }
        }
    }
    Ok(())
}

impl Image {
    /// Opens or makes the image of a directory.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let_go(&path.join("db"))?;
        guarded(|| {
            let config = sled::Config::new().path(path).cache_capacity(16 << 20);
            Ok(Image { db: config.open()? })
        })
    }

    fn read(&self, version: u32) -> Result<Option<(SnapshotMetadata, Vec<Record>)>, StateError> {
        let head = self.db.get(APPLIED)?;
        let records = self.db.scan_prefix(RECORDS).map(|found| {
            let (key, value) = found?;
            Ok((key[RECORDS.len()..].to_vec(), value.to_vec()))
        });
        let records: Vec<Record> = records.collect::<Result<_, sled::Error>>()?;
        let Some(head) = head else {
            return if records.is_empty() { Ok(None) } else { Err(StateError::Headless) };
        };
        let head: pb::Applied = wire::decode("image head", &head)?;
        match head.format {
            FORMAT => {}
            VERSIONED if head.min_version <= version => {}
            VERSIONED => return Err(StateError::TooNew { needs: head.min_version, version }),
            unknown => return Err(StateError::Format(unknown)),
        }
        let metadata = wire::metadata_from_wire(head.metadata.ok_or(WireError::Unknown("metadata"))?)?;
        Ok(Some((metadata, records)))
    }
}

fn record_key(key: &[u8]) -> Vec<u8> {
    [RECORDS, key].concat()
}

fn head(applied: &SnapshotMetadata, min_version: u32) -> Vec<u8> {
    let format = if min_version > 1 { VERSIONED } else { FORMAT };
    pb::Applied { format, metadata: Some(wire::metadata_to_wire(applied)), min_version }.encode_to_vec()
}

impl StateStore for Image {
    fn apply(
        &mut self,
        dirty: Dirty,
        applied: &SnapshotMetadata,
        min_version: u32,
    ) -> Result<(), StateError> {
        guarded(|| {
            let mut batch = sled::Batch::default();
            for (key, value) in dirty {
                match value {
                    Some(value) => batch.insert(record_key(&key), value),
                    None => batch.remove(record_key(&key)),
                }
            }
            batch.insert(APPLIED, head(applied, min_version));
            Ok(self.db.apply_batch(batch)?)
        })
    }

    fn load(&self, version: u32) -> Result<Option<(SnapshotMetadata, Vec<Record>)>, StateError> {
        guarded(|| self.read(version))
    }

    fn replace(
        &mut self,
        records: &mut dyn Iterator<Item = Record>,
        applied: &SnapshotMetadata,
        min_version: u32,
    ) -> Result<(), StateError> {
        guarded(|| {
            // Without its head the image counts as damaged, so a crash in the middle leaves nothing believable.
            self.db.remove(APPLIED)?;
            self.db.clear()?;
            let mut records = records.peekable();
            while records.peek().is_some() {
                let mut batch = sled::Batch::default();
                for (key, value) in records.by_ref().take(REBUILD_BATCH) {
                    batch.insert(record_key(&key), value);
                }
                self.db.apply_batch(batch)?;
            }
            self.db.flush()?;
            self.db.insert(APPLIED, head(applied, min_version))?;
            Ok(())
        })
    }
}

/// Moves a damaged image out of the way, to where it can be looked at.
pub(crate) fn move_aside(path: &Path) -> std::io::Result<PathBuf> {
    let aside = (1..).map(|n| path.with_extension(format!("damaged-{n}"))).find(|p| !p.exists());
    let aside = aside.expect("the natural numbers do not end");
    std::fs::rename(path, &aside)?;
    crate::store::durable::sync_dir(crate::store::durable::parent(path))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> SnapshotMetadata {
        let mut m = SnapshotMetadata::default();
        (m.index, m.term) = (index, 2);
        m.mut_conf_state().set_voters(vec![1, 2, 3]);
        m
    }

    fn record(key: &str, value: &str) -> Record {
        (key.into(), value.into())
    }

    #[test]
    fn a_batch_and_its_head_are_read_back_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut image = Image::open(&path).unwrap();
        assert_eq!(image.load(1).unwrap(), None);
        let set = |k: &str, v: Option<&str>| (k.as_bytes().to_vec(), v.map(|v| v.as_bytes().to_vec()));
        image.apply(vec![set("a", Some("1")), set("b", Some("2"))], &at(5), 1).unwrap();
        image.apply(vec![set("a", None)], &at(6), 1).unwrap();
        drop(image);
        let image = Image::open(&path).unwrap();
        assert_eq!(image.load(1).unwrap(), Some((at(6), vec![record("b", "2")])));
    }

    #[test]
    fn who_holds_the_file_a_moment_longer_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut image = Image::open(&path).unwrap();
        image.apply(vec![(b"a".to_vec(), Some(b"1".to_vec()))], &at(5), 1).unwrap();
        let held = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(image);
        });
        assert_eq!(Image::open(&path).unwrap().load(1).unwrap(), Some((at(5), vec![record("a", "1")])));
        held.join().unwrap();
    }

    #[test]
    fn replacing_leaves_nothing_of_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = Image::open(&dir.path().join("state")).unwrap();
        image.replace(&mut (0..3000).map(|n| record(&format!("old{n}"), "x")), &at(5), 1).unwrap();
        image.replace(&mut [record("new", "y")].into_iter(), &at(9), 1).unwrap();
        assert_eq!(image.load(1).unwrap(), Some((at(9), vec![record("new", "y")])));
    }

    #[test]
    fn an_image_of_a_raised_version_is_read_by_builds_that_understand_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = Image::open(&dir.path().join("state")).unwrap();
        let set = || vec![(b"a".to_vec(), Some(b"1".to_vec()))];
        image.apply(set(), &at(5), 1).unwrap();
        assert_eq!(image.db.get(APPLIED).unwrap().unwrap()[..2], [8, 1], "format 1, which every build reads");
        image.apply(set(), &at(6), 3).unwrap();
        for version in [3, 4] {
            assert_eq!(image.load(version).unwrap(), Some((at(6), vec![record("a", "1")])));
        }
        assert!(matches!(image.load(2), Err(StateError::TooNew { needs: 3, version: 2 })));
        image.replace(&mut [record("a", "1")].into_iter(), &at(7), 2).unwrap();
        assert!(matches!(image.load(1), Err(StateError::TooNew { needs: 2, version: 1 })));
    }

    #[test]
    fn records_without_a_head_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::open(&dir.path().join("state")).unwrap();
        image.db.insert(record_key(b"a"), b"1").unwrap();
        assert!(matches!(image.load(1), Err(StateError::Headless)));
    }
}
