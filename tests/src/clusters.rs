//! Several real Kubernetes clusters on one machine, without a container engine: a node is a network, a mount and a
//! process namespace with its own containerd, and all programs are built from their sources.
//!
//! Law: everything of an environment is in its folder, in namespaces that are mounted there, and in control groups of
//! its name; so it can be removed whole, whatever became of who started it. The machine's own network, mounts and
//! settings are not touched. Not here: what the programs are told (`kubernetes`), where they come from (`tools`).

mod cgroup;
mod command;
mod config;
mod dns;
mod faults;
mod images;
pub mod layout;
mod loss;
mod needs;
mod node;
mod product;
mod progress;
mod shop;
mod space;
mod state;
mod trial;
mod up;
mod volumes;

use crate::tools;
use anyhow::{Context, Result, ensure};
use cgroup::Groups;
use command::{QUICK, run};
use layout::Plan;
use progress::Progress;
use rustix::thread::LinkNameSpaceType;
use state::{Record, Running};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use loss::Losing;
pub use product::Product;
pub use shop::shop;
pub use state::{Place, STATE};
pub use trial::{in_clusters, two};

/// Clusters that run.
#[derive(Debug, Clone)]
pub struct Environment {
    place: Place,
    record: Record,
    progress: Progress,
}

impl Environment {
    /// Brings clusters up, without Sealane. What an earlier run left that did not end well is removed first; where this
    /// one fails, it leaves nothing. Dropping the future leaves everything: call [`down`] then.
    ///
    /// # Errors
    /// When clusters run already, the machine lacks something, or a part does not become ready.
    pub async fn up(place: Place, plans: &[Plan]) -> Result<Self> {
        Self::begin(place, plans, None, Progress::begin()).await
    }

    /// The same, for Sealane to be installed into: with its image, its namespace and its CRDs, which CoreDNS looks for when it
    /// starts.
    ///
    /// # Errors
    /// As [`Environment::up`].
    pub async fn prepared(place: Place, plans: &[Plan], product: &Product) -> Result<Self> {
        Self::begin(place, plans, Some(product), Progress::begin()).await
    }

    /// The same, and installs Sealane. Where that fails the clusters are left running, for people to look at: call [`down`]
    /// in the end.
    ///
    /// # Errors
    /// As [`Environment::up`], and when Sealane does not become ready.
    pub async fn up_with(place: Place, plans: &[Plan], product: &Product) -> Result<Self> {
        let progress = Progress::begin();
        // Whoever looks meanwhile sees that it is not done.
        let _lock = reserve(&place, progress).await?;
        let environment = Self::bring(place, plans, Some(product), progress).await?;
        environment.install(product).await.context("the clusters run, Sealane in them does not")?;
        Ok(environment)
    }

    async fn begin(
        place: Place,
        plans: &[Plan],
        product: Option<&Product>,
        progress: Progress,
    ) -> Result<Self> {
        let _lock = reserve(&place, progress).await?;
        Self::bring(place, plans, product, progress).await
    }

    /// The same, with the lock held.
    async fn bring(
        place: Place,
        plans: &[Plan],
        product: Option<&Product>,
        progress: Progress,
    ) -> Result<Self> {
        let groups = Groups::of(&place.group())?;
        if let Some(record) = place.record()? {
            ensure!(
                !record.lives(),
                "clusters run already, in {}: take them down first",
                place.path().display()
            );
        }
        clear(&place, &groups).await.context("what an earlier run left can not be removed")?;
        let order = up::Order { place: &place, groups: &groups, plans, product, progress };
        match up::up(&order).await {
            Ok(record) => Ok(Environment { place, record, progress }),
            Err(error) => {
                progress.say("failed; removing what was started");
                let kept = keep_logs(&place);
                clear(&place, &groups).await.with_context(|| format!("after {error:#}"))?;
                Err(error.context(kept))
            }
        }
    }

    /// The clusters that were brought up.
    ///
    /// # Errors
    /// When there are none, or not all of them run.
    pub fn running(place: Place) -> Result<Self> {
        let environment = Self::left(place)?;
        if let Some(plan) = environment.lost().next() {
            anyhow::bail!("{}", dead(&plan.name));
        }
        Ok(environment)
    }

    /// The clusters that were brought up, also where some of them were [lost](Environment::lost) since.
    ///
    /// # Errors
    /// When there are none, or none of them runs.
    pub fn left(place: Place) -> Result<Self> {
        let Some(record) = place.record()? else {
            ensure!(
                !place.is_worked_on()?,
                "the clusters of {} are being brought up, or taken down: wait for it",
                place.path().display()
            );
            anyhow::bail!("no clusters run in {}: bring some up first", place.path().display());
        };
        ensure!(
            record.clusters.iter().any(|c| c.init.lives()),
            "every node of {} is dead: take the clusters down, and bring them up again",
            place.path().display()
        );
        Ok(Environment { place, record, progress: Progress::begin() })
    }

    /// The clusters whose nodes are dead.
    pub fn lost(&self) -> impl Iterator<Item = &Plan> {
        self.record.clusters.iter().filter(|c| !c.init.lives()).map(|c| &c.plan)
    }

    /// Whether a command that brings these clusters up, or takes them down, is at work.
    ///
    /// # Errors
    /// When that can not be seen.
    pub fn is_worked_on(&self) -> Result<bool> {
        self.place.is_worked_on()
    }

