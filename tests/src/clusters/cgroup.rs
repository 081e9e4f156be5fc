//! The control groups of an environment, of either version. They are also the list of its processes: whoever was
//! started here is in one of them, whatever became of who started it.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The hierarchies of version 1 in which a kubelet wants its group.
const WANTED: [&str; 6] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "name=systemd"];
/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(20);

/// Where control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// Of version 1; none for version 2.
    controllers: Option<BTreeSet<String>>,
}

/// The groups of one environment.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

impl Groups {
    /// Those of this name, which need not exist.
    pub(super) fn of(name: &str) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("no list of mounts")?;
        let hierarchies = hierarchies(&mounts);
        ensure!(!hierarchies.is_empty(), "no control groups are mounted on this machine");
        Ok(Groups { name: name.to_owned(), hierarchies })
    }

    /// The group of a cluster, as a kubelet is told it.
    pub(super) fn root(&self, cluster: &str) -> String {
        format!("/{}/{cluster}", self.name)
    }

    /// Makes the groups of a cluster; the `cgroup.procs` files that its daemons are to enter.
    pub(super) fn make(&self, cluster: &str) -> Result<Vec<PathBuf>> {
        let mut enter = Vec::new();
        for hierarchy in self.used() {
            let path = [self.name.as_str(), cluster, "sys"].iter().try_fold(
                hierarchy.mount.clone(),
                |above, part| {
                    let group = above.join(part);
                    hierarchy.make(&above, &group).map(|()| group)
                },
            )?;
            enter.push(path.join("cgroup.procs"));
        }
        Ok(enter)
    }

    /// Kills everything in them, and removes them.
    pub(super) async fn clear(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let inside = self.processes();
            for pid in inside.iter().copied().filter_map(Pid::from_raw) {
                let _gone_meanwhile = kill_process(pid, Signal::KILL);
            }
            if inside.is_empty() && self.remove() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < DYING,
                "processes of the control groups {} do not end: {inside:?}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Every process in them.
    fn processes(&self) -> BTreeSet<i32> {
        self.below(Path::new(&self.name))
    }

    /// Every process of a cluster.
    pub(super) fn processes_of(&self, cluster: &str) -> BTreeSet<i32> {
        self.below(&Path::new(&self.name).join(cluster))
    }

    fn below(&self, group: &Path) -> BTreeSet<i32> {
        let mut inside = BTreeSet::new();
        for group in self.hierarchies.iter().flat_map(|h| tree(&h.mount.join(group))) {
            let list = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            inside.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
        inside
    }

    fn remove(&self) -> bool {
        let all = self.hierarchies.iter().flat_map(|h| tree(&h.mount.join(&self.name)));
        // One that is not empty yet shall not keep the others.
        all.filter(|group| std::fs::remove_dir(group).is_err()).count() == 0
    }

    fn used(&self) -> impl Iterator<Item = &Hierarchy> {
        let version_1 = self.hierarchies.iter().any(|h| h.is_used() && h.controllers.is_some());
        self.hierarchies.iter().filter(move |h| h.is_used() && h.controllers.is_some() == version_1)
    }
}

impl Hierarchy {
    fn is_used(&self) -> bool {
        match &self.controllers {
            Some(controllers) => WANTED.iter().any(|wanted| controllers.contains(*wanted)),
            None => true,
        }
    }

    fn make(&self, above: &Path, group: &Path) -> Result<()> {
        let failed = || format!("can not make the control group {}", group.display());
        if self.controllers.is_none() {
            // What a group may limit is what the one above it hands down.
            for wanted in ["cpu", "cpuset", "memory", "pids"] {
                std::fs::write(above.join("cgroup.subtree_control"), format!("+{wanted}"))
                    .with_context(|| format!("{} does not hand down {wanted}", above.display()))?;
            }
        }
        match std::fs::create_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.with_context(failed)?,
        }
        if self.controllers.as_ref().is_some_and(|c| c.contains("cpuset")) {
            // Empty in a new group; nobody can enter it so.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = std::fs::read_to_string(above.join(file)).with_context(failed)?;
                std::fs::write(group.join(file), value.trim()).with_context(failed)?;
            }
        }
        Ok(())
    }
}

fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, mount, kind, options, ..] = words[..] else { continue };
        let controllers = match kind {
            "cgroup" => Some(options.split(',').map(str::to_owned).collect()),
            "cgroup2" => None,
            _ => continue,
        };
        let hierarchy = Hierarchy { mount: mount.into(), controllers };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

/// A folder and all below it, the lowest first.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if let Ok(entries) = std::fs::read_dir(folder) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
            all.extend(tree(&entry.path()));
        }
        all.push(folder.to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(mounts: &str) -> Vec<String> {
        let groups = Groups { name: "x".into(), hierarchies: hierarchies(mounts) };
        groups.used().map(|h| h.mount.display().to_string()).collect()
    }

    #[test]
    fn of_the_first_version_only_what_a_kubelet_wants_is_made() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/devices cgroup rw,devices 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(used(mounts), ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/pids"]);
        assert_eq!(used("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn a_tree_is_removed_from_below() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        let names: Vec<_> = tree(folder.path())
            .iter()
            .map(|p| p.strip_prefix(folder.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a/b", "a", ""]);
    }
}
