//! Loading what rests: the log as the anchor, and the state from the image, or from a snapshot where there is no
//! usable image.

use super::{Config, Layout, OpenError, io_error};
use crate::consensus::driver::{Files, restore};
use crate::consensus::machine::StateMachine;
use crate::store::log::wal::Wal;
use crate::store::log::{Position, RaftLog};
use crate::store::snapshot::{self, Named};
use crate::store::state::{self, Image, StateError, StateStore};
use raft::eraftpb::SnapshotMetadata;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another handle in this process may still be closing the image.
const CLOSING: Duration = Duration::from_secs(10);

/// What a replica starts from.
pub(super) struct Loaded<M> {
    pub(super) log: Wal,
    pub(super) machine: M,
    pub(super) applied: SnapshotMetadata,
    pub(super) image: Image,
    pub(super) snapshot: Option<SnapshotMetadata>,
}

pub(super) fn load<M: StateMachine>(layout: &Layout, config: &Config) -> Result<Loaded<M>, OpenError> {
    let snapshots = layout.snapshots();
    snapshot::remove_unfinished(&snapshots)?;
    let named = snapshot::list(&snapshots)?;
    let log = Wal::open(&layout.log(), config.wal, || whole(&named))?;
    let files = usable(&snapshots, &log)?;
    let (mut image, found) = open_image::<M>(&layout.state(), &log, config.version)?;
    let (machine, applied) = match found {
        Some(found) => found,
        None => {
            let (machine, applied) = from_snapshots::<M>(&snapshots, &files, &log, config.version)?;
            image.replace(&mut machine.records(), &applied, machine.min_version())?;
            (machine, applied)
        }
    };
    let snapshot = latest(&files);
    Ok(Loaded { log, machine, applied, image, snapshot })
}

/// The places that whole snapshots cover, oldest first.
fn whole(named: &[Named]) -> Vec<Position> {
    let verified = named.iter().filter_map(|file| snapshot::verify(&file.path).ok());
    verified.map(|header| header.position()).collect()
}

/// The snapshots that the log goes on from, oldest first. What is beyond the log came from a leader and was never
/// taken up.
fn usable(dir: &Path, log: &Wal) -> Result<Vec<Named>, OpenError> {
    let (first, last) = (log.truncated().index, log.last().index);
    let mut files = snapshot::list(dir)?;
    for file in files.iter().filter(|f| f.position.index > last) {
        crate::store::durable::remove_file(&file.path).map_err(io_error("remove", &file.path))?;
    }
    files.retain(|f| f.position.index >= first && log.term(f.position.index) == Some(f.position.term));
    Ok(files)
}

fn latest(files: &[Named]) -> Option<SnapshotMetadata> {
    files.iter().rev().find_map(|file| match snapshot::verify(&file.path) {
        Ok(header) => Some(header.metadata),
        Err(error) => {
            tracing::warn!(%error, "a snapshot is passed over");
            None
        }
    })
}

/// Opens the image, waiting for another handle of this process to let go of it.
fn open_once(path: &Path) -> Result<Image, StateError> {
    let until = Instant::now() + CLOSING;
    loop {
        match Image::open(path) {
            Err(StateError::Sled(sled::Error::Io(e))) if is_lock(&e) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return opened,
        }
    }
}

fn is_lock(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Whether the image itself is to blame, and not the disk or a newer build.
fn is_damage(error: &StateError) -> bool {
    match error {
        StateError::Sled(sled::Error::Io(_)) | StateError::Format(_) | StateError::TooNew { .. } => false,
        StateError::Sled(_) | StateError::Panicked(_) | StateError::Headless | StateError::Head(_) => true,
    }
}

/// How a restart image stands to its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The log goes on from it.
    Good,
    /// It is older than the log's beginning.
    Older,
    /// It holds what the log lost.
    Beyond,
    /// It holds what another entry of the log replaced.
    Replaced,
}

/// How an image that came as far as `at` stands to a log.
pub fn fit<L: RaftLog>(at: Position, log: &L) -> Fit {
    if at.index > log.last().index {
        Fit::Beyond
    } else if at.index < log.truncated().index {
        Fit::Older
    } else if log.term(at.index) != Some(at.term) {
        Fit::Replaced
    } else {
        Fit::Good
    }
}

type Found<M> = Option<(M, SnapshotMetadata)>;

/// The image, and what it holds if that can be used. A damaged one is moved aside for a new one.
fn open_image<M: StateMachine>(path: &Path, log: &Wal, version: u32) -> Result<(Image, Found<M>), OpenError> {
    let why = match open_once(path).and_then(|image| image.load(version).map(|found| (image, found))) {
        Ok((image, None)) => return Ok((image, None)),
        Ok((image, Some((applied, records)))) => {
            let at = Position { index: applied.index, term: applied.term };
            match fit(at, log) {
                Fit::Beyond => {
                    return Err(OpenError::LogTooShort { applied: at.index, last: log.last().index });
                }
                Fit::Older => {
                    tracing::warn!(
                        applied = at.index,
                        "the restart image is older than the log; it is made anew"
                    );
                    return Ok((image, None));
                }
                Fit::Replaced => {
                    return Err(OpenError::LogReplaced { applied: at.index, term: at.term });
                }
                Fit::Good => match M::restore(records.into_iter().map(Ok)) {
                    // Images were not always marked by what they need.
                    Ok(machine) if machine.min_version() > version => {
                        return Err(StateError::TooNew { needs: machine.min_version(), version }.into());
                    }
                    Ok(machine) => return Ok((image, Some((machine, applied)))),
                    Err(fatal) => fatal.to_string(),
                },
            }
        }
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let aside = state::move_aside(path).map_err(io_error("move aside", path))?;
    tracing::warn!(why, aside = %aside.display(), "the restart image is damaged; it is moved aside and made anew");
    Ok((open_once(path)?, None))
}

fn from_snapshots<M: StateMachine>(
    dir: &Path,
    files: &[Named],
    log: &Wal,
    version: u32,
) -> Result<(M, SnapshotMetadata), OpenError> {
    for file in files.iter().rev() {
        match snapshot::verify(&file.path) {
            Ok(header) => {
                let machine = restore(&Files::new(dir), header.position(), version)?;
                tracing::info!(index = header.metadata.index, "made the state anew from a snapshot");
                return Ok((machine, header.metadata));
            }
            Err(error) => tracing::warn!(%error, "a snapshot is passed over"),
        }
    }
    if log.truncated().index == 0 {
        return Ok((M::restore(std::iter::empty())?, SnapshotMetadata::default()));
    }
    Err(OpenError::NoState { first: log.truncated().index + 1 })
}