    /// The clusters.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.record.clusters.iter().map(|c| &c.plan)
    }

    /// The file with a context for each cluster, of an admin.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    /// A command that runs where the API servers, and on a flat network the pods, are reached: with the kubeconfig, and
    /// with kubectl in its PATH.
    ///
    /// # Errors
    /// When the tools' folder is not known.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.place.hub().display())).arg("--").arg(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", path()?);
        Ok(command)
    }

    /// Takes the calling thread, and what it starts, to where the API servers are reached; it stays there.
    ///
    /// # Errors
    /// Without root, or when the network is gone.
    pub fn enter(&self) -> Result<()> {
        let hub = File::open(self.place.hub()).context("the clusters' network is gone")?;
        rustix::thread::move_into_link_name_space(hub.as_fd(), Some(LinkNameSpaceType::Network))
            .context("can not enter the clusters' network")
    }

    /// A command in a cluster's node: it sees the node's processes, mounts and network.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn node_command(&self, cluster: &str, words: &[String]) -> Result<Command> {
        let running = self.cluster(cluster)?;
        ensure!(running.init.lives(), "{}", dead(cluster));
        let mut command = node::enter(running.init, words).into_std();
        command.env("CONTAINERD_ADDRESS", config::SOCKET).env("CONTAINERD_NAMESPACE", "k8s.io");
        command.stdin(std::process::Stdio::inherit());
        Ok(command)
    }

    /// What a command prints in a cluster's node.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn node(&self, cluster: &str, words: &[&str]) -> Result<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut command = self.node_command(cluster, &words)?;
        command.stdin(std::process::Stdio::null());
        run(&mut command.into(), QUICK).await
    }

    /// What kubectl prints, in the context of a cluster.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, cluster: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("kubectl")?;
        command.args(["--context", cluster]).args(arguments).stdin(std::process::Stdio::null());
        run(&mut command.into(), QUICK).await
    }

    /// Applies manifests, YAML or JSON, in a cluster.
    ///
    /// # Errors
    /// When they are refused.
    pub async fn apply(&self, cluster: &str, manifests: &str) -> Result<()> {
        let mut file = tempfile::tempfile().context("no temporary file")?;
        file.write_all(manifests.as_bytes())
            .and_then(|()| file.rewind())
            .context("can not keep the manifests")?;
        let mut command = self.command("kubectl")?;
        command.args(["--context", cluster, "apply", "--server-side", "--force-conflicts", "--filename=-"]);
        command.stdin(file);
        run(&mut command.into(), QUICK).await.map(|_| ())
    }

    /// Imports an OCI archive into every node that is there; what was in it.
    ///
    /// # Errors
    /// When a node refuses it.
    pub async fn load(&self, archive: &Path) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for Running { plan, init } in self.record.clusters.iter().filter(|c| c.init.lives()) {
            said.push(format!("{}: {}", plan.name, images::import(*init, archive).await?));
        }
        Ok(said)
    }

    fn cluster(&self, name: &str) -> Result<&Running> {
        let found = self.record.clusters.iter().find(|c| c.plan.name == name);
        found.with_context(|| {
            format!(
                "there is no cluster {name}; there are {}",
                self.plans().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
            )
        })
    }
}

/// The lock, once the machine has what is needed.
async fn reserve(place: &Place, progress: Progress) -> Result<File> {
    needs::meet(&|what| progress.say(what)).await?;
    place.lock()
}

/// What is said of a cluster that was lost.
#[must_use]
pub fn dead(cluster: &str) -> String {
    format!("the node of {cluster} is dead: take the clusters down, and bring them up again")
}

/// Takes all clusters down, and removes everything that was started or made for them; nothing where there is nothing.
///
/// # Errors
/// When another command is at work, or something can not be removed.
pub async fn down(place: &Place) -> Result<()> {
    let _lock = place.lock()?;
    let groups = Groups::of(&place.group())?;
    clear(place, &groups).await?;
    std::fs::remove_dir_all(place.path())
        .with_context(|| format!("can not remove {}", place.path().display()))
}

/// Removes everything of an environment but its folder and the lock in it.
async fn clear(place: &Place, groups: &Groups) -> Result<()> {
    groups.clear().await?;
    space::unmount(place.path()).await?;
    for entry in std::fs::read_dir(place.path())? {
        let path = entry?.path();
        let kept = path.file_name().is_some_and(|name| name == state::MARK || name == "failed");
        if !kept {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.with_context(|| format!("can not remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Puts the logs of a start that failed where the next start does not remove them; what to say of it.
fn keep_logs(place: &Place) -> String {
    let failed = place.path().join("failed");
    let _none_before = std::fs::remove_dir_all(&failed);
    for entry in std::fs::read_dir(place.path()).into_iter().flatten().flatten() {
        let logs = entry.path().join("logs");
        if logs.is_dir() {
            let _best_effort = std::fs::create_dir_all(&failed)
                .and_then(|()| std::fs::rename(&logs, failed.join(entry.file_name())));
        }
    }
    format!("the clusters did not come up; the logs are in {}", failed.display())
}

/// The machine's, with the tools first.
fn path() -> Result<OsString> {
    let mut folders = Vec::new();
    for tool in [&tools::KUBECTL, &tools::HELM] {
        folders.extend(tool.folder()?);
    }
    let machine = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&machine));
    std::env::join_paths(folders).context("PATH can not be joined")
}
