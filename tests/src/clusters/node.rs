//! One cluster of one node: its certificates and files, and its daemons, which outlive who started them.

pub(super) mod daemon;

use super::cgroup::Groups;
use super::command::{QUICK, run, words};
use super::config;
use super::layout::Plan;
use super::state::{Identity, Place};
use crate::kubernetes::arguments::{self, ApiServer};
use crate::kubernetes::kubeconfig::{self, Access};
use crate::kubernetes::pki::{MASTERS, NODES, Pki, Subject};
use crate::tools;
use anyhow::{Context, Result};
use daemon::Daemon;
use sealane::local::wait::until;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take to be ready, on a machine that is busy.
const READY: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);
/// etcd is asked by its API server alone.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The users of a cluster's own programs: file, name, group.
const USERS: [(&str, &str, &str); 5] = [
    ("admin", "admin", MASTERS),
    ("front-proxy", "front-proxy-client", ""),
    ("controllers", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
];

/// A cluster that is being started.
pub(super) struct Node<'a> {
    plan: &'a Plan,
    state: PathBuf,
    group: String,
    enter: Vec<PathBuf>,
    init: Option<Identity>,
    daemons: Vec<Daemon>,
}

impl<'a> Node<'a> {
    /// Makes its folder, its certificates and its control groups. Its network must be there.
    pub(super) fn prepare(place: &Place, groups: &Groups, plan: &'a Plan) -> Result<Self> {
        let state = place.cluster(&plan.name);
        for name in ["logs", "daemons", "cni", "etcd", "plugins", "volumes"] {
            std::fs::create_dir_all(state.join(name)).with_context(|| format!("can not make {name}"))?;
        }
        certificates(&state.join("pki"), plan)?;
        let group = groups.root(&plan.name);
        let node =
            Node { plan, group, enter: groups.make(&plan.name)?, state, init: None, daemons: Vec::new() };
        node.files()?;
        Ok(node)
    }

    fn files(&self) -> Result<()> {
        let write = |name: &str, text: String| {
            std::fs::write(self.state.join(name), text).with_context(|| format!("can not write {name}"))
        };
        let snapshotter = snapshotter(&self.state)?;
        write("containerd.toml", config::containerd(&self.state, snapshotter, super::images::PAUSE))?;
        write("node.sh", include_str!("../../clusters/node.sh").to_owned())?;
        write("cni/10-pods.conflist", config::network(self.plan).to_string())?;
        write("kubelet.json", config::kubelet(&self.state, self.plan, &self.group).to_string())?;
        write("kube-proxy.json", config::proxy(&self.state, self.plan).to_string())?;
        for client in ["admin", "kubelet", "controllers", "scheduler", "kube-proxy"] {
            let pki = self.state.join("pki");
            let access = Access { name: &self.plan.name, server: self.plan.server(), pki: &pki, client };
            kubeconfig::write(&self.kubeconfig(client), &[access])?;
        }
        Ok(())
    }

    fn kubeconfig(&self, client: &str) -> PathBuf {
        self.state.join(format!("{client}.kubeconfig"))
    }

    /// Starts the node's first process, the container runtime, and waits until it answers.
    pub(super) async fn boot(&mut self) -> Result<Identity> {
        let ipv6 = if self.plan.dual_stack { "1" } else { "0" };
        let command: Vec<String> = [
            "nsenter",
            &format!("--net={}", self.state.join("net").display()),
            "--",
            "unshare",
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
            "sh",
            &self.state.join("node.sh").display().to_string(),
            &self.state.display().to_string(),
            ipv6,
        ]
        .map(str::to_owned)
        .into();
        let daemon = Daemon::start(&self.state, "containerd", &self.enter, &command)?;
        let parent = daemon.pid();
        self.daemons.push(daemon);
        let what = format!("the node of {} has a first process", self.plan.name);
        let init = self.ready(&what, async || first_child(parent)).await?;
        self.init = Some(init);
        let what = format!("containerd of {} answers", self.plan.name);
        self.ready(&what, async || {
            let mut ask = enter(init, &["ctr", "--address", config::SOCKET, "version"]);
            run(&mut ask, QUICK).await.map(Some)
        })
        .await?;
        Ok(init)
    }

    /// Starts etcd and the API server, and waits until it is ready.
    pub(super) async fn serve(&mut self, hub: &Path) -> Result<()> {
        self.daemon(&tools::ETCD, arguments::etcd(&self.state.join("etcd"), LOOPBACK)).await?;
        let server = ApiServer {
            issuer: arguments::ISSUER,
            bind: Ipv4Addr::UNSPECIFIED.into(),
            advertise: self.plan.node().into(),
            etcd: LOOPBACK,
            pki: &self.state.join("pki"),
            services: &self.plan.services().join(","),
            more: &[],
        };
        self.daemon(&tools::API_SERVER, server.words()).await?;
        let kubectl = tools::KUBECTL.ready().await?;
        let admin = self.kubeconfig("admin").display().to_string();
        let what = format!("the API server of {} is ready", self.plan.name);
        self.ready(&what, async || {
            // A kubectl is not cheap, and the server needs the processor more.
            tokio::time::sleep(PAUSE).await;
            let mut ask =
                super::space::inside(hub, &kubectl, &["--kubeconfig", &admin, "get", "--raw", "/readyz"]);
            run(&mut ask, QUICK).await.map(Some)
        })
        .await?;
        Ok(())
    }

