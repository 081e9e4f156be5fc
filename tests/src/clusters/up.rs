//! Bringing clusters up, all of them at the same time.

use super::cgroup::Groups;
use super::command::{QUICK, run};
use super::images;
use super::layout::Plan;
use super::node::Node;
use super::progress::Progress;
use super::space;
use super::state::{Place, Record, Running};
use super::{dns, tools};
use crate::kubernetes::kubeconfig::{self, Access};
use anyhow::{Context, Result};
use futures::future::try_join_all;
use std::path::PathBuf;

/// What a cluster can not be without.
const TOOLS: [&tools::Tool; 9] = [
    &tools::ETCD,
    &tools::API_SERVER,
    &tools::KUBECTL,
    &tools::CONTROLLERS,
    &tools::SCHEDULER,
    &tools::KUBELET,
    &tools::KUBE_PROXY,
    &tools::COREDNS,
    &tools::PAUSE,
];

/// Everything, from the tools to pods that run and names that are answered.
pub(super) async fn up(place: &Place, groups: &Groups, plans: &[Plan], progress: Progress) -> Result<Record> {
    for tool in TOOLS {
        tool.ready().await?;
    }
    let archives = images::archives(&|what| progress.say(what)).await?;
    progress.say("tools and images are there");
    space::hub(place).await?;
    for plan in plans {
        std::fs::create_dir_all(place.cluster(&plan.name)).context("no folder for the cluster")?;
        space::node(place, plan).await?;
    }
    space::routes(place, plans).await?;
    progress.say("networks are there");
    let clusters =
        try_join_all(plans.iter().map(|plan| cluster(place, groups, plan, &archives, progress))).await?;
    let record = Record { clusters };
    merge(place, plans)?;
    place.write(&record)?;
    progress.say(&format!("all is ready: {}", place.kubeconfig().display()));
    Ok(record)
}

async fn cluster(
    place: &Place,
    groups: &Groups,
    plan: &Plan,
    archives: &[PathBuf],
    progress: Progress,
) -> Result<Running> {
    let say = |what: &str| progress.say(&format!("{}: {what}", plan.name));
    let mut node = Node::prepare(place, groups, plan)?;
    let init = node.boot().await?;
    say("containerd answers");
    let hub = place.hub();
    let import = async {
        for archive in archives {
            images::import(init, archive).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(node.serve(&hub), import)?;
    say("the API server is ready, images are imported");
    node.work().await?;
    let kubectl = tools::KUBECTL.ready().await?;
    let admin = place.cluster(&plan.name).join("admin.kubeconfig").display().to_string();
    let ask = |words: &[&str]| {
        let mut command = space::inside(&hub, &kubectl, &["--kubeconfig", &admin]);
        command.args(words);
        command
    };
    let manifests = place.cluster(&plan.name).join("dns.json");
    std::fs::write(&manifests, dns::manifests(plan).to_string()).context("can not write dns.json")?;
    run(&mut ask(&["apply", "--server-side", "--filename", &manifests.display().to_string()]), QUICK).await?;
    node.ready(&format!("the node of {} is ready", plan.name), async || {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let said = run(&mut ask(&["get", "node", &plan.name, "--output", condition]), QUICK).await?;
        Ok((said == "True").then_some(()))
    })
    .await?;
    say("the node is ready");
    let words = ["--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=50s"];
    run(&mut ask(&words), QUICK).await.context("CoreDNS does not come up")?;
    say("DNS answers");
    Ok(Running { plan: plan.clone(), init })
}

/// One file with a context for each cluster; the first is the current one.
fn merge(place: &Place, plans: &[Plan]) -> Result<()> {
    let folders: Vec<PathBuf> = plans.iter().map(|plan| place.cluster(&plan.name).join("pki")).collect();
    let access = plans.iter().zip(&folders).map(|(plan, pki)| Access {
        name: &plan.name,
        server: plan.server(),
        pki,
        client: "admin",
    });
    kubeconfig::write(&place.kubeconfig(), &access.collect::<Vec<_>>())
}
