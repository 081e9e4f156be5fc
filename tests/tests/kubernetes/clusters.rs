//! Whole clusters: pods, Services and names work within one and between two, and nothing of them stays behind.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sealane::local::wait::{until, until_true};
use sealane_tests::clusters::layout::{Topology, plan};
use sealane_tests::clusters::{self, Environment, Place, shop};
use sealane_tests::{PATIENCE, alone, skip, tools};

use std::collections::BTreeSet;
use std::time::Duration;

/// How long a pod may take to run on a busy machine.
pub(crate) const POD: Duration = Duration::from_secs(90);

#[test]
fn pods_of_two_clusters_reach_each_other_and_leave_nothing_behind() {
    let name = "pods_of_two_clusters_reach_each_other_and_leave_nothing_behind";
    if !rustix::process::geteuid().is_root() {
        return skip(name, "nodes are made of namespaces, which needs root");
    }
    if let Some(reason) = tools::missing(&[&tools::API_SERVER, &tools::KUBELET, &tools::COREDNS]) {
        return skip(name, &reason);
    }
    alone(async || {
        let folder = tempfile::tempdir()?;
        let place = Place::at(&folder.path().join("clusters"))?;
        let before = Machine::look()?;
        let plans = plan(2, Topology::Flat, &["east".to_owned()]).map_err(anyhow::Error::msg)?;
        let environment = Environment::up(place.clone(), &plans).await?;
        let result = exercise(&environment).await;
        let held = Machine::look()?;
        let result = match result {
            Ok(()) => lose(&environment, &place).await,
            failed => failed,
        };
        clusters::down(&place).await?;
        result?;
        // A look that sees nothing would prove nothing.
        ensure!(
            held.groups.len() > before.groups.len() && held.mounts.len() > before.mounts.len(),
            "{held:?}"
        );
        assert_eq!(Machine::look()?, before);
        ensure!(!place.path().exists(), "the folder is still there");
        Ok(())
    });
}

async fn exercise(environment: &Environment) -> Result<()> {
    for cluster in ["east", "west"] {
        environment.apply(cluster, &shop(cluster).to_string()).await?;
    }
    for cluster in ["east", "west"] {
        let wait =
            ["wait", "--namespace=shop", "--for=condition=Ready", "pod/echo", "pod/client", "--timeout=55s"];
        until_true("the pods run", POD, async || environment.kubectl(cluster, &wait).await.map(|_| true))
            .await?;
    }
    // The address of a Service, by name and by address, and each of a dual-stack one.
    answers(environment, "west", "echo.shop.svc.cluster.local", "west").await?;
    let addresses = field(environment, "east", "service/both", "{.spec.clusterIPs[*]}").await?;
    ensure!(addresses.split(' ').count() == 2 && addresses.contains(':'), "no two families: {addresses}");
    for address in addresses.split(' ') {
        answers(environment, "east", address, "east").await?;
    }
    // A pod of the other cluster, both ways.
    for (from, to) in [("east", "west"), ("west", "east")] {
        let address = field(environment, to, "pod/echo", "{.status.podIP}").await?;
        answers(environment, from, &address, to).await?;
    }
    let logs = environment.kubectl("west", &["logs", "--namespace=shop", "echo"]).await?;
    ensure!(logs.contains("listening on"), "no logs of the application: {logs}");
    let name = ["nslookup", "kubernetes.default.svc.cluster.local"];
    let (said, _) =
        until("DNS answers", PATIENCE, async || exec(environment, "east", &name).await.map(Some)).await?;
    ensure!(said.contains("10.121.0.1"), "{said}");
    outage(environment).await
}

/// A cluster whose node dies is named, and the other one is there.
async fn lose(environment: &Environment, place: &Place) -> Result<()> {
    ensure!(Environment::left(place.clone())?.lost().count() == 0, "a cluster is lost");
    environment.signal_program("west", "containerd", Signal::KILL)?;
    let (left, _) = until("west is lost", PATIENCE, async || {
        let left = Environment::left(place.clone())?;
        let found: Vec<&str> = left.lost().map(|plan| plan.name.as_str()).collect();
        Ok((found == ["west"]).then(|| left.clone()))
    })
    .await?;
    left.kubectl("east", &["get", "--namespace=shop", "pod/echo"]).await?;
    let said = left.node_command("west", &["true".to_owned()]).err().context("west's node is entered")?;
    ensure!(said.to_string().starts_with("the node of west is dead"), "{said}");
    ensure!(Environment::running(place.clone()).is_err(), "a test would go on without west");
    Ok(())
}

/// An API server that was killed comes back with what it held; pods do not notice.
async fn outage(environment: &Environment) -> Result<()> {
    environment.signal_program("west", "kube-apiserver", Signal::KILL)?;
    let get = ["get", "--namespace=shop", "pod/echo", "--output=name"];
    until_true("nobody answers", PATIENCE, async || Ok(environment.kubectl("west", &get).await.is_err()))
        .await?;
    let address = field(environment, "east", "pod/echo", "{.status.podIP}").await?;
    environment.restart("west", "kube-apiserver")?;
    until_true("it is back", PATIENCE, async || environment.kubectl("west", &get).await.map(|_| true))
        .await?;
    answers(environment, "west", &address, "east").await
}

pub(crate) async fn answers(environment: &Environment, from: &str, address: &str, who: &str) -> Result<()> {
    let what = format!("{address} answers a pod of {from}");
    let ask = ["nc", "-w", "3", address, "42"];
    until_true(&what, PATIENCE, async || {
        let said = exec(environment, from, &ask).await?;
        ensure!(said.trim() == format!("here is {who}"), "{said:?}");
        Ok(true)
    })
    .await
    .map(|_| ())
}

pub(crate) async fn exec(environment: &Environment, cluster: &str, words: &[&str]) -> Result<String> {
    let mut arguments = vec!["exec", "--namespace=shop", "client", "--"];
    arguments.extend_from_slice(words);
    environment.kubectl(cluster, &arguments).await
}

async fn field(environment: &Environment, cluster: &str, object: &str, path: &str) -> Result<String> {
    let path = format!("jsonpath={path}");
    environment.kubectl(cluster, &["get", "--namespace=shop", object, "--output", &path]).await
}

/// What an environment could leave on a machine.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    groups: BTreeSet<String>,
    processes: BTreeSet<String>,
    settings: Vec<String>,
}

impl Machine {
    fn look() -> Result<Self> {
        let names = |folder: &str| -> Result<BTreeSet<String>> {
            let entries = std::fs::read_dir(folder).with_context(|| folder.to_owned())?;
            Ok(entries.flatten().map(|e| e.path().display().to_string()).collect())
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let mut groups = names("/sys/fs/cgroup")?;
        for hierarchy in groups.clone() {
            groups.extend(
                names(&hierarchy).unwrap_or_default().into_iter().filter(|g| g.contains("sealane-clusters")),
            );
        }
        let settings =
            ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward"];
        let settings =
            settings.map(|name| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default());
        Ok(Machine {
            mounts: mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect(),
            links: names("/sys/class/net")?,
            groups,
            processes: processes(),
            settings: settings.into(),
        })
    }
}

/// Whoever is in a control group of ours.
fn processes() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = entries.filter(|e| {
        let groups = std::fs::read_to_string(e.path().join("cgroup")).unwrap_or_default();
        groups.contains("sealane-clusters")
    });
    ours.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}