    /// Starts what makes an API server a cluster.
    pub(super) async fn work(&mut self) -> Result<()> {
        let pki = self.state.join("pki");
        let words =
            arguments::controllers(&pki, &self.kubeconfig("controllers"), LOOPBACK, &ranges(self.plan));
        self.daemon(&tools::CONTROLLERS, words).await?;
        let scheduler = self.kubeconfig("scheduler").display().to_string();
        let words = vec![
            format!("--kubeconfig={scheduler}"),
            format!("--bind-address={LOOPBACK}"),
            "--leader-elect=false".to_owned(),
        ];
        self.daemon(&tools::SCHEDULER, words).await?;
        let words = vec![
            format!("--config={}", self.state.join("kubelet.json").display()),
            format!("--kubeconfig={}", self.kubeconfig("kubelet").display()),
            format!("--hostname-override={}", self.plan.name),
            format!("--node-ip={}", self.plan.nodes()),
            format!(
                "--node-labels=topology.kubernetes.io/region={name},topology.kubernetes.io/zone={name}-a",
                name = self.plan.name
            ),
        ];
        self.daemon(&tools::KUBELET, words).await?;
        let words = vec![format!("--config={}", self.state.join("kube-proxy.json").display())];
        self.daemon(&tools::KUBE_PROXY, words).await
    }

    /// Waits until something is so, as long as every daemon runs.
    pub(super) async fn ready<T>(
        &mut self,
        what: &str,
        mut condition: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let daemons = &mut self.daemons;
        let looked = until(what, READY, async || {
            if let Some(end) = daemons.iter_mut().find_map(Daemon::end) {
                return Ok(Some(Err(anyhow::Error::msg(end))));
            }
            Ok(condition().await?.map(Ok))
        });
        looked.await?.0
    }

    /// Starts a shell script that runs as long as the node.
    pub(super) fn script(&mut self, name: &str, words: &[String]) -> Result<()> {
        let init = self.init.context("the node has not booted")?;
        let mut command: Vec<String> = entering(init).into();
        command.push("sh".to_owned());
        command.extend_from_slice(words);
        self.daemons.push(Daemon::start(&self.state, name, &self.enter, &command)?);
        Ok(())
    }

    async fn daemon(&mut self, tool: &'static tools::Tool, words: Vec<String>) -> Result<()> {
        let init = self.init.context("the node has not booted")?;
        let binary = tool.ready().await?.display().to_string();
        let mut command: Vec<String> = entering(init).into();
        command.push(binary);
        command.extend(words);
        self.daemons.push(Daemon::start(&self.state, tool.name(), &self.enter, &command)?);
        Ok(())
    }
}

/// The words before a command that is to run in a node.
fn entering(init: Identity) -> [String; 6] {
    let pid = init.pid.to_string();
    ["nsenter", "--target", &pid, "--mount", "--pid", "--net"].map(str::to_owned)
}

/// A command in a node: it sees the node's processes, mounts and network.
pub(super) fn enter<S: AsRef<std::ffi::OsStr>>(init: Identity, command: &[S]) -> tokio::process::Command {
    let [program, arguments @ ..] = entering(init);
    let mut entered = words(program, &arguments);
    entered.arg("--").args(command);
    entered
}

/// The process that this one started, if it has.
fn first_child(parent: u32) -> Result<Option<Identity>> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children =
        children.context("this kernel does not say whose child a process is, or the parent is gone")?;
    children.split_whitespace().next().map(|pid| Identity::of(pid.parse()?)).transpose()
}

fn certificates(folder: &Path, plan: &Plan) -> Result<()> {
    let pki = Pki::create(folder)?;
    for (file, name, group) in USERS {
        pki.issue(file, Subject { name, group, reached: &[] })?;
    }
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let mut reached: Vec<String> = names.map(str::to_owned).into();
    reached.push("kubernetes.default.svc.cluster.local".to_owned());
    reached.extend([plan.node().into(), LOOPBACK, plan.api_service()].map(|address| address.to_string()));
    pki.issue("apiserver", Subject { name: "kube-apiserver", group: "", reached: &reached })?;
    let reached = [plan.name.clone(), plan.node().to_string(), plan.node_6().to_string()];
    let name = format!("system:node:{}", plan.name);
    pki.issue("kubelet", Subject { name: &name, group: NODES, reached: &reached })
}

/// What the controllers are told of the cluster's addresses: its one node has all of the pods' range.
fn ranges(plan: &Plan) -> Vec<String> {
    let mut words = vec![
        format!("--cluster-name={}", plan.name),
        format!("--cluster-cidr={}", plan.pods().join(",")),
        format!("--service-cluster-ip-range={}", plan.services().join(",")),
        "--allocate-node-cidrs=true".to_owned(),
    ];
    if plan.dual_stack {
        words.extend(["--node-cidr-mask-size-ipv4=16", "--node-cidr-mask-size-ipv6=64"].map(str::to_owned));
    } else {
        words.push("--node-cidr-mask-size=16".to_owned());
    }
    words
}

/// How containerd stacks layers: an overlay can not lie on an overlay, as the root of a container is one.
fn snapshotter(folder: &Path) -> Result<&'static str> {
    const OVERLAY: rustix::fs::FsWord = 0x794c_7630;
    let kind =
        rustix::fs::statfs(folder).with_context(|| format!("what is {} on?", folder.display()))?.f_type;
    Ok(if kind == OVERLAY { "native" } else { "overlayfs" })
}
