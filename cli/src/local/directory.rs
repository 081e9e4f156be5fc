//! The directory of one run: private, locked while the run lives, removed with it.
//!
//! A run that was killed leaves its directory behind, but not its lock: its guard removes it, and if that was killed too,
//! whoever makes the next directory in the same place.

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PREFIX: &str = "sealane-local-";
const LOCK: &str = ".lock";
/// How long the last processes of a dead run may still write into its directory.
const DYING: Duration = Duration::from_secs(10);

/// A run's directory.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Makes one in `parent`, which is made too if it does not exist, and removes those of dead runs beside it.
    ///
    /// # Errors
    /// When the directory can not be made or locked.
    pub fn create(parent: &Path) -> Result<Self> {
        std::fs::create_dir_all(parent).with_context(|| format!("can not make {}", parent.display()))?;
        sweep(parent);
        let suffix = sealane_trust::random::<4>().context("no random bytes for a directory name")?;
        let path = parent.join(format!("{PREFIX}{:08x}", u32::from_be_bytes(suffix)));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("can not make {}", path.display()))?;
        let lock =
            File::create(path.join(LOCK)).with_context(|| format!("can not lock {}", path.display()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("can not lock {}", path.display()))?;
        Ok(RunDirectory { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "directory left behind");
        }
    }
}

/// Removes the directories of runs that no longer hold their lock.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if is_a_runs(&entry.path()) && is_dead(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes the directory of a run that is dead, or about to be; nothing if it removed it itself.
///
/// # Errors
/// When the path is not that of a run's directory, the run lives, or its directory can not be removed.
pub fn remove_dead(directory: &Path) -> Result<()> {
    ensure!(is_a_runs(directory), "{} is not the directory of a local run", directory.display());
    let end = Instant::now() + DYING;
    while directory.exists() {
        // Its processes die with it, but not before it, and one may write while it is removed.
        if is_dead(directory) && std::fs::remove_dir_all(directory).is_ok() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{} is in use, or can not be removed", directory.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_a_runs(directory: &Path) -> bool {
    directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

fn is_dead(directory: &Path) -> bool {
    // A directory without a lock file is just being made or removed, or none of ours.
    let Ok(lock) = File::open(directory.join(LOCK)) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_runs_directory_stays_and_a_dead_ones_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let living = RunDirectory::create(parent.path()).unwrap();
        let dead = parent.path().join(format!("{PREFIX}00000000"));
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        std::fs::write(dead.join("key.pem"), "x").unwrap();
        let other = parent.path().join("other");
        std::fs::create_dir(&other).unwrap();

        assert!(remove_dead(&other).is_err());

        let next = RunDirectory::create(parent.path()).unwrap();
        assert!(living.path().exists() && next.path().exists() && other.exists());
        assert!(!dead.exists());

        let gone = next.path().to_owned();
        drop(next);
        assert!(!gone.exists());
    }
}
