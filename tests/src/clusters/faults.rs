//! What may happen to a running cluster: a program of it, or all of it, is killed, frozen, continued, started again.

use super::cgroup::Groups;
use super::node::daemon::Daemon;
use super::{Environment, Running};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

impl Environment {
    /// Sends a signal to every process of a cluster, its pods' too; how many there were.
    ///
    /// `KILL` is a cluster that lost power: it stays so until all are taken down. `STOP` is one that hangs, until `CONT`.
    ///
    /// # Errors
    /// When there is no such cluster, or a process can not be signalled.
    pub fn signal(&self, cluster: &str, signal: Signal) -> Result<usize> {
        send(self.processes(cluster)?, signal)
    }

    /// Sends a signal to one program of a cluster: `kube-apiserver`, `etcd`, `kubelet`.
    ///
    /// # Errors
    /// When there is no such cluster, or the program does not run in it.
    pub fn signal_program(&self, cluster: &str, program: &str, signal: Signal) -> Result<()> {
        let mut found = self.processes(cluster)?;
        found.retain(|pid| runs(*pid, program));
        let sent = send(found, signal)?;
        ensure!(sent > 0, "{program} does not run in {cluster}");
        Ok(())
    }

    /// Starts a program of a cluster again that has ended, as it was started first.
    ///
    /// # Errors
    /// When there is no such cluster or program, or it still runs.
    pub fn restart(&self, cluster: &str, program: &str) -> Result<()> {
        let running = self.processes(cluster)?.into_iter().any(|pid| runs(pid, program));
        ensure!(!running, "{program} still runs in {cluster}");
        Daemon::again(&self.place.cluster(cluster), program).map(|_| ())
    }

    fn processes(&self, cluster: &str) -> Result<Vec<i32>> {
        let Running { plan, .. } = self.cluster(cluster)?;
        Ok(Groups::of(&self.place.group())?.processes_of(&plan.name).into_iter().collect())
    }
}

/// Whether this is the program itself, not a command that waits for it.
fn runs(pid: i32, program: &str) -> bool {
    let path = std::fs::read_link(format!("/proc/{pid}/exe"));
    path.is_ok_and(|path| path.file_name().is_some_and(|name| name == program))
}

fn send(pids: Vec<i32>, signal: Signal) -> Result<usize> {
    let mut sent = 0;
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        match kill_process(pid, signal) {
            Ok(()) => sent += 1,
            // It ended meanwhile.
            Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("can not signal {pid:?}")),
        }
    }
    Ok(sent)
}
