//! Who removes a run's directory when the run itself no longer can: a child that waits for its parent's end.

use super::directory::remove_dead;
use anyhow::{Context, Result};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// The running child. Dropping it ends it.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    // Closed by the kernel when this process dies, however it does.
    lifeline: Option<ChildStdin>,
}

impl Guard {
    /// Has the directory removed when this process is gone.
    ///
    /// # Errors
    /// When the child can not be started.
    pub fn start(binary: &Path, directory: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .arg("guard")
            .arg(directory)
            .env_remove(super::process::DIE_WITH_PARENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Of its own group: the terminal's Ctrl-C is not for it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("can not start {} to watch over the directory", binary.display()))?;
        let lifeline = child.stdin.take();
        Ok(Guard { child, lifeline })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.child.wait();
    }
}

/// The child's work: waits until standard input ends, then removes the directory if its run left it behind.
///
/// # Errors
/// When the path is not that of a run's directory, or it can not be removed.
pub fn stand(directory: &Path) -> Result<()> {
    let mut ignored = Vec::new();
    // Nobody writes; the end is what is waited for.
    std::io::stdin().lock().take(1).read_to_end(&mut ignored).context("can not wait for the run's end")?;
    remove_dead(directory)
}
