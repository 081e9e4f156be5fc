//! The folder of an environment: what is kept in it, and who may change it.

use super::layout::Plan;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where environments are kept; without it `/var/lib/sealane-clusters`.
pub const STATE: &str = "SEALANE_CLUSTERS";

/// The file by which a folder is known to be an environment's, and which is locked while it is changed.
pub(super) const MARK: &str = ".sealane-clusters";

/// What is written down of an environment when all of it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) clusters: Vec<Running>,
}

/// A running cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) plan: Plan,
    /// The first process of its node.
    pub(super) init: Identity,
}

/// A process, not to be mistaken for a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) pid: u32,
    start: u64,
}

impl Identity {
    /// Of a process that runs.
    pub(super) fn of(pid: u32) -> Result<Self> {
        Ok(Identity { pid, start: started(pid).with_context(|| format!("process {pid} is gone"))? })
    }

    pub(super) fn lives(self) -> bool {
        started(self.pid) == Some(self.start)
    }
}

/// When a process started, in ticks since the machine did; none for one that is dead.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, spaces and parentheses too.
    let mut after = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = after.next()?;
    if state == "Z" { None } else { after.nth(18)?.parse().ok() }
}

/// The folder of an environment. Environments in different folders know nothing of each other.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// That of the environment variable, or the usual one.
    ///
    /// # Errors
    /// As [`Place::at`].
    pub fn usual() -> Result<Self> {
        let folder = std::env::var_os(STATE).unwrap_or_else(|| "/var/lib/sealane-clusters".into());
        Self::at(Path::new(&folder))
    }

    /// This folder, which need not exist.
    ///
    /// # Errors
    /// When its path has characters that mean something to a shell or to a configuration file.
    pub fn at(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder).context("no working directory")?;
        let text = folder.to_str().with_context(|| format!("{} is no text", folder.display()))?;
        // It gets into shell words, TOML strings and unix socket paths.
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        anyhow::ensure!(text.chars().all(plain), "the path {text} may have letters, digits and /-_. only");
        Ok(Place(folder))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn cluster(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The network between the clusters.
    pub(super) fn hub(&self) -> PathBuf {
        self.0.join("hub.net")
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// The name of its control groups: another folder's are others.
    pub(super) fn group(&self) -> String {
        let hash = sealane_trust::sha256(self.0.as_os_str().as_encoded_bytes());
        format!("sealane-clusters-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
    }

    /// Held while clusters are brought up or taken down. A folder with anything in it that is no environment's is
    /// refused: what is in an environment's folder gets removed.
    pub(super) fn lock(&self) -> Result<File> {
        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.0).with_context(|| self.0.display().to_string())?;
        let path = self.0.join(MARK);
        let foreign = !path.exists() && std::fs::read_dir(&self.0)?.next().is_some();
        anyhow::ensure!(
            !foreign,
            "{} has something in it that is not of test clusters: name an empty folder, or one that does not exist, in {STATE}",
            self.0.display()
        );
        let file = File::create(&path).with_context(|| format!("can not make {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(Errno::WOULDBLOCK) => {
                bail!("another command brings the clusters of {} up or down", self.0.display())
            }
            Err(error) => Err(error).with_context(|| format!("can not lock {}", path.display())),
        }
    }

    /// Whether somebody holds the lock.
    pub(super) fn is_worked_on(&self) -> Result<bool> {
        let path = self.0.join(MARK);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => {
                Err(error).with_context(|| format!("can not look at the lock of {}", path.display()))
            }
        }
    }

    /// What runs, if an environment was brought up whole.
    pub(super) fn record(&self) -> Result<Option<Record>> {
        let path = self.0.join("environment.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let path = self.0.join("environment.json");
        let unfinished = path.with_extension("new");
        std::fs::write(&unfinished, serde_json::to_vec_pretty(record)?)
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .with_context(|| format!("can not write {}", path.display()))
    }
}

impl Record {
    /// Whether every cluster's node runs.
    pub(super) fn lives(&self) -> bool {
        self.clusters.iter().all(|c| c.init.lives())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_number_alone_is_not_the_process() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.lives() && own.start > 0);
        assert!(!Identity { start: own.start + 1, ..own }.lives());
        assert!(Identity::of(u32::MAX).is_err());
    }

    fn soon(holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < end, "the lock is still held");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn two_folders_have_different_groups_and_one_lock_each() {
        let parent = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| Place(parent.path().join(name)));
        assert_ne!(folders[0].group(), folders[1].group());
        assert!(!folders[0].is_worked_on().unwrap(), "there is no lock yet");
        let held = folders[0].lock().unwrap();
        assert!(folders[0].lock().unwrap_err().to_string().starts_with("another command brings"));
        assert!(folders[0].is_worked_on().unwrap() && !folders[1].is_worked_on().unwrap());
        folders[1].lock().unwrap();
        drop(held);
        // A process that another test starts has copies of our files, and so the lock, until its program begins.
        soon(|| !folders[0].is_worked_on().unwrap());
        soon(|| folders[0].lock().is_ok());
        assert_eq!(folders[0].record().unwrap(), None);
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("diary"), "mine").unwrap();
        let refused = Place(folder.path().to_owned()).lock().unwrap_err().to_string();
        assert!(refused.contains("is not of test clusters"), "{refused}");
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["diary"]);
    }
}
