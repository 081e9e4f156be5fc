//! Bringing clusters up, all of them at the same time.

use super::cgroup::Groups;
use super::command::{QUICK, run};
use super::images;
use super::layout::Plan;
use super::node::Node;
use super::progress::Progress;
use super::space;
use super::state::{Place, Record, Running};
use super::{Product, dns, product, tools, volumes};
use crate::kubernetes::kubeconfig::{self, Access};
use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::{Value, json};
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

/// What is to be brought up, and where.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) place: &'a Place,
    pub(super) groups: &'a Groups,
    pub(super) plans: &'a [Plan],
    /// Whose image and CRDs the clusters get; none for clusters without Sealane.
    pub(super) product: Option<&'a Product>,
    pub(super) progress: Progress,
}

/// Everything, from the tools to pods that run and names that are answered.
pub(super) async fn up(order: &Order<'_>) -> Result<Record> {
    let Order { place, plans, product, progress, .. } = *order;
    for tool in TOOLS {
        tool.ready().await?;
    }
    let mut archives = images::archives(&|what| progress.say(what)).await?;
    let own = match product {
        Some(product) => {
            tools::HELM.ready().await?;
            Some(product.image().await?)
        }
        None => None,
    };
    archives.extend(own.iter().map(|archive| archive.path().to_owned()));
    progress.say("tools and images are there");
    space::hub(place).await?;
    for plan in plans {
        std::fs::create_dir_all(place.cluster(&plan.name)).context("no folder for the cluster")?;
        space::node(place, plan).await?;
    }
    space::routes(place, plans).await?;
    progress.say("networks are there");
    let clusters = try_join_all(plans.iter().map(|plan| cluster(order, plan, &archives))).await?;
    let record = Record { clusters };
    merge(place, plans)?;
    place.write(&record)?;
    progress.say(&format!("the clusters are ready: {}", place.kubeconfig().display()));
    Ok(record)
}

async fn cluster(order: &Order<'_>, plan: &Plan, archives: &[PathBuf]) -> Result<Running> {
    let Order { place, groups, product, progress, .. } = *order;
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
    let kubectl = tools::KUBECTL.ready().await?;
    let state = place.cluster(&plan.name);
    node.work().await?;
    volumes::serve(&mut node, &state, plan, &kubectl)?;
    let kubeconfig = state.join("admin.kubeconfig");
    if let Some(product) = product {
        product::crds(&hub, &kubeconfig, product).await?;
    }
    let admin = kubeconfig.display().to_string();
    let ask = |words: &[&str]| {
        let mut command = space::inside(&hub, &kubectl, &["--kubeconfig", &admin]);
        command.args(words);
        command
    };
    let manifests = state.join("cluster.json");
    std::fs::write(&manifests, objects(plan).to_string()).context("can not write cluster.json")?;
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

/// What every cluster has, as one list.
fn objects(plan: &Plan) -> Value {
    let mut items = dns::objects(plan);
    items.push(volumes::class());
    json!({"apiVersion": "v1", "kind": "List", "items": items})
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
