//! The directory of one run: private, locked while the run lives, removed with it.
//!
//! A run that was killed leaves its directory behind, but not its lock; whoever makes the next directory in the same
//! place removes it.

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = "sealane-local-";
const LOCK: &str = ".lock";

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
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A directory without a lock file is just being made, or none of ours.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
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

        let next = RunDirectory::create(parent.path()).unwrap();
        assert!(living.path().exists() && next.path().exists() && other.exists());
        assert!(!dead.exists());

        let gone = next.path().to_owned();
        drop(next);
        assert!(!gone.exists());
    }
}
